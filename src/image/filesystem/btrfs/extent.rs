//! Where a piece of a file's contents is. Kernel header `uapi/linux/btrfs_tree.h`
//! (`btrfs_file_extent_item`), checks of `check_extent_data_item`.

use super::fault::{damaged, unsupported};
use super::field::Fields as _;
use super::key::Key;
use crate::error::Result;

/// Bytes of an item before inline contents, and of an item without them.
const INLINE: usize = 21;
const REGULAR: usize = 53;
/// Longest contents of a compressed extent, packed and unpacked (`BTRFS_MAX_COMPRESSED`,
/// `BTRFS_MAX_UNCOMPRESSED`).
pub(super) const PACKED: u64 = 128 << 10;

/// How contents are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Compression {
    Zlib,
    Lzo,
    Zstd,
}

/// One piece of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent<'a> {
    /// Its first byte in the file.
    pub(super) start: u64,
    /// Its length in the file in bytes.
    pub(super) length: u64,
    pub(super) place: Place<'a>,
}

/// Where the contents of a piece are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// In the tree.
    Inline { bytes: &'a [u8], compression: Option<Compression> },
    /// Nowhere: zeros. Holes, and what was allocated and never written.
    Zeros,
    /// At a logical address as they are.
    Plain(u64),
    /// In a packed extent.
    Packed(Packed),
}

/// A packed extent, and where in its contents a piece starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) compression: Compression,
    /// Logical address.
    pub(super) address: u64,
    /// Length on the device in bytes.
    pub(super) packed: u64,
    /// Length of the contents in bytes.
    pub(super) unpacked: u64,
    /// Where the piece starts in the contents.
    pub(super) offset: u64,
}

impl<'a> Extent<'a> {
    /// Reads the extent `item` of `key`; lengths are multiples of `sector` bytes.
    ///
    /// # Errors
    /// Damage, or an encoding that is not known.
    pub(super) fn parse(key: Key, item: &'a [u8], sector: u32) -> Result<Self> {
        let bad = |why: &str| damaged(format_args!("the extent {key}"), why);
        let unpacked = item.u64_at(8)?;
        let compression = match item.u8_at(16)? {
            0 => None,
            1 => Some(Compression::Zlib),
            2 => Some(Compression::Lzo),
            3 => Some(Compression::Zstd),
            other => {
                return Err(unsupported(format_args!("compression of the unknown type {other}")));
            }
        };
        if item.u8_at(17)? != 0 || item.u16_at(18)? != 0 {
            return Err(unsupported("encrypted contents"));
        }
        let start = key.offset;
        if compression.is_some() && unpacked > PACKED {
            return Err(bad("it is packed and too long"));
        }
        let kind = item.u8_at(20)?;
        if kind == 0 {
            let bytes = item.get(INLINE..).unwrap_or_default();
            let fits = compression.is_some() || bytes.len() as u64 == unpacked;
            if start != 0 || !fits {
                return Err(bad("it is not what an inline extent can be"));
            }
            let place = Place::Inline { bytes, compression };
            return Ok(Extent { start, length: unpacked, place });
        }
        if kind > 2 {
            return Err(unsupported(format_args!("extents of the unknown type {kind}")));
        }
        if item.len() != REGULAR {
            return Err(bad("its item has another length"));
        }
        let (address, packed) = (item.u64_at(21)?, item.u64_at(29)?);
        let (offset, length) = (item.u64_at(37)?, item.u64_at(45)?);
        let unit = u64::from(sector);
        let aligned = [start, unpacked, address, packed, offset, length];
        if aligned.iter().any(|value| value % unit != 0) || length == 0 {
            return Err(bad("it does not start and end with a sector"));
        }
        if start.checked_add(length).is_none() || address.checked_add(packed).is_none() {
            return Err(bad("it ends nowhere"));
        }
        let end = offset.checked_add(length);
        let place = if address == 0 || kind == 2 {
            Place::Zeros
        } else if let Some(compression) = compression {
            if packed == 0 || packed > PACKED || end.is_none_or(|end| end > unpacked) {
                return Err(bad("it reaches beyond its contents"));
            }
            Place::Packed(Packed { compression, address, packed, unpacked, offset })
        } else {
            if end.is_none_or(|end| end > packed) {
                return Err(bad("it reaches beyond its contents"));
            }
            Place::Plain(address + offset)
        };
        Ok(Extent { start, length, place })
    }
}
