//! What says which chunks a disk's file is made of: a small index, and a table for each pack.
//!
//! The index is one blob, compressed by zstd:
//!
//! ```text
//! "devbox/chunks/1\n"
//! size of the file      number
//! SHA-256 of the file   32 bytes
//! runs                  how many; each: 3 * blocks + (0 zeros, 1 structure, 2 contents)
//! packs                 how many; each: 2 * chunks + (0 structure, 1 contents), length of its table, SHA-256 of its table
//! ```
//!
//! Packs of structure come first. The tables are another blob, one behind the other, each with its own digest in the index, so that a client
//! asks for those of packs that it does not know: for each chunk the SHA-256 of its bytes, how many blocks it has, and
//! how many bytes of the pack. As many bytes as its blocks have: they stand there as they are; fewer: compressed by zstd.
//!
//! Numbers are LEB128 in their shortest form.

use std::io::Read as _;
use std::ops::Range;

use super::varint::{Bytes, put};
use super::{BLOCK, Strand, Weave};
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};

const TAG: &[u8] = b"devbox/chunks/1\n";
/// Largest index in bytes, compressed or not; that of a full disk of 1 TiB takes about 20 MB.
pub const MAX_INDEX: u64 = 64 << 20;
/// Most runs: of a byte each in the index, and of 40 in memory.
pub(super) const MAX_RUNS: u64 = 4 << 20;
/// Most blocks of a chunk from outside: what is unpacked at a time stays small.
pub const MAX_CHUNK_BLOCKS: u64 = 1024;
/// Most bytes of a pack's table; devbox's own have at most 40,000.
const MAX_TABLE: u64 = 128 << 10;
/// Fewest bytes of a chunk in a table: its digest and two numbers.
const LEAST_ENTRY: u64 = 34;
/// Level of compression of the index: it is small, and moved whole.
const LEVEL: i32 = 19;
/// Most memory for unpacking it, as a power of two; that level takes 8 MiB.
const WINDOW_LOG: u32 = 23;

/// How a disk's file is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// SHA-256 of the file.
    pub digest: FileDigest,
    /// How the strands and zeros make it up.
    pub weave: Weave,
    /// The packs in order: those of structure, then those of contents, each strand from its start to its end.
    pub packs: Vec<PackHead>,
}

/// What the index says of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHead {
    /// The strand that its chunks are from.
    pub strand: Strand,
    /// How many chunks it has.
    pub chunks: u64,
    /// Bytes of its table.
    pub table_size: u64,
    /// SHA-256 of its table.
    pub table: FileDigest,
}

/// A chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of its bytes, which are whole blocks.
    pub id: FileDigest,
    /// How many blocks it has.
    pub blocks: u64,
    /// How many bytes of the pack it takes.
    pub packed: u64,
}

impl Index {
    /// The blob.
    ///
    /// # Errors
    /// It has too many runs, or zstd has no memory.
    pub fn encode(&self) -> Result<Vec<u8>> {
        if self.weave.runs.len() as u64 > MAX_RUNS {
            return Err(Error::failed(format!(
                "the disk's files lie in {} pieces; the limit is {MAX_RUNS}",
                self.weave.runs.len()
            ))
            .hint("Build the box anew, so that its files lie closer together."));
        }
        let mut out = TAG.to_vec();
        put(&mut out, self.weave.size);
        out.extend_from_slice(self.digest.as_bytes());
        put(&mut out, self.weave.runs.len() as u64);
        for run in &self.weave.runs {
            let kind = run.strand.map_or(0, |strand| strand.index() as u64 + 1);
            put(&mut out, run.blocks * 3 + kind);
        }
        put(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            put(&mut out, pack.chunks * 2 + pack.strand.index() as u64);
            put(&mut out, pack.table_size);
            out.extend_from_slice(pack.table.as_bytes());
        }
        zstd::bulk::compress(&out, LEVEL)
            .map_err(|e| Error::failed("cannot compress an index").cause(e))
    }

    /// Reads a blob from outside.
    ///
    /// # Errors
    /// It is not one, contradicts itself, or is beyond a limit; kind `Undetermined`.
    pub fn parse(blob: &[u8]) -> Result<Self> {
        Self::read(&unpacked(blob)?).context(|| "the index of the disk cannot be read".to_owned())
    }

