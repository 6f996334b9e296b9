//! Volume groups of LVM2: physical volumes on a disk's partitions, joined to logical volumes.
//!
//! Linear and striped volumes are read; any other kind (thin, cache, RAID, mirror, snapshot) is
//! refused by name, as is a group that is not on the disk as a whole. Nothing is written and no
//! device-mapper is used.
//!
//! ```text
//! label (who am I, where is metadata) -> area (ring buffer of text) -> text (syntax)
//!     -> description (the group in types) -> assembly (all partitions at hand) -> mapped (bytes)
//! ```
//!
//! Source: lib/format_text/layout.h, lib/label/label.h and lib/format_text/import_vsn1.c of LVM2
//! 2.03, checked against what its programs write and, in `tests/lvm`, against what the kernel's
//! device-mapper shows of it.

mod area;
mod assembly;
mod checksum;
mod description;
mod label;
mod mapped;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::assembly::{assemble, check_texts};
pub use self::label::Physical;

use super::ReadAt;
use crate::error::{Error, Result};

/// Bytes in a sector; LVM2 counts in these whatever the disk's own are.
const SECTOR: u64 = 512;

/// A volume group, all of it on one disk.
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its UUID, with hyphens.
    pub uuid: String,
    /// UUIDs of its physical volumes in the order of the metadata.
    pub physical: Vec<String>,
    /// Its logical volumes in the order of the metadata.
    pub volumes: Vec<Logical>,
    /// What a person should know about it, in sentences without a full stop.
    pub notes: Vec<String>,
}

/// A logical volume.
pub struct Logical {
    /// Its name.
    pub name: String,
    /// Its UUID, with hyphens.
    pub uuid: String,
    /// Its bytes.
    pub reader: Arc<dyn ReadAt>,
}

/// Reads the label of a physical volume; `None` if `reader` is none.
///
/// # Errors
/// Kind `Undetermined`: the label is damaged. Or the reader's.
pub fn physical(reader: &Arc<dyn ReadAt>) -> Result<Option<Physical>> {
    label::read(reader)
}

/// LVM structures that contradict each other, or end before what they name.
fn damaged(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::undetermined(format!("{what} of LVM is damaged"))
        .cause(why)
        .hint("Check that the image was copied completely.")
}

/// A feature that is not read here.
fn unsupported(name: impl std::fmt::Display) -> Error {
    Error::undetermined(format!("LVM feature `{name}` is not supported"))
        .cause("only linear and striped volumes are read")
        .hint("Compare at `--level disk`, or move the volume to a plain one where it is in use.")
}
