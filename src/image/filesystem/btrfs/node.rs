//! One block of a tree: its header, and the keys and items in it, all checked once.
//!
//! Kernel header `uapi/linux/btrfs_tree.h` (`btrfs_header`, `btrfs_item`, `btrfs_key_ptr`), checks of
//! `fs/btrfs/disk-io.c` and `tree-checker.c`.

use super::checksum::MAX;
use super::fault::{checksum, damaged};
use super::field::Fields as _;
use super::key::{self, Key};
use super::superblock::{LEVELS, Superblock};
use crate::error::{Error, Result};

/// Bytes of the header, of an item's entry in a leaf, of a child's entry in a node.
const HEADER: usize = 101;
const ITEM: usize = 25;
const CHILD: usize = 33;
/// Header flag: the block was written out.
const WRITTEN: u64 = 1;

/// A checked tree block.
#[derive(Debug)]
pub(super) struct Node {
    bytes: Vec<u8>,
    pub(super) address: u64,
    /// 0 for a leaf.
    pub(super) level: u8,
    pub(super) generation: u64,
    /// The tree that it was made for.
    pub(super) owner: u64,
    /// Number of items or children.
    pub(super) count: usize,
}

/// What a parent says of a child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) key: Key,
    pub(super) address: u64,
    pub(super) generation: u64,
}

impl Node {
    /// Checks `bytes`, read from the logical address `address`.
    ///
    /// # Errors
    /// Damage.
    pub(super) fn parse(bytes: Vec<u8>, address: u64, sb: &Superblock) -> Result<Self> {
        let bad = |why: &dyn std::fmt::Display| fault(address, why);
        if !sb.checksum.holds(&bytes, bytes.get(MAX..).unwrap_or_default()) {
            return Err(checksum(format_args!("the tree block at {address}")));
        }
        if bytes.array_at(32)? != sb.metadata_uuid {
            return Err(bad(&"it belongs to another filesystem"));
        }
        let own = bytes.u64_at(48)?;
        if own != address {
            return Err(bad(&format_args!("it says that it is the one at {own}")));
        }
        let (level, count) = (bytes.u8_at(100)?, bytes.u32_at(96)? as usize);
        let generation = bytes.u64_at(80)?;
        if level >= LEVELS {
            return Err(bad(&format_args!("its level is {level}")));
        }
        if generation > sb.generation || bytes.u64_at(56)? & WRITTEN == 0 {
            return Err(bad(&"it was not part of what was written last"));
        }
        let node = Node { address, level, generation, owner: bytes.u64_at(88)?, count, bytes };
        let entry = if level == 0 { ITEM } else { CHILD };
        if count.checked_mul(entry).is_none_or(|need| need > node.bytes.len() - HEADER) {
            return Err(bad(&format_args!("it has {count} entries")));
        }
        if level == 0 {
            node.check_leaf()?
        } else {
            node.check_children(sb)?
        }
        Ok(node)
    }

    /// Items are sorted, and their data fill the block from its end, without holes.
    fn check_leaf(&self) -> Result<()> {
        let mut before = None;
        let mut end = self.bytes.len() - HEADER;
        for slot in 0..self.count {
            let key = self.key(slot)?;
            let entry = self.bytes.bytes_at(HEADER + ITEM * slot, ITEM)?;
            let (offset, size) = (entry.u32_at(17)? as usize, entry.u32_at(21)? as usize);
            let bad = |why: &str| fault(self.address, &format_args!("item {key} {why}"));
            if before.is_some_and(|before| before >= key) {
                return Err(bad("is out of order"));
            }
            if offset < self.count * ITEM || offset.checked_add(size) != Some(end) {
                return Err(bad("is not where it has to be"));
            }
            before = Some(key);
            end = offset;
        }
        Ok(())
    }

    /// Children are sorted and at possible places.
    fn check_children(&self, sb: &Superblock) -> Result<()> {
        if self.count == 0 {
            return Err(fault(self.address, &"it has no children"));
        }
        let mut before = None;
        for slot in 0..self.count {
            let child = self.child(slot)?;
            let bad = |why: &str| fault(self.address, &format_args!("child {} {why}", child.key));
            if before.is_some_and(|before| before >= child.key) {
                return Err(bad("is out of order"));
            }
            if child.address == 0 || child.address % u64::from(sb.sector) != 0 {
                return Err(bad("is not at a place for a block"));
            }
            before = Some(child.key);
        }
        Ok(())
    }

    /// The key of an item or a child.
    pub(super) fn key(&self, slot: usize) -> Result<Key> {
        Key::at(&self.bytes, self.entry(slot)?)
    }

    /// A child of a node.
    pub(super) fn child(&self, slot: usize) -> Result<Child> {
        let at = self.entry(slot)?;
        Ok(Child {
            key: Key::at(&self.bytes, at)?,
            address: self.bytes.u64_at(at + key::LENGTH)?,
            generation: self.bytes.u64_at(at + key::LENGTH + 8)?,
        })
    }

    /// The data of an item of a leaf.
    pub(super) fn data(&self, slot: usize) -> Result<&[u8]> {
        let at = self.entry(slot)?;
        let (offset, size) = (self.bytes.u32_at(at + 17)?, self.bytes.u32_at(at + 21)?);
        self.bytes.bytes_at(HEADER + offset as usize, size as usize)
    }

    fn entry(&self, slot: usize) -> Result<usize> {
        if slot >= self.count {
            return Err(fault(self.address, &format_args!("it has no entry {slot}")));
        }
        Ok(HEADER + slot * if self.level == 0 { ITEM } else { CHILD })
    }

    /// How many entries have a key of at most `key`.
    pub(super) fn up_to(&self, key: Key) -> Result<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? <= key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

/// The tree block at `address` is damaged.
pub(super) fn fault(address: u64, why: &dyn std::fmt::Display) -> Error {
    damaged(format_args!("the tree block at {address}"), why)
}
