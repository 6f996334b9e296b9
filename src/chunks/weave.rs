//! How a disk's file is woven of two strands and of zeros.

use std::ops::Range;

use super::{BLOCK, Strand};

/// Blocks of one kind that follow each other in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The strand that the blocks come from; none: they are zeros.
    pub strand: Option<Strand>,
    /// How many there are.
    pub blocks: u64,
}

/// The whole file, as runs in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weave {
    /// Length of the file in bytes; the last block may be short, and zeros in its strand fill it up.
    pub size: u64,
    /// The runs; two that follow each other are of different kinds.
    pub runs: Vec<Run>,
}

impl Weave {
    /// Nothing yet.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Weave { size, runs: vec![] }
    }

    /// Goes on with `blocks` blocks.
    pub fn push(&mut self, strand: Option<Strand>, blocks: u64) {
        match self.runs.last_mut() {
            Some(last) if last.strand == strand => last.blocks = last.blocks.saturating_add(blocks),
            _ if blocks > 0 => self.runs.push(Run { strand, blocks }),
            _ => {}
        }
    }

    /// Blocks of one strand.
    #[must_use]
    pub fn length(&self, strand: Strand) -> u64 {
        self.runs
            .iter()
            .filter(|run| run.strand == Some(strand))
            .fold(0, |sum, run| sum.saturating_add(run.blocks))
    }

    /// Where the blocks of one strand stand in the file.
    #[must_use]
    pub fn places(&self, strand: Strand) -> Places {
        let (mut strand_at, mut file_at, mut runs) = (0u64, 0u64, vec![]);
        for run in &self.runs {
            if run.strand == Some(strand) {
                runs.push((strand_at, file_at, run.blocks));
                strand_at = strand_at.saturating_add(run.blocks);
            }
            file_at = file_at.saturating_add(run.blocks);
        }
        Places { size: self.size, runs }
    }
}

/// Where the blocks of a strand stand in the file.
#[derive(Debug, Clone)]
pub struct Places {
    size: u64,
    /// First block in the strand, first block in the file, number of blocks; in order.
    runs: Vec<(u64, u64, u64)>,
}

impl Places {
    /// Byte ranges of the file that hold `blocks` of the strand, in their order. The last one is cut at
    /// the end of the file.
    pub fn find(&self, blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.runs.partition_point(|run| run.0.saturating_add(run.2) <= blocks.start);
        let rest = self.runs.get(first..).unwrap_or(&[]).iter();
        let end = blocks.end;
        rest.take_while(move |run| run.0 < end).map(move |run| {
            let from = blocks.start.max(run.0);
            let to = end.min(run.0.saturating_add(run.2));
            let start = (run.1 + (from - run.0)).saturating_mul(BLOCK as u64);
            let length = to.saturating_sub(from).saturating_mul(BLOCK as u64);
            start.min(self.size)..start.saturating_add(length).min(self.size)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_strand_are_found_in_the_file() {
        let mut weave = Weave::new(9 * BLOCK as u64 + 5);
        for (strand, blocks) in [
            (Some(Strand::Structure), 2),
            (Some(Strand::Contents), 1),
            (Some(Strand::Contents), 2),
            (None, 2),
            (Some(Strand::Structure), 1),
            (Some(Strand::Contents), 2),
        ] {
            weave.push(strand, blocks);
        }
        assert_eq!(weave.runs.len(), 5);
        assert_eq!((weave.length(Strand::Structure), weave.length(Strand::Contents)), (3, 5));
        let places = weave.places(Strand::Contents);
        let find = |range| {
            let found = places.find(range).map(|r| (r.start / BLOCK as u64, r.end - r.start));
            found.collect::<Vec<_>>()
        };
        assert_eq!(find(0..3), [(2, 3 * 4096)]);
        assert_eq!(find(1..5), [(3, 2 * 4096), (8, 4096 + 5)]);
        assert_eq!(find(4..5), [(9, 5)]);
        assert_eq!(find(5..9), []);
    }
}
