//! Whether what the store holds is what it was.

use std::path::PathBuf;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::layout::{Descriptor, Index};
use super::{BoxRef, Store, blobs};
use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// One box after a look at all of its bytes.
#[derive(Debug)]
pub struct Checked {
    /// `name:version`.
    pub reference: String,
    /// The box, or what is wrong with it.
    pub result: Result<BoxRef>,
}

/// What was found in the store.
#[derive(Debug, Default)]
pub struct Checks {
    /// The boxes that were looked at, by name.
    pub boxes: Vec<Checked>,
    /// Blobs whose bytes do not have the digest of their name, of those boxes or of none: a machine may use one.
    pub blobs: Vec<PathBuf>,
}

impl Checks {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.blobs.is_empty() && self.boxes.iter().all(|checked| checked.result.is_ok())
    }
}

impl Store {
    /// Reads every byte of the boxes that `wanted` picks, each blob once, and of the blobs that no box names where it
    /// picks all.
    ///
    /// # Errors
    /// The index cannot be read; Ctrl-C. What is wrong with a box is no error of this.
    pub fn check(&self, wanted: Option<&[String]>, cancel: &CancellationToken) -> Result<Checks> {
        // Nothing is removed meanwhile.
        let _hold = self.hold()?;
        let (mut checks, mut seen) = (Checks::default(), vec![]);
        let hashed = |descriptor: &Descriptor, seen: &mut Vec<FileDigest>| {
            if cancel.is_cancelled() {
                return Err(Error::interrupted("interrupted while the store was verified"));
            }
            if seen.contains(&descriptor.digest) {
                return Ok(());
            }
            blobs::verify(&self.root, descriptor)?;
            seen.push(descriptor.digest);
            Ok(())
        };
        for entry in Index::read(&self.root)?.manifests {
            let reference = entry.reference().unwrap_or_default().to_owned();
            if wanted.is_some_and(|wanted| !wanted.contains(&reference)) {
                continue;
            }
            // Manifest and config are hashed as they are read.
            let result = self.load(entry).and_then(|image| {
                match image.kept {
                    None => hashed(&image.disk, &mut seen)?,
                    Some(_) => self.verify(&image)?,
                }
                Ok(image)
            });
            if let Err(e) = &result
                && e.kind() == crate::error::Kind::Interrupted
            {
                return Err(e.clone());
            }
            checks.boxes.push(Checked { reference, result });
        }
        if wanted.is_some() {
            return Ok(checks);
        }
        for entry in fs::read_dir(self.root.join("blobs/sha256"))? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| format!("sha256:{name}").parse().ok());
            let whole = digest.is_some_and(|digest: FileDigest| {
                let size = entry.metadata().map_or(0, |meta| meta.len());
                seen.contains(&digest)
                    || hashed(&Descriptor::new("", digest, size), &mut vec![]).is_ok()
            });
            if cancel.is_cancelled() {
                return Err(Error::interrupted("interrupted while the store was verified"));
            }
            if !whole {
                checks.blobs.push(entry.path());
            }
        }
        checks.blobs.sort_unstable();
        Ok(checks)
    }
}
