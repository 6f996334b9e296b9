//! What a container is read from: a file, or what was found packed inside of one.

use std::fmt;
use std::fs::Metadata;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::raw::Raw;
use crate::error::Result;
use crate::image::ReadAt;

/// The bytes of one container, and what to call them. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    bytes: Arc<dyn ReadAt>,
    path: PathBuf,
    member: Option<String>,
    opened: Option<Arc<OpenFile>>,
}

/// A file of this host that is open.
#[derive(Debug)]
pub struct OpenFile {
    /// The path that it was opened by.
    pub path: PathBuf,
    /// What the system said of it when it was open: by then, another file can have the path.
    pub metadata: Metadata,
}

impl Source {
    /// Opens a file or a block device.
    ///
    /// # Errors
    /// As [`Raw::open`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Source::from(Raw::open(path)?))
    }

    /// `bytes` that were found in this source under the name `member`, as in an archive.
    #[must_use]
    pub fn inside(&self, member: &str, bytes: Arc<dyn ReadAt>) -> Self {
        let member = match &self.member {
            Some(outer) => format!("{outer}, {member}"),
            None => member.to_owned(),
        };
        Source { bytes, path: self.path.clone(), member: Some(member), opened: None }
    }

    /// `bytes` that the file at `path` held a moment ago.
    pub(super) fn captured(path: &Path, bytes: Arc<dyn ReadAt>) -> Self {
        Source { bytes, path: path.to_path_buf(), member: None, opened: None }
    }

    /// Bytes that no file holds, for a fuzzer.
    #[cfg(fuzzing)]
    pub(crate) fn memory(bytes: Arc<dyn ReadAt>) -> Self {
        let (path, member) = (PathBuf::from("input"), Some("memory".to_owned()));
        Source { bytes, path, member, opened: None }
    }

    /// The file of this host that holds the bytes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that holds the bytes; none for what was found packed in another one.
    pub(super) fn opened(&self) -> Option<Arc<OpenFile>> {
        self.opened.clone()
    }

    /// Whether the bytes are a file of this host as it is, so that other files beside it can belong
    /// to it.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.member.is_none()
    }

    /// What to call it in messages: the path, and the member in parentheses.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.member {
            Some(member) => format!("{} ({member})", self.path.display()),
            None => self.path.display().to_string(),
        }
    }

    /// As many bytes as there are from `offset`, at most `len`.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub(super) fn read_up_to(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let there = self.size().saturating_sub(offset);
        let len = usize::try_from(there).map_or(len, |there| there.min(len));
        if len == 0 {
            return Ok(vec![]);
        }
        let mut buf = vec![0; len];
        self.read_at(&mut buf, offset)?;
        Ok(buf)
    }
}

impl From<Raw> for Source {
    fn from(file: Raw) -> Self {
        let path = file.path().to_path_buf();
        let opened = file
            .metadata()
            .map(|metadata| OpenFile { path: path.clone(), metadata: metadata.clone() });
        Source { bytes: Arc::new(file), path, member: None, opened: opened.map(Arc::new) }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.name())
    }
}

impl ReadAt for Source {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.bytes.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.bytes.next_data(offset)
    }
}
