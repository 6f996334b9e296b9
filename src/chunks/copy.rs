//! Disk files as strands: blocks are read and written where they stand.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rayon::prelude::*;

use super::plan::Numbered;
use super::{BLOCK, Places, Strand, Weave};
use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// A disk's file whose weave is known.
#[derive(Debug)]
pub struct Woven {
    file: File,
    places: [Places; 2],
}

impl Woven {
    /// `file` as `weave` says.
    #[must_use]
    pub fn new(file: File, weave: &Weave) -> Self {
        Woven { file, places: Strand::ALL.map(|strand| weave.places(strand)) }
    }

    /// The blocks of a strand; what the file does not have, because it ends inside of the last one, is zeros.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, strand: Strand, blocks: Range<u64>) -> Result<Vec<u8>> {
        let count = usize::try_from(blocks.end.saturating_sub(blocks.start)).unwrap_or(0);
        let mut bytes = vec![0; count * BLOCK];
        let mut rest = &mut bytes[..];
        for place in self.places[strand.index()].find(blocks) {
            let length = usize::try_from(place.end - place.start).unwrap_or(0).min(rest.len());
            let (here, after) = std::mem::take(&mut rest).split_at_mut(length);
            self.file
                .read_exact_at(here, place.start)
                .map_err(|e| Error::failed("cannot read the disk of a box").cause(e))?;
            rest = after;
        }
        Ok(bytes)
    }
}

/// A disk's file that is being put together.
#[derive(Debug)]
pub struct Target(Woven);

impl Target {
    /// Begins with `file`, or goes on with it. What is in it already may be anything; [`Target::missing`] tells what is right.
    ///
    /// # Errors
    /// The file cannot be given its length.
    pub fn new(file: File, weave: &Weave) -> Result<Self> {
        let size = weave.size;
        file.set_len(size).map_err(|e| {
            Error::failed(format!("cannot make a file of {size} bytes for the disk")).cause(e)
        })?;
        Ok(Target(Woven::new(file, weave)))
    }

    /// Writes the bytes of a chunk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, chunk: &Numbered, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for place in self.0.places[chunk.strand.index()].find(chunk.blocks()) {
            let length = usize::try_from(place.end - place.start).unwrap_or(0).min(rest.len());
            let (here, after) = rest.split_at(length);
            self.0
                .file
                .write_all_at(here, place.start)
                .map_err(|e| Error::failed("cannot write the disk of the box").cause(e))?;
            rest = after;
        }
        Ok(())
    }

    /// Those of `chunks` that are not in the file, by their digests.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn missing(&self, chunks: &[Numbered]) -> Result<Vec<Numbered>> {
        let there = |chunk: &Numbered| {
            let bytes = self.0.read(chunk.strand, chunk.blocks())?;
            Ok((FileDigest::of(&bytes) != chunk.entry.id).then_some(*chunk))
        };
        let found: Vec<_> = chunks.par_iter().map(there).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().collect())
    }
}
