//! What has to be fetched of which pack, in few requests.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Strand;
use super::index::{Entry, Index};
use crate::digest::FileDigest;

/// Bytes between two chunks that are fetched along, since a request of their own costs more.
const GAP: u64 = 8 << 10;
/// Bytes after which a request ends: several are under way at once, and each is held in memory.
const MOST: u64 = 4 << 20;

/// A chunk and its place on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// What the table says of it.
    pub entry: Entry,
    /// The strand that it is from.
    pub strand: Strand,
    /// Its first block in the strand.
    pub block: u64,
    /// Number of its pack.
    pub pack: usize,
    /// Its first byte in the pack.
    pub at: u64,
}

impl Numbered {
    /// Its blocks in the strand.
    #[must_use]
    pub fn blocks(&self) -> Range<u64> {
        self.block..self.block.saturating_add(self.entry.blocks)
    }
}

/// All chunks of a disk, in the order of the packs. The tables fit the index: [`Index::check`].
#[must_use]
pub fn numbered(index: &Index, tables: &[Vec<Entry>]) -> Vec<Numbered> {
    let (mut all, mut blocks) = (vec![], [0u64; 2]);
    for (pack, (head, table)) in index.packs.iter().zip(tables).enumerate() {
        let mut at = 0;
        for entry in table {
            let block = &mut blocks[head.strand.index()];
            all.push(Numbered { entry: *entry, strand: head.strand, block: *block, pack, at });
            *block = block.saturating_add(entry.blocks);
            at += entry.packed;
        }
    }
    all
}

/// One range of one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the pack.
    pub pack: usize,
    /// The bytes of it.
    pub range: Range<u64>,
    /// The chunks of it that are wanted, in order.
    pub chunks: Vec<Wanted>,
}

/// A chunk that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The chunk where it is fetched from.
    pub chunk: Numbered,
    /// Other places of the file with the same bytes.
    pub also: Vec<Numbered>,
}

/// The requests for `missing`, which are in the order of the packs; each chunk once, however often it stands in the file.
#[must_use]
pub fn requests(missing: &[Numbered]) -> Vec<Request> {
    let mut first: BTreeMap<FileDigest, usize> = BTreeMap::new();
    let mut wanted: Vec<Wanted> = vec![];
    for chunk in missing {
        match first.get(&chunk.entry.id) {
            Some(at) => wanted[*at].also.push(*chunk),
            None => {
                first.insert(chunk.entry.id, wanted.len());
                wanted.push(Wanted { chunk: *chunk, also: vec![] });
            }
        }
    }
    let mut requests: Vec<Request> = vec![];
    for wanted in wanted {
        let (pack, start) = (wanted.chunk.pack, wanted.chunk.at);
        let end = start + wanted.chunk.entry.packed;
        match requests.last_mut() {
            Some(last)
                if last.pack == pack
                    && start - last.range.end <= GAP
                    && end - last.range.start <= MOST =>
            {
                last.range.end = end;
                last.chunks.push(wanted);
            }
            _ => requests.push(Request { pack, range: start..end, chunks: vec![wanted] }),
        }
    }
    requests
}

/// The same for parts of one blob that have no gaps worth keeping apart: ranges in order, each with the numbers of its parts.
#[must_use]
pub fn joined(parts: &[(usize, Range<u64>)]) -> Vec<(Range<u64>, Vec<usize>)> {
    let mut all: Vec<(Range<u64>, Vec<usize>)> = vec![];
    for (number, part) in parts {
        match all.last_mut() {
            Some((range, numbers))
                if part.start - range.end <= GAP && part.end - range.start <= MOST =>
            {
                range.end = part.end;
                numbers.push(*number);
            }
            _ => all.push((part.clone(), vec![*number])),
        }
    }
    all
}
