//! Changed pieces of blocks. Linux, fs/xfs/libxfs/xfs_log_format.h `struct xfs_buf_log_format`,
//! fs/xfs/xfs_buf_item_recover.c.

use super::place::Places;
use super::record::bad;
use super::replay::Cancelled;
use super::transaction::{Item, le16, le32, le64};
use crate::error::Result;

/// Flag: the buffer holds inodes, and only the list of unlinked ones was changed.
pub(super) const INODES: u16 = 0x1;
/// Flag: the buffer was freed; what was logged of it before does not count.
pub(super) const CANCEL: u16 = 0x2;
/// Flags: the buffer holds quotas.
const QUOTAS: u16 = 0x4 | 0x8 | 0x10;
/// Bytes of a piece.
const PIECE: usize = 128;
/// Where the bits stand that say which pieces were logged.
const MAP: usize = 20;

struct Description {
    flags: u16,
    /// Disk address.
    at: u64,
    /// Length in sectors.
    count: u32,
}

fn description(item: &Item) -> Result<Description> {
    let raw = item.description();
    if raw.len() < MAP {
        return Err(bad(format_args!("the description of a buffer has {} bytes", raw.len())));
    }
    Ok(Description { flags: le16(raw, 4), at: le64(raw, 8), count: u32::from(le16(raw, 6)) })
}

/// Counts a cancellation.
pub(super) fn cancel(item: &Item, cancelled: &mut Cancelled) -> Result<()> {
    let buffer = description(item)?;
    if buffer.flags & CANCEL != 0 {
        *cancelled.entry((buffer.at, buffer.count)).or_default() += 1;
    }
    Ok(())
}

/// Replays the pieces of a buffer.
pub(super) fn replay(
    places: &mut Places<'_>,
    item: &Item,
    cancelled: &mut Cancelled,
) -> Result<()> {
    let buffer = description(item)?;
    let key = (buffer.at, buffer.count);
    if buffer.flags & CANCEL != 0 {
        // What is logged after the last cancellation counts again.
        if let Some(count) = cancelled.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                cancelled.remove(&key);
            }
        }
        return Ok(());
    }
    // Nothing that is read here stands in lists of unlinked inodes or in quotas.
    if cancelled.contains_key(&key) || buffer.flags & (INODES | QUOTAS) != 0 {
        return Ok(());
    }
    let old = places.read(buffer.at, buffer.count)?;
    if places.is_newer(&old)? {
        return Ok(());
    }
    let mut new = old.clone();
    let raw = item.description();
    let words = le32(raw, 16) as usize;
    if words > (raw.len() - MAP) / 4 {
        return Err(bad(format_args!("a buffer has {words} words of bits")));
    }
    let is_set = |bit: usize| le32(raw, MAP + bit / 32 * 4) >> (bit % 32) & 1 == 1;
    let mut regions = item.regions.iter().skip(1);
    let mut bit = 0;
    while bit < words * 32 {
        if !is_set(bit) {
            bit += 1;
            continue;
        }
        let run = (bit..words * 32).take_while(|&bit| is_set(bit)).count();
        let region = regions.next().ok_or_else(|| bad("a piece of a buffer is not there"))?;
        // Pieces that follow each other may stand in several regions.
        let pieces = run.min(region.len() / PIECE);
        let (start, length) = (bit * PIECE, pieces * PIECE);
        let place = new.get_mut(start..start + length).filter(|_| pieces > 0);
        let place = place.ok_or_else(|| bad("a piece of a buffer lies outside of it"))?;
        place.copy_from_slice(&region[..length]);
        bit += pieces;
    }
    places.write(buffer.at, &old, &new)?;
    places.changed(buffer.at, buffer.count);
    Ok(())
}
