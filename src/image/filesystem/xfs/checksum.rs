//! CRC-32C of XFS's metadata: over the whole structure with zeros in place of the checksum, inverted,
//! and the only little-endian number of the format (Linux, fs/xfs/libxfs/xfs_cksum.h).

use crate::image::crc32c::{START, crc32c_without};
use crate::image::field::sum_holds;

/// Checks the checksum that stands at byte `at` of `structure`.
///
/// # Errors
/// Why it is wrong.
pub(super) fn verify(structure: &[u8], at: usize) -> Result<(), String> {
    let stored = structure.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let computed = compute(structure, at);
    match stored {
        Some(stored) if sum_holds(stored, computed) => Ok(()),
        Some(stored) => Err(format!("its checksum is {stored:#x}, but {computed:#x} was computed")),
        None => Err("it is too short for a checksum".into()),
    }
}

/// The checksum that belongs at byte `at` of `structure`.
pub(super) fn compute(structure: &[u8], at: usize) -> u32 {
    !crc32c_without(START, structure, &[(at, 4)])
}
