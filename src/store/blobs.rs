//! Blobs: written once under the name of their digest, read with the digest checked.

use std::fs::TryLockError;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Store;
use super::layout::{self, Descriptor, MAX_JSON};
use crate::crash;
use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Result};

/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

/// Where a blob lies.
pub(super) fn path(root: &Path, digest: FileDigest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

/// A file in the store's `tmp/` that is still being written. The kernel lock on it tells a living
/// writer from a killed one. Removed on drop unless it became a blob.
#[derive(Debug)]
pub struct Staged {
    file: tempfile::NamedTempFile,
}

impl Staged {
    pub(super) fn of(file: tempfile::NamedTempFile) -> Self {
        Staged { file }
    }

    /// Where to write. Write into this file; do not replace it by another one.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Hashes what was written and makes it durable, both at once: nothing may write into it any more.
    ///
    /// # Errors
    /// It cannot be read, or the disk does not take it.
    pub fn finish(self) -> Result<Finished> {
        let mut reader = fs::File::open(self.path())?;
        let durable = fs::File::open(self.path())?;
        let (synced, hashed) = std::thread::scope(|scope| {
            let synced = scope.spawn(|| durable.sync_all());
            let hashed = hash(&mut reader);
            (synced.join(), hashed)
        });
        synced.map_err(|_| Error::failed("writing to the disk was stopped"))??;
        let (digest, size) = hashed?;
        self.finish_as(digest, size)
    }

    /// The same of a file that its writer brought to the disk and read back: this is its digest, and its length in bytes.
    ///
    /// # Errors
    /// The file cannot be made read-only.
    pub fn finish_as(self, digest: FileDigest, size: u64) -> Result<Finished> {
        fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o444))?;
        crash::point("store.blob-staged");
        Ok(Finished { staged: self, digest, size })
    }

    pub(super) fn seal(self, media_type: &str) -> Result<(Staged, Descriptor)> {
        Ok(self.finish()?.described(media_type))
    }

    /// Gives the blob its name; the caller holds the exclusive lock.
    pub(super) fn publish(self, root: &Path, blob: &Descriptor) -> Result<()> {
        let path = path(root, blob.digest);
        if path.try_exists()? {
            // One that stays when it is dropped is of no use any more.
            let _ = fs::remove_file(self.path());
            return Ok(());
        }
        self.file.persist(&path).map_err(|e| {
            Error::failed(format!("cannot write the blob `{}`", path.display())).cause(e.error)
        })?;
        layout::sync_dir(&root.join("blobs/sha256"))?;
        crash::point("store.blob-published");
        Ok(())
    }
}

/// A staged file that is whole, hashed, and on the disk.
#[derive(Debug)]
pub struct Finished {
    staged: Staged,
    digest: FileDigest,
    size: u64,
}

impl Finished {
    /// SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> FileDigest {
        self.digest
    }

    /// Where it lies until the store has it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    pub(super) fn into_file(self) -> tempfile::NamedTempFile {
        self.staged.file
    }

    pub(super) fn described(self, media_type: &str) -> (Staged, Descriptor) {
        (self.staged, Descriptor::new(media_type, self.digest, self.size))
    }
}

impl Store {
    /// A file to write a new box's disk into.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn stage(&self) -> Result<Staged> {
        // Under the store's lock, so that nobody sweeps between creation and locking.
        let _lock = self.lock()?;
        let file = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?;
        file.as_file().lock().map_err(|e| Error::failed("cannot lock a new file").cause(e))?;
        Ok(Staged { file })
    }

    pub(super) fn stage_bytes(&self, bytes: &[u8]) -> Result<Staged> {
        let mut staged = self.stage()?;
        staged.file.write_all(bytes)?;
        Ok(staged)
    }

    /// Removes files in `tmp/` whose writer is dead, unless somebody works in the store.
    pub(super) fn sweep_if_free(&self) -> Result<()> {
        if fs::read_dir(self.root.join("tmp"))?.next().is_none() {
            return Ok(());
        }
        if let Some(_lock) = super::lock::try_exclusive(&self.root)? {
            self.sweep(false)?;
        }
        Ok(())
    }

    /// The files in `tmp/` whose writer is dead, with their sizes in bytes; removed unless
    /// `dry_run`. The caller holds the exclusive lock.
    pub(super) fn sweep(&self, dry_run: bool) -> Result<Vec<(PathBuf, u64)>> {
        let mut dead = vec![];
        for entry in fs::read_dir(self.root.join("tmp"))? {
            let path = entry?.path();
            let file = std::fs::File::open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(e.into()),
            }
            dead.push((path.clone(), file.metadata()?.len()));
            if !dry_run {
                fs::remove_file(&path)?;
            }
        }
        Ok(dead)
    }
}

/// Reads a small blob; size and digest are checked before anything is parsed.
pub(super) fn read(root: &Path, blob: &Descriptor) -> Result<Vec<u8>> {
    let path = path(root, blob.digest);
    let damaged = || damaged(&path);
    if blob.size > MAX_JSON {
        return Err(damaged().detail(format!("it claims {} bytes of JSON", blob.size)));
    }
    let file = fs::File::open(&path).map_err(|e| damaged().cause(e))?;
    let mut bytes = vec![];
    file.take(blob.size + 1).read_to_end(&mut bytes).map_err(|e| damaged().cause(e))?;
    if bytes.len() as u64 != blob.size || FileDigest::of(&bytes) != blob.digest {
        return Err(damaged().detail("its bytes do not have the digest of its name"));
    }
    Ok(bytes)
}

/// Hashes a blob of any size.
pub(super) fn verify(root: &Path, blob: &Descriptor) -> Result<()> {
    let path = path(root, blob.digest);
    let mut file = fs::File::open(&path).map_err(|e| damaged(&path).cause(e))?;
    let (digest, size) = hash(&mut file)?;
    if digest != blob.digest || size != blob.size {
        return Err(damaged(&path).detail(format!("its bytes have the digest {digest}")));
    }
    Ok(())
}

fn damaged(path: &Path) -> Error {
    Error::failed(format!("the blob `{}` in the store is damaged", path.display()))
        .hint("Remove the box with `devbox box remove`, then build it again with `devbox build`.")
}

pub(super) fn hash(reader: &mut fs::File) -> Result<(FileDigest, u64)> {
    let mut piece = vec![0; PIECE];
    let (mut hasher, mut size) = (Sha256::new(), 0);
    loop {
        let n = reader.read(&mut piece)?;
        if n == 0 {
            return Ok((FileDigest::from_bytes(hasher.finish()), size));
        }
        hasher.update(&piece[..n]);
        size += n as u64;
    }
}
