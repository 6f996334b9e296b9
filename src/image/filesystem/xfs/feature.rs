//! Which features an XFS filesystem uses, and which of them are read here: an allow-list.
//!
//! Linux, fs/xfs/libxfs/xfs_format.h.

use super::fault::unsupported;
use crate::error::{Error, Result};

/// Incompatible features of version 5: bit, name as `xfs_db -c version` spells it, read here.
const INCOMPAT: &[(u32, &str, bool)] = &[
    (FTYPE, "ftype", true),
    (SPARSE_INODES, "sparse_inodes", true),
    (META_UUID, "meta_uuid", true),
    (0x8, "bigtime", true),
    (NEEDSREPAIR, "needsrepair", false),
    (0x20, "nrext64", true),
    // Only the log holds something new: how files exchange their contents.
    (0x40, "exchange", true),
    // Only attributes that no program sees: where a file hangs.
    (0x80, "parent", true),
    (0x100, "metadir", false),
    (0x200, "zoned", false),
];
const FTYPE: u32 = 0x1;
const SPARSE_INODES: u32 = 0x2;
const META_UUID: u32 = 0x4;
const NEEDSREPAIR: u32 = 0x10;

/// Read-only compatible features of version 5 that are known not to change what a reader sees:
/// finobt, rmapbt, reflink, inobtcount.
const RO_COMPAT: u32 = 0xf;

/// Bits of `sb_versionnum` in version 4.
const NUMBER: u16 = 0xf;
const SHARED: u16 = 0x200;
const EXTENT_FLAG: u16 = 0x1000;
const DIRECTORY_2: u16 = 0x2000;
const ASCII_CI: u16 = 0x4000;
const MORE: u16 = 0x8000;
/// Bits of `sb_features2`: lazy counters, attr2, 32-bit project ids, file types in directories.
const FEATURES2: u32 = 0x2 | 0x8 | 0x80 | FTYPE_2;
const FTYPE_2: u32 = 0x200;

/// The words that say what a filesystem uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Features {
    pub(super) version: u16,
    pub(super) features2: u32,
    pub(super) ro_compat: u32,
    pub(super) incompat: u32,
    /// What the log holds while it is dirty.
    pub(super) log_incompat: u32,
}

impl Features {
    /// Refuses what is not read here, by name.
    ///
    /// # Errors
    /// The first such feature.
    pub(super) fn check(self) -> Result<()> {
        if self.version & ASCII_CI != 0 {
            return Err(unsupported("ascii-ci"));
        }
        if self.v5() {
            return self.check_v5();
        }
        let number = self.version & NUMBER;
        if number != 4 {
            return Err(unsupported(format_args!("version {number} of the superblock")));
        }
        for (bit, present, name) in [
            (SHARED, false, "shared"),
            (EXTENT_FLAG, true, "extents without a flag for unwritten ones"),
            (DIRECTORY_2, true, "version 1 directories"),
        ] {
            if (self.version & bit != 0) != present {
                return Err(unsupported(name));
            }
        }
        match self.features2() & !FEATURES2 {
            0 => Ok(()),
            unknown => Err(unsupported(format_args!("features2 {unknown:#x}"))),
        }
    }

    fn check_v5(self) -> Result<()> {
        if self.incompat & NEEDSREPAIR != 0 {
            return Err(Error::undetermined("the XFS filesystem is marked as in need of repair")
                .cause("an `xfs_repair` or `xfs_admin` of it did not come to its end")
                .hint("Run `xfs_repair` on a copy of the image, and use the copy."));
        }
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

    /// Version 5: checksums, and inodes of version 3.
    pub(super) fn v5(self) -> bool {
        self.version & NUMBER == 5
    }

    /// Whether directory entries say what they lead to.
    pub(super) fn ftype(self) -> bool {
        if self.v5() { self.incompat & FTYPE != 0 } else { self.features2() & FTYPE_2 != 0 }
    }

    /// Whether inode chunks may have holes.
    pub(super) fn sparse_inodes(self) -> bool {
        self.v5() && self.incompat & SPARSE_INODES != 0
    }

    /// Whether metadata carries another UUID than the one people see.
    pub(super) fn meta_uuid(self) -> bool {
        self.v5() && self.incompat & META_UUID != 0
    }

    /// Unknown read-only compatible bits.
    pub(super) fn unknown_ro_compat(self) -> u32 {
        if self.v5() { self.ro_compat & !RO_COMPAT } else { 0 }
    }

    fn features2(self) -> u32 {
        if self.version & MORE != 0 { self.features2 } else { 0 }
    }
}
