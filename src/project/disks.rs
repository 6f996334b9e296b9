//! Data disks: made when a machine first needs them, and those that outlive it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::guest::disks::mount_script;
use crate::host::{self, Paths};
use crate::machine::data_disk::{self, DataDisk};
use crate::machine::instance::Instance;
use crate::machine::record::Record;
use crate::project::Run;
use crate::project::as_root::Script;
use crate::spec::quantity::size_text;
use crate::spec::{self, Machine};

/// To make a filesystem on a large disk under emulation.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The folder of a machine's disks that outlive it.
fn kept(paths: &Paths, instance: &Instance) -> PathBuf {
    paths.disks.join(instance.id())
}

/// The machine's data disks as the spec wants them: new ones are made, others grow. QEMU does not run.
///
/// # Errors
/// A disk is larger than the spec says (kind `Usage`), or cannot be made.
pub(super) fn prepare(
    machine: &Machine,
    instance: &Instance,
    paths: &Paths,
) -> Result<Vec<DataDisk>> {
    let mut disks = vec![];
    for wanted in &machine.disks {
        let folder = match wanted.keep {
            true => kept(paths, instance),
            false => instance.files().dir().to_owned(),
        };
        host::private_dir(&folder)?;
        let path = folder.join(data_disk::file_name(&wanted.name));
        if path.exists() {
            grow(wanted, &path)?;
        } else {
            let mut command = tools::QEMU_IMG.command()?;
            let new = path.with_extension("new");
            command.args(["create", "-q", "-f", "qcow2"]).arg(&new).arg(wanted.size.to_string());
            exec::output(&mut command)?;
            // At once and whole: half a disk is none.
            fs::rename(&new, &path)?;
        }
        disks.push(DataDisk { name: wanted.name.clone(), path });
    }
    Ok(disks)
}

/// Bytes that the guest sees of a qcow2 (QEMU's `docs/interop/qcow2.txt`: a big-endian number at byte 24).
fn size(path: &Path) -> Result<u64> {
    use std::io::Read as _;
    let mut header = [0; 32];
    fs::File::open(path)?.read_exact(&mut header)?;
    let mut size = [0; 8];
    size.copy_from_slice(&header[24..]);
    Ok(u64::from_be_bytes(size))
}

fn grow(wanted: &spec::DataDisk, path: &Path) -> Result<()> {
    let is = size(path)?;
    if is > wanted.size {
        return Err(Error::usage(format!(
            "the disk `{}` has {} and cannot become smaller",
            wanted.name,
            size_text(is)
        ))
        .detail(format!("the file: {}", path.display()))
        .hint(format!("Set its `size` to \"{}\" or more.", size_text(is))));
    }
    if is < wanted.size {
        let mut command = tools::QEMU_IMG.command()?;
        command.args(["resize", "-q", "-f", "qcow2"]).arg(path).arg(wanted.size.to_string());
        exec::output(&mut command)?;
    }
    Ok(())
}

/// Mounts those that have a place in the guest. It is ready.
///
/// # Errors
/// A disk holds something else than a filesystem, or the guest lacks a program.
pub(super) async fn mount(
    machine: &Machine,
    instance: &Instance,
    record: &Record,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    if machine.disks.iter().all(|disk| disk.target.is_none()) {
        return Ok(());
    }
    for disk in &machine.disks {
        let Some(target) = &disk.target else { continue };
        // Changed in the spec since the machine was started; `up` said so.
        if record.disks.iter().all(|has| has.name != disk.name) {
            continue;
        }
        let title = format!("mounting the disk `{}`", disk.name);
        let script = Script { title: &title, timeout: TIMEOUT };
        let said = script.run(mount_script(&disk.name, target), instance, record, run, events);
        if said.await?.iter().any(|line| line == "formatted") {
            events.note(format!("the disk `{}` is new: formatted, at {target}", disk.name));
        }
    }
    Ok(())
}

/// The files of disks that stay when the machine goes.
pub(crate) fn staying(paths: &Paths, instance: &Instance) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(kept(paths, instance)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Removes them. The machine is gone, and its lock is held.
///
/// # Errors
/// A file cannot be removed.
pub(super) fn remove(paths: &Paths, instance: &Instance) -> Result<()> {
    let folder = kept(paths, instance);
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("data-x.qcow2");
        let mut command = tools::QEMU_IMG.command().expect("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("8M");
        exec::output(&mut command).expect("made");
        let wanted = |mib: u64| spec::DataDisk {
            name: "x".into(),
            size: mib << 20,
            keep: false,
            target: None,
        };
        grow(&wanted(8), &path).expect("as it is");
        grow(&wanted(16), &path).expect("larger");
        assert_eq!(size(&path).expect("read"), 16 << 20);
        let e = grow(&wanted(15), &path).expect_err("smaller");
        assert!(e.to_string().contains("has 16MiB and cannot become smaller"), "{e}");
        assert_eq!(size(&path).expect("read"), 16 << 20);
    }
}
