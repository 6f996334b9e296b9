//! Filesystems, each a read-only walker of its own; found by content, never by a partition's type.

pub mod btrfs;
pub mod ext4;
mod posix_acl;
pub mod vfat;
pub mod xfs;

use std::sync::Arc;

use super::tree::Filesystem;
use super::{Limits, ReadAt};
use crate::error::{Error, Result};

/// A filesystem that was found.
pub struct Found {
    /// The open filesystem.
    pub filesystem: Arc<dyn Filesystem>,
    /// What a person should know about it, in sentences without a full stop.
    pub notes: Vec<String>,
}

/// One type of filesystem: how to tell it, and how to open it.
struct Type {
    /// What people call it.
    name: &'static str,
    /// Whether its signature is there. Says nothing about damage and features.
    probe: fn(&dyn ReadAt) -> Result<bool>,
    open: fn(Arc<dyn ReadAt>, &Limits) -> Result<Found>,
}

/// All types that are read here.
const TYPES: &[Type] = &[
    Type {
        name: "btrfs",
        probe: btrfs::probe,
        open: |reader, limits| {
            let filesystem = btrfs::Btrfs::open(reader, limits)?;
            let notes = filesystem.notes().to_vec();
            Ok(Found { filesystem: Arc::new(filesystem), notes })
        },
    },
    Type {
        name: "ext4",
        probe: ext4::probe,
        open: |reader, limits| {
            let filesystem = ext4::Ext4::open(reader, limits)?;
            let notes = filesystem.notes().to_vec();
            Ok(Found { filesystem: Arc::new(filesystem), notes })
        },
    },
    Type {
        name: "vfat",
        probe: vfat::probe,
        open: |reader, limits| {
            let filesystem = vfat::Vfat::open(reader, limits)?;
            let notes = filesystem.notes().to_vec();
            Ok(Found { filesystem: Arc::new(filesystem), notes })
        },
    },
    Type {
        name: "xfs",
        probe: xfs::probe,
        open: |reader, limits| {
            let filesystem = xfs::Xfs::open(reader, limits)?;
            let notes = filesystem.notes().to_vec();
            Ok(Found { filesystem: Arc::new(filesystem), notes })
        },
    },
];

/// Opens the filesystem that fills `reader`; `None` if there is none of those that are read here.
///
/// # Errors
/// Kind `Undetermined`: the signatures of two types are there, or the filesystem is damaged, uses a
/// feature that is not read (by name), or goes beyond a limit.
pub fn open(reader: &Arc<dyn ReadAt>, limits: &Limits) -> Result<Option<Found>> {
    let mut found: Option<&Type> = None;
    for one in TYPES {
        if (one.probe)(&**reader)?
            && let Some(other) = found.replace(one)
        {
            let what = format!("it looks both like {} and like {}", other.name, one.name);
            return Err(Error::undetermined(what)
                .hint("Erase the signature of the old filesystem with `wipefs` on a copy."));
        }
    }
    found.map(|one| (one.open)(reader.clone(), limits)).transpose()
}
