//! dpkg's lists: `info/*.list`, `info/*.md5sums`, and `Conffiles` in `status` (dpkg(1), deb-md5sums(5)).

use super::{Checksum, Owners, unhex};
use crate::error::Result;
use crate::image::boot::Files as _;
use crate::parity::lookup::Files;

const INFO: &[u8] = b"/var/lib/dpkg/info";
/// Distroless images have one file a package here, and their lists beside them.
const STATUS_D: &[u8] = b"/var/lib/dpkg/status.d";
const STATUS: &[u8] = b"/var/lib/dpkg/status";

/// Adds what dpkg's database says, if there is one.
pub(super) fn read(files: Files<'_>, owners: &mut Owners) -> Result<()> {
    for folder in [INFO, STATUS_D] {
        for name in files.list(folder)? {
            let path = [folder, b"/", &name].concat();
            if let Some(package) = name.strip_suffix(b".list") {
                let Some(text) = owners.list(files, &path)? else { continue };
                let (package, arch) = split(package);
                let index = owners.add_package(package, arch);
                for line in lines(&text).filter(|line| line.starts_with(b"/") && *line != b"/.") {
                    owners.own(line, index);
                }
                let sums = [path.strip_suffix(b"list").unwrap_or(&path), b"md5sums"].concat();
                if let Some(text) = owners.list(files, &sums)? {
                    md5sums(&text, owners);
                }
            } else if folder == STATUS_D
                && let Some(package) = name.strip_suffix(b".md5sums")
                && let Some(text) = owners.list(files, &path)?
            {
                let index = owners.add_package(package, b"");
                for line in lines(&text) {
                    if let Some((_, path)) = sum(line) {
                        owners.own(path, index);
                    }
                }
                md5sums(&text, owners);
            }
        }
    }
    if let Some(text) = owners.list(files, STATUS)? {
        config_files(&text, owners);
    }
    Ok(())
}

/// `libc6:amd64` as name and architecture.
fn split(package: &[u8]) -> (&[u8], &[u8]) {
    match package.iter().position(|b| *b == b':') {
        Some(at) => (&package[..at], &package[at + 1..]),
        None => (package, b""),
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// Digest and path of a line as md5sum(1) writes it.
fn sum(line: &[u8]) -> Option<(Checksum, &[u8])> {
    let (digest, path) = line.split_at_checked(32)?;
    Some((Checksum::Md5(unhex(digest)?), path.strip_prefix(b"  ")?))
}

fn md5sums(text: &[u8], owners: &mut Owners) {
    for (checksum, path) in lines(text).filter_map(sum) {
        if let Some(owned) = owners.entry(path) {
            owned.checksum = Some(checksum);
        }
    }
}

/// The lines of each `Conffiles`: a path, its digest, and words such as `obsolete`.
fn config_files(text: &[u8], owners: &mut Owners) {
    let mut inside = false;
    for line in text.split(|b| *b == b'\n') {
        let Some(value) = line.strip_prefix(b" ") else {
            inside = line.to_ascii_lowercase().starts_with(b"conffiles:");
            continue;
        };
        if !inside {
            continue;
        }
        let mut words = value.split(|b| *b == b' ').filter(|word| !word.is_empty());
        let (Some(path), Some(digest)) = (words.next(), words.next()) else { continue };
        if let Some(owned) = owners.entry(path) {
            owned.is_config = true;
            owned.checksum = unhex(digest).map(Checksum::Md5);
        }
    }
}
