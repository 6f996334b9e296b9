//! Records of the log: where they are, their checksums, what is in them. Linux,
//! fs/xfs/libxfs/xfs_log_format.h `struct xlog_rec_header`.

use super::super::fault::damaged;
use super::super::field::Fields as _;
use super::super::volume::{BASIC, Volume};
use crate::error::{Error, Result};
use crate::image::crc32c::{START, crc32c, crc32c_without};
use crate::image::field::sum_holds;

/// First word of a record's header; no other block of the log starts with it.
pub(super) const MAGIC: u32 = 0xfeed_babe;
/// A record's header, and every block of the log.
const BLOCK: usize = BASIC as usize;
/// Bytes of a record for which one header block holds the first words of the blocks.
const COVERED: u32 = 32 << 10;
/// Blocks whose first words one header block holds.
const WORDS: usize = 64;
/// Longest record in bytes (`XLOG_MAX_RECORD_BSIZE`).
pub(super) const LONGEST: u32 = 256 << 10;
/// Bytes of the header that its checksum covers: a 64-bit kernel pads the structure, another one
/// does not.
const COVERED_HEADER: [usize; 2] = [328, 324];
const CRC_AT: usize = 32;
/// Bytes of a further header block that the checksum covers.
const COVERED_FURTHER: usize = 4 + 4 * WORDS;
/// `h_fmt` of little-endian Linux.
const LITTLE_ENDIAN: u32 = 1;

/// The log of a filesystem, counted in blocks of 512 bytes.
pub(super) struct Log<'a> {
    pub(super) volume: &'a Volume,
    start: u64,
    /// Number of blocks.
    pub(super) blocks: u32,
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Its first block.
    pub(super) at: u32,
    /// Header blocks.
    pub(super) blocks: u32,
    /// Bytes behind the header.
    pub(super) length: u32,
    pub(super) lsn: u64,
    /// Block of the oldest record that is still needed.
    pub(super) tail: u32,
    pub(super) operations: u32,
    crc: u32,
}

/// A log that contradicts itself.
pub(super) fn bad(why: impl std::fmt::Display) -> Error {
    damaged("the log", why)
}

impl<'a> Log<'a> {
    pub(super) fn new(volume: &'a Volume) -> Result<Self> {
        let sb = &volume.sb;
        let start = volume.offset(sb.log_start, u64::from(sb.log_blocks))?;
        // At most 2 GiB, as the superblock was checked for.
        let blocks = ((u64::from(sb.log_blocks) << sb.block_log) / BASIC) as u32;
        Ok(Log { volume, start, blocks })
    }

    /// `count` blocks from block `at` on, around the end of the log.
    pub(super) fn read(&self, at: u32, count: u32) -> Result<Vec<u8>> {
        if at >= self.blocks || count > self.blocks {
            return Err(bad(format_args!("it has no {count} blocks at block {at}")));
        }
        let mut all = vec![0; count as usize * BLOCK];
        let first = count.min(self.blocks - at);
        let (front, behind) = all.split_at_mut(first as usize * BLOCK);
        self.volume.read(front, self.start + u64::from(at) * BASIC)?;
        self.volume.read(behind, self.start)?;
        Ok(all)
    }

    /// The block `count` behind `at`.
    pub(super) fn after(&self, at: u32, count: u32) -> u32 {
        ((u64::from(at) + u64::from(count)) % u64::from(self.blocks)) as u32
    }

    /// The cycle in which a block was written: its first word, or the second one of a header.
    pub(super) fn cycle(&self, at: u32) -> Result<u32> {
        cycle(&self.read(at, 1)?)
    }

    /// The header at block `at`.
    ///
    /// # Errors
    /// There is none, or one that cannot be.
    pub(super) fn header(&self, at: u32) -> Result<Header> {
        let raw = self.read(at, 1)?;
        let version = raw.u32_at(8)?;
        if raw.u32_at(0)? != MAGIC || version == 0 || version & !3 != 0 {
            return Err(bad(format_args!("block {at} is no start of a record")));
        }
        let (length, size) = (raw.u32_at(12)?, raw.u32_at(320)?);
        let blocks = if version & 2 != 0 && size > COVERED { size.div_ceil(COVERED) } else { 1 };
        if size > LONGEST || length > LONGEST {
            return Err(bad(format_args!("the record at block {at} has {length} bytes")));
        }
        Ok(Header {
            at,
            blocks,
            length,
            lsn: raw.u64_at(16)?,
            tail: raw.u64_at(24)? as u32,
            operations: raw.u32_at(40)?,
            crc: raw.array_at(CRC_AT).map(u32::from_le_bytes)?,
        })
    }

    /// Whether the record of `header` was written by this kind of system, for this filesystem.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn check_origin(&self, header: &Header) -> Result<()> {
        let raw = self.read(header.at, 1)?;
        if raw.u32_at(300)? != LITTLE_ENDIAN {
            return Err(bad("it was written by another kind of system, and is not empty"));
        }
        if raw.bytes_at(304, 16)? != self.volume.sb.uuid {
            return Err(bad("it has the UUID of another filesystem, and is not empty"));
        }
        Ok(())
    }

    /// The block behind the record.
    pub(super) fn end(&self, header: &Header) -> u32 {
        self.after(header.at, header.blocks + header.length.div_ceil(BLOCK as u32))
    }

    /// What stands in the record, as it was before its blocks got their cycles; `None` if it is not
    /// what its checksum is of.
    pub(super) fn contents(&self, header: &Header) -> Result<Option<Vec<u8>>> {
        let heads = self.read(header.at, header.blocks)?;
        let at = self.after(header.at, header.blocks);
        let mut data = self.read(at, header.length.div_ceil(BLOCK as u32))?;
        data.truncate(header.length as usize);
        if !self.sum(header, &heads, &data) {
            return Ok(None);
        }
        for (i, block) in data.chunks_mut(BLOCK).enumerate() {
            // The first header block holds them behind its other fields, the others behind a cycle.
            let (which, word) = (i / WORDS, i % WORDS);
            let place = which * BLOCK + if which == 0 { 44 } else { 4 } + word * 4;
            let first = heads.bytes_at(place, 4)?;
            let length = block.len().min(4);
            block[..length].copy_from_slice(&first[..length]);
        }
        Ok(Some(data))
    }

    fn sum(&self, header: &Header, heads: &[u8], data: &[u8]) -> bool {
        // `mkfs.xfs` writes no checksums, nor do kernels before them.
        if header.crc == 0 {
            return true;
        }
        COVERED_HEADER.iter().any(|&covered| {
            let mut crc = crc32c_without(START, &heads[..covered], &[(CRC_AT, 4)]);
            if self.volume.sb.log_v2 {
                let further = data.len().div_ceil(COVERED as usize);
                for head in heads.chunks(BLOCK).take(further).skip(1) {
                    crc = crc32c(crc, &head[..COVERED_FURTHER]);
                }
            }
            sum_holds(header.crc, !crc32c(crc, data))
        })
    }
}

/// The cycle in which `block` was written.
pub(super) fn cycle(block: &[u8]) -> Result<u32> {
    match block.u32_at(0)? {
        MAGIC => block.u32_at(4),
        cycle => Ok(cycle),
    }
}
