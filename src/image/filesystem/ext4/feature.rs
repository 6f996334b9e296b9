//! Feature bits of the superblock: which exist, which are read here.
//!
//! An unknown incompatible feature is refused; an unknown read-only-compatible one may be ignored
//! by a reader by the definition of the format, and is reported as a note.

use super::fault::unsupported;
use crate::error::Result;

/// Incompatible: directory entries have a file type.
pub(super) const FILETYPE: u32 = 0x2;
/// Incompatible: the journal has to be replayed.
pub(super) const RECOVER: u32 = 0x4;
/// Incompatible: group descriptors stand in their own meta-groups.
pub(super) const META_BG: u32 = 0x10;
/// Incompatible: block numbers have 48 or 64 bits, descriptors 64 bytes.
pub(super) const BIT64: u32 = 0x80;
/// Incompatible: the checksum seed stands in the superblock.
pub(super) const CSUM_SEED: u32 = 0x2000;
/// Incompatible: directories above 2 GiB.
pub(super) const LARGEDIR: u32 = 0x4000;
/// Incompatible: small contents stand in the inode.
pub(super) const INLINE_DATA: u32 = 0x8000;

/// Read-only compatible: superblock copies in few groups.
pub(super) const SPARSE_SUPER: u32 = 0x1;
/// Read-only compatible: CRC-16 in group descriptors.
pub(super) const GDT_CSUM: u32 = 0x10;
/// Read-only compatible: bitmaps count clusters of blocks.
pub(super) const BIGALLOC: u32 = 0x200;
/// Read-only compatible: CRC-32C in all metadata.
pub(super) const METADATA_CSUM: u32 = 0x400;

/// Compatible: there is a journal.
pub(super) const HAS_JOURNAL: u32 = 0x4;
/// Compatible: superblock copies in two groups at most.
pub(super) const SPARSE_SUPER2: u32 = 0x200;

/// What ext2 and ext3 know, besides the journal: the rest makes it ext4, as `blkid` has it.
const EXT3_INCOMPAT: u32 = FILETYPE | RECOVER | META_BG;
const EXT3_RO_COMPAT: u32 = SPARSE_SUPER | 0x2 | 0x4;

/// Incompatible features: bit, name as `mke2fs -O` spells it, whether it is read here.
const INCOMPAT: &[(u32, &str, bool)] = &[
    (0x1, "compression", false),
    (FILETYPE, "filetype", true),
    (RECOVER, "needs_recovery", true),
    (0x8, "journal_dev", false),
    (META_BG, "meta_bg", true),
    (0x40, "extent", true),
    (BIT64, "64bit", true),
    (0x100, "mmp", true),
    (0x200, "flex_bg", true),
    (0x400, "ea_inode", true),
    (0x1000, "dirdata", false),
    (CSUM_SEED, "metadata_csum_seed", true),
    (LARGEDIR, "large_dir", true),
    (INLINE_DATA, "inline_data", true),
    // What is encrypted, or compares names without case, says so itself and is refused there.
    (0x10000, "encrypt", true),
    (0x20000, "casefold", true),
];

/// Read-only compatible features that are known not to change what a reader sees.
const RO_COMPAT: u32 = EXT3_RO_COMPAT
    | 0x8 // huge_file
    | GDT_CSUM
    | 0x20 // dir_nlink
    | 0x40 // extra_isize
    | 0x100 // quota
    | BIGALLOC
    | METADATA_CSUM
    | 0x1000 // read-only
    | 0x2000 // project
    | 0x4000 // shared_blocks
    | 0x8000 // verity
    | 0x10000; // orphan_present

/// The three feature words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Features {
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
}

impl Features {
    /// Refuses what is not read here, by name.
    ///
    /// # Errors
    /// The first such feature.
    pub(super) fn check(self) -> Result<()> {
        for &(bit, name, read) in INCOMPAT {
            if self.incompat & bit != 0 && !read {
                return Err(unsupported(name));
            }
        }
        let known = INCOMPAT.iter().fold(0, |all, f| all | f.0);
        match self.incompat & !known {
            0 => Ok(()),
            unknown => Err(unsupported(format_args!("FEATURE_I{}", 31 - unknown.leading_zeros()))),
        }
    }

    /// Unknown read-only compatible bits.
    pub(super) fn unknown_ro_compat(self) -> u32 {
        self.ro_compat & !RO_COMPAT
    }

    pub(super) fn incompat(self, bit: u32) -> bool {
        self.incompat & bit != 0
    }

    pub(super) fn ro_compat(self, bit: u32) -> bool {
        self.ro_compat & bit != 0
    }

    pub(super) fn compat(self, bit: u32) -> bool {
        self.compat & bit != 0
    }

    /// Type name, by the rule of `blkid`.
    pub(super) fn kind(self) -> &'static str {
        if self.incompat & !EXT3_INCOMPAT != 0 || self.ro_compat & !EXT3_RO_COMPAT != 0 {
            "ext4"
        } else if self.compat(HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }
}
