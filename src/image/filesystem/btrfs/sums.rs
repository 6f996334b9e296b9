//! The checksums of contents, one for each sector on the device.

use super::fault::damaged;
use super::key::{CSUM_OBJECT, Key, kind};
use super::superblock::Root;
use super::volume::Volume;
use super::walk::Cursor;
use crate::error::Result;

/// The checksums of the `length` bytes at the logical address `address`, both multiples of a sector.
///
/// # Errors
/// One is not there, which the kernel takes for damage too; or the reader's.
pub(super) fn read(volume: &Volume, root: Root, address: u64, length: u64) -> Result<Vec<u8>> {
    let (sector, size) = (u64::from(volume.sb.sector), volume.sb.checksum.size());
    let missing =
        |at: u64| damaged(format_args!("the contents at address {at}"), "they have no checksum");
    let end = address.checked_add(length).ok_or_else(|| missing(address))?;
    let first = Key::new(CSUM_OBJECT, kind::EXTENT_CSUM, address);
    let mut cursor = Cursor::seek_before(volume, root, first)?;
    let (mut at, mut sums) = (address, Vec::new());
    while at < end {
        let (key, item) = cursor.item()?.ok_or_else(|| missing(at))?;
        if item.len() % size != 0 {
            return Err(damaged(format_args!("checksum item {key}"), "it is cut off"));
        }
        let covered = (item.len() / size) as u64 * sector;
        if (key.object, key.kind) == (CSUM_OBJECT, kind::EXTENT_CSUM) {
            let within = at.checked_sub(key.offset).ok_or_else(|| missing(at))?;
            if within < covered {
                // Both are less than an item is long, in sectors.
                let from = (within / sector) as usize * size;
                let count = ((end - at) / sector).min((covered - within) / sector);
                sums.extend_from_slice(
                    item.get(from..from + count as usize * size).unwrap_or_default(),
                );
                at += count * sector;
            }
        } else if key > first {
            return Err(missing(at));
        }
        cursor.advance()?;
    }
    Ok(sums)
}
