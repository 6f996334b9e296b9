//! Which bytes of a disk are others than those of the image below its layers.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::image::ReadAt;
use crate::image::slice::joined;

/// Bytes that are compared as one: what filesystems and disks write at least.
const BLOCK: usize = 4096;
/// Bytes that one thread compares at a time.
const PIECE: u64 = 1 << 20;

/// Ranges of a disk whose bytes changed, in whole blocks.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// In order, apart from each other.
    ranges: Vec<Range<u64>>,
}

impl Changed {
    /// What differs between `base` and `now` inside of `held`, outside of which nothing can; behind the
    /// end of `base` are zeros.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn find(base: &dyn ReadAt, now: &dyn ReadAt, held: &[Range<u64>]) -> Result<Self> {
        let mut pieces = vec![];
        for range in held {
            // In whole blocks: a layer's unit can be smaller.
            let block = BLOCK as u64;
            let mut at = range.start / block * block;
            let end = range.end.div_ceil(block).saturating_mul(block).min(now.size());
            while let Some(start) = next_data(base, now, at)?.filter(|start| *start < end) {
                let start = (start / block * block).max(at);
                let piece = start..(start + PIECE).min(end);
                at = piece.end;
                pieces.push(piece);
            }
        }
        let found: Vec<_> = pieces
            .into_par_iter()
            .map(|piece| differing(base, now, piece))
            .collect::<Result<_>>()?;
        Ok(Changed::of(found.into_iter().flatten().collect()))
    }

    /// These ranges, in any order.
    pub(in crate::parity) fn of(changed: Vec<Range<u64>>) -> Self {
        Changed { ranges: joined(changed) }
    }

    pub(in crate::parity) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Whether a byte of `range` may have changed.
    #[must_use]
    pub fn touches(&self, range: &Range<u64>) -> bool {
        let first = self.ranges.partition_point(|changed| changed.end <= range.start);
        self.ranges.get(first).is_some_and(|changed| changed.start < range.end)
    }

    /// How many bytes the blocks that changed have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// The first byte from `at` on that is perhaps not zero on both sides.
fn next_data(base: &dyn ReadAt, now: &dyn ReadAt, at: u64) -> Result<Option<u64>> {
    let old = if at < base.size() { base.next_data(at)? } else { None };
    let new = now.next_data(at)?;
    Ok(old.into_iter().chain(new).map(|range| range.start).min())
}

/// The blocks of one piece that differ.
fn differing(base: &dyn ReadAt, now: &dyn ReadAt, piece: Range<u64>) -> Result<Vec<Range<u64>>> {
    // A piece is at most 1 MiB.
    let length = (piece.end - piece.start) as usize;
    let (mut old, mut new) = (vec![0; length], vec![0; length]);
    let there = base.size().saturating_sub(piece.start);
    let there = usize::try_from(there).map_or(length, |there| there.min(length));
    if there > 0 {
        base.read_at(&mut old[..there], piece.start)?;
    }
    now.read_at(&mut new, piece.start)?;
    let mut found: Vec<Range<u64>> = vec![];
    let blocks = old.chunks(BLOCK).zip(new.chunks(BLOCK));
    for (at, (old, new)) in (piece.start..).step_by(BLOCK).zip(blocks) {
        let end = at + new.len() as u64;
        match found.last_mut() {
            _ if old == new => {}
            Some(last) if last.end == at => last.end = end,
            _ => found.push(at..end),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oracle::{Memory, Numbers};

    #[test]
    fn blocks_that_differ_are_found_where_they_can_be_and_nowhere_else() {
        let old = vec![7; 3 << 20];
        let mut new = old.clone();
        for at in [0, 5000, (1 << 20) - 1, (2 << 20) + 4096] {
            new[at] = 8;
        }
        let all = std::slice::from_ref(&(0..3 << 20));
        let changed = Changed::find(&Memory(old.clone()), &Memory(new.clone()), all).expect("find");
        let last = (1 << 20) - 4096;
        let ranges = [0..8192, last..1 << 20, (2 << 20) + 4096..(2 << 20) + 8192];
        assert_eq!(changed.ranges, ranges);
        assert_eq!(changed.bytes(), 16 << 10);
        assert!(changed.touches(&(8191..8192)) && !changed.touches(&(8192..last)));
        assert!(changed.touches(&(8192..last + 1)) && !changed.touches(&(1 << 20..1 << 21)));
        let part = std::slice::from_ref(&(4096..1 << 19));
        let changed = Changed::find(&Memory(old), &Memory(new), part).expect("find");
        assert_eq!(changed.ranges, std::slice::from_ref(&(4096..8192)));
    }

    #[test]
    fn a_disk_that_grew_had_zeros_there() {
        let old = vec![1; 4096];
        let mut new = vec![0; 5 * 4096];
        new[..4096].fill(1);
        new[4 * 4096] = 1;
        let all = std::slice::from_ref(&(0..5 * 4096));
        let changed = Changed::find(&Memory(old), &Memory(new), all).expect("find");
        assert_eq!(changed.ranges, std::slice::from_ref(&(4 * 4096..5 * 4096)));
    }

    #[test]
    fn random_changes_are_the_blocks_with_other_bytes() {
        let mut numbers = Numbers::new(5);
        for _ in 0..50 {
            let size = (numbers.below(600) * 512) as usize + 512;
            let old: Vec<u8> = (0..size).map(|_| numbers.below(3) as u8).collect();
            let mut new = old.clone();
            for _ in 0..numbers.below(5) {
                new[numbers.below(size as u64) as usize] = 9;
            }
            let whole = 0..size as u64;
            let all = std::slice::from_ref(&whole);
            let changed =
                Changed::find(&Memory(old.clone()), &Memory(new.clone()), all).expect("find");
            for (i, (a, b)) in old.chunks(BLOCK).zip(new.chunks(BLOCK)).enumerate() {
                let at = (i * BLOCK) as u64;
                assert_eq!(changed.touches(&(at..at + 1)), a != b, "block {i} of {size}");
            }
        }
    }
}
