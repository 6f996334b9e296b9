//! Replays a journal (JBD2) in memory: which blocks of the filesystem have a newer copy in it.
//!
//! Kernel documentation, "Journal (jbd2)", and fs/jbd2/recovery.c. The device is never written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::blockmap::{self, Run};
use super::checksum::{START, crc32c, crc32c_without};
use super::fault::{checksum, damaged, unsupported};
use super::field::Fields;
use super::volume::{Replayed, Volume};
use super::{group, inode};
use crate::error::{Error, Result};
use crate::image::field::sum_holds;

/// First four bytes of each block that belongs to the journal itself, big-endian as all of it.
pub(super) const MAGIC: u32 = 0xc03b_3998;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// All that is read here, with revoke records (0x1).
const INCOMPAT_KNOWN: u32 = 0x3f;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// Blocks at the end of the journal for fast commits where its superblock names no number.
const FAST_COMMIT_BLOCKS: u32 = 256;
/// First tag of a valid fast commit; the transaction it follows stands behind it.
const FAST_COMMIT_HEAD: u16 = 9;

/// What a replay found.
pub(super) struct Replay {
    pub(super) overlay: BTreeMap<u64, Replayed>,
    pub(super) transactions: u32,
}

/// Finds what the journal of `volume` holds.
///
/// # Errors
/// No journal inside the filesystem, damage, or an unread feature.
pub(super) fn replay(volume: &Volume) -> Result<Replay> {
    let journal = Journal::open(volume)?;
    journal.replay()
}

/// Where the blocks behind the superblock of an empty journal stand, in bytes: nothing of one is read before it is
/// written again (fs/jbd2/recovery.c, `jbd2_journal_recover`: with `s_start` 0 there is no pass). None of another.
///
/// # Errors
/// No journal inside the filesystem, damage, or an unread feature.
pub(super) fn spent(volume: &Volume) -> Result<Vec<Range<u64>>> {
    Journal::open(volume)?.spent()
}

struct Journal<'a> {
    volume: &'a Volume,
    runs: Vec<Run>,
    incompat: u32,
    /// Start value of checksums.
    seed: u32,
    first: u32,
    /// Block behind the last one of the ring.
    last: u32,
    /// Where the oldest transaction starts; 0 if the journal is empty.
    start: u32,
    /// Number of the oldest transaction.
    sequence: u32,
    length: u32,
}

fn bad(why: impl std::fmt::Display) -> Error {
    damaged("the journal", why)
}

/// One block of a transaction.
struct Tag {
    block: u64,
    escaped: bool,
    checksum: u32,
    /// Where the copy stands in the journal.
    at: u32,
}

/// A complete transaction.
#[derive(Default)]
struct Transaction {
    tags: Vec<Tag>,
    revoked: Vec<u64>,
}

impl<'a> Journal<'a> {
    fn open(volume: &'a Volume) -> Result<Self> {
        let sb = &volume.sb;
        if sb.journal_inode == 0 {
            return Err(unsupported("external journal")
                .detail("the filesystem was not cleanly unmounted")
                .hint(
                    "Shut down the machine that uses it cleanly, then run the same command again.",
                ));
        }
        let index = sb.journal_inode - 1;
        let group_number = index / sb.inodes_per_group;
        if group_number >= sb.groups {
            return Err(bad(format_args!("it is said to be inode {}", sb.journal_inode)));
        }
        let group = group::read(volume, group_number)?;
        let mut raw = vec![0; usize::from(sb.inode_size)];
        volume.read(&mut raw, inode::offset(sb, &group, index % sb.inodes_per_group))?;
        let inode = inode::parse(sb, sb.journal_inode, &raw)?;
        let runs = blockmap::runs(volume, &inode, &mut HashSet::new())?;
        let mut journal = Journal {
            volume,
            runs,
            incompat: 0,
            seed: 0,
            first: 0,
            last: 0,
            start: 0,
            sequence: 0,
            length: u32::MAX,
        };
        journal.superblock()?;
        Ok(journal)
    }

