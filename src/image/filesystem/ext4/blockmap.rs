//! Which blocks hold the contents of an inode: extents (ext4) or indirect blocks (ext2, ext3).

use std::collections::HashSet;

use super::checksum::crc32c;
use super::fault::{checksum, damaged};
use super::field::Fields;
use super::inode::{EXTENTS, Inode, name};
use super::volume::Volume;
use crate::error::Result;
use crate::image::field::sum_holds;

const EXTENT_MAGIC: u16 = 0xf30a;
/// Longer extents are unwritten ones of the length above it.
const EXTENT_MAX: u16 = 0x8000;
/// Deepest extent tree: five levels map 2^32 blocks with blocks of 1 KiB.
const EXTENT_DEPTH: u16 = 5;
/// Pointers in an inode without extents that name data blocks.
const DIRECT: usize = 12;

/// Adjacent blocks of a file that are adjacent on the device. What no run covers is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// First block on the device.
    pub(super) physical: u64,
    /// Number of blocks.
    pub(super) count: u64,
}

/// The runs of `inode` below its size in ascending order, unwritten ones left out. Blocks of the
/// map itself are put into `seen`, and one seen before is damage: maps are trees.
///
/// # Errors
/// Damage.
pub(super) fn runs(volume: &Volume, inode: &Inode, seen: &mut HashSet<u64>) -> Result<Vec<Run>> {
    let mut map = Map {
        volume,
        inode,
        seen,
        runs: Vec::new(),
        next: 0,
        end: inode.size.div_ceil(volume.sb.block_size.into()),
    };
    if inode.has(EXTENTS) {
        let depth = inode.block.u16_at(6)?;
        if depth > EXTENT_DEPTH {
            return Err(map.bad(format!("its extent tree has depth {depth}")));
        }
        map.extents(&inode.block, depth)?;
    } else {
        map.pointers(&inode.block[..DIRECT * 4], 0)?;
        for level in 1..=3 {
            let at = (DIRECT + level as usize - 1) * 4;
            map.pointers(&inode.block[at..at + 4], level)?;
        }
    }
    Ok(map.runs)
}

struct Map<'a> {
    volume: &'a Volume,
    inode: &'a Inode,
    seen: &'a mut HashSet<u64>,
    runs: Vec<Run>,
    /// Next block of the file that the map has not spoken of.
    next: u64,
    /// Number of blocks up to the size.
    end: u64,
}

impl Map<'_> {
    fn bad(&self, why: impl std::fmt::Display) -> crate::error::Error {
        damaged(name(self.inode.number), why)
    }

    fn push(&mut self, logical: u64, physical: u64, count: u64) -> Result<()> {
        self.volume.offset(physical, count).map_err(|e| e.context(self.whose()))?;
        if physical == 0 {
            return Err(self.bad("its contents are said to be in block 0"));
        }
        let count = count.min(self.end.saturating_sub(logical));
        if count == 0 {
            return Ok(());
        }
        if let Some(last) = self.runs.last_mut()
            && last.logical + last.count == logical
            && last.physical + last.count == physical
        {
            last.count += count;
        } else {
            self.runs.push(Run { logical, physical, count });
        }
        Ok(())
    }

    fn whose(&self) -> String {
        format!("cannot map {} of the ext4 filesystem", name(self.inode.number))
    }

    fn node(&mut self, block: u64) -> Result<Vec<u8>> {
        if !self.seen.insert(block) {
            return Err(self.bad(format!("its map uses block {block} a second time")));
        }
        self.volume.block(block).map_err(|e| e.context(self.whose()))
    }

    /// One node of an extent tree, and all below it. The depth falls by one each level.
    fn extents(&mut self, node: &[u8], depth: u16) -> Result<()> {
        let (entries, max) = (node.u16_at(2)?, node.u16_at(4)?);
        if node.u16_at(0)? != EXTENT_MAGIC || node.u16_at(6)? != depth || entries > max {
            return Err(self.bad("its extent tree has a bad node"));
        }
        for i in 0..usize::from(entries) {
            let at = 12 + 12 * i;
            let first = u64::from(node.u32_at(at)?);
            if first < self.next {
                return Err(self.bad("its extents are not in order"));
            }
            if depth > 0 {
                let child = u64::from(node.u32_at(at + 4)?) | u64::from(node.u16_at(at + 8)?) << 32;
                self.next = first;
                let child_node = self.node(child)?;
                self.verify(child, &child_node)?;
                self.extents(&child_node, depth - 1)?;
                continue;
            }
            let length = node.u16_at(at + 4)?;
            let physical = u64::from(node.u32_at(at + 8)?) | u64::from(node.u16_at(at + 6)?) << 32;
            let count = u64::from(if length > EXTENT_MAX { length - EXTENT_MAX } else { length });
            if count == 0 || first + count > 1 << 32 {
                return Err(self.bad(format!("it has an extent of {count} blocks at {first}")));
            }
            self.next = first + count;
            if length <= EXTENT_MAX {
                self.push(first, physical, count)?;
            }
        }
        Ok(())
    }

    fn verify(&self, block: u64, node: &[u8]) -> Result<()> {
        if !self.volume.sb.metadata_csum() {
            return Ok(());
        }
        let tail = 12 + 12 * usize::from(node.u16_at(4)?);
        let stored = node.u32_at(tail)?;
        let computed = crc32c(self.inode.seed, node.bytes_at(0, tail)?);
        if sum_holds(stored, computed) {
            return Ok(());
        }
        let which = format!("extent block {block} of {}", name(self.inode.number));
        Err(checksum(which, stored, computed))
    }

    /// A list of block numbers, each `level` steps above data; 0 is a hole.
    fn pointers(&mut self, list: &[u8], level: u32) -> Result<()> {
        let per_block = u64::from(self.volume.sb.block_size / 4);
        let span = per_block.pow(level);
        for pointer in list.chunks_exact(4) {
            if self.next >= self.end {
                return Ok(());
            }
            let block = u64::from(pointer.u32_at(0)?);
            if block == 0 {
                self.next += span;
            } else if level == 0 {
                let logical = self.next;
                self.next += 1;
                self.push(logical, block, 1)?;
            } else {
                let node = self.node(block)?;
                let start = self.next;
                self.pointers(&node, level - 1)?;
                self.next = start + span;
            }
        }
        Ok(())
    }
}
