//! A disk that arrives piece by piece, and goes on where a killed or interrupted command stopped.

use std::fs::TryLockError;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use fs_err as fs;

use super::blobs::{Finished, Staged};
use super::{Store, layout};
use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// A file in the store's `partial/`, under the digest that it is to have. What is in it may be anything: whoever goes on
/// with it looks at its bytes. It stays when this is dropped.
#[derive(Debug)]
pub struct Partial {
    file: std::fs::File,
    path: PathBuf,
}

impl Store {
    /// The beginnings of the disk with this digest, for this process alone; none while another one has it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn partial(&self, digest: FileDigest) -> Result<Option<Partial>> {
        let folder = self.root.join("partial");
        fs::create_dir_all(&folder)?;
        let path = folder.join(digest.hex());
        loop {
            // One that was whole when its writer was killed is read-only already.
            if let Err(e) = fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
                && e.kind() != std::io::ErrorKind::NotFound
            {
                return Err(e.into());
            }
            let file = std::fs::File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path);
            let file = file.map_err(|e| {
                Error::failed(format!("cannot write `{}`", path.display())).cause(e)
            })?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(e.into()),
            }
            // The one who had it may have finished or removed it since it was opened.
            match std::fs::metadata(&path) {
                Ok(meta) if meta.ino() == file.metadata()?.ino() => {
                    return Ok(Some(Partial { file, path }));
                }
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
    }

    /// Bytes that the beginnings of the disk with this digest take.
    #[must_use]
    pub fn partial_bytes(&self, digest: FileDigest) -> u64 {
        let path = self.root.join("partial").join(digest.hex());
        std::fs::metadata(path).map_or(0, |meta| crate::os::stored_bytes(&meta))
    }

    /// Those beginnings that nobody works on, with the bytes that they take; removed unless `dry_run`.
    pub(super) fn partials(&self, dry_run: bool) -> Result<Vec<(PathBuf, u64)>> {
        let mut found = vec![];
        for entry in layout::entries(&self.root.join("partial"))? {
            let path = entry.path();
            let file = fs::File::open(&path)?;
            match file.file().try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(e.into()),
            }
            found.push((path.clone(), crate::host::stored_bytes(&path)));
            if !dry_run {
                fs::remove_file(&path)?;
            }
        }
        Ok(found)
    }
}

impl Partial {
    /// Whether nothing arrived yet.
    ///
    /// # Errors
    /// The file cannot be asked.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.file.metadata()?.len() == 0)
    }

    /// The file, to be read and written.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn file(&self) -> Result<std::fs::File> {
        Ok(self.file.try_clone()?)
    }

    /// The same one once more, for when [`Partial::finish`] fails.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn twin(&self) -> Result<Partial> {
        Ok(Partial { file: self.file.try_clone()?, path: self.path.clone() })
    }

    /// Removes it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn discard(self) -> Result<()> {
        Ok(fs::remove_file(&self.path)?)
    }

    /// Hashes it and makes it durable: nothing may write into it any more. It stays where that fails, or what follows.
    ///
    /// # Errors
    /// It cannot be read, or the disk does not take it.
    pub fn finish(self) -> Result<Finished> {
        layout::sync_dir(self.path.parent().unwrap_or(&self.path))?;
        let mut path = tempfile::TempPath::try_from_path(&self.path)?;
        // What cannot be finished now, on a full disk, is what the next attempt goes on with.
        path.disable_cleanup(true);
        Staged::of(tempfile::NamedTempFile::from_parts(self.file, path)).finish()
    }
}

impl Finished {
    /// Goes on with one whose digest is another one than it should be.
    ///
    /// # Errors
    /// The file would not stay.
    pub fn reopen(self) -> Result<Partial> {
        let (file, path) = self.into_file().into_parts();
        let path = path.keep().map_err(|e| e.error)?;
        Ok(Partial { file, path })
    }
}
