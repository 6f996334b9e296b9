//! A file that a verb writes: not there before, and there as a whole or not at all.

use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::{Error, Result};

/// Where it is to be written, and the option that says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewFile<'a> {
    pub(super) path: &'a Path,
    pub(super) option: &'static str,
}

impl NewFile<'_> {
    /// Fails if it is there, so that long work is not for nothing.
    ///
    /// # Errors
    /// Kind `Usage`.
    pub(super) fn refuse_existing(self) -> Result<()> {
        if std::fs::symlink_metadata(self.path).is_err() {
            return Ok(());
        }
        Err(Error::usage(format!("`{}` is there already", self.path.display()))
            .hint(format!("Remove it, or name another file with `{}`.", self.option)))
    }

    /// Writes it.
    ///
    /// # Errors
    /// Kind `Usage`: it is there, or its folder is none to write to. Those of `write`.
    pub(super) fn write(self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let what = || format!("cannot write `{}`", self.path.display());
        // As a program that writes a file plainly would make it.
        let mode = std::fs::Permissions::from_mode(0o666);
        let mut temporary = tempfile::Builder::new();
        let temporary = temporary.prefix(".devbox-").permissions(mode).tempfile_in(self.folder());
        let temporary = temporary.map_err(|e| {
            let option = self.option;
            Error::usage(what()).cause(e).hint(format!(
                "Choose a place that exists and that you may write to with `{option}`."
            ))
        })?;
        let mut out = BufWriter::with_capacity(1 << 20, temporary);
        write(&mut out)?;
        let temporary =
            out.into_inner().map_err(|e| Error::from(e.into_error()).context(what()))?;
        temporary.as_file().sync_all().map_err(|e| Error::from(e).context(what()))?;
        match temporary.persist_noclobber(self.path) {
            Ok(_) => Ok(()),
            Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => self.refuse_existing(),
            Err(e) => Err(Error::from(e.error).context(what())),
        }
    }

    /// The folder that it is to be in.
    pub(super) fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }
}
