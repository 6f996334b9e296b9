//! Disk files as strands: blocks are read and written where they stand.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rayon::prelude::*;
use rustix::fs::{FallocateFlags, fallocate};

use super::plan::Numbered;
use super::{BLOCK, Places, Strand, Weave};
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};

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
        file.set_len(size)
            .context(|| format!("cannot make a file of {size} bytes for the disk"))?;
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
                .context(|| "cannot write the disk of the box".to_owned())?;
            rest = after;
        }
        Ok(())
    }

    /// Copies a chunk that `from` has at `here`, in the kernel, which shares the blocks of the two files where their
    /// filesystem can (copy_file_range(2)). `false` where it cannot copy either.
    pub fn copy(&self, wanted: &Numbered, from: &Woven, here: &Numbered) -> bool {
        let to = self.0.places[wanted.strand.index()].find(wanted.blocks());
        let from_places = from.places[here.strand.index()].find(here.blocks());
        let (mut to, mut parts) = (to, from_places);
        let (mut there, mut here) = (0..0, 0..0);
        loop {
            if here.is_empty() {
                // Where a file ends inside of a chunk, it has less of it.
                let Some(next) = parts.next() else {
                    return there.is_empty() && to.next().is_none();
                };
                here = next;
            }
            if there.is_empty() {
                let Some(next) = to.next() else { return false };
                there = next;
            }
            let length = (here.end - here.start).min(there.end - there.start);
            let Ok(length) = usize::try_from(length) else { return false };
            let (source, target) = (&from.file, &self.0.file);
            let copied = rustix::fs::copy_file_range(
                source,
                Some(&mut here.start),
                target,
                Some(&mut there.start),
                length,
            );
            // The end of the file inside of its last block, or a filesystem that does not do it.
            if !matches!(copied, Ok(1..)) {
                return false;
            }
        }
    }

    /// Makes holes of what is zeros, whatever an earlier attempt left there. Where that cannot be done, it shows when the
    /// whole is hashed.
    pub fn clear_zeros(&self, weave: &Weave) {
        let mut at = 0u64;
        for run in &weave.runs {
            let length = run.blocks.saturating_mul(BLOCK as u64);
            if run.strand.is_none() {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let _ = fallocate(&self.0.file, flags, at, length);
            }
            at = at.saturating_add(length);
        }
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
