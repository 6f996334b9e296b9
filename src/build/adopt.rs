//! A disk that somebody else made becomes a box: copied as its guest sees it, and described by what is on it. It was not sealed
//! here, and its config says so.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::flat::{self, Written};
use super::outputs;
use crate::blocking::blocking;
use crate::digest::{FileDigest, SpecDigest};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::Limits;
use crate::image::container::{self, Container, Format};
use crate::image::disk::Disk;
use crate::parity::bytes::Chunks;
use crate::parity::content::Content;
use crate::store::{Added, BoxConfig, Existing, Store, UNSEALED};

/// A disk has whole sectors.
const SECTOR: u64 = 512;

/// How the box is called, and what it was made of.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, where somebody says it; else what the disk shows.
    pub arch: Option<String>,
    /// SHA-256 of the file that it came in.
    pub from: FileDigest,
}

/// Puts the disk in the file at `path`, whatever it is wrapped in, into the store. `options` say where what is compressed is
/// unpacked, into a file without a name, and what the disk may claim. Also gives what a person should know about the file.
///
/// # Errors
/// It is no disk that is read here, or one of several; it shows another architecture than somebody says, or none; there is no
/// space; the name is taken; `cancel` was cancelled. The store is as it was then.
pub async fn adopt(
    store: &Store,
    path: &Path,
    options: &container::Options,
    adopted: &Adopted,
    existing: Existing,
    cancel: &CancellationToken,
) -> Result<(Added, Vec<String>)> {
    let staged = store.stage()?;
    let (from, to, stop) = (path.to_owned(), staged.path().to_owned(), cancel.clone());
    let (limits, options) = (options.limits, options.clone());
    let copied = blocking("reading the disk", move || {
        let container = container::open(&from, &options)?;
        let written = copy(&container, to, &stop)?;
        Ok((written, container.reader.size(), container.notes))
    });
    let (written, size, notes) = copied.await.map_err(|e| unusable(e, path))?;
    let disk = staged.finish_as(written.digest, written.length)?;
    let (adopted, store) = (adopted.clone(), store.clone());
    let copied = disk.path().display().to_string();
    let added = blocking("hashing the disk", move || {
        let config = describe(disk.path(), size, &adopted, &limits)?;
        store.add_finished(&config, disk, existing)
    });
    // Messages name the file that somebody knows, and not its copy.
    let known = |e: Error| e.with_texts(|text| text.replace(&copied, &path.display().to_string()));
    Ok((added.await.map_err(|e| unusable(known(e), path))?, notes))
}

/// Writes what the guest sees.
fn copy(container: &Container, to: PathBuf, cancel: &CancellationToken) -> Result<Written> {
    let reader = &*container.reader;
    let size = reader.size();
    if size == 0 || !size.is_multiple_of(SECTOR) {
        return Err(Error::failed("the disk has no whole sectors")
            .cause(format!("it has {size} bytes"))
            .hint("Check that the file is whole."));
    }
    let folder = to.parent().unwrap_or(&to).to_owned();
    outputs::check_space(&folder, outputs::allocated(reader)?, "the imported disk")?;
    flat::write(reader, vec![to], cancel)
}

/// What parity could not tell is a disk that cannot be used.
fn unusable(e: Error, path: &Path) -> Error {
    match e.kind() {
        Kind::Undetermined => {
            e.with_kind(Kind::Failed).context(format!("cannot import `{}`", path.display()))
        }
        _ => e,
    }
}

fn describe(path: &Path, size: u64, adopted: &Adopted, limits: &Limits) -> Result<BoxConfig> {
    let disk = Disk::read(outputs::open(path, Format::Qcow2)?, limits)?;
    let reader = &disk.container.reader;
    if reader.size() != size {
        let found = reader.size();
        return Err(Error::failed(format!("the copied disk has {found} bytes instead of {size}")));
    }
    let (bytes1, content) = rayon::join(
        || Chunks::read(&**reader).map(|chunks| chunks.digest()),
        || Content::read(&disk),
    );
    let content = content.context(|| "cannot tell what is on the disk".to_owned())?;
    let epoch = newest(&disk)?;
    let system = &content.system;
    let arch = match (&adopted.arch, system.arch.as_str()) {
        (Some(said), "") => said.clone(),
        (Some(said), found) if said != found => {
            return Err(Error::failed(format!("the disk is not one for {said}"))
                .cause(format!("the programs on it are for {found}"))
                .hint("Take the disk that is for this architecture, or leave `--arch` out."));
        }
        (None, "") => {
            return Err(Error::failed("the disk does not show its architecture")
                .cause("there is no Linux system on it that is read here")
                .hint("If it is the right disk, say what it is for with `--arch amd64` or `--arch arm64`."));
        }
        (_, found) => found.to_owned(),
    };
    let both = || "cannot tell what the disk starts".to_owned();
    let cmdline = system.boot.first().map(|entry| entry.command_line.clone()).unwrap_or_default();
    let cmdline =
        String::from_utf8(cmdline).map_err(|e| Error::failed(both()).cause(e.utf8_error()))?;
    // Where a disk has code for both, the older one: so its maker ran it, mostly.
    let firmware = match system.firmware.as_slice() {
        [first, ..] => (*first).to_owned(),
        [] if arch == "arm64" => "uefi".to_owned(),
        [] => "bios".to_owned(),
    };
    Ok(BoxConfig {
        name: adopted.name.clone(),
        version: adopted.version.clone(),
        arch,
        firmware,
        spec1: inputs(adopted.from),
        bytes1: bytes1?,
        box1: content.digest(),
        disk_size: size,
        cmdline,
        epoch,
        seal: UNSEALED.to_owned(),
        devbox: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// What was asked for, of a box that no spec asks for: the file that it came in.
fn inputs(from: FileDigest) -> SpecDigest {
    SpecDigest::of(format!("devbox/import/1\n{from}\n").as_bytes())
}

/// The time of the newest file on the Linux filesystems, in seconds since 1970 UTC; 0 if there is none.
fn newest(disk: &Disk) -> Result<i64> {
    let mut newest = None;
    for fs in disk.filesystems().map(|at| at.filesystem) {
        // vfat counts in local time.
        if fs.identity().kind != "vfat" {
            newest = newest.max(fs.tree()?.nodes.iter().map(|node| node.mtime).max());
        }
    }
    Ok(newest.unwrap_or(0))
}
