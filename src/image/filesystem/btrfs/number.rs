//! One number for an inode of any subvolume: inode numbers are unique in a subvolume alone.

use super::fault::fixed_limit;
use crate::error::Result;

/// Bits for the place of the subvolume among all.
pub(super) const SUBVOLUME_BITS: u32 = 20;
/// Bits for the inode. The kernel counts inodes up and uses no number twice; a subvolume would have
/// to make a million files a second for half a year to run out of these.
const INODE_BITS: u32 = 64 - SUBVOLUME_BITS;

/// The number of `inode` in the subvolume at place `rank`. It sorts by subvolume, then by inode, as
/// the trees do.
///
/// # Errors
/// One of them has no room.
pub(super) fn join(rank: u64, inode: u64) -> Result<u64> {
    if rank >> SUBVOLUME_BITS != 0 {
        return Err(fixed_limit("subvolumes", 1u64 << SUBVOLUME_BITS));
    }
    if inode >> INODE_BITS != 0 {
        return Err(fixed_limit("inode numbers in a subvolume", 1u64 << INODE_BITS));
    }
    Ok(rank << INODE_BITS | inode)
}

/// The place of the subvolume, and the inode.
pub(super) fn split(number: u64) -> (u64, u64) {
    (number >> INODE_BITS, number & ((1 << INODE_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_split_again_and_nothing_overflows() {
        for (rank, inode) in [(0, 256), (1, 256), ((1 << 20) - 1, (1 << 44) - 1)] {
            assert_eq!(split(join(rank, inode).unwrap()), (rank, inode));
        }
        assert!(join(1 << 20, 0).is_err());
        assert!(join(0, 1 << 44).is_err());
        assert!(join(0, 1).unwrap() < join(1, 0).unwrap());
    }
}
