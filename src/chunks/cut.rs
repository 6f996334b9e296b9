//! Cuts a disk's file into chunks: the same bytes give the same cuts wherever they stand.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use twox_hash::XxHash64;

use super::{BLOCK, Strand, Weave, contents};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Where a strand is cut: behind a block whose hash says so. What stands before and behind it does not matter, so a block
/// that moved is cut as it was before.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Fewest blocks of a chunk, unless the strand ends.
    pub least: usize,
    /// Most blocks of a chunk.
    pub most: usize,
    /// One of so many blocks ends a chunk.
    pub one_of: u64,
}

/// A piece of one strand.
#[derive(Debug)]
pub struct Cut {
    /// Where it is from.
    pub strand: Strand,
    /// Whole blocks.
    pub bytes: Vec<u8>,
}

/// Reads a file and cuts it.
#[derive(Debug)]
pub struct Cutter {
    file: File,
    size: u64,
    at: u64,
    contents: Vec<Range<u64>>,
    /// Of `contents`, the first that does not end before `at`.
    next: usize,
    rules: [Rule; 2],
    open: [Vec<u8>; 2],
    weave: Weave,
}

impl Cutter {
    /// Begins with the qcow2 at `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path, rules: [Rule; 2]) -> Result<Self> {
        let file = fs_err::File::open(path)?.into_parts().0;
        let size = file.metadata()?.len();
        let contents = contents::find(path)?;
        Ok(Self::of(file, size, contents, rules))
    }

    fn of(file: File, size: u64, contents: Vec<Range<u64>>, rules: [Rule; 2]) -> Self {
        let weave = Weave::new(size);
        Cutter { file, size, at: 0, contents, next: 0, rules, open: [vec![], vec![]], weave }
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes of the file were read.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.at
    }

    /// How the file is woven, once [`Cutter::some`] gave nothing any more.
    #[must_use]
    pub fn weave(self) -> Weave {
        self.weave
    }

    /// The next chunks, `bytes` or a little more in all; none at the end. `hash` is given all bytes of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn some(&mut self, bytes: usize, hash: &mut Sha256) -> Result<Vec<Cut>> {
        let (mut cuts, mut sum) = (vec![], 0);
        let mut buf = vec![0; PIECE];
        while sum < bytes {
            if self.at >= self.size {
                for strand in Strand::ALL {
                    let bytes = std::mem::take(&mut self.open[strand.index()]);
                    if !bytes.is_empty() {
                        cuts.push(Cut { strand, bytes });
                    }
                }
                break;
            }
            let left = self.size - self.at;
            let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            // A short last block is filled up with zeros.
            let whole = length.div_ceil(BLOCK) * BLOCK;
            buf[..whole].fill(0);
            self.file
                .read_exact_at(&mut buf[..length], self.at)
                .map_err(|e| Error::failed("cannot read the disk that is being cut").cause(e))?;
            hash.update(&buf[..length]);
            for block in buf[..whole].chunks_exact(BLOCK) {
                let strand = self.strand(block);
                self.weave.push(strand, 1);
                self.at = (self.at + BLOCK as u64).min(self.size);
                let Some(strand) = strand else { continue };
                let open = &mut self.open[strand.index()];
                open.extend_from_slice(block);
                if self.rules[strand.index()].ends(open.len() / BLOCK, block) {
                    let bytes = std::mem::take(open);
                    sum += bytes.len();
                    cuts.push(Cut { strand, bytes });
                }
            }
        }
        Ok(cuts)
    }

    /// The strand of the block at `at`; none if it holds zeros alone.
    fn strand(&mut self, block: &[u8]) -> Option<Strand> {
        if is_zero(block) {
            return None;
        }
        while self.contents.get(self.next).is_some_and(|range| range.end <= self.at) {
            self.next += 1;
        }
        let inside = self.contents.get(self.next).is_some_and(|range| range.start <= self.at);
        Some(if inside { Strand::Contents } else { Strand::Structure })
    }
}

impl Rule {
    /// Whether a chunk of `blocks` blocks ends with `last`.
    fn ends(&self, blocks: usize, last: &[u8]) -> bool {
        blocks >= self.most
            || blocks >= self.least && XxHash64::oneshot(0, last).is_multiple_of(self.one_of)
    }
}

/// Whether a block holds zeros alone.
pub(crate) fn is_zero(block: &[u8]) -> bool {
    block.chunks_exact(64).all(|line| line.iter().fold(0, |or, byte| or | byte) == 0)
}
