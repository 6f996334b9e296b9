//! The checksums that btrfs can have, one for the whole filesystem.

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest as _};
use twox_hash::XxHash64;

use super::fault::unsupported;
use crate::digest::Sha256;
use crate::error::Result;
use crate::image::crc32c::{START, crc32c};
use crate::image::field::sum_holds;

/// Longest checksum in bytes; in headers this much room is kept for any.
pub(super) const MAX: usize = 32;

/// `btrfs_super_block::csum_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    Xxhash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    /// The type with the number `number`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(number: u16) -> Result<Self> {
        Ok(match number {
            0 => Checksum::Crc32c,
            1 => Checksum::Xxhash64,
            2 => Checksum::Sha256,
            3 => Checksum::Blake2b,
            other => return Err(unsupported(format_args!("checksums of type {other}"))),
        })
    }

    /// Length in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Checksum::Crc32c => 4,
            Checksum::Xxhash64 => 8,
            Checksum::Sha256 | Checksum::Blake2b => 32,
        }
    }

    /// Whether `stored` starts with the checksum of `data`.
    pub(super) fn holds(self, stored: &[u8], data: &[u8]) -> bool {
        let computed = self.compute(data);
        sum_holds(stored.get(..self.size()), computed.get(..self.size()))
    }

    /// The checksum of `data`, with zeros behind it.
    pub(super) fn compute(self, data: &[u8]) -> [u8; MAX] {
        let mut out = [0; MAX];
        let mut put = |bytes: &[u8]| out[..bytes.len()].copy_from_slice(bytes);
        match self {
            Checksum::Crc32c => put(&(!crc32c(START, data)).to_le_bytes()),
            Checksum::Xxhash64 => put(&XxHash64::oneshot(0, data).to_le_bytes()),
            Checksum::Sha256 => {
                let mut hash = Sha256::new();
                hash.update(data);
                put(&hash.finish());
            }
            Checksum::Blake2b => put(&Blake2b::<U32>::digest(data)),
        }
        out
    }
}

/// The hash that directory entries and attributes are found by.
pub(super) fn name_hash(name: &[u8]) -> u32 {
    crc32c(!1, name)
}
