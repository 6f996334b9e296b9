//! Allocation groups: which inodes are in use, by the inode tree of each group. Linux,
//! fs/xfs/libxfs/xfs_format.h `struct xfs_agi`, `struct xfs_inobt_rec`.

use super::checksum;
use super::fault::damaged;
use super::field::Fields as _;
use super::volume::{Budget, Stamp, Volume};
use crate::error::{Error, Result};

const MAGIC: u32 = 0x5841_4749;
const CRC_AT: usize = 312;
const TREE_MAGIC_4: u32 = 0x4941_4254;
const TREE_MAGIC_5: u32 = 0x4941_4233;
/// Bytes of an inode record.
const RECORD: usize = 16;
/// Inodes in a chunk.
pub(super) const CHUNK: u64 = 64;
/// Most levels of an inode tree; the kernel's bound for the smallest blocks is lower.
const MAX_LEVEL: u32 = 16;

/// 64 inodes with adjacent numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Number of the first one inside its group.
    pub(super) first: u32,
    /// Which ones are in use, the first one lowest.
    pub(super) used: u64,
}

/// Shows the inode chunks of group `ag` to `visit`, in the order of the disk.
///
/// # Errors
/// Damage, or what `visit` says.
pub(super) fn chunks(
    volume: &Volume,
    ag: u32,
    budget: &mut Budget,
    visit: &mut dyn FnMut(Chunk) -> Result<()>,
) -> Result<()> {
    let sector = volume.sb.sector_size;
    let offset = volume.at(ag, 0) + 2 * u64::from(sector);
    let header = volume.bytes(offset, sector as usize)?;
    let name = format!("the inode header of group {ag}");
    if volume.sb.features.v5() {
        checksum::verify(&header, CRC_AT).map_err(|why| damaged(&name, why))?;
        if header.bytes_at(296, 16)? != volume.sb.meta_uuid {
            return Err(damaged(&name, "it has the UUID of another filesystem"));
        }
    }
    let is_it = header.u32_at(0)? == MAGIC
        && header.u32_at(4)? == 1
        && header.u32_at(8)? == ag
        && header.u32_at(12)? == volume.sb.ag_length(ag);
    let (count, free) = (header.u32_at(16)?, header.u32_at(28)?);
    let (root, levels) = (header.u32_at(20)?, header.u32_at(24)?);
    if !is_it || levels == 0 || levels > MAX_LEVEL {
        return Err(damaged(&name, "it does not fit the superblock"));
    }
    let mut walk = Walk { volume, ag, budget, visit, end: 0, count: 0, free: 0 };
    // At most MAX_LEVEL, so it fits.
    walk.block(root, (levels - 1) as u16)?;
    if (walk.count, walk.free) != (u64::from(count), u64::from(free)) {
        return Err(walk.bad(format_args!(
            "it has {} inodes, {} free, but its header says {count} and {free}",
            walk.count, walk.free
        )));
    }
    Ok(())
}

struct Walk<'a> {
    volume: &'a Volume,
    ag: u32,
    budget: &'a mut Budget,
    visit: &'a mut dyn FnMut(Chunk) -> Result<()>,
    /// Where the last chunk ended: they only go up, so no part of a tree is visited twice.
    end: u64,
    count: u64,
    free: u64,
}

impl Walk<'_> {
    fn bad(&self, why: impl std::fmt::Display) -> Error {
        damaged(format_args!("the inode tree of group {}", self.ag), why)
    }

    fn block(&mut self, number: u32, level: u16) -> Result<()> {
        self.budget.take(1, format_args!("the inode tree of group {}", self.ag))?;
        let volume = self.volume;
        if number >= volume.sb.ag_length(self.ag) {
            return Err(self.bad(format_args!("it leads to block {number}")));
        }
        let offset = volume.at(self.ag, u64::from(number));
        let block = volume.bytes(offset, volume.sb.block_size())?;
        let owner = Some(u64::from(self.ag));
        let checked = volume.verify(&block, Stamp::SHORT_TREE, offset, owner);
        checked.map_err(|why| self.bad(format_args!("block {number}: {why}")))?;
        let v5 = volume.sb.features.v5();
        let (magic, header) = if v5 { (TREE_MAGIC_5, 56) } else { (TREE_MAGIC_4, 16) };
        let count = usize::from(block.u16_at(6)?);
        let size = if level == 0 { RECORD } else { 8 };
        let most = (block.len() - header) / size;
        let fits = block.u32_at(0)? == magic && block.u16_at(4)? == level;
        // Only a group without inodes has an empty block.
        if !fits || count > most || count == 0 && level > 0 {
            return Err(self.bad(format_args!(
                "block {number} with {count} entries is none of level {level}"
            )));
        }
        if level == 0 {
            return block
                .bytes_at(header, count * RECORD)?
                .chunks_exact(RECORD)
                .try_for_each(|record| self.record(record));
        }
        for i in 0..count {
            let child = block.u32_at(header + most * 4 + i * 4)?;
            self.block(child, level - 1)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8]) -> Result<()> {
        let sb = &self.volume.sb;
        let first = record.u32_at(0)?;
        let free = record.u64_at(8)?;
        // One bit for four inodes that are not there.
        let (holes, there, free_count) = if sb.features.sparse_inodes() {
            let there = u32::from(record.u8_at(6)?);
            (record.u16_at(4)?, there, u32::from(record.u8_at(7)?))
        } else {
            (0, CHUNK as u32, record.u32_at(4)?)
        };
        let absent = (0..16)
            .filter(|bit| holes >> bit & 1 == 1)
            .fold(0u64, |all, bit| all | 0xf << (4 * bit));
        let inodes = u64::from(sb.ag_length(self.ag)) << sb.inodes_per_block_log;
        // Chunks are placed as if all of their inodes were there; the last one's may be outside.
        let last = (0..CHUNK).rev().find(|i| absent >> i & 1 == 0);
        let ends = last.map(|last| u64::from(first) + last);
        let fits = ends.is_some_and(|end| end < inodes) && u64::from(first) >= self.end;
        let counts = there == CHUNK as u32 - absent.count_ones()
            && free_count == (free & !absent).count_ones();
        if !fits || !counts {
            return Err(self.bad(format_args!("its record of inode {first} is impossible")));
        }
        self.end = u64::from(first) + CHUNK;
        self.count += u64::from(there);
        self.free += u64::from(free_count);
        (self.visit)(Chunk { first, used: !free & !absent })
    }
}
