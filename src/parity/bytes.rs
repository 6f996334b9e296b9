//! Level `disk`: the guest-visible bytes of a disk or a partition, in chunks.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::LazyLock;

use rayon::prelude::*;

use crate::digest::{BytesDigest, FileDigest, Sha256, hex};
use crate::error::{Error, Result};
use crate::image::ReadAt;

/// Bytes in a chunk; part of the preimage.
pub const CHUNK: u64 = 4 << 20;

/// Bytes read at a time: fits a second-level cache, and one read a piece costs next to nothing.
const PIECE: usize = 1 << 20;

/// Chunks that are hashed before their digests are put in order: 64 GiB of data.
const BATCH: usize = 16 << 10;

/// Lines of the preimage that are written at a time where there are only zeros.
const ZERO_LINES: usize = 1 << 10;

/// Zeros to hash in place of a hole.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// The digest of a full chunk of zeros, which is most of most disks.
static ZERO_CHUNK: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for _ in 0..CHUNK / PIECE as u64 {
        hash.update(&ZEROS);
    }
    hash.finish()
});

/// The digests of a disk's chunks in order. Zeros take no memory: a few kilobytes can claim a disk of
/// 64 TiB, whose 16 million digests would be half a gigabyte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    len: usize,
    /// Number and digest of those that are not [`ZERO_CHUNK`], in order.
    others: Vec<(usize, [u8; 32])>,
}

impl Sums {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one behind the last.
    pub fn push(&mut self, sum: [u8; 32]) {
        if sum != *ZERO_CHUNK {
            self.others.push((self.len, sum));
        }
        self.len += 1;
    }

    /// The one with this number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&[u8; 32]> {
        if number >= self.len {
            return None;
        }
        let found = self.others.binary_search_by_key(&number, |other| other.0);
        Some(found.map_or(&*ZERO_CHUNK, |at| &self.others[at].1))
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&[u8; 32]> {
        self.get(self.len.checked_sub(1)?)
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8; 32]> {
        let mut others = self.others.iter().peekable();
        (0..self.len).map(move |number| match others.next_if(|other| other.0 == number) {
            Some(other) => &other.1,
            None => &*ZERO_CHUNK,
        })
    }

    /// Goes on with chunks of zeros until there are `len`.
    fn fill(&mut self, len: usize) {
        self.len = self.len.max(len);
    }
}

impl FromIterator<[u8; 32]> for Sums {
    fn from_iter<T: IntoIterator<Item = [u8; 32]>>(sums: T) -> Self {
        let mut all = Sums::default();
        sums.into_iter().for_each(|sum| all.push(sum));
        all
    }
}

impl From<Vec<[u8; 32]>> for Sums {
    fn from(sums: Vec<[u8; 32]>) -> Self {
        sums.into_iter().collect()
    }
}

/// The chunk digests of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    /// Size of the disk in bytes.
    pub size: u64,
    /// SHA-256 of each chunk, in order; the last chunk may be short.
    pub chunks: Sums,
    /// SHA-256 of the last chunk if zeros made it a whole one; none if it is one.
    pub padded: Option<[u8; 32]>,
}