    /// As [`Index::parse`], once it is unpacked.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let mut bytes = Bytes(bytes);
        if bytes.take(TAG.len())? != TAG {
            return Err(
                Error::undetermined("it is of another kind or version").hint("Use a newer devbox.")
            );
        }
        let size = bytes.at_most(i64::MAX as u64, "its size")?;
        let digest = bytes.digest()?;
        let mut weave = Weave::new(size);
        let mut blocks = 0u64;
        let count = bytes.at_most(MAX_RUNS, "the number of its runs")?;
        let mut before = None;
        for _ in 0..count {
            let number = bytes.number()?;
            let strand = match number % 3 {
                0 => None,
                1 => Some(Strand::Structure),
                _ => Some(Strand::Contents),
            };
            if number < 3 || before == Some(strand) {
                return Err(Error::undetermined("a run of blocks is empty or goes on with itself"));
            }
            before = Some(strand);
            weave.push(strand, number / 3);
            blocks = blocks.saturating_add(number / 3);
        }
        if blocks != size.div_ceil(BLOCK as u64) {
            return Err(Error::undetermined(format!(
                "its runs have {blocks} blocks for {size} bytes"
            )));
        }
        let count = bytes.number()?;
        let mut packs: Vec<PackHead> = vec![];
        for _ in 0..count {
            let number = bytes.number()?;
            let strand = Strand::ALL[usize::from(number % 2 == 1)];
            let chunks = number / 2;
            let table_size = bytes.at_most(MAX_TABLE, "the size of a table")?;
            let table = bytes.digest()?;
            if chunks == 0 || chunks.saturating_mul(LEAST_ENTRY) > table_size {
                return Err(Error::undetermined(format!(
                    "a table of {table_size} bytes cannot hold {chunks} chunks"
                )));
            }
            if packs.last().is_some_and(|last| last.strand > strand) {
                return Err(Error::undetermined("its packs are not in order"));
            }
            packs.push(PackHead { strand, chunks, table_size, table });
        }
        bytes.end()?;
        Ok(Index { digest, weave, packs })
    }

    /// Where the tables of the packs stand in the blob of tables.
    #[must_use]
    pub fn tables(&self) -> Vec<Range<u64>> {
        let mut at = 0u64;
        let place = |pack: &PackHead| {
            let start = at;
            at = at.saturating_add(pack.table_size);
            start..at
        };
        self.packs.iter().map(place).collect()
    }

    /// Refuses tables whose chunks are not as many blocks as the file has of each strand.
    ///
    /// # Errors
    /// So it is; kind `Undetermined`.
    pub fn check(&self, tables: &[Vec<Entry>]) -> Result<()> {
        for strand in Strand::ALL {
            let of = self.packs.iter().zip(tables).filter(|(pack, _)| pack.strand == strand);
            let blocks =
                of.flat_map(|(_, table)| table).fold(0u64, |sum, e| sum.saturating_add(e.blocks));
            let expected = self.weave.length(strand);
            if blocks != expected {
                return Err(Error::undetermined("the index of the disk contradicts its tables")
                    .detail(format!("{blocks} blocks instead of {expected}")));
            }
        }
        Ok(())
    }
}

impl PackHead {
    /// Reads the pack's table, whose bytes are from outside; the pack has `size` bytes.
    ///
    /// # Errors
    /// It is another one than the index names, or it contradicts itself; kind `Undetermined`.
    pub fn read_table(&self, bytes: &[u8], size: u64) -> Result<Vec<Entry>> {
        let wrong = || "a table of the disk's index cannot be read".to_owned();
        if FileDigest::of(bytes) != self.table {
            return Err(
                Error::undetermined(wrong()).cause("its bytes are not those that the index names")
            );
        }
        parse_table(bytes, self.chunks, Some(size)).context(wrong)
    }
}

/// The bytes of a pack's table.
#[must_use]
pub fn encode_table(entries: &[Entry]) -> Vec<u8> {
    let mut out = vec![];
    for entry in entries {
        out.extend_from_slice(entry.id.as_bytes());
        put(&mut out, entry.blocks);
        put(&mut out, entry.packed);
    }
    out
}

/// Reads a table; `size` is that of its pack, where it is known.
pub(crate) fn parse_table(bytes: &[u8], chunks: u64, size: Option<u64>) -> Result<Vec<Entry>> {
    let mut bytes = Bytes(bytes);
    let (mut entries, mut sum) = (vec![], 0u64);
    for _ in 0..chunks {
        let id = bytes.digest()?;
        let blocks = bytes.at_most(MAX_CHUNK_BLOCKS, "the number of blocks")?;
        let packed = bytes.at_most(blocks * BLOCK as u64, "the size of a chunk")?;
        if packed == 0 {
            return Err(Error::undetermined("a chunk is empty"));
        }
        sum += packed;
        entries.push(Entry { id, blocks, packed });
    }
    bytes.end()?;
    if let Some(size) = size.filter(|size| *size != sum) {
        return Err(Error::undetermined(format!(
            "its chunks have {sum} bytes and its pack {size}"
        )));
    }
    Ok(entries)
}

fn unpacked(blob: &[u8]) -> Result<Vec<u8>> {
    let bad = |e| Error::undetermined("the index of the disk cannot be unpacked").cause(e);
    let mut out = vec![];
    let mut decoder = zstd::stream::read::Decoder::new(blob).map_err(bad)?;
    // Else a few bytes could ask for 128 MiB.
    decoder.window_log_max(WINDOW_LOG).map_err(bad)?;
    decoder.take(MAX_INDEX + 1).read_to_end(&mut out).map_err(bad)?;
    if out.len() as u64 > MAX_INDEX {
        return Err(Error::undetermined(format!(
            "the index of the disk has more than {MAX_INDEX} bytes"
        )));
    }
    Ok(out)
}
