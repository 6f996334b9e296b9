//! A side as explanations see it, however it was read.

use crate::image::directory::Directory;
use crate::image::disk::{Disk, Holder};
use crate::image::tree::Filesystem;
use crate::parity::content::Content;
use crate::parity::hashed::Hashed;
use crate::parity::packages::Packages;

/// One side.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What was read of it.
    pub seen: Seen<'a>,
    /// Where more can be read.
    pub origin: Origin<'a>,
    /// The private SSH host keys in the root filesystem: digest and path of each.
    pub host_keys: &'a [String],
    /// Whether the digests of its files are theirs, and no stand-ins that are good for the comparison alone.
    pub has_digests: bool,
}

/// What was read of a side.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// A system.
    Content(&'a Content),
    /// The files of one filesystem.
    Tree(&'a Hashed),
    /// The installed packages.
    Packages(&'a Packages),
    /// Nothing but bytes.
    Bytes,
}

/// What can still be asked.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// A disk, and what holds the root filesystem where that alone was looked at.
    Disk(&'a Disk, Option<&'a Holder>),
    /// A directory of this host.
    Directory(&'a Directory),
    /// A manifest has no contents, but knows the packages.
    Manifest(Option<&'a Packages>),
    /// Nothing.
    Bytes,
}

impl<'a> Origin<'a> {
    /// The filesystem in `holder`; `None`: the only one that was compared.
    #[must_use]
    pub fn filesystem(self, holder: Option<&Holder>) -> Option<&'a dyn Filesystem> {
        match self {
            Origin::Disk(disk, root) => {
                let holder = holder.or(root)?;
                let at = disk.filesystems().find(|at| at.holder == *holder)?;
                Some(&**at.filesystem)
            }
            Origin::Directory(directory) => Some(directory),
            Origin::Manifest(_) | Origin::Bytes => None,
        }
    }
}
