//! A file that a verb writes over the one that may be there: as a whole or not at all.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::cli::new_file::NewFile;
use crate::error::{Error, Result};

/// A file under another name in the folder where it belongs; gone if it is not put in its place.
#[derive(Debug)]
pub(super) struct ReplacedFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl ReplacedFile {
    /// Makes an empty one.
    ///
    /// # Errors
    /// Kind `Usage`: nothing can be written there.
    pub(super) fn create(path: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let hint = "Choose a place that exists and that you may write to with `--output`.";
        if path.is_dir() {
            let error = Error::usage(cannot(path)).cause("it is a directory");
            return Err(error.hint("Name a file in it with `--output`."));
        }
        let folder = NewFile { path, option: "--output" }.folder().to_owned();
        // As a program that writes a file plainly would make it.
        let mode = std::fs::Permissions::from_mode(0o666);
        let temporary =
            tempfile::Builder::new().prefix(".devbox-").permissions(mode).tempfile_in(folder);
        let temporary = temporary.map_err(|e| Error::usage(cannot(path)).cause(e).hint(hint))?;
        Ok(ReplacedFile { path: path.to_owned(), temporary })
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The writer's own, or the disk does not take it.
    pub(super) fn fill(&mut self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, self.temporary.as_file_mut());
        write(&mut out)?;
        out.flush().map_err(|e| Error::from(e).context(cannot(&self.path)))?;
        drop(out);
        let file = self.temporary.as_file();
        file.sync_all().map_err(|e| Error::from(e).context(cannot(&self.path)))
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// The rename failed.
    pub(super) fn replace(self) -> Result<()> {
        let path = self.path;
        let done = self.temporary.persist(&path);
        done.map(drop).map_err(|e| Error::from(e.error).context(cannot(&path)))
    }
}

fn cannot(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
