//! Plain bytes: a file or a block device, with its holes.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::slice::check_range;

/// A file or a block device, open for reading.
#[derive(Debug)]
pub struct Raw {
    file: File,
    path: PathBuf,
    size: u64,
    meta: Option<Metadata>,
}

impl Raw {
    /// Opens `path`. A pipe or a device that would block is not waited for.
    ///
    /// # Errors
    /// The file cannot be opened, or is neither a regular file nor a block device.
    pub fn open(path: &Path) -> Result<Self> {
        Raw::open_with(path, OFlags::NONBLOCK)
    }

    /// Opens `path` as [`Raw::open`] does, unless it is a symbolic link.
    pub(super) fn open_no_link(path: &Path) -> Result<Self> {
        Raw::open_with(path, OFlags::NONBLOCK | OFlags::NOFOLLOW)
    }

    fn open_with(path: &Path, flags: OFlags) -> Result<Self> {
        let fail = |e: io::Error| {
            Error::failed(format!("cannot open the disk image `{}`", path.display())).cause(e)
        };
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        let size = if meta.is_file() {
            meta.len()
        } else if meta.file_type().is_block_device() {
            rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| fail(e.into()))?
        } else {
            return Err(Error::failed(format!("`{}` is not a disk image", path.display()))
                .cause("it is neither a regular file nor a block device")
                .hint("Write what a pipe gives to a file first."));
        };
        Ok(Raw { file, path: path.to_path_buf(), size, meta: Some(meta) })
    }

    /// A file that has no name any more; `path` is what it is called in messages.
    pub(super) fn unnamed(file: File, path: PathBuf, size: u64) -> Self {
        Raw { file, path, size, meta: None }
    }

    /// What the system said of the open file; none for one without a name.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.meta.as_ref()
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl ReadAt for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)
            .map_err(|e| e.context(format!("cannot read `{}`", self.path.display())))?;
        self.file.read_exact_at(buf, offset).map_err(|e| {
            let what = format!(
                "cannot read {} bytes at byte {offset} of `{}`",
                buf.len(),
                self.path.display()
            );
            match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::undetermined(what).cause("the file became shorter while it was read")
                }
                _ => Error::undetermined(what).cause(e),
            }
        })
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        if offset >= self.size {
            return Ok(None);
        }
        // `lseek` moves the descriptor's position, which nothing here uses: reads give their own.
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start.max(offset),
            Err(Errno::NXIO) => return Ok(None),
            // Not every filesystem and no block device knows its holes.
            Err(_) => return Ok(Some(offset..self.size)),
        };
        if start >= self.size {
            return Ok(None);
        }
        let end = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(self.size),
            _ => self.size,
        };
        Ok(Some(start..end))
    }
}
