//! Numbers out of on-disk structures; a structure that is too short is an error, never a panic.

use super::fault::damaged;
use crate::error::Result;

/// Reads numbers at byte offsets. Without a suffix little-endian, with `be` big-endian (JBD2).
pub(super) trait Fields {
    /// `len` bytes at `at`.
    fn bytes_at(&self, at: usize, len: usize) -> Result<&[u8]>;

    /// One byte.
    fn u8_at(&self, at: usize) -> Result<u8> {
        Ok(self.array_at::<1>(at)?[0])
    }

    /// Little-endian 16 bits.
    fn u16_at(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array_at(at)?))
    }

    /// Little-endian 32 bits.
    fn u32_at(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array_at(at)?))
    }

    /// Big-endian 16 bits.
    fn be16_at(&self, at: usize) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array_at(at)?))
    }

    /// Big-endian 32 bits.
    fn be32_at(&self, at: usize) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array_at(at)?))
    }

    /// `N` bytes at `at`.
    fn array_at<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes_at(at, N)?);
        Ok(out)
    }
}

impl Fields for [u8] {
    fn bytes_at(&self, at: usize, len: usize) -> Result<&[u8]> {
        at.checked_add(len).and_then(|end| self.get(at..end)).ok_or_else(|| {
            damaged("a structure", format_args!("{len} bytes at {at} of {} needed", self.len()))
        })
    }
}
