//! What is known of a layer, in a JSON file beside it. Its modification time is when the layer was last used.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::lock::Host;
use crate::os;

/// What the lowest layer of a build lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The source's disk.
    pub(crate) path: PathBuf,
    /// Its digest; or, where nobody has hashed it, which file it is: one that was made anew under the same name is
    /// another.
    identity: String,
}

impl Base {
    /// A disk whose contents were just found to have this digest.
    pub(crate) fn hashed(path: &Path, digest: &str) -> Result<Self> {
        Ok(Base { path: path.canonicalize()?, identity: digest.to_owned() })
    }

    /// A disk of our own that never changes.
    pub(crate) fn own(path: &Path) -> Result<Self> {
        let identity = format!("{:?}", os::fingerprint(&fs::metadata(path)?));
        Ok(Base { path: path.canonicalize()?, identity })
    }

    /// Whether a file is there still; a build that wants it looks closer.
    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }
}

/// The record of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) below: String,
    pub(super) title: String,
    pub(super) inputs: Value,
    /// Its file's name.
    pub(super) disk: String,
    /// The name of the layer's file below; none where that is the source's disk.
    pub(super) layer: Option<String>,
    /// Of its file, in hex.
    pub(super) sha256: String,
    pub(super) base: Base,
    /// The public keys that builds logged in with, up to this layer: their base64 parts.
    pub(super) keys: Vec<String>,
    /// Whether the guest was shut down after it.
    pub(super) down: bool,
    /// What its step reached.
    pub(super) reached: Vec<Host>,
    /// The box that it was made for.
    pub(super) image: String,
}

impl Record {
    /// All records that can be read, the latest used first.
    pub(super) fn all(dir: &Path) -> Vec<(Record, SystemTime)> {
        let Ok(entries) = fs::read_dir(dir) else { return vec![] };
        let read = |path: PathBuf| {
            let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            Some((record, fs::metadata(&path).ok()?.modified().ok()?))
        };
        let records = entries.flatten().map(|entry| entry.path());
        let records = records.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut all: Vec<_> = records.filter_map(read).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.key.cmp(&b.0.key)));
        all
    }

    /// Whether it is what a guest wrote while it booted.
    pub(super) fn is_boot(&self) -> bool {
        self.inputs.is_null()
    }

    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.json", self.key))
    }

    pub(super) fn disk(&self, dir: &Path) -> PathBuf {
        dir.join(&self.disk)
    }

    /// Puts the record in its place at once; one of the same key is replaced.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, self).map_err(std::io::Error::from)?;
        file.as_file().sync_all()?;
        file.persist(self.path(dir)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Notes that a build uses it now.
    pub(super) fn used(&self, dir: &Path) {
        // Where this fails it is taken for older than it is, no more.
        if let Ok(file) = fs::OpenOptions::new().append(true).open(self.path(dir)) {
            let _ = file.file().set_modified(SystemTime::now());
        }
    }
}
