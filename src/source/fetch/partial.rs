//! A download that is not whole yet: its bytes, and a note of what they are a part of.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What is known about the bytes of a partial file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// SHA-256 of the address: the address itself may hold a secret.
    pub(super) address: String,
    /// The server's strong `ETag`, or its `Last-Modified`: what `If-Range` may carry (RFC 9110,
    /// section 13.1.5).
    pub(super) validator: Option<String>,
    /// The whole length in bytes, where the server said it.
    pub(super) total: Option<u64>,
}

/// The files of one download, named by the digest that is expected of it.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    pub(super) bytes: PathBuf,
    note: PathBuf,
}

impl Partial {
    pub(super) fn new(folder: &Path, key: &str) -> Self {
        Partial {
            bytes: folder.join(format!("{key}.part")),
            note: folder.join(format!("{key}.part.json")),
        }
    }

    /// The origin and the length of what is there, if it came from `address`.
    pub(super) fn found(&self, address: &str) -> Option<(Origin, u64)> {
        let origin: Origin = serde_json::from_slice(&fs::read(&self.note).ok()?).ok()?;
        let length = fs::symlink_metadata(&self.bytes).ok()?.len();
        (origin.address == address && length > 0).then_some((origin, length))
    }

    /// Begins anew: no bytes, and a note.
    pub(super) fn begin(&self, origin: &Origin) -> Result<fs::File> {
        self.remove();
        let file = fs::File::create(&self.bytes)?;
        // The note comes last: without it the bytes count for nothing.
        fs::write(&self.note, serde_json::to_vec(origin).map_err(std::io::Error::from)?)?;
        Ok(file)
    }

    /// Goes on at byte `offset`; what may be behind it is cut off.
    pub(super) fn resume(&self, offset: u64) -> Result<fs::File> {
        let mut file = fs::OpenOptions::new().write(true).open(&self.bytes)?;
        file.set_len(offset)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    /// Forgets it. What cannot be removed is met again by the next write.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.note);
        let _ = fs::remove_file(&self.bytes);
    }

    /// Makes the bytes the finished file at `path`: durable first, then read-only, then visible.
    pub(super) fn finish(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut file = fs::OpenOptions::new().write(true).open(&self.bytes)?;
        file.flush()?;
        file.sync_all()?;
        fs::set_permissions(&self.bytes, std::fs::Permissions::from_mode(0o444))?;
        fs::rename(&self.bytes, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        self.remove();
        Ok(())
    }
}
