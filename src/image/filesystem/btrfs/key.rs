//! Keys of items, and the numbers that stand in them. Kernel header `uapi/linux/btrfs_tree.h`.

use super::field::Fields as _;
use crate::error::Result;

/// Bytes of a key on disk.
pub(super) const LENGTH: usize = 17;

/// Item types: what `Key::kind` says.
pub(super) mod kind {
    pub(in super::super) const INODE: u8 = 1;
    pub(in super::super) const INODE_REF: u8 = 12;
    pub(in super::super) const INODE_EXTREF: u8 = 13;
    pub(in super::super) const XATTR: u8 = 24;
    pub(in super::super) const VERITY_DESCRIPTOR: u8 = 36;
    pub(in super::super) const VERITY_MERKLE: u8 = 37;
    pub(in super::super) const ORPHAN: u8 = 48;
    pub(in super::super) const DIR_ITEM: u8 = 84;
    pub(in super::super) const DIR_INDEX: u8 = 96;
    pub(in super::super) const EXTENT_DATA: u8 = 108;
    pub(in super::super) const EXTENT_CSUM: u8 = 128;
    pub(in super::super) const ROOT: u8 = 132;
    pub(in super::super) const ROOT_REF: u8 = 156;
    pub(in super::super) const CHUNK: u8 = 228;
}

/// The root tree, which names the roots of all others.
pub(super) const ROOT_TREE: u64 = 1;
/// The chunk tree, which says where logical addresses are.
pub(super) const CHUNK_TREE: u64 = 3;
/// The top-level subvolume.
pub(super) const TOP_LEVEL: u64 = 5;
/// The tree of the checksums of contents.
pub(super) const CSUM_TREE: u64 = 7;
/// The object that all checksums of contents belong to.
pub(super) const CSUM_OBJECT: u64 = 10u64.wrapping_neg();
/// The object that all chunks belong to.
pub(super) const CHUNK_OBJECT: u64 = 256;
/// First number of files, and of subvolumes besides the top-level one.
const FIRST_FREE: u64 = 256;
/// Last such number.
const LAST_FREE: u64 = 256u64.wrapping_neg();

/// Whether `number` is one that files and subvolumes can have.
pub(super) fn is_free(number: u64) -> bool {
    (FIRST_FREE..=LAST_FREE).contains(&number)
}

/// Whether `number` is one of a tree of files.
pub(super) fn is_subvolume(number: u64) -> bool {
    number == TOP_LEVEL || is_free(number)
}

/// What an item is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Number of the object: an inode, a subvolume.
    pub(super) object: u64,
    /// Item type.
    pub(super) kind: u8,
    /// Depends on the type: a hash, a place in a file, an address.
    pub(super) offset: u64,
}

impl Key {
    pub(super) const fn new(object: u64, kind: u8, offset: u64) -> Self {
        Key { object, kind, offset }
    }

    /// The key at byte `at` of `bytes`.
    pub(super) fn at(bytes: &[u8], at: usize) -> Result<Self> {
        let raw = bytes.bytes_at(at, LENGTH)?;
        Ok(Key::new(raw.u64_at(0)?, raw.u8_at(8)?, raw.u64_at(9)?))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} {} {})", self.object.cast_signed(), self.kind, self.offset)
    }
}
