//! The files that a disk is written to: each gets the same bytes, and each is read back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::digest::{FileDigest, Sha256};
use crate::error::{Context as _, Error, Result};

/// Bytes read back at a time.
const PIECE: usize = 1 << 20;

/// One of the files.
pub(super) struct Copy {
    file: File,
    path: PathBuf,
    /// Of what was read back.
    hash: Sha256,
    /// How far that is.
    at: u64,
}

impl Copy {
    /// The file at `path`, emptied.
    pub(super) fn new(path: PathBuf) -> Result<Self> {
        let opened = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = opened.context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Copy { file, path, hash: Sha256::new(), at: 0 })
    }

    /// Begins anew.
    pub(super) fn empty(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        (self.hash, self.at) = (Sha256::new(), 0);
        Ok(())
    }

    pub(super) fn write(&self, bytes: &[u8], place: u64) -> Result<()> {
        let written = self.file.write_all_at(bytes, place);
        written.context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Brings what was written to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Brings what was written to the disk, and reads it back as far as `end`.
    pub(super) fn settle(&mut self, end: u64, cancel: &CancellationToken) -> Result<()> {
        let (file, path) = (&self.file, &self.path);
        let (hash, at) = (&mut self.hash, &mut self.at);
        std::thread::scope(|scope| {
            let synced = scope.spawn(|| file.sync_data());
            let mut piece = vec![0; PIECE];
            while *at < end {
                if cancel.is_cancelled() {
                    return Err(Error::interrupted("interrupted while the disk was written"));
                }
                let length = usize::try_from(end - *at).map_or(PIECE, |left| left.min(PIECE));
                file.read_exact_at(&mut piece[..length], *at)
                    .context(|| format!("cannot read `{}` back", path.display()))?;
                hash.update(&piece[..length]);
                *at += length as u64;
            }
            let synced = synced.join();
            synced
                .map_err(|_| Error::failed("writing to the disk was stopped"))?
                .context(|| format!("cannot write `{}`", path.display()))
        })
    }

    /// The digest of what was read back.
    pub(super) fn digest(self) -> FileDigest {
        FileDigest::from_bytes(self.hash.finish())
    }
}
