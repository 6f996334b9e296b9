//! The extents of a fork: in the inode, or in a tree of blocks. Linux, fs/xfs/libxfs/xfs_format.h
//! `struct xfs_bmbt_rec`, `struct xfs_btree_block`.

use super::fault::{damaged, fixed_limit};
use super::field::Fields as _;
use super::inode::Fork;
use super::volume::{Budget, Stamp, Volume};
use crate::error::{Error, Result};

const MAGIC_4: u32 = 0x424d_4150;
const MAGIC_5: u32 = 0x424d_4133;
/// Bytes of an extent, and of a key with its pointer.
const RECORD: usize = 16;
/// Most levels of a tree; the kernel's bound for the smallest blocks is lower.
const MAX_LEVEL: u16 = 16;

/// Blocks of a fork that are adjacent on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First block in the fork.
    pub(super) logical: u64,
    /// First block on the disk, group above.
    pub(super) physical: u64,
    /// Byte offset of that block.
    pub(super) offset: u64,
    /// Number of blocks, never 0.
    pub(super) count: u64,
    /// Allocated, but never written: reads as zeros.
    pub(super) unwritten: bool,
}

/// Whether the walk goes on after an extent.
pub(super) enum Next {
    More,
    Enough,
}

/// Shows the extents of `fork` of inode `owner` to `visit`, in the order of the fork.
///
/// # Errors
/// Damage, or what `visit` says.
pub(super) fn each(
    volume: &Volume,
    owner: u64,
    fork: &Fork,
    budget: &mut Budget,
    visit: &mut dyn FnMut(Extent) -> Result<Next>,
) -> Result<()> {
    let mut walk = Walk { volume, owner, budget, visit, end: 0, seen: 0 };
    match fork {
        Fork::Extents(records) => walk.records(records).map(drop),
        Fork::Tree { root, extents } => {
            if let Next::More = walk.root(root)?
                && walk.seen != *extents
            {
                let why = format!("{} extents instead of {extents}", walk.seen);
                return Err(walk.bad(why));
            }
            Ok(())
        }
        Fork::Absent | Fork::Device(_) | Fork::Local(_) => Err(walk.bad("it has no extents")),
    }
}

/// All extents of `fork`, of which there may be `most`.
///
/// # Errors
/// Damage, or more extents.
pub(super) fn all(
    volume: &Volume,
    owner: u64,
    fork: &Fork,
    budget: &mut Budget,
    most: usize,
) -> Result<Vec<Extent>> {
    let mut found = Vec::new();
    each(volume, owner, fork, budget, &mut |extent| {
        if found.len() >= most {
            return Err(fixed_limit("extents in one directory or attribute list", most));
        }
        found.push(extent);
        Ok(Next::More)
    })?;
    Ok(found)
}

struct Walk<'a> {
    volume: &'a Volume,
    owner: u64,
    budget: &'a mut Budget,
    visit: &'a mut dyn FnMut(Extent) -> Result<Next>,
    /// Where the last extent ended: they only go up, so no part of a tree is visited twice.
    end: u64,
    seen: u64,
}

impl Walk<'_> {
    fn bad(&self, why: impl std::fmt::Display) -> Error {
        damaged(format_args!("the block map of inode {}", self.owner), why)
    }

    fn records(&mut self, records: &[u8]) -> Result<Next> {
        for record in records.chunks_exact(RECORD) {
            let (high, low) = (record.u64_at(0)?, record.u64_at(8)?);
            let (logical, count) = (high >> 9 & ((1 << 54) - 1), low & 0x1f_ffff);
            let physical = (high & 0x1ff) << 43 | low >> 21;
            if count == 0 || logical < self.end {
                return Err(self.bad(format_args!("its extent at block {logical} is impossible")));
            }
            let offset = self.volume.offset(physical, count).map_err(|e| {
                e.context(format!("a block of inode {} cannot be read", self.owner))
            })?;
            self.end = logical + count;
            self.seen += 1;
            let unwritten = high >> 63 == 1;
            let extent = Extent { logical, physical, offset, count, unwritten };
            if let Next::Enough = (self.visit)(extent)? {
                return Ok(Next::Enough);
            }
        }
        Ok(Next::More)
    }

    /// The root of a tree, which stands in the inode without what blocks have.
    fn root(&mut self, root: &[u8]) -> Result<Next> {
        let (level, count) = (root.u16_at(0)?, usize::from(root.u16_at(2)?));
        let most = root.len().saturating_sub(4) / RECORD;
        if level == 0 || level > MAX_LEVEL || count == 0 || count > most {
            return Err(self.bad(format_args!("its root has {count} entries at level {level}")));
        }
        self.children(&root[4..], most, count, level - 1)
    }

    /// Follows the pointers behind `most` keys.
    fn children(&mut self, place: &[u8], most: usize, count: usize, level: u16) -> Result<Next> {
        for i in 0..count {
            let block = place.u64_at(most * 8 + i * 8)?;
            if let Next::Enough = self.block(block, level)? {
                return Ok(Next::Enough);
            }
        }
        Ok(Next::More)
    }

    fn block(&mut self, number: u64, level: u16) -> Result<Next> {
        self.budget.take(1, format_args!("the block map of inode {}", self.owner))?;
        let offset = self.volume.offset(number, 1)?;
        let block = self.volume.bytes(offset, self.volume.sb.block_size())?;
        let v5 = self.volume.sb.features.v5();
        let checked = self.volume.verify(&block, Stamp::LONG_TREE, offset, Some(self.owner));
        checked.map_err(|why| self.bad(format_args!("block {number}: {why}")))?;
        let magic = if v5 { MAGIC_5 } else { MAGIC_4 };
        let header = if v5 { 72 } else { 24 };
        let count = usize::from(block.u16_at(6)?);
        let most = (block.len() - header) / RECORD;
        let fits = block.u32_at(0)? == magic && block.u16_at(4)? == level;
        if !fits || count == 0 || count > most {
            return Err(self.bad(format_args!(
                "block {number} with {count} entries is none of level {level}"
            )));
        }
        match level {
            0 => self.records(block.bytes_at(header, count * RECORD)?),
            _ => self.children(&block[header..], most, count, level - 1),
        }
    }
}
