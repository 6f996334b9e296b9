//! The blocks of one filesystem: the device below, and above it what the journal holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::damaged;
use super::superblock::Superblock;
use crate::error::Result;
use crate::image::ReadAt;

/// Where a block of the filesystem stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Block number of the copy.
    pub(super) copy: u64,
    /// The copy's first four bytes are the journal's magic number, stored as zeros.
    pub(super) escaped: bool,
}

/// A filesystem's device with its superblock.
pub(super) struct Volume {
    reader: Arc<dyn ReadAt>,
    pub(super) sb: Superblock,
    /// Blocks whose truth is in the journal, by block number.
    pub(super) overlay: BTreeMap<u64, Replayed>,
}

impl Volume {
    pub(super) fn new(reader: Arc<dyn ReadAt>) -> Result<Self> {
        let sb = Superblock::read(reader.size(), |buf, at| reader.read_at(buf, at))?;
        Ok(Volume { reader, sb, overlay: BTreeMap::new() })
    }

    /// Puts the journal's blocks above the device, and reads the superblock again through them.
    pub(super) fn replay(&mut self, overlay: BTreeMap<u64, Replayed>) -> Result<()> {
        let block_size = self.sb.block_size;
        self.overlay = overlay;
        self.sb = Superblock::read(self.reader.size(), |buf, at| self.read(buf, at))?;
        if self.sb.block_size != block_size {
            return Err(damaged("the journal", "it changes the block size"));
        }
        Ok(())
    }

    /// Fills `buf` from byte `offset` of the filesystem.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reader.read_at(buf, offset)?;
        if self.overlay.is_empty() || buf.is_empty() {
            return Ok(());
        }
        let size = u64::from(self.sb.block_size);
        let end = offset + buf.len() as u64;
        for (&block, from) in self.overlay.range(offset / size..end.div_ceil(size)) {
            let mut copy = vec![0; self.sb.block_size as usize];
            self.reader.read_at(&mut copy, from.copy * size)?;
            if from.escaped {
                copy[..4].copy_from_slice(&super::journal::MAGIC.to_be_bytes());
            }
            // Both ends are inside `offset..end`, so their distance to it fits a slice index.
            let (first, last) = ((block * size).max(offset), ((block + 1) * size).min(end));
            buf[(first - offset) as usize..(last - offset) as usize].copy_from_slice(
                &copy[(first - block * size) as usize..(last - block * size) as usize],
            );
        }
        Ok(())
    }

    /// One block, which must be inside the filesystem.
    pub(super) fn block(&self, number: u64) -> Result<Vec<u8>> {
        let mut buf = vec![0; self.sb.block_size as usize];
        self.read(&mut buf, self.offset(number, 1)?)?;
        Ok(buf)
    }

    /// Byte offset of `count` blocks from `number` on, all inside the filesystem.
    pub(super) fn offset(&self, number: u64, count: u64) -> Result<u64> {
        let end = number.checked_add(count);
        if number == 0 && self.sb.first_data_block > 0 || end.is_none_or(|e| e > self.sb.blocks) {
            return Err(damaged(
                format_args!("block {number}"),
                format_args!("the filesystem has {} blocks", self.sb.blocks),
            ));
        }
        Ok(number * u64::from(self.sb.block_size))
    }
}
