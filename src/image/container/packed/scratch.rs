//! Where compressed bytes are unpacked to: a sparse file that has no name, so that nobody else opens
//! it and nothing stays behind, not even when this process is killed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::container::Options;
use crate::image::container::raw::Raw;
use crate::image::limits::{Limit, Limits};
use crate::image::{ReadAt, container::source::Source};

/// The size of what is stored or left out as a hole: a block of the common filesystems.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Bytes that any file may unpack to, whatever its own size: so much is cheap, and the ratio of
/// small files says nothing (one that repeats a word is legal).
const FREE: u64 = 64 << 20;
/// How many times more zeros than other bytes there may be. One layer cannot reach it: the densest,
/// zstd, makes 32768 zeros of a byte (RFC 8878, section 3.1.1.2: RLE blocks). Layers in each other
/// could make as many as [`Limits::disk_size`] allows, for hours, of a file of some KiB.
const ZEROS_RATIO: u64 = 256;
/// Bytes, zeros included, that any file may unpack to: some seconds.
const FREE_ZEROS: u64 = 4 << 30;
/// Free bytes that are left to the disk with the scratch file.
const RESERVE: u64 = 64 << 20;
/// How many bytes are stored between two looks at the free space.
const LOOK: u64 = 32 << 20;

/// What all layers of one file may unpack to.
///
/// A sparse disk is almost all zeros and compresses 1000 times and more, so the ratio bounds what is
/// **stored**: blocks of 4 KiB that are not all zeros. All layers together may store
/// [`Limits::ratio`] times the bytes of the outermost file, and 64 MiB more. Zeros cost time and no
/// space; there may be 256 times as many, and 4 GiB.
pub(super) struct Budget {
    pub(super) limits: Limits,
    dir: PathBuf,
    outer: u64,
    stored: u64,
    unpacked: u64,
}

impl Budget {
    /// For a file of `outer` bytes.
    pub(super) fn new(outer: u64, options: &Options) -> Self {
        let dir = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
        Budget { limits: options.limits, dir, outer, stored: 0, unpacked: 0 }
    }

    fn unpack(&mut self, bytes: u64, name: &str) -> Result<()> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        let times = self.limits.ratio.saturating_mul(ZEROS_RATIO);
        let most = self.outer.saturating_mul(times).saturating_add(FREE_ZEROS);
        if self.unpacked <= most {
            return Ok(());
        }
        let what = format!(
            "`{name}` unpacks to more than {most} bytes, zeros included, from {} bytes",
            self.outer
        );
        Err(Limit::Ratio.exceeded(what, format!("{times} times and 4 GiB")))
    }

    fn store(&mut self, bytes: u64, name: &str) -> Result<()> {
        self.stored = self.stored.saturating_add(bytes);
        let most = self.outer.saturating_mul(self.limits.ratio).saturating_add(FREE);
        if self.stored <= most {
            return Ok(());
        }
        let what = format!(
            "`{name}` unpacks to more than {most} bytes besides zeros, from {} bytes",
            self.outer
        );
        Err(Limit::Ratio.exceeded(what, format!("{} times and 64 MiB", self.limits.ratio)))
    }
}

/// A scratch file that is being written.
pub(super) struct Scratch<'a> {
    file: File,
    name: String,
    budget: &'a mut Budget,
    size: u64,
    unlooked: u64,
}

impl<'a> Scratch<'a> {
    /// An empty file for what is unpacked from `from`.
    ///
    /// # Errors
    /// There is no such folder, or it cannot be written to.
    pub(super) fn new(from: &Source, budget: &'a mut Budget) -> Result<Self> {
        let file = tempfile::tempfile_in(&budget.dir).map_err(|e| failed(&budget.dir, &e))?;
        let scratch = Scratch { file, name: from.name(), budget, size: 0, unlooked: 0 };
        scratch.look(0)?;
        Ok(scratch)
    }

    /// Appends bytes; blocks of zeros become holes. All pieces but the last are whole blocks.
    ///
    /// # Errors
    /// A limit, or the disk is full.
    pub(super) fn append(&mut self, piece: &[u8]) -> Result<()> {
        self.budget.limits.check_time()?;
        self.budget.unpack(piece.len() as u64, &self.name)?;
        let mut start = None;
        let mut at = 0;
        for block in piece.chunks(BLOCK) {
            let zeros = ZEROS.get(..block.len()) == Some(block);
            match (zeros, start) {
                (true, Some(first)) => {
                    self.store(&piece[first..at], first)?;
                    start = None;
                }
                (false, None) => start = Some(at),
                _ => {}
            }
            at += block.len();
        }
        if let Some(first) = start {
            self.store(&piece[first..], first)?;
        }
        self.size = self.size.saturating_add(piece.len() as u64);
        if self.size > self.budget.limits.disk_size {
            let what = format!("`{}` unpacks to more bytes than a disk may have", self.name);
            let most = format!("{} bytes", self.budget.limits.disk_size);
            return Err(Limit::DiskSize.exceeded(what, most));
        }
        Ok(())
    }

    /// Writes `bytes`, which stand `within` bytes behind the end of what was appended so far.
    fn store(&mut self, bytes: &[u8], within: usize) -> Result<()> {
        self.budget.store(bytes.len() as u64, &self.name)?;
        self.unlooked += bytes.len() as u64;
        if self.unlooked >= LOOK {
            self.look(self.unlooked)?;
            self.unlooked = 0;
        }
        let at = self.size + within as u64;
        self.file.write_all_at(bytes, at).map_err(|e| failed(&self.budget.dir, &e))
    }

    /// Fails if too little would be left after `more` bytes.
    fn look(&self, more: u64) -> Result<()> {
        let Ok(stat) = rustix::fs::fstatvfs(&self.file) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= more.saturating_add(RESERVE) {
            return Ok(());
        }
        Err(no_space(&self.budget.dir)
            .cause(format!("{} MiB are free; 64 MiB are left to other programs", free >> 20)))
    }

    /// The bytes, to be read from now on.
    ///
    /// # Errors
    /// The file cannot be finished.
    pub(super) fn finish(self) -> Result<Arc<dyn ReadAt>> {
        self.file.set_len(self.size).map_err(|e| failed(&self.budget.dir, &e))?;
        Ok(Arc::new(Raw::unnamed(self.file, self.name.into(), self.size)))
    }
}

fn no_space(dir: &Path) -> Error {
    Error::undetermined(format!(
        "`{}` has too little free space to unpack the image",
        dir.display()
    ))
    .hint("Free some space there, or set `TMPDIR` to a folder on another disk.")
}

fn failed(dir: &Path, e: &io::Error) -> Error {
    if e.kind() == io::ErrorKind::StorageFull {
        return no_space(dir).cause(e);
    }
    Error::undetermined(format!("cannot unpack the image in `{}`", dir.display()))
        .cause(e)
        .hint("Set `TMPDIR` to a folder that you can write to.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_a_bound_that_no_single_layer_reaches() {
        let outer = 1 << 20;
        // 128 KiB of four bytes: zstd's densest block.
        let densest = outer / 4 * (128 << 10);
        let mut budget = Budget::new(outer, &Options::default());
        budget.unpack(densest + FREE_ZEROS, "x").expect("one layer");
        let e = budget.unpack(densest, "x").expect_err("a second one");
        assert!(e.what().contains("zeros included") && e.hints()[0].contains("--max-ratio"), "{e}");
    }
}