impl Chunks {
    /// Hashes all of `reader`, a thread a core. Holes cost nothing.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(reader: &dyn ReadAt) -> Result<Self> {
        let size = reader.size();
        let count = usize::try_from(size.div_ceil(CHUNK))
            .map_err(|_| Error::undetermined(format!("a disk of {size} bytes is too large")))?;
        let mut chunks = Sums::default();
        let mut next = 0;
        loop {
            let batch = chunks_with_data(reader, next)?;
            let Some(last) = batch.last() else { break };
            next = last + 1;
            let sums = batch
                .par_iter()
                .with_max_len(1)
                .map_init(Vec::new, |buf, number| {
                    let start = number * CHUNK;
                    Ok(hash(reader, start, CHUNK.min(size - start), buf)?.finish())
                })
                .collect::<Result<Vec<_>>>()?;
            for (number, sum) in batch.iter().zip(sums) {
                // Below `count`, which fits.
                chunks.fill(*number as usize);
                chunks.push(sum);
            }
        }
        let mut padded = None;
        let short = size % CHUNK;
        if short > 0 {
            let mut buf = vec![];
            let mut hash = hash(reader, size - short, short, &mut buf)?;
            if chunks.len() < count {
                chunks.fill(count - 1);
                chunks.push(hash.clone().finish());
            }
            zeros(&mut hash, CHUNK - short)?;
            padded = Some(hash.finish());
        }
        chunks.fill(count);
        Ok(Chunks { size, chunks, padded })
    }

    /// The same of `reader`, which has other bytes than what was read here in the ranges `changed` alone.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read_again(&self, reader: &dyn ReadAt, changed: &[Range<u64>]) -> Result<Self> {
        // What is behind the end counts in the last chunk.
        if reader.size() != self.size || !self.size.is_multiple_of(CHUNK) {
            return Chunks::read(reader);
        }
        let mut numbers: Vec<u64> = changed
            .iter()
            .flat_map(|range| range.start / CHUNK..range.end.min(self.size).div_ceil(CHUNK))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let sums = numbers
            .par_iter()
            .with_max_len(1)
            .map_init(Vec::new, |buf, number| {
                let start = number * CHUNK;
                // What was trimmed changed, too, and is most of a disk.
                if data_at(reader, start)?.start >= start + CHUNK {
                    return Ok(*ZERO_CHUNK);
                }
                Ok(hash(reader, start, CHUNK, buf)?.finish())
            })
            .collect::<Result<Vec<_>>>()?;
        let mut again = numbers.into_iter().zip(sums).peekable();
        let chunks = (0u64..).zip(self.chunks.iter()).map(|(number, sum)| {
            again.next_if(|(changed, _)| *changed == number).map_or(*sum, |(_, sum)| sum)
        });
        Ok(Chunks { size: self.size, chunks: chunks.collect(), padded: None })
    }

    /// The digest of the chunk with this number on an endless disk that goes on with zeros.
    #[must_use]
    pub fn followed_by_zeros(&self, number: usize) -> [u8; 32] {
        match (self.chunks.get(number), self.padded) {
            (Some(_), Some(padded)) if number + 1 == self.chunks.len() => padded,
            (Some(chunk), _) => *chunk,
            (None, _) => *ZERO_CHUNK,
        }
    }

    /// Whether the short last chunk and [`Chunks::padded`] are both zeros or both not.
    #[must_use]
    pub fn padding_is_possible(&self) -> bool {
        let (Some(padded), Some(last)) = (&self.padded, self.chunks.last()) else { return true };
        let short = usize::try_from(self.size % CHUNK).unwrap_or(0);
        (*last == crate::digest::sha256(&vec![0; short])) == (*padded == *ZERO_CHUNK)
    }

    /// The text that `bytes1` hashes.
    #[must_use]
    pub fn preimage(&self) -> Vec<u8> {
        let mut out = vec![];
        let Ok(()) = self.write::<Infallible>(&mut |lines| {
            out.extend_from_slice(lines);
            Ok(())
        });
        out
    }

    /// `bytes1`.
    #[must_use]
    pub fn digest(&self) -> BytesDigest {
        let mut hash = Sha256::new();
        let Ok(()) = self.write::<Infallible>(&mut |lines| {
            hash.update(lines);
            Ok(())
        });
        BytesDigest::from_bytes(hash.finish())
    }

    /// Passes [`Chunks::preimage`] on in pieces of whole lines, the first of which is the tag alone.
    ///
    /// # Errors
    /// The sink's.
    pub fn write<E>(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        sink(b"devbox/bytes/1\n")?;
        sink(format!("size {}\nchunk {CHUNK}\n", self.size).as_bytes())?;
        let line = |sum: &[u8; 32]| format!("{}\n", hex(sum)).into_bytes();
        let many = line(&ZERO_CHUNK).repeat(ZERO_LINES);
        let one = many.len() / ZERO_LINES;
        let holes = |count: usize, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>| {
            (0..count / ZERO_LINES).try_for_each(|_| sink(&many))?;
            sink(&many[..count % ZERO_LINES * one])
        };
        let mut at = 0;
        for (number, sum) in &self.chunks.others {
            holes(number - at, sink)?;
            sink(&line(sum))?;
            at = number + 1;
        }
        holes(self.chunks.len - at, sink)
    }
}

/// The numbers of the next chunks from `first` on that may hold something else than zeros; at most
/// [`BATCH`], none if there are none.
fn chunks_with_data(reader: &dyn ReadAt, first: u64) -> Result<Vec<u64>> {
    let mut batch = vec![];
    let mut next = first;
    while batch.len() < BATCH {
        let Some(data) = reader.next_data(next.saturating_mul(CHUNK))? else { break };
        let from = (data.start / CHUNK).max(next);
        let to = data.end.div_ceil(CHUNK).min(from + (BATCH - batch.len()) as u64);
        batch.extend(from..to);
        next = to;
    }
    Ok(batch)
}

