//! What an installer finds: its answers on CDs, a floppy disk, in the firmware's entries and in the initial RAM disk,
//! and its kernel outside of the medium.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::cpio;
use super::server::Server;
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::guest::iso9660;
use crate::machine::config::{DirectKernel, Installer};
use crate::machine::installer::MOST_CDS;
use crate::source::medium::Medium;
use crate::spec::boot_command::variables::Variables;
use crate::spec::{Boot, IsoSource, Place};

/// Largest answer file in bytes: some are archives of drivers.
const ANSWER: u64 = 256 << 20;
/// FAT has no times before 1980; the same as on our CDs.
const FLOPPY_TIME: &str = "315532800";

/// The parts of the machine's first start.
#[derive(Debug)]
pub(super) struct Media {
    /// Media and entries.
    pub(super) installer: Installer,
    /// The kernel, where it is started directly.
    pub(super) kernel: Option<DirectKernel>,
    /// The labels of the CDs behind the first one.
    pub(super) labels: Vec<String>,
}

/// Makes everything in `dir`, and gives `server` what is asked for by HTTP.
pub(super) async fn prepare(
    source: &IsoSource,
    medium: &Medium,
    variables: &Variables,
    server: Option<&Server>,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<Media> {
    let mut cds: BTreeMap<&str, Vec<iso9660::File>> = BTreeMap::new();
    let (mut floppy, mut fw_cfg, mut initrd) = (vec![], vec![], vec![]);
    for answer in &source.answers {
        let bytes = filled_in(&answer.source, variables)?;
        let name = answer.name.clone();
        match &answer.place {
            Place::Cd(label) => cds.entry(label).or_default().push(iso9660::File { name, bytes }),
            Place::Http => {
                if let Some(server) = server {
                    server.add(&name, bytes);
                }
            }
            Place::Floppy => floppy.push((name, bytes)),
            Place::FwCfg => fw_cfg.push((name, bytes)),
            Place::Initrd => initrd.push((name, bytes)),
        }
    }
    let mut installer = Installer { cds: vec![medium.path.clone()], ..Installer::default() };
    if cds.len() >= MOST_CDS {
        return Err(Error::usage(format!("the answers have {} different labels", cds.len()))
            .hint(format!("Put them on at most {} CDs.", MOST_CDS - 1)));
    }
    let mut labels = vec![];
    for (n, (label, files)) in cds.iter().enumerate() {
        let path = dir.join(format!("answers{n}.iso"));
        fs::write(&path, iso9660::image(label, files)?)?;
        installer.cds.push(path);
        labels.push((*label).to_owned());
    }
    if !floppy.is_empty() {
        installer.floppy = Some(write_floppy(&floppy, dir, cancel).await?);
    }
    for (n, (name, bytes)) in fw_cfg.into_iter().enumerate() {
        let path = dir.join(format!("fw_cfg{n}"));
        fs::write(&path, bytes)?;
        installer.fw_cfg.push((name, path));
    }
    let kernel = direct(&source.boot, medium, variables, &initrd, dir)?;
    Ok(Media { installer, kernel, labels })
}

/// A file with the variables replaced, where it is a text.
fn filled_in(path: &Path, variables: &Variables) -> Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > ANSWER {
        return Err(Error::failed(format!("`{}` is too large for an answer file", path.display()))
            .cause(format!("it has {size} bytes")));
    }
    let bytes = fs::read(path)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => variables.replace(&text).0.into_bytes(),
        Err(e) => e.into_bytes(),
    })
}

/// The kernel, its initial RAM disk with the answers behind it, and its command line.
fn direct(
    boot: &Boot,
    medium: &Medium,
    variables: &Variables,
    answers: &[(String, Vec<u8>)],
    dir: &Path,
) -> Result<Option<DirectKernel>> {
    let Boot::Kernel { kernel, initrd, cmdline } = boot else { return Ok(None) };
    let path = dir.join("vmlinuz");
    fs::write(&path, medium.read(kernel)?)?;
    let initrd = match initrd {
        None => None,
        Some(initrd) => {
            let mut bytes = medium.read(initrd)?;
            if !answers.is_empty() {
                // An archive begins at a multiple of four; zeros between archives are skipped
                // (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                bytes.extend(cpio::archive(answers)?);
            }
            let path = dir.join("initrd");
            fs::write(&path, bytes)?;
            Some(path)
        }
    };
    Ok(Some(DirectKernel { kernel: path, initrd, append: variables.replace(cmdline).0 }))
}

/// A floppy disk of 1.44 MB.
async fn write_floppy(
    files: &[(String, Vec<u8>)],
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let image = dir.join("floppy.img");
    let folder = dir.join("floppy");
    fs::create_dir_all(&folder)?;
    let mut mkfs = tools::MKFS_VFAT.command()?;
    mkfs.args(["--invariant", "-F", "12", "-n", "ANSWERS", "-C"]).arg(&image).arg("1440");
    let mut commands = vec![mkfs];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes)?;
        let mut copy = tools::MCOPY.command()?;
        copy.arg("-i").arg(&image).arg(&path).arg(format!("::/{name}"));
        commands.push(copy);
    }
    for mut command in commands {
        command.stdin(Stdio::null()).env("TZ", "UTC").env("SOURCE_DATE_EPOCH", FLOPPY_TIME);
        exec::group::run(command, |_| {}, cancel)
            .await
            .map_err(|e| e.context("cannot make the floppy disk with the answers"))?;
    }
    Ok(image)
}
