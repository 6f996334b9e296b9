//! Feature bits and flags of the superblock: which exist, which are read here.
//!
//! An unknown incompatible feature is refused; an unknown read-only-compatible one may be ignored
//! by a reader by the definition of the format, and is reported as a note. Kernel header
//! `uapi/linux/btrfs.h`.

use super::fault::unsupported;
use crate::error::{Error, Result};

/// Incompatible: tree blocks have another UUID than the filesystem shows.
pub(super) const METADATA_UUID: u64 = 1 << 10;
/// Incompatible: data and metadata share block groups.
pub(super) const MIXED_GROUPS: u64 = 1 << 2;

/// Incompatible features: bit, name as the kernel shows it in sysfs, whether it is read here.
/// `raid56` and `raid1c34` only say that such a profile was used once; what a chunk is decides.
const INCOMPAT: &[(u32, &str, bool)] = &[
    (0, "mixed_backref", true),
    (1, "default_subvol", true),
    (2, "mixed_groups", true),
    (3, "compress_lzo", true),
    (4, "compress_zstd", true),
    (5, "big_metadata", true),
    (6, "extended_iref", true),
    (7, "raid56", true),
    (8, "skinny_metadata", true),
    (9, "no_holes", true),
    (10, "metadata_uuid", true),
    (11, "raid1c34", true),
    (12, "zoned", false),
    (13, "extent_tree_v2", false),
    (14, "raid_stripe_tree", false),
    (16, "simple_quota", true),
];

/// Read-only-compatible features that are known: free space tree and its validity, verity, block
/// group tree.
const COMPAT_RO: u64 = 0xf;

/// Flags of the superblock: bit, what it says, whether such a filesystem is read here.
const FLAGS: &[(u32, &str, bool)] = &[
    (0, "written", true),
    (1, "relocation", true),
    (2, "error", true),
    (32, "the flag `seeding`: it is a seed device", false),
    (33, "the flag `metadump`: it holds no contents", false),
    (34, "the flag `metadump_v2`: it holds no contents", false),
    (35, "the flag `changing_fsid`: a change of its UUID was interrupted", false),
    (36, "the flag `changing_fsid_v2`: a change of its UUID was interrupted", false),
    (38, "the flag `changing_bg_tree`: a conversion was interrupted", false),
    (39, "the flag `changing_data_csum`: a change of its checksums was interrupted", false),
    (40, "the flag `changing_meta_csum`: a change of its checksums was interrupted", false),
];

/// Flag of the superblock: the kernel found errors.
pub(super) const FLAG_ERROR: u64 = 1 << 2;

/// Fails on a feature or flag that is not read here.
///
/// # Errors
/// Kind `Undetermined`, with its name, or its number if it has none.
pub(super) fn check(incompat: u64, flags: u64) -> Result<()> {
    for bit in (0..64).filter(|bit| flags >> bit & 1 == 1) {
        match FLAGS.iter().find(|(number, ..)| *number == bit) {
            Some((_, _, true)) => {}
            Some((_, what, false)) => return Err(unsupported(what)),
            None => {
                return Err(unsupported(format_args!("an unknown superblock flag (bit {bit})")));
            }
        }
    }
    for bit in (0..64).filter(|bit| incompat >> bit & 1 == 1) {
        match INCOMPAT.iter().find(|(number, ..)| *number == bit) {
            Some((_, _, true)) => {}
            Some((_, name, false)) => {
                return Err(unsupported(format_args!("the feature `{name}`")));
            }
            None => {
                return Err(unsupported(format_args!(
                    "an unknown incompatible feature (bit {bit})"
                )));
            }
        }
    }
    Ok(())
}

/// Read-only-compatible features that are not known.
pub(super) fn unknown_compat_ro(bits: u64) -> u64 {
    bits & !COMPAT_RO
}

/// More devices than one.
pub(super) fn devices(count: u64) -> Error {
    unsupported(format_args!("{count} devices"))
        .hint("Move it to one device (`btrfs device remove`), or hash it mounted, with `--root`.")
}