/// Where data begins at or after `offset`; `u64::MAX` if there is none.
fn data_at(reader: &dyn ReadAt, offset: u64) -> Result<std::ops::Range<u64>> {
    Ok(reader.next_data(offset)?.unwrap_or(u64::MAX..u64::MAX))
}

/// A hash that has taken the `len` bytes at `start`; `buf` is used again by the next.
fn hash(reader: &dyn ReadAt, start: u64, len: u64, buf: &mut Vec<u8>) -> Result<Sha256> {
    let end = start + len;
    let mut data = data_at(reader, start)?;
    let mut hash = Sha256::new();
    let mut at = start;
    while at < end {
        let piece = (end - at).min(PIECE as u64);
        if data.end <= at {
            data = data_at(reader, at)?;
        }
        let len = usize::try_from(piece).unwrap_or(PIECE);
        if data.start >= at + piece {
            hash.update(&ZEROS[..len]);
        } else {
            buf.resize(PIECE, 0);
            reader.read_at(&mut buf[..len], at)?;
            hash.update(&buf[..len]);
        }
        at += piece;
    }
    Ok(hash)
}

/// Longest run of zeros inside a boot gap that is hashed; a gap is a MiB or so, and a hostile table
/// could make it as large as the disk.
const GAP_ZEROS: u64 = 1 << 30;

/// The digest of ranges, one behind the other, with the trailing zeros cut.
///
/// # Errors
/// What cannot be read, or more than [`GAP_ZEROS`] between data.
pub fn trimmed_digest(reader: &dyn ReadAt, ranges: &[std::ops::Range<u64>]) -> Result<FileDigest> {
    let mut hash = Sha256::new();
    // Zeros that count only if something follows them.
    let mut pending = 0;
    let mut buf = vec![];
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let data = data_at(reader, at)?;
            let (start, end) = (data.start.min(range.end), data.end.min(range.end));
            pending += start - at;
            at = start;
            while at < end {
                let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                buf.resize(PIECE, 0);
                reader.read_at(&mut buf[..len], at)?;
                match buf[..len].iter().rposition(|b| *b != 0) {
                    Some(last) => {
                        zeros(&mut hash, pending)?;
                        hash.update(&buf[..=last]);
                        pending = (len - last - 1) as u64;
                    }
                    None => pending += len as u64,
                }
                at += len as u64;
            }
        }
    }
    Ok(FileDigest::from_bytes(hash.finish()))
}

