//! Which chunks hold which bytes of a disk's file.

use std::collections::HashMap;
use std::ops::Range;

use crate::chunks::plan::{Numbered, Wanted};
use crate::chunks::{BLOCK, Strand, Weave};

/// The bytes of a disk's file, as chunks and as zeros.
#[derive(Debug)]
pub(super) struct Map {
    size: u64,
    /// In the order of the file.
    runs: Vec<Stretch>,
    /// For each strand, the first block of each of its chunks, and the chunk's item. In order.
    chunks: [Vec<(u64, u32)>; 2],
}

/// Blocks of one kind that follow each other in the file.
#[derive(Debug)]
struct Stretch {
    /// The first of them in the file.
    block: u64,
    /// How many there are.
    blocks: u64,
    /// Where they begin in their strand; none: they are zeros.
    place: Option<(Strand, u64)>,
}

/// A chunk of a disk, wherever it stands in the file: it is fetched once.
pub(super) type Item = Wanted;

/// The chunks of a disk, each once, in the order of the packs; and where they are.
#[must_use]
pub(super) fn items(weave: &Weave, numbered: &[Numbered]) -> (Vec<Item>, Map) {
    let (mut items, mut first): (Vec<Item>, HashMap<_, u32>) = (vec![], HashMap::new());
    let mut chunks = [vec![], vec![]];
    for chunk in numbered {
        let next = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let number = *first.entry(chunk.entry.id).or_insert(next);
        match items.get_mut(number as usize) {
            Some(item) => item.also.push(*chunk),
            None => items.push(Wanted { chunk: *chunk, also: vec![] }),
        }
        chunks[chunk.strand.index()].push((chunk.block, number));
    }
    let (mut at, mut strands, mut runs) = (0u64, [0u64; 2], vec![]);
    for run in &weave.runs {
        let place = run.strand.map(|strand| {
            let begin = strands[strand.index()];
            strands[strand.index()] = begin.saturating_add(run.blocks);
            (strand, begin)
        });
        runs.push(Stretch { block: at, blocks: run.blocks, place });
        at = at.saturating_add(run.blocks);
    }
    (items, Map { size: weave.size, runs, chunks })
}

impl Map {
    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The runs that hold some of these bytes.
    fn runs(&self, range: &Range<u64>) -> impl Iterator<Item = &Stretch> {
        let (first, end) = (range.start / BLOCK as u64, range.end.div_ceil(BLOCK as u64));
        let from = self.runs.partition_point(|run| run.block.saturating_add(run.blocks) <= first);
        let rest = self.runs.get(from..).unwrap_or(&[]);
        rest.iter().take_while(move |run| run.block < end)
    }

    /// The items that hold these bytes, in the order of the file; some perhaps more than once.
    pub(super) fn items(&self, range: &Range<u64>) -> Vec<u32> {
        let (first, end) = (range.start / BLOCK as u64, range.end.div_ceil(BLOCK as u64));
        let mut found = vec![];
        for Stretch { block, blocks, place } in self.runs(range) {
            let Some((strand, begin)) = place else { continue };
            let from = begin + first.saturating_sub(*block);
            let to = begin + end.saturating_sub(*block).min(*blocks);
            let chunks = &self.chunks[strand.index()];
            // The chunk that begins there or before.
            let start = chunks.partition_point(|chunk| chunk.0 <= from).saturating_sub(1);
            let rest = chunks.get(start..).unwrap_or(&[]).iter();
            found.extend(rest.take_while(|chunk| chunk.0 < to).map(|chunk| chunk.1));
        }
        found
    }

    /// Makes zeros of those of the bytes from `at` on that are zeros in the disk, whatever the file has there.
    pub(super) fn clear_zeros(&self, at: u64, bytes: &mut [u8]) {
        let range = at..at.saturating_add(bytes.len() as u64);
        for Stretch { block, blocks, place } in self.runs(&range) {
            if place.is_some() {
                continue;
            }
            let start = block.saturating_mul(BLOCK as u64).max(range.start);
            let end = block.saturating_add(*blocks).saturating_mul(BLOCK as u64).min(range.end);
            let within = |at: u64| usize::try_from(at - range.start).unwrap_or(usize::MAX);
            if start < end
                && let Some(zeros) = bytes.get_mut(within(start)..within(end))
            {
                zeros.fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunks::Entry;
    use crate::digest::FileDigest;

    /// Structure 0..2, zeros 2..5, contents 5..9, structure 9..10; chunks of two blocks, the two of contents the same.
    fn map() -> (Vec<Item>, Map) {
        let mut weave = Weave::new(10 * BLOCK as u64 - 100);
        for (strand, blocks) in [
            (Some(Strand::Structure), 2),
            (None, 3),
            (Some(Strand::Contents), 4),
            (Some(Strand::Structure), 1),
        ] {
            weave.push(strand, blocks);
        }
        let chunk = |name: &str, strand, block, blocks, pack, at| Numbered {
            entry: Entry { id: FileDigest::of(name.as_bytes()), blocks, packed: 10 },
            strand,
            block,
            pack,
            at,
        };
        let all = [
            chunk("a", Strand::Structure, 0, 3, 0, 0),
            chunk("b", Strand::Contents, 0, 2, 1, 0),
            chunk("b", Strand::Contents, 2, 2, 1, 10),
        ];
        items(&weave, &all)
    }

    #[test]
    fn bytes_are_found_in_their_chunks() {
        let (items, map) = map();
        assert_eq!((items.len(), items[1].also.len()), (2, 1));
        let block = BLOCK as u64;
        let found = |from: u64, to: u64| map.items(&(from..to));
        assert_eq!(found(0, 1), [0]);
        assert_eq!(found(2 * block, 5 * block), [0u32; 0]);
        assert_eq!(found(2 * block - 1, 5 * block + 1), [0, 1]);
        assert_eq!(found(5 * block, 9 * block), [1, 1]);
        assert_eq!(found(9 * block + 1, 9 * block + 2), [0], "its second run");
        assert_eq!(found(0, map.size()), [0, 1, 1, 0]);
    }

    #[test]
    fn zeros_are_zeros_whatever_the_file_has_there() {
        let (_, map) = map();
        let block = BLOCK as u64;
        let mut bytes = vec![1; 5 * BLOCK];
        map.clear_zeros(block + 7, &mut bytes);
        let zeros: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, b)| **b == 0).map(|(n, _)| n).collect();
        assert_eq!((zeros[0], zeros.len()), (BLOCK - 7, 3 * BLOCK));
        assert_eq!(zeros[zeros.len() - 1], 4 * BLOCK - 8);
    }
}
