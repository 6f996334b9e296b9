//! Bytes on their way into an output: from a disk or a file, through gzip, counted and hashed.

use std::io::{BufWriter, Read as _, Write};
use std::ops::Range;
use std::path::Path;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use fs_err as fs;
use tokio_util::sync::CancellationToken;

use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::source::Source;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// An empty file for an output; what a killed build left there is gone.
pub(super) fn create(path: &Path) -> Result<BufWriter<fs::File>> {
    Ok(BufWriter::with_capacity(PIECE, fs::File::create(path)?))
}

/// Writes `range` of `from`.
///
/// # Errors
/// What cannot be read or written; Ctrl-C.
pub(super) fn copy(
    from: &dyn ReadAt,
    range: Range<u64>,
    to: &mut dyn Write,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut buf = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        if cancel.is_cancelled() {
            return Err(Error::interrupted("interrupted while outputs were written"));
        }
        let len = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
        from.read_at(&mut buf[..len], at)?;
        to.write_all(&buf[..len])?;
        at += len as u64;
    }
    Ok(())
}

/// Copies a file in the kernel, which shares the blocks where the filesystem can.
///
/// # Errors
/// What cannot be read or written; Ctrl-C.
pub(super) fn copy_file(from: &Path, to: &Path, cancel: &CancellationToken) -> Result<()> {
    /// Bytes between two looks at Ctrl-C.
    const PART: u64 = 256 << 20;
    let (mut from, mut to) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    while std::io::copy(&mut (&mut from).take(PART), &mut to)? > 0 {
        if cancel.is_cancelled() {
            return Err(Error::interrupted("interrupted while outputs were written"));
        }
    }
    Ok(())
}

/// gzip without a name or a time.
pub(super) fn gzip<W: Write>(to: W) -> GzEncoder<W> {
    GzBuilder::new().mtime(0).write(to, Compression::default())
}

/// The digest and the length of a file.
///
/// # Errors
/// It cannot be read; Ctrl-C.
pub(super) fn digest(path: &Path, cancel: &CancellationToken) -> Result<(FileDigest, u64)> {
    let file = Source::open(path)?;
    let mut hashed = Hashed::new(std::io::sink());
    copy(&file, 0..file.size(), &mut hashed, cancel)?;
    let (_, digest, size) = hashed.finish();
    Ok((digest, size))
}

/// A writer that knows what went through it.
pub(super) struct Hashed<W> {
    to: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(to: W) -> Self {
        Hashed { to, hash: Sha256::new(), size: 0 }
    }

    /// What it wrote to, the digest of the bytes, and their number.
    pub(super) fn finish(self) -> (W, FileDigest, u64) {
        (self.to, FileDigest::from_bytes(self.hash.finish()), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(buf)?;
        self.hash.update(&buf[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
