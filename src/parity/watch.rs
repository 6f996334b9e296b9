//! The files that an answer comes from, as they were when the reading began: if one of them is
//! another one in the end, nothing that was read counts.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What changes when somebody writes to a file or puts another one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds, as for `ctime`.
    mtime: (i64, i64),
    /// Cannot be set by programs, unlike the one above.
    ctime: (i64, i64),
    /// Whether it is a plain file: a block device's times say nothing of its contents.
    plain: bool,
}

impl Stamp {
    /// Looks at the file at `path`, links followed.
    ///
    /// # Errors
    /// Kind `Undetermined`: it cannot be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| {
            Error::undetermined(format!("cannot read `{}`", path.display()))
                .cause(e)
                .hint("Give the path of an image file or of a directory.")
        })?;
        Ok(Stamp::from(&meta))
    }

    /// Whether it is a plain file that nobody changed in the `seconds` before `time`. Whoever writes
    /// to a file twice within the clock's grain leaves one stamp for two contents; a file that has
    /// rested longer than that has one content for its stamp (git's rule for its index).
    #[must_use]
    pub fn rested(&self, time: SystemTime, seconds: i64) -> bool {
        let Ok(time) = time.duration_since(UNIX_EPOCH) else { return false };
        let Ok(time) = i64::try_from(time.as_secs()) else { return false };
        self.plain && self.mtime.0.max(self.ctime.0) < time.saturating_sub(seconds)
    }
}

impl Stamp {
    /// Whether it is the same file with the same mtime, under whatever name, and that mtime is older than a clock's
    /// grain: whoever wrote to it since would have moved it.
    #[must_use]
    pub fn has_contents_of(&self, before: &Stamp) -> bool {
        const GRAIN: i128 = 20_000_000;
        let nanos =
            |(seconds, nanos): (i64, i64)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        self.plain
            && (self.device, self.inode, self.size, self.mtime)
                == (before.device, before.inode, before.size, before.mtime)
            && nanos(self.ctime) - nanos(self.mtime) > GRAIN
    }
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            plain: meta.is_file(),
        }
    }
}

/// Files that are watched.
#[derive(Debug, Clone)]
pub struct Watch {
    began: SystemTime,
    files: Vec<(PathBuf, Stamp)>,
}

impl Watch {
    /// Begins with one file, before it is opened.
    ///
    /// # Errors
    /// As [`Stamp::of`].
    pub fn begin(path: &Path) -> Result<Self> {
        let began = SystemTime::now();
        Ok(Watch { began, files: vec![(path.to_owned(), Stamp::of(path)?)] })
    }

    /// Fails unless the first file is the one that was opened: a link or a directory of its path can
    /// lead elsewhere for a moment, and the file itself tells nothing of that.
    ///
    /// # Errors
    /// Kind `Undetermined`.
    pub fn check_opened(&self, opened: &Metadata) -> Result<()> {
        match self.files.first() {
            Some((path, before)) if Stamp::from(opened) != *before => Err(changed(path)),
            _ => Ok(()),
        }
    }

    /// Watches one more file, which was named by the first one.
    pub fn also(&mut self, path: &Path, opened: &Metadata) {
        self.files.push((path.to_owned(), Stamp::from(opened)));
    }

    /// When the reading began, and the files.
    #[must_use]
    pub fn files(&self) -> (SystemTime, &[(PathBuf, Stamp)]) {
        (self.began, &self.files)
    }

    /// Moves the beginning, since no test can set a ctime.
    #[cfg(test)]
    pub(super) fn set_began(&mut self, began: SystemTime) {
        self.began = began;
    }

    /// Fails if somebody wrote to a file since: nothing that was read then counts.
    ///
    /// # Errors
    /// Kind `Undetermined`.
    pub fn check_unchanged(&self) -> Result<()> {
        for (path, before) in &self.files {
            if Stamp::of(path)? != *before {
                return Err(changed(path));
            }
        }
        Ok(())
    }
}

fn changed(path: &Path) -> Error {
    Error::undetermined(format!("`{}` changed while it was read", path.display()))
        .hint("Stop what writes to it (`devbox halt` if a machine runs on it), then try again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_elsewhere_for_a_moment_is_seen() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "a").expect("write");
        std::fs::write(at("b"), "b").expect("write");
        let point = |to: &str| {
            let _ = std::fs::remove_file(at("link"));
            std::os::unix::fs::symlink(to, at("link")).expect("link");
        };
        point("a");
        let watch = Watch::begin(&at("link")).expect("watch");
        point("b");
        let opened = std::fs::File::open(at("link")).and_then(|file| file.metadata());
        point("a");
        watch.check_unchanged().expect("the path leads to what it led to");
        let e = watch.check_opened(&opened.expect("open")).expect_err("another file");
        assert!(e.what().contains("changed while it was read"), "{e}");
        let right = std::fs::metadata(at("a")).expect("there");
        watch.check_opened(&right).expect("the same file");
    }
}
