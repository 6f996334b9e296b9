//! What a system would boot: the entries of its boot loader, with kernel, initrds and command line.
//!
//! Read from GRUB's `grub.cfg` (run by a small interpreter of its script language, GRUB manual
//! section 16) and from Boot Loader Specification entries (UAPI.1, `loader/entries/*.conf`). One
//! filesystem at a time: a `/boot` of its own has its entries there.
//!
//! The answer depends on the files alone: no state of a running boot loader (keys pressed, devices
//! found) is guessed. What the interpreter does not know has no effect; it never fails on syntax,
//! only on damage and on limits.

mod bls;
mod environment;
mod grub;
mod script;

use crate::error::{Error, Result};

/// Longest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most entries of one filesystem; a menu that nobody could choose from is hostile.
const MAX_ENTRIES: usize = 1024;

/// One entry of the boot menu that starts a Linux kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the menu shows; titles of submenus stand in front, joined with `>`.
    pub title: Vec<u8>,
    /// The kernel's path on the filesystem that the boot loader reads.
    pub kernel: Vec<u8>,
    /// The paths of the initial RAM disks, in order.
    pub initrd: Vec<Vec<u8>>,
    /// The kernel's command line, without the `BOOT_IMAGE=` that GRUB puts in front.
    pub cmdline: Vec<u8>,
    /// Whether it is the one that starts when nobody chooses.
    pub default: bool,
}

/// Reads files by absolute path, as a boot loader does: links are followed inside the filesystem.
pub trait Files {
    /// The contents of a regular file of at most `limit` bytes; `None` if there is none.
    ///
    /// # Errors
    /// Damage, or the file is longer.
    fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>>;

    /// Length in bytes of a regular file; `None` if there is none.
    ///
    /// # Errors
    /// Damage.
    fn size(&self, path: &[u8]) -> Result<Option<u64>>;

    /// The names in a directory; empty if there is none.
    ///
    /// # Errors
    /// Damage.
    fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>>;
}

/// Where GRUB's configuration lies: on a root filesystem, and on a `/boot` of its own.
const GRUB_DIRS: [&[u8]; 4] = [b"/boot/grub", b"/boot/grub2", b"/grub", b"/grub2"];
/// Where entries of the Boot Loader Specification lie, likewise.
const BLS_DIRS: [&[u8]; 2] = [b"/boot/loader", b"/loader"];

/// All entries of the first boot loader configuration that has any; in menu order.
///
/// # Errors
/// Damage, or a limit (kind `Undetermined`).
pub fn entries(files: &dyn Files) -> Result<Vec<Entry>> {
    for dir in GRUB_DIRS {
        let found = grub::entries(files, dir)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    for dir in BLS_DIRS {
        let found = bls::standalone(files, dir)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(vec![])
}

/// The entry that starts when nobody chooses.
#[must_use]
pub fn default_entry(entries: &[Entry]) -> Option<&Entry> {
    entries.iter().find(|e| e.default)
}

fn too_much(what: &str) -> Error {
    Error::undetermined(format!("the boot loader's configuration has {what}"))
}

/// `dir` and `name` with one slash between them.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    while path.last() == Some(&b'/') {
        path.pop();
    }
    path.push(b'/');
    let start = name.iter().position(|&b| b != b'/').unwrap_or(name.len());
    path.extend_from_slice(&name[start..]);
    path
}

#[cfg(test)]
mod tests;