    fn superblock(&mut self) -> Result<()> {
        let raw = self.block(0)?;
        if raw.be32_at(0)? != MAGIC || raw.be32_at(4)? != SUPERBLOCK_V2 {
            return Err(bad("it has no superblock of version 2"));
        }
        self.incompat = raw.be32_at(0x28)?;
        if self.incompat & !INCOMPAT_KNOWN != 0 || raw.be32_at(0x2c)? != 0 {
            let bits = self.incompat & !INCOMPAT_KNOWN;
            return Err(unsupported(format_args!("journal feature {bits:#x}")));
        }
        if self.has_checksums() {
            let (stored, computed) =
                (raw.be32_at(0xfc)?, crc32c_without(START, raw.bytes_at(0, 1024)?, &[(0xfc, 4)]));
            if !sum_holds(stored, computed) {
                return Err(checksum("the superblock of the journal", stored, computed));
            }
        } else if self.incompat & INCOMPAT_ASYNC_COMMIT != 0 {
            // A commit block may then stand before its data, and only a checksum of another kind tells.
            return Err(unsupported("journal_async_commit"));
        }
        self.seed = crc32c(START, raw.bytes_at(0x30, 16)?);
        self.length = raw.be32_at(0x10)?;
        self.first = raw.be32_at(0x14)?;
        self.sequence = raw.be32_at(0x18)?;
        self.start = raw.be32_at(0x1c)?;
        self.last = self.length;
        if self.incompat & INCOMPAT_FAST_COMMIT != 0 {
            let stored = raw.be32_at(0x54)?;
            let blocks = if stored == 0 { FAST_COMMIT_BLOCKS } else { stored };
            self.last = self.length.saturating_sub(blocks);
        }
        let whole: u64 = self.runs.iter().map(|run| run.count).sum();
        if raw.be32_at(0xc)? != self.volume.sb.block_size || u64::from(self.length) > whole {
            return Err(bad("its size or its block size is wrong"));
        }
        let in_ring = |block| (self.first..self.last).contains(&block);
        if self.first == 0 || !in_ring(self.first) || self.start != 0 && !in_ring(self.start) {
            return Err(bad("its superblock names blocks outside"));
        }
        Ok(())
    }

