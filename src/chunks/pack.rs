//! Packs: chunks, each compressed, one behind the other.

use std::cell::RefCell;
use std::path::Path;

use rayon::prelude::*;
use zstd::bulk::Compressor;

use super::index::{Entry, Index, MAX_CHUNK_BLOCKS, PackHead, encode_table};
use super::{BLOCK, Cut, Cutter, RULES, Strand};
use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Result};

/// Measured on a Debian in chunks: level 1 makes a box 2 % larger and takes 11 % less time; level 3, zstd's default, makes it
/// 1 % smaller and takes 27 % more, with which a push is slower than one of the disk as it is.
const LEVEL: i32 = 2;
/// Bytes of the disk that are worked on at a time.
const BATCH: usize = 4 << 20;
/// A pack ends behind one of so many chunks, by their digests: so many a pack on average. Debian's registry works 7 ms on each
/// upload beside what its bytes take; with twice as many packs a push is slower than one of the disk as a single blob.
const ONE_OF: u32 = 64;
/// Fewest chunks of a pack, unless its strand ends.
const LEAST: usize = 16;
/// Blocks of the disk after which a pack ends in any case.
const MOST_BLOCKS: u64 = 2048;

/// A finished pack.
#[derive(Debug)]
pub struct Pack {
    /// What its chunks are from.
    pub strand: Strand,
    /// Its chunks in order.
    pub entries: Vec<Entry>,
    /// Its bytes; none if only the index was asked for.
    pub bytes: Vec<u8>,
}

/// A pack's name and size, in the order of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of its bytes.
    pub digest: FileDigest,
    /// Its size in bytes.
    pub size: u64,
}

/// All that the disk's file came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The index.
    pub index: Index,
    /// The tables of the packs, in the order of the index.
    pub tables: Vec<Vec<Entry>>,
    /// The packs, in the same order; none if only the index was asked for.
    pub packs: Vec<Packed>,
}

/// What to do with the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Compress them into packs.
    Pack,
    /// Only name them.
    Name,
}

/// A pack that was handed over.
type Done = (PackHead, Vec<Entry>, Option<Packed>);

/// Cuts the qcow2 at `path` and hands over each pack when it is whole; `told` hears how many bytes were read.
///
/// # Errors
/// The file cannot be read, or the error of `sink` or of `told`.
pub fn pack(
    path: &Path,
    work: Work,
    told: &mut dyn FnMut(u64) -> Result<()>,
    sink: &mut dyn FnMut(Packed, Vec<u8>) -> Result<()>,
) -> Result<Whole> {
    // On a thread of those that go on: what it frees is of use to them.
    let (cutter, ()) = rayon::join(|| Cutter::open(path, RULES), || ());
    let mut cutter = cutter?;
    let mut whole = Sha256::new();
    let mut open = Strand::ALL.map(Open::new);
    let mut done: [Vec<Done>; 2] = [vec![], vec![]];
    let mut cuts = cutter.some(BATCH, &mut whole)?;
    while !cuts.is_empty() {
        told(cutter.done())?;
        // What comes next is read and hashed meanwhile.
        let name = || cuts.into_par_iter().map(|cut| Chunk::of(&cut, work)).collect::<Result<_>>();
        let (next, chunks) = rayon::join(|| cutter.some(BATCH, &mut whole), name);
        let chunks: Vec<Chunk> = chunks?;
        for chunk in chunks {
            let strand = chunk.strand;
            if let Some(pack) = open[strand.index()].add(chunk) {
                done[strand.index()].push(finished(pack, work, sink)?);
            }
        }
        cuts = next?;
    }
    told(cutter.done())?;
    for (open, done) in open.into_iter().zip(&mut done) {
        if !open.pack.entries.is_empty() {
            done.push(finished(open.pack, work, sink)?);
        }
    }
    let (mut heads, mut tables, mut packs) = (vec![], vec![], vec![]);
    for (head, table, packed) in done.into_iter().flatten() {
        heads.push(head);
        tables.push(table);
        packs.extend(packed);
    }
    let digest = FileDigest::from_bytes(whole.finish());
    Ok(Whole { index: Index { digest, weave: cutter.weave(), packs: heads }, tables, packs })
}