fn zeros(hash: &mut Sha256, mut count: u64) -> Result<()> {
    if count > GAP_ZEROS {
        return Err(Error::undetermined(format!(
            "the bytes before the first partition have a hole of {count} bytes; the limit is {GAP_ZEROS} bytes"
        )));
    }
    while count > 0 {
        let len = count.min(PIECE as u64);
        hash.update(&ZEROS[..usize::try_from(len).unwrap_or(PIECE)]);
        count -= len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::hashed::tests::vector;

    /// A disk in memory that knows its holes.
    struct Memory {
        data: Vec<u8>,
        known: Vec<Range<u64>>,
    }

    impl ReadAt for Memory {
        fn size(&self) -> u64 {
            self.data.len() as u64
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let at = offset as usize;
            buf.copy_from_slice(&self.data[at..at + buf.len()]);
            Ok(())
        }
        fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
            let next = self.known.iter().find(|range| range.end > offset);
            Ok(next.map(|range| range.start.max(offset)..range.end))
        }
    }

    /// The disk of the vector `bytes1/sparse`, with `tail` more zeros.
    fn sparse(tail: usize, holes: bool) -> Memory {
        let mut data = vec![0; 9_437_185 + tail];
        data[4_194_816..4_195_328].fill(0xa5);
        data[9_437_184] = b'!';
        let whole = 0..data.len() as u64;
        let ranges = vec![4_194_816..4_195_328, 9_437_184..9_437_185];
        Memory { data, known: if holes { ranges } else { vec![whole] } }
    }

    #[test]
    fn the_vectors_hold_whether_holes_are_known_or_not() {
        let plain = |data: Vec<u8>| {
            let known = std::iter::once(0..data.len() as u64).collect();
            Memory { data, known }
        };
        let disks = [
            ("empty", Memory { data: vec![], known: vec![] }),
            ("small", plain(b"hi\n".to_vec())),
            ("zeros", Memory { data: vec![0; 8 << 20], known: vec![] }),
            ("zeros", plain(vec![0; 8 << 20])),
            ("sparse", sparse(0, true)),
            ("sparse", sparse(0, false)),
            ("padded", sparse(1_048_575, true)),
            ("padded", sparse(1_048_575, false)),
        ];
        for (name, disk) in disks {
            let (preimage, digest) = vector(&format!("bytes1/{name}"));
            let chunks = Chunks::read(&disk).expect("read");
            assert_eq!(chunks.preimage(), preimage, "{name}");
            assert_eq!(chunks.chunks.iter().copied().collect::<Sums>(), chunks.chunks, "{name}");
            assert_eq!(chunks.digest().to_string(), digest, "{name}");
        }
    }

    #[test]
    fn a_short_last_chunk_is_known_with_zeros_behind_it() {
        let short = Chunks::read(&sparse(0, true)).expect("read");
        let long = Chunks::read(&sparse(1_048_575, false)).expect("read");
        let whole = Chunks::read(&sparse(3_145_727, true)).expect("read");
        assert_eq!((short.padded, whole.padded), (whole.chunks.last().copied(), None));
        assert_eq!(short.padded, long.padded);
        assert_ne!(short.chunks.last(), long.chunks.last());
        assert_eq!(
            FileDigest::from_bytes(short.followed_by_zeros(3)),
            FileDigest::of(&[0; 4 << 20])
        );
    }

    #[test]
    fn what_changed_is_read_again_and_nothing_else() {
        for size in [5 * CHUNK, 5 * CHUNK + 512] {
            let memory = |data: &[u8]| {
                let known = vec![0..2 * CHUNK + 9, 3 * CHUNK..data.len() as u64];
                Memory { data: data.to_vec(), known }
            };
            let mut data = vec![3; usize::try_from(size).expect("small")];
            data[2 * CHUNK as usize + 9..3 * CHUNK as usize].fill(0);
            let before = Chunks::read(&memory(&data)).expect("read");
            // Over a seam, up to the end, and one that was written with what was there.
            let changed = [
                CHUNK - 4096..CHUNK + 4096,
                2 * CHUNK..3 * CHUNK,
                3 * CHUNK..3 * CHUNK + 1,
                5 * CHUNK - 1..size,
            ];
            for range in [&changed[0], &changed[1], &changed[3]] {
                data[range.start as usize..range.end as usize].fill(0);
            }
            let mut now = memory(&data);
            // The third chunk was trimmed.
            now.known = vec![0..2 * CHUNK, 3 * CHUNK..size];
            let again = before.read_again(&now, &changed).expect("read");
            assert_eq!(again, Chunks::read(&now).expect("read"));
            assert_ne!(again, before);
        }
    }

    #[test]
    fn a_claim_of_terabytes_takes_no_memory() {
        struct Claim;
        impl ReadAt for Claim {
            fn size(&self) -> u64 {
                (64 << 40) - 1
            }
            fn read_at(&self, buf: &mut [u8], _: u64) -> Result<()> {
                buf.fill(1);
                Ok(())
            }
            fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
                let data = 9 * CHUNK..9 * CHUNK + 1;
                Ok((offset < data.end).then_some(data))
            }
        }
        let chunks = Chunks::read(&Claim).expect("read");
        assert_eq!(chunks.chunks.len(), 16 << 20);
        assert_eq!(chunks.chunks.others.len(), 2, "the one with data, and the short one");
        assert_eq!(chunks.chunks.iter().filter(|sum| **sum != *ZERO_CHUNK).count(), 2);
        assert_ne!(chunks.chunks.get(9), chunks.chunks.get(8));
        assert_eq!(chunks.padded, Some(*ZERO_CHUNK));
    }

    #[test]
    fn trailing_zeros_of_a_gap_do_not_count_and_inner_ones_do() {
        for holes in [true, false] {
            let disk = sparse(0, holes);
            let one = |range| trimmed_digest(&disk, std::slice::from_ref(&range)).expect("read");
            let whole = one(4_194_304..5_000_000);
            assert_eq!(whole, FileDigest::of(&disk.data[4_194_304..4_195_328]));
            let none = one(512..4_194_816);
            assert_eq!(none, FileDigest::of(b""));
            let both = one(4_195_000..9_437_185);
            assert_eq!(both, FileDigest::of(&disk.data[4_195_000..]));
            let ranges = [512..1024, 4_194_304..4_194_600, 4_195_000..9_437_185];
            let parts = ranges.iter().map(|r| &disk.data[r.start as usize..r.end as usize]);
            let parts = parts.collect::<Vec<_>>().concat();
            let several = trimmed_digest(&disk, &ranges).expect("read");
            assert_eq!(several, FileDigest::of(&parts));
        }
    }
}
