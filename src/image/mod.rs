//! Reads disk images in this process: no root, no mount, no loop device, no helper.
//!
//! Container ([`ReadAt`] of guest-visible bytes) -> partition table (-> volume group) -> filesystem
//! -> one [`tree::Tree`] of entries, whatever it came from. The input may be hostile: arithmetic is checked, sizes are
//! bounded by [`Limits`], and what is not understood is an error of kind
//! [`crate::error::Kind::Undetermined`] that names the feature, never a guess.

pub mod boot;
pub mod container;
pub(crate) mod crc32c;
pub mod directory;
pub mod disk;
pub(crate) mod field;
pub mod filesystem;
pub mod iso9660;
pub mod limits;
pub mod lvm;
#[cfg(test)]
pub(crate) mod oracle;
pub mod partition;
pub mod slice;
pub mod tree;

use std::ops::Range;

pub use self::limits::Limits;

use crate::error::Result;

/// Random access to a byte range: a file, the guest-visible bytes of a disk, a partition.
///
/// Shared by threads; a read never changes what another read sees.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// The range is not inside `0..size`, or the container is damaged or cannot be read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// The next range at or after `offset` that may hold something else than zeros; `None` if
    /// there are only zeros until the end. Never empty, never before `offset`, never beyond `size`.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok((offset < self.size()).then(|| offset..self.size()))
    }

    /// Where the bytes of `range`, which is inside, stand on the whole disk that this is a part of,
    /// in their order; `None` if this does not know. Only who looks for what changed on a disk marks
    /// one, see [`crate::parity::drift`]; and who asks where a disk's bytes are in the file that holds it,
    /// see [`container::qcow2::placed`], is told places in that.
    fn on_disk(&self, _range: Range<u64>) -> Option<Vec<Range<u64>>> {
        None
    }
}
