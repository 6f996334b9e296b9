//! Makes files below a folder without following a link there, whoever made it: each folder on the way
//! is opened by itself, and `..` is no name.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawMode, Timespec, Timestamps, futimens, linkat, mkdirat,
    open, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A path below the root: names only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Below(Vec<OsString>);

impl Below {
    /// The names of a path that a guest sent.
    ///
    /// # Errors
    /// It is absolute, or a name in it is `..`: it would lead out (kind `Undetermined`).
    pub(super) fn of_guest(path: &[u8]) -> Result<Self> {
        let names = path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
        let names: Vec<OsString> = names.map(|name| OsString::from_vec(name.to_vec())).collect();
        if path.starts_with(b"/") || names.iter().any(|name| name == "..") {
            let shown = String::from_utf8_lossy(path);
            return Err(Error::undetermined(format!(
                "the guest sent the path `{shown}`, which leads out of the target"
            ))
            .hint("Do not trust this guest; nothing was written there."));
        }
        Ok(Below(names))
    }

    /// The same below `name`.
    pub(super) fn under(mut self, name: Option<&OsStr>) -> Self {
        self.0.splice(0..0, name.map(OsStr::to_owned));
        self
    }

    /// How many folders are between it and the root.
    pub(super) fn depth(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
}

/// The root.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens a folder that the user named; links on the way to it are the user's.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|e| {
            Error::failed(format!("cannot open the folder `{}`", path.display()))
                .cause(std::io::Error::from(e))
                .hint("Name a folder that is there.")
        })?;
        Ok(Root { folder, path: path.to_owned() })
    }

    /// A message about one path.
    fn failed(&self, what: &str, at: &Below, e: Errno) -> Error {
        let path = self.path.join(at.0.iter().collect::<PathBuf>());
        let error = Error::failed(format!("cannot {what} `{}`", path.display()));
        let error = error.cause(std::io::Error::from(e));
        match e {
            Errno::NOTDIR | Errno::LOOP => {
                error.hint("A folder is needed there, and links are not followed: move it away.")
            }
            Errno::NOSPC | Errno::DQUOT => error.hint("Free some space on that disk."),
            _ => error.hint("Look at the rights of its folder."),
        }
    }

    /// Opens the folder of `at`, making folders that are missing, and gives the last name.
    fn folder_of<'a>(&self, at: &'a Below) -> Result<(OwnedFd, &'a OsStr)> {
        let failed = |e| self.failed("enter the folder of", at, e);
        let Some((name, folders)) = at.0.split_last() else {
            return Err(self.failed("replace", at, Errno::ISDIR));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut here = self.folder.try_clone()?;
        for folder in folders {
            let next = match openat(&here, folder.as_os_str(), flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    mkdirat(&here, folder.as_os_str(), Mode::from_raw_mode(0o777))
                        .map_err(failed)?;
                    openat(&here, folder.as_os_str(), flags, Mode::empty())
                }
                other => other,
            };
            here = next.map_err(failed)?;
        }
        Ok((here, name))
    }

    /// Makes a folder, or takes the one that is there; its owner can always work in it.
    pub(super) fn make_folder(&self, at: &Below, mode: u32) -> Result<()> {
        if at.0.is_empty() {
            return Ok(());
        }
        let (folder, name) = self.folder_of(at)?;
        match mkdirat(&folder, name, Mode::from_raw_mode((mode | 0o700) as RawMode)) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let there = openat(&folder, name, flags, Mode::empty());
                there.map(|_| ()).map_err(|e| self.failed("enter", at, e))
            }
            Err(e) => Err(self.failed("make the folder", at, e)),
        }
    }

    /// Makes a new file, in place of one that is there; what was linked to that keeps its contents.
    pub(super) fn make_file(&self, at: &Below, mode: u32) -> Result<std::fs::File> {
        let (folder, name) = self.folder_of(at)?;
        self.make_room(&folder, name, at)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder, name, flags, Mode::from_raw_mode((mode & 0o777) as RawMode));
        file.map(std::fs::File::from).map_err(|e| self.failed("write", at, e))
    }

    /// Makes a link that leads to `to`, as it stands.
    pub(super) fn make_symlink(&self, at: &Below, to: &[u8]) -> Result<()> {
        let (folder, name) = self.folder_of(at)?;
        self.make_room(&folder, name, at)?;
        symlinkat(OsStr::from_bytes(to), &folder, name).map_err(|e| self.failed("make", at, e))
    }

    /// Gives the file `to` another name. False if that is no file.
    pub(super) fn make_link(&self, at: &Below, to: &Below) -> Result<bool> {
        let (from_folder, from) = self.folder_of(to)?;
        let is_file = statat(&from_folder, from, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if !is_file || at == to {
            return Ok(false);
        }
        let (folder, name) = self.folder_of(at)?;
        self.make_room(&folder, name, at)?;
        linkat(&from_folder, from, &folder, name, AtFlags::empty())
            .map_err(|e| self.failed("make", at, e))?;
        Ok(true)
    }

    /// Removes what has the name, unless it is a folder.
    fn make_room(&self, folder: &OwnedFd, name: &OsStr, at: &Below) -> Result<()> {
        match unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed("replace", at, e)),
        }
    }
}

/// Sets the time of the last change.
pub(super) fn set_mtime(file: &std::fs::File, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    // A filesystem that cannot hold it keeps the time of the copy.
    let _ = futimens(file.as_fd(), &Timestamps { last_access: time, last_modification: time });
}
