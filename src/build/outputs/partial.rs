//! A file that is not there before it is whole.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::Result;

/// A file that is being written beside its final name; removed unless it gets it.
pub(super) struct Partial {
    path: PathBuf,
    done: bool,
}

impl Partial {
    /// The one that becomes `name` in `dir`. Always the same path, so that what a killed build left is
    /// overwritten by the next one.
    pub(super) fn beside(dir: &Path, name: &str) -> Self {
        Partial { path: dir.join(format!(".{name}.partial")), done: false }
    }

    /// Where it is written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, when its bytes are on the disk.
    ///
    /// # Errors
    /// The disk does not take it, or the rename fails.
    pub(super) fn publish(mut self, path: &Path) -> Result<()> {
        fs::File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, path)?;
        self.done = true;
        if let Some(dir) = path.parent() {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}
