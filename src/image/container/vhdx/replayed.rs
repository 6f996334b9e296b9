//! A file as it is after its log was applied, in memory; the file itself is not written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::SECTOR;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::slice::check_range;

/// The bytes of a log's sector.
pub(super) type Sector = [u8; SECTOR as usize];

/// A file and what the log changes in it.
pub(super) struct Replayed {
    file: Source,
    size: u64,
    /// Sectors by their place, which is a multiple of their length.
    sectors: BTreeMap<u64, Box<Sector>>,
    /// Zeros, from start to end; none touches another one. A sector above is newer.
    zeros: BTreeMap<u64, u64>,
}

impl Replayed {
    /// The file before any change, made longer to at least `size`.
    pub(super) fn new(file: Source, size: u64) -> Self {
        let size = size.max(file.size());
        Replayed { file, size, sectors: BTreeMap::new(), zeros: BTreeMap::new() }
    }

    /// Writes one sector. The caller has checked the place.
    pub(super) fn write(&mut self, at: u64, data: Box<Sector>) {
        self.sectors.insert(at, data);
    }

    /// Writes zeros. The caller has checked the range.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let gone: Vec<u64> = self.sectors.range(range.clone()).map(|(at, _)| *at).collect();
        for at in gone {
            self.sectors.remove(&at);
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&from, &to)) = self.zeros.range(..=end).next_back()
            && to >= start
        {
            self.zeros.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.zeros.insert(start, end);
    }
}

/// The part of `buf`, which begins at `offset`, that `range` covers, and where that is in `range`.
fn covered<'a>(buf: &'a mut [u8], offset: u64, range: &Range<u64>) -> (&'a mut [u8], usize) {
    let end = offset + buf.len() as u64;
    let (from, to) = (range.start.max(offset), range.end.min(end));
    if from >= to {
        return (&mut [], 0);
    }
    let skipped = (from - range.start) as usize;
    (&mut buf[(from - offset) as usize..(to - offset) as usize], skipped)
}

impl ReadAt for Replayed {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)?;
        let end = offset + buf.len() as u64;
        let (there, _) = covered(buf, offset, &(0..self.file.size()));
        let read = there.len();
        if read > 0 {
            self.file.read_at(there, offset)?;
        }
        buf[read..].fill(0);
        for (&from, &to) in self.zeros.range(..end).rev().take_while(|(_, to)| **to > offset) {
            covered(buf, offset, &(from..to)).0.fill(0);
        }
        let first = offset / SECTOR * SECTOR;
        for (&at, data) in self.sectors.range(first..end) {
            let (part, skipped) = covered(buf, offset, &(at..at + SECTOR));
            let length = part.len();
            part.copy_from_slice(&data[skipped..skipped + length]);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let first = offset / SECTOR * SECTOR;
        let sector = self
            .sectors
            .range(first..)
            .next()
            .map(|(at, _)| (*at).max(offset)..(at + SECTOR).min(self.size));
        let file = if offset < self.file.size() { self.file.next_data(offset)? } else { None };
        Ok(match (sector, file) {
            (Some(sector), Some(file)) if sector.start <= file.start => Some(sector),
            (Some(sector), Some(file)) => Some(file.start..file.end.min(sector.start)),
            (one, other) => one.or(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::container::raw::Raw;
    use crate::image::oracle::{Numbers, contents, data_ranges};

    /// Random writes and zeros, compared with the same ones on plain bytes.
    #[test]
    fn the_last_change_of_each_byte_counts() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        let mut numbers = Numbers::new(61);
        for _ in 0..60 {
            let sectors = 1 + numbers.below(30);
            let mut plain: Vec<u8> = (0..sectors * SECTOR).map(|n| n as u8 | 1).collect();
            std::fs::write(&path, &plain).expect("write");
            let file = Source::from(Raw::open(&path).expect("open"));
            let size = (sectors + numbers.below(9)) * SECTOR;
            let mut replayed = Replayed::new(file, size);
            plain.resize(size as usize, 0);
            for _ in 0..numbers.below(40) {
                let at = numbers.below(size / SECTOR) * SECTOR;
                if numbers.below(2) == 0 {
                    let byte = numbers.next() as u8;
                    replayed.write(at, Box::new([byte; SECTOR as usize]));
                    plain[at as usize..(at + SECTOR) as usize].fill(byte);
                } else {
                    let end = (at + numbers.below(9) * SECTOR).min(size);
                    replayed.zero(at..end);
                    plain[at as usize..end as usize].fill(0);
                }
            }
            assert!(contents(&replayed) == plain);
            for _ in 0..50 {
                let at = numbers.below(size);
                let mut buf = vec![9; numbers.below(size - at + 1) as usize];
                replayed.read_at(&mut buf, at).expect("inside");
                assert!(buf[..] == plain[at as usize..at as usize + buf.len()]);
            }
            let mut seen = vec![0; plain.len()];
            for range in data_ranges(&replayed) {
                let range = range.start as usize..range.end as usize;
                seen[range.clone()].copy_from_slice(&plain[range]);
            }
            assert!(seen == plain, "a hole holds data");
        }
    }
}
