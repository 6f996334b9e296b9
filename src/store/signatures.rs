//! Signatures of a box, kept beside it: `signatures/MANIFEST/SIGNATURE`, each file under the SHA-256 of its bytes.
//!
//! They are no part of the box, which is the same whoever signs it, and go when it goes. Nothing here says what they are worth.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;

use fs_err as fs;

use super::{BoxRef, Store, layout};
use crate::digest::FileDigest;
use crate::error::Result;

/// Largest signature in bytes.
pub const MAX_SIGNATURE: u64 = 1 << 20;
/// Most signatures of a box that are kept and read.
const MOST: usize = 64;

impl Store {
    fn signatures_of(&self, manifest: FileDigest) -> PathBuf {
        self.root.join("signatures").join(manifest.hex())
    }

    /// The signatures that are kept with a box, in the order of their digests.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn signatures(&self, image: &BoxRef) -> Result<Vec<Vec<u8>>> {
        let folder = self.signatures_of(image.manifest_digest());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(e.into()),
        };
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        paths.sort();
        let mut all = vec![];
        for path in paths.into_iter().take(MOST) {
            let mut bytes = vec![];
            fs::File::open(&path)?.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes)?;
            // What was damaged since is no signature any more.
            if path.file_name().and_then(|name| name.to_str())
                == Some(FileDigest::of(&bytes).hex().as_str())
            {
                all.push(bytes);
            }
        }
        Ok(all)
    }

    /// Keeps signatures with a box that is in the store; those that are there stay. What is too large, or one too many, is not
    /// kept.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_signatures(&self, image: &BoxRef, signatures: &[Vec<u8>]) -> Result<()> {
        let there: Vec<Vec<u8>> = self.signatures(image)?;
        let mut new: Vec<&Vec<u8>> = signatures
            .iter()
            .filter(|bytes| bytes.len() as u64 <= MAX_SIGNATURE && !there.contains(bytes))
            .collect();
        new.truncate(MOST.saturating_sub(there.len()));
        let mut staged = vec![];
        for bytes in new {
            staged.push((FileDigest::of(bytes), self.stage_bytes(bytes)?.finish()?));
        }
        if staged.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let folder = self.signatures_of(image.manifest_digest());
        fs::create_dir_all(&folder)?;
        for (digest, file) in staged {
            let path = folder.join(digest.hex());
            file.into_file().persist(&path).map_err(|e| {
                let cannot = format!("cannot keep the signature `{}`", path.display());
                crate::error::Error::failed(cannot).cause(e.error)
            })?;
        }
        layout::sync_dir(&folder)
    }

    /// The signatures of manifests that are not in `keep`, with their sizes; removed unless `dry_run`. The caller holds the
    /// exclusive lock.
    pub(super) fn stray_signatures(
        &self,
        keep: &BTreeSet<FileDigest>,
        dry_run: bool,
    ) -> Result<Vec<(PathBuf, u64)>> {
        let mut stray = vec![];
        for entry in layout::entries(&self.root.join("signatures"))? {
            let name = entry.file_name();
            let manifest = name.to_str().and_then(|n| format!("sha256:{n}").parse().ok());
            if manifest.is_some_and(|manifest| keep.contains(&manifest)) {
                continue;
            }
            let folder = entry.path();
            for file in fs::read_dir(&folder)? {
                let file = file?;
                stray.push((file.path(), file.metadata()?.len()));
            }
            if !dry_run {
                fs::remove_dir_all(&folder)?;
            }
        }
        Ok(stray)
    }
}
