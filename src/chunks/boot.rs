//! What a boot reads of a box's disk, in order of first use: recorded once, so that a later start fetches it first.
//!
//! ```text
//! "devbox/boot/1\n"
//! SHA-256 of the disk's file   32 bytes
//! ranges                       how many; each: first block, less than or more than where the one before ended, and how many
//! ```
//!
//! Numbers are LEB128; the first of a range is 2n where it is n blocks on, 2n-1 where it is n blocks back. It may come
//! from outside: it says what is fetched first and nothing else, so a wrong one only costs time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::BLOCK;
use super::varint::{Bytes, put};
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};

const TAG: &[u8] = b"devbox/boot/1\n";
/// Most ranges of a record; a boot of Debian has about a thousand.
const MOST_RANGES: u64 = 1 << 16;
/// Most bytes of a record.
pub const MOST: u64 = 1 << 20;
/// Most blocks that a record may name: 4 GiB.
const MOST_BLOCKS: u64 = 1 << 20;

/// Byte ranges of a disk's file in the order of their first use.
#[must_use]
pub fn encode(disk: FileDigest, ranges: &[Range<u64>]) -> Vec<u8> {
    let ranges = first_uses(ranges);
    let mut out = TAG.to_vec();
    out.extend_from_slice(disk.as_bytes());
    put(&mut out, ranges.len() as u64);
    let mut before = 0u64;
    for range in ranges {
        let step = match range.start.checked_sub(before) {
            Some(on) => on * 2,
            None => (before - range.start) * 2 - 1,
        };
        put(&mut out, step);
        put(&mut out, range.end - range.start);
        before = range.end;
    }
    out
}

/// Blocks, each where it is first used, joined where they follow each other.
fn first_uses(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut seen, mut out): (BTreeSet<u64>, Vec<Range<u64>>) = (BTreeSet::new(), vec![]);
    for range in ranges {
        for block in range.start / BLOCK as u64..range.end.div_ceil(BLOCK as u64) {
            if seen.len() as u64 >= MOST_BLOCKS || !seen.insert(block) {
                continue;
            }
            let full = out.len() as u64 >= MOST_RANGES;
            match out.last_mut() {
                Some(last) if last.end == block => last.end = block + 1,
                _ if full => return out,
                _ => out.push(block..block + 1),
            }
        }
    }
    out
}

/// Reads a record of the disk `disk`: its byte ranges.
///
/// # Errors
/// It is none, or that of another disk; kind `Undetermined`.
pub fn parse(bytes: &[u8], disk: FileDigest) -> Result<Vec<Range<u64>>> {
    read(bytes, disk).context(|| "the record of what a boot reads cannot be used".to_owned())
}

fn read(bytes: &[u8], disk: FileDigest) -> Result<Vec<Range<u64>>> {
    if bytes.len() as u64 > MOST {
        return Err(Error::undetermined(format!("it has more than {MOST} bytes")));
    }
    let mut bytes = Bytes(bytes);
    if bytes.take(TAG.len())? != TAG {
        return Err(Error::undetermined("it is of another kind or version"));
    }
    if bytes.digest()? != disk {
        return Err(Error::undetermined("it is that of another disk"));
    }
    let count = bytes.at_most(MOST_RANGES, "the number of ranges")?;
    let (mut ranges, mut before, mut sum) = (vec![], 0u64, 0u64);
    let beyond = || Error::undetermined("a range in it is beyond every disk");
    for _ in 0..count {
        let step = bytes.number()?;
        let start = match step % 2 {
            0 => before.checked_add(step / 2),
            _ => before.checked_sub(step / 2 + 1),
        };
        let start = start.ok_or_else(beyond)?;
        let blocks = bytes.at_most(MOST_BLOCKS, "the number of blocks")?;
        sum += blocks;
        if blocks == 0 || sum > MOST_BLOCKS {
            return Err(Error::undetermined("it names nothing, or more than a boot reads"));
        }
        before = start.checked_add(blocks).ok_or_else(beyond)?;
        let end = before.checked_mul(BLOCK as u64).ok_or_else(beyond)?;
        ranges.push(start * BLOCK as u64..end);
    }
    bytes.end()?;
    Ok(ranges)
}

/// The records on this host, each under the digest of its disk. They can be made again.
#[derive(Debug, Clone)]
pub struct Records(PathBuf);

impl Records {
    /// In the folder for what can be made again.
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        Records(cache.join("boot"))
    }

    /// What a boot reads of this disk, if it is known.
    #[must_use]
    pub fn find(&self, disk: FileDigest) -> Option<Vec<Range<u64>>> {
        parse(&self.bytes(disk)?, disk).ok()
    }

    /// The record of this disk as it is, if there is one.
    #[must_use]
    pub fn bytes(&self, disk: FileDigest) -> Option<Vec<u8>> {
        let path = self.0.join(disk.hex());
        let size = std::fs::metadata(&path).ok()?.len();
        if size > MOST { None } else { std::fs::read(path).ok() }
    }

    /// Removes those of all disks but these.
    pub fn prune(&self, disks: &[FileDigest]) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if disks.iter().all(|disk| name.to_str() != Some(&disk.hex())) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// It is none of this disk, or cannot be written.
    pub fn keep(&self, disk: FileDigest, record: &[u8]) -> Result<()> {
        use std::io::Write as _;
        parse(record, disk)?;
        fs::create_dir_all(&self.0)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(record)?;
        file.persist(self.0.join(disk.hex())).map_err(|e| Error::from(e.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let disk = FileDigest::of(b"disk");
        let block = BLOCK as u64;
        let used = [10 * block..12 * block, 5 * block + 1..5 * block + 2, 11 * block..13 * block];
        let record = encode(disk, &used);
        let ranges = parse(&record, disk).expect("reads");
        assert_eq!(
            ranges,
            [10 * block..12 * block, 5 * block..6 * block, 12 * block..13 * block],
            "each block once"
        );
        let dir = tempfile::tempdir().expect("folder");
        let records = Records::new(dir.path());
        assert_eq!(records.find(disk), None);
        records.keep(disk, &record).expect("kept");
        assert_eq!(records.find(disk).as_deref(), Some(&ranges[..]));
    }

    #[test]
    fn what_is_no_record_says_so() {
        let disk = FileDigest::of(b"disk");
        let good = encode(disk, &[0..1, 1 << 20..(1 << 20) + 1]);
        assert!(parse(&good, FileDigest::of(b"other")).is_err());
        for cut in 0..good.len() {
            assert!(parse(&good[..cut], disk).is_err(), "{cut}");
        }
        assert!(parse(&[&good[..], &[0]].concat(), disk).is_err());
        let head = &good[..TAG.len() + 32];
        let with = |numbers: &[u64]| {
            let mut out = head.to_vec();
            numbers.iter().for_each(|n| put(&mut out, *n));
            parse(&out, disk)
        };
        assert!(with(&[1, 0, 1]).is_ok());
        assert!(with(&[1, 1, 1]).is_err(), "before the first block");
        assert!(with(&[1, 0, 0]).is_err(), "nothing");
        assert!(with(&[1, u64::MAX - 1, 1]).is_err(), "beyond");
        assert!(with(&[MOST_RANGES + 1]).is_err(), "too many");
        assert!(with(&[2, 0, MOST_BLOCKS, 0, 1]).is_err(), "too much");
    }
}
