//! Numbers at fixed places of on-disk structures.
//!
//! The caller has read the whole structure, so a place outside it is a mistake in the program, not
//! in the image.

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&from[at..at + N]);
    out
}

/// 16 bits, little-endian.
pub(crate) fn le16(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

/// 32 bits, little-endian.
pub(crate) fn le32(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

/// 64 bits, little-endian.
pub(crate) fn le64(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// 16 bits, big-endian.
pub(crate) fn be16(from: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes(from, at))
}

/// 32 bits, big-endian.
pub(crate) fn be32(from: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes(from, at))
}

/// 64 bits, big-endian.
pub(crate) fn be64(from: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes(from, at))
}

/// Whether a checksum that an image stores is the one of its bytes.
///
/// Under `cfg(fuzzing)`, which no build for use has, every checksum holds: otherwise a fuzzer would
/// only ever prove that checksums are verified, and never reach the code behind them. Who can make an
/// image can make its checksums too.
pub(crate) fn sum_holds<T: PartialEq>(stored: T, computed: T) -> bool {
    cfg!(fuzzing) || stored == computed
}
