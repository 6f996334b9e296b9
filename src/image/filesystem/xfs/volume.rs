//! The blocks of one filesystem: where they stand on the device, and the log's changes above them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::checksum;
use super::fault::damaged;
use super::field::Fields as _;
use super::superblock::Superblock;
use crate::error::Result;
use crate::image::ReadAt;

/// Bytes in the unit of disk addresses, whatever the sectors of the filesystem.
pub(super) const BASIC: u64 = 512;

/// Sectors of 512 bytes whose truth is in the log, by disk address.
pub(super) type Overlay = BTreeMap<u64, [u8; BASIC as usize]>;

/// A filesystem's device with its superblock.
pub(super) struct Volume {
    reader: Arc<dyn ReadAt>,
    pub(super) sb: Superblock,
    pub(super) overlay: Overlay,
}

/// Where a checked structure of version 5 says what and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) crc: usize,
    pub(super) blkno: usize,
    pub(super) uuid: usize,
    pub(super) owner: usize,
}

impl Stamp {
    /// Blocks of the trees of an allocation group (`xfs_btree_block_shdr`); the owner has 32 bits.
    pub(super) const SHORT_TREE: Stamp = Stamp { crc: 52, blkno: 16, uuid: 32, owner: 48 };
    /// Blocks of the trees of an inode (`xfs_btree_block_lhdr`).
    pub(super) const LONG_TREE: Stamp = Stamp { crc: 64, blkno: 24, uuid: 40, owner: 56 };
    /// Data and free-space blocks of directories (`xfs_dir3_blk_hdr`).
    pub(super) const DIRECTORY: Stamp = Stamp { crc: 4, blkno: 8, uuid: 24, owner: 40 };
    /// Leaves and nodes of directories and attributes (`xfs_da3_blkinfo`).
    pub(super) const LEAF: Stamp = Stamp { crc: 12, blkno: 16, uuid: 32, owner: 48 };
    /// Blocks of long targets and of long values of attributes (`xfs_attr3_rmt_hdr`).
    pub(super) const REMOTE: Stamp = Stamp { crc: 12, blkno: 40, uuid: 16, owner: 32 };
}

impl Volume {
    pub(super) fn new(reader: Arc<dyn ReadAt>) -> Result<Self> {
        let sb = Superblock::read(reader.size(), |buf, at| reader.read_at(buf, at))?;
        Ok(Volume { reader, sb, overlay: BTreeMap::new() })
    }

    /// Reads the superblock again, through the overlay.
    pub(super) fn reload(&mut self) -> Result<()> {
        let before = (self.sb.block_log, self.sb.ag_blocks, self.sb.inode_size);
        self.sb = Superblock::read(self.reader.size(), |buf, at| self.read(buf, at))?;
        if before != (self.sb.block_log, self.sb.ag_blocks, self.sb.inode_size) {
            return Err(damaged("the log", "it changes the geometry of the filesystem"));
        }
        Ok(())
    }

    /// Fills `buf` from byte `offset` of the filesystem.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reader.read_at(buf, offset)?;
        if self.overlay.is_empty() || buf.is_empty() {
            return Ok(());
        }
        let end = offset + buf.len() as u64;
        for (&sector, new) in self.overlay.range(offset / BASIC..end.div_ceil(BASIC)) {
            let start = sector * BASIC;
            // Both ends are inside `offset..end`, so their distance to it fits a slice index.
            let (first, last) = (start.max(offset), (start + BASIC).min(end));
            buf[(first - offset) as usize..(last - offset) as usize]
                .copy_from_slice(&new[(first - start) as usize..(last - start) as usize]);
        }
        Ok(())
    }

    /// Whether the log holds the truth of some of these bytes.
    pub(super) fn is_in_log(&self, range: &Range<u64>) -> bool {
        self.overlay.range(range.start / BASIC..range.end.div_ceil(BASIC)).next().is_some()
    }

    /// `len` bytes from byte `offset`.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; len];
        self.read(&mut buf, offset)?;
        Ok(buf)
    }

    /// Byte offset of `count` blocks from block `number` on (group above, block in the group below),
    /// all inside one allocation group.
    pub(super) fn offset(&self, number: u64, count: u64) -> Result<u64> {
        let sb = &self.sb;
        let within = number & ((1 << sb.ag_log) - 1);
        let group = u32::try_from(number >> sb.ag_log).ok().filter(|&ag| ag < sb.ag_count);
        match group {
            Some(ag) if within + count <= u64::from(sb.ag_length(ag)) => Ok(self.at(ag, within)),
            _ => Err(damaged(
                format_args!("block {number}"),
                format_args!("{count} blocks from there are not inside one allocation group"),
            )),
        }
    }

    /// Byte offset of block `within` of group `ag`, both checked by the caller.
    pub(super) fn at(&self, ag: u32, within: u64) -> u64 {
        (u64::from(ag) * u64::from(self.sb.ag_blocks) + within) << self.sb.block_log
    }

    /// Checks a structure that stands at byte `offset` by what version 5 stamps on it; `owner` is
    /// left out where nobody owns it. Version 4 has no stamps.
    pub(super) fn verify(
        &self,
        structure: &[u8],
        stamp: Stamp,
        offset: u64,
        owner: Option<u64>,
    ) -> Result<(), String> {
        if !self.sb.features.v5() {
            return Ok(());
        }
        checksum::verify(structure, stamp.crc)?;
        let text = |e: crate::error::Error| e.to_string();
        let block = structure.u64_at(stamp.blkno).map_err(text)?;
        if block != offset / BASIC {
            return Err(format!("it says it is at disk address {block}"));
        }
        if structure.bytes_at(stamp.uuid, 16).map_err(text)? != self.sb.meta_uuid {
            return Err("it has the UUID of another filesystem".into());
        }
        let short = stamp.owner == Stamp::SHORT_TREE.owner && stamp.crc == Stamp::SHORT_TREE.crc;
        let stored = if short {
            structure.u32_at(stamp.owner).map(u64::from)
        } else {
            structure.u64_at(stamp.owner)
        };
        match (owner, stored.map_err(text)?) {
            (Some(owner), stored) if owner != stored => {
                Err(format!("it says it belongs to {stored}"))
            }
            _ => Ok(()),
        }
    }
}

/// How many more blocks of metadata can be read: each has one place and one owner, so whoever reads
/// more than the filesystem has goes round in circles.
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn new(volume: &Volume) -> Self {
        Budget(volume.sb.blocks)
    }

    /// Counts `blocks` that are about to be read for `whose`.
    ///
    /// # Errors
    /// There are no more.
    pub(super) fn take(&mut self, blocks: u64, whose: impl std::fmt::Display) -> Result<()> {
        self.0 = self.0.checked_sub(blocks).ok_or_else(|| {
            damaged(whose, "metadata has more blocks than the filesystem: some are used twice")
        })?;
        Ok(())
    }
}
