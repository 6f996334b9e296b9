//! Numbers out of on-disk structures, big-endian; a structure that is too short is an error, never a
//! panic.

use super::fault::damaged;
use crate::error::Result;

/// Reads numbers at byte offsets.
pub(super) trait Fields {
    /// `len` bytes at `at`.
    fn bytes_at(&self, at: usize, len: usize) -> Result<&[u8]>;

    /// One byte.
    fn u8_at(&self, at: usize) -> Result<u8> {
        Ok(self.array_at::<1>(at)?[0])
    }

    /// 16 bits.
    fn u16_at(&self, at: usize) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array_at(at)?))
    }

    /// 32 bits.
    fn u32_at(&self, at: usize) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array_at(at)?))
    }

    /// 64 bits.
    fn u64_at(&self, at: usize) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array_at(at)?))
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