    fn has_checksums(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Block number on the device of block `at` of the journal.
    fn place(&self, at: u32) -> Result<u64> {
        let at = u64::from(at);
        let i = self.runs.partition_point(|run| run.logical + run.count <= at);
        self.runs
            .get(i)
            .filter(|run| run.logical <= at && at < u64::from(self.length))
            .map(|run| run.physical + (at - run.logical))
            .ok_or_else(|| bad(format_args!("it has no block {at}")))
    }

    fn block(&self, at: u32) -> Result<Vec<u8>> {
        self.volume.block(self.place(at)?)
    }

    /// The block after `at` in the ring.
    fn after(&self, at: u32) -> u32 {
        if at + 1 >= self.last { self.first } else { at + 1 }
    }

    fn replay(&self) -> Result<Replay> {
        let mut overlay = BTreeMap::new();
        if self.start == 0 {
            self.refuse_fast_commits(self.sequence)?;
            return Ok(Replay { overlay, transactions: 0 });
        }
        let (transactions, next) = self.scan()?;
        // The last transaction that revoked each block.
        let mut revoked = HashMap::new();
        for (i, transaction) in transactions.iter().enumerate() {
            for &block in &transaction.revoked {
                revoked.insert(block, i);
            }
        }
        for (i, transaction) in transactions.iter().enumerate() {
            let sequence = self.sequence.wrapping_add(i as u32);
            for tag in &transaction.tags {
                if revoked.get(&tag.block).is_some_and(|&by| by >= i) {
                    continue;
                }
                self.verify_copy(tag, sequence)?;
                self.volume.offset(tag.block, 1)?;
                let copy = self.place(tag.at)?;
                overlay.insert(tag.block, Replayed { copy, escaped: tag.escaped });
            }
        }
        self.refuse_fast_commits(next)?;
        Ok(Replay { overlay, transactions: transactions.len() as u32 })
    }

    /// All complete transactions from the oldest on, and the number of the one that follows.
    fn scan(&self) -> Result<(Vec<Transaction>, u32)> {
        let mut complete = Vec::new();
        let mut current = Transaction::default();
        let mut sequence = self.sequence;
        let mut at = self.start;
        // The first bad checksum in the current transaction: an error only once it is committed,
        // since a crash leaves the last one half written.
        let mut fault: Option<Error> = None;
        let mut left = self.last - self.first;
        loop {
            let block = self.block(at)?;
            if block.be32_at(0)? != MAGIC || block.be32_at(8)? != sequence {
                break;
            }
            let kind = block.be32_at(4)?;
            let here = at;
            at = self.after(at);
            let used = match kind {
                DESCRIPTOR => {
                    fault = fault.or(self.verify_tail(&block, here)?);
                    let before = current.tags.len();
                    self.tags(&block, &mut at, &mut current.tags)?;
                    1 + (current.tags.len() - before) as u32
                }
                REVOKE => {
                    match self.verify_tail(&block, here)? {
                        None => self.revoked(&block, &mut current.revoked)?,
                        found => fault = fault.or(found),
                    }
                    1
                }
                COMMIT => {
                    if self.has_checksums() {
                        let stored = block.be32_at(16)?;
                        let computed = crc32c_without(self.seed, &block, &[(16, 4)]);
                        if !sum_holds(stored, computed) {
                            // An asynchronous commit may be on the disk before the rest of itself.
                            if self.incompat & INCOMPAT_ASYNC_COMMIT != 0 {
                                break;
                            }
                            let which = format_args!("commit block {here} of the journal");
                            return Err(checksum(which, stored, computed));
                        }
                    }
                    if let Some(fault) = fault.take() {
                        return Err(fault);
                    }
                    complete.push(std::mem::take(&mut current));
                    sequence = sequence.wrapping_add(1);
                    1
                }
                _ => break,
            };
            match left.checked_sub(used) {
                Some(rest) if rest > 0 => left = rest,
                _ => break,
            }
        }
        Ok((complete, sequence))
    }

    fn spent(&self) -> Result<Vec<Range<u64>>> {
        if self.start != 0 {
            return Ok(vec![]);
        }
        self.refuse_fast_commits(self.sequence)?;
        let mut places = vec![];
        for run in &self.runs {
            let first = run.logical.max(1);
            let end = (run.logical + run.count).min(u64::from(self.length));
            if first < end {
                let at = self.volume.offset(run.physical + (first - run.logical), end - first)?;
                places.push(at..at + (end - first) * u64::from(self.volume.sb.block_size));
            }
        }
        Ok(places)
    }

    /// The checksum at the end of descriptor and revoke blocks; `Some` if it is wrong.
    fn verify_tail(&self, block: &[u8], at: u32) -> Result<Option<Error>> {
        if !self.has_checksums() {
            return Ok(None);
        }
        let tail = block.len() - 4;
        let stored = block.be32_at(tail)?;
        let computed = crc32c_without(self.seed, block, &[(tail, 4)]);
        Ok((!sum_holds(stored, computed))
            .then(|| checksum(format_args!("block {at} of the journal"), stored, computed)))
    }

    /// Takes the tags of a descriptor block; `at` moves over the copies that follow it.
    fn tags(&self, block: &[u8], at: &mut u32, tags: &mut Vec<Tag>) -> Result<()> {
        let v3 = self.incompat & INCOMPAT_CSUM_V3 != 0;
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let v2 = usize::from(self.incompat & INCOMPAT_CSUM_V2 != 0) * 2;
        let size = if v3 { 16 } else { 8 + v2 + usize::from(wide) * 4 };
        let end = block.len() - usize::from(self.has_checksums()) * 4;
        let mut from = 12;
        while from + size <= end {
            let flags = if v3 { block.be32_at(from + 4)? } else { block.be16_at(from + 6)?.into() };
            let high = if wide { block.be32_at(from + 8)? } else { 0 };
            let checksum =
                if v3 { block.be32_at(from + 12)? } else { block.be16_at(from + 4)?.into() };
            tags.push(Tag {
                block: u64::from(block.be32_at(from)?) | u64::from(high) << 32,
                escaped: flags & TAG_ESCAPED != 0,
                checksum,
                at: *at,
            });
            *at = self.after(*at);
            from += size + if flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        Ok(())
    }

    fn revoked(&self, block: &[u8], revoked: &mut Vec<u64>) -> Result<()> {
        let size = if self.incompat & INCOMPAT_64BIT != 0 { 8 } else { 4 };
        let end = block.be32_at(12)? as usize;
        let records = end.checked_sub(16).and_then(|length| block.bytes_at(16, length).ok());
        for record in
            records.ok_or_else(|| bad("a revoke block has a bad length"))?.chunks_exact(size)
        {
            let high = record.be32_at(0)?;
            let block = match size {
                8 => u64::from(high) << 32 | u64::from(record.be32_at(4)?),
                _ => high.into(),
            };
            revoked.push(block);
        }
        Ok(())
    }

    fn verify_copy(&self, tag: &Tag, sequence: u32) -> Result<()> {
        if !self.has_checksums() {
            return Ok(());
        }
        let copy = self.block(tag.at)?;
        let computed = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), &copy);
        let mask = if self.incompat & INCOMPAT_CSUM_V3 != 0 { !0 } else { 0xffff };
        if sum_holds(tag.checksum, computed & mask) {
            return Ok(());
        }
        let which = format!("the copy of block {} in the journal", tag.block);
        Err(checksum(which, tag.checksum, computed & mask))
    }

    /// Fast commits are logical records; a valid one that follows the last transaction is refused.
    fn refuse_fast_commits(&self, next: u32) -> Result<()> {
        if self.incompat & INCOMPAT_FAST_COMMIT == 0 {
            return Ok(());
        }
        // The kernel leaves the first block behind the ring unused; both places are looked at.
        for at in self.last..self.length.min(self.last + 2) {
            let block = self.block(at)?;
            if block.as_slice().u16_at(0)? == FAST_COMMIT_HEAD
                && block.as_slice().u32_at(8)? == next
            {
                return Err(unsupported("fast_commit")
                    .detail("the journal ends with a fast commit that was not written back")
                .hint("Shut down the machine that uses it cleanly, then run the same command again."));
            }
        }
        Ok(())
    }
}