fn finished(
    mut pack: Pack,
    work: Work,
    sink: &mut dyn FnMut(Packed, Vec<u8>) -> Result<()>,
) -> Result<Done> {
    let table = encode_table(&pack.entries);
    let head = PackHead {
        strand: pack.strand,
        chunks: pack.entries.len() as u64,
        table_size: table.len() as u64,
        table: FileDigest::of(&table),
    };
    let packed = match work {
        Work::Name => None,
        Work::Pack => {
            // It waits for the network, and grew by doubling.
            pack.bytes.shrink_to_fit();
            let packed =
                Packed { digest: FileDigest::of(&pack.bytes), size: pack.bytes.len() as u64 };
            sink(packed, pack.bytes)?;
            Some(packed)
        }
    };
    Ok((head, pack.entries, packed))
}

struct Chunk {
    strand: Strand,
    entry: Entry,
    bytes: Vec<u8>,
}

impl Chunk {
    fn of(cut: &Cut, work: Work) -> Result<Self> {
        let blocks = (cut.bytes.len() / BLOCK) as u64;
        let id = FileDigest::of(&cut.bytes);
        let bytes = match work {
            Work::Name => vec![],
            Work::Pack => compress(&cut.bytes)?,
        };
        // One that is only named says that it would stand there as it is.
        let packed = if work == Work::Pack { bytes.len() } else { cut.bytes.len() };
        let entry = Entry { id, blocks, packed: packed as u64 };
        Ok(Chunk { strand: cut.strand, entry, bytes })
    }
}

thread_local! {
    /// What zstd works with takes as long to make as a small chunk to compress.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let packed = COMPRESSOR
        .with_borrow_mut(|compressor| match compressor {
            Some(compressor) => compressor.compress(bytes),
            None => compressor.insert(Compressor::new(LEVEL)?).compress(bytes),
        })
        .map_err(|e| Error::failed("cannot compress a part of the disk").cause(e))?;
    Ok(if packed.len() < bytes.len() { packed } else { bytes.to_vec() })
}

/// The bytes of a chunk from its bytes in a pack, which are from outside.
///
/// # Errors
/// They are not those of the chunk; kind `Undetermined`.
pub fn unpack(entry: &Entry, packed: &[u8]) -> Result<Vec<u8>> {
    let wrong = || Error::undetermined(format!("the chunk `{}` arrived damaged", entry.id));
    let size = usize::try_from(entry.blocks.min(MAX_CHUNK_BLOCKS)).map_err(|_| wrong())? * BLOCK;
    let bytes = match packed.len() == size {
        true => packed.to_vec(),
        false => zstd::bulk::decompress(packed, size).map_err(|e| wrong().cause(e))?,
    };
    if bytes.len() != size || FileDigest::of(&bytes) != entry.id {
        return Err(wrong());
    }
    Ok(bytes)
}

/// A pack that grows.
struct Open {
    pack: Pack,
    blocks: u64,
}

impl Open {
    fn new(strand: Strand) -> Self {
        Open { pack: Pack { strand, entries: vec![], bytes: vec![] }, blocks: 0 }
    }

    /// Adds a chunk; the pack, if it ends behind it.
    fn add(&mut self, chunk: Chunk) -> Option<Pack> {
        let [a, b, c, d, ..] = *chunk.entry.id.as_bytes();
        let ends = u32::from_le_bytes([a, b, c, d]).is_multiple_of(ONE_OF);
        self.blocks += chunk.entry.blocks;
        self.pack.entries.push(chunk.entry);
        self.pack.bytes.extend_from_slice(&chunk.bytes);
        let whole = ends && self.pack.entries.len() >= LEAST || self.blocks >= MOST_BLOCKS;
        whole.then(|| std::mem::replace(self, Open::new(self.pack.strand)).pack)
    }
}
