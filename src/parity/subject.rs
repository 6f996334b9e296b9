//! What is compared: an image file or a directory, and that it stays the same meanwhile.

use std::ffi::OsStr;
use std::io::{BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::bytes::Chunks;
use super::listed::Listed;
use super::lookup::Files;
use super::manifest::{self, Manifest};
use super::packages::Packages;
use super::watch::Watch;
use super::{Level, content};
use crate::digest::{FileDigest, Sha256};
use crate::error::{Context as _, Error, Result};
use crate::image::Limits;
use crate::image::boot::Files as _;
use crate::image::container::{self, Container, Options};
use crate::image::directory::Directory;
use crate::image::disk::Disk;

/// Longest os-release that is read, in bytes; real ones have some hundred.
const MAX_RELEASE: u64 = 64 << 10;

/// What the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A file that holds a disk.
    Image(PathBuf),
    /// A directory of this host.
    Directory(PathBuf),
    /// A file that holds a manifest.
    Manifest(PathBuf),
    /// A box in the store.
    Stored {
        /// `name:version`.
        name: String,
        /// Its disk.
        path: PathBuf,
    },
    /// A host that runs.
    Live {
        /// As the user wrote it.
        name: String,
        /// What it said of itself.
        seen: Arc<Seen>,
    },
}

/// What a host that runs said of itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// The text of a manifest of its files, not verified yet.
    Tree(Vec<u8>),
    /// The packages that its shell showed, and nothing else.
    Packages(Packages),
}

impl Reference {
    /// `dir:PATH` and the path of a directory are directories; a file is a manifest if it begins as
    /// one, else an image.
    #[must_use]
    pub fn parse(text: &OsStr) -> Self {
        if let Some(path) = text.as_bytes().strip_prefix(b"dir:") {
            return Reference::Directory(PathBuf::from(OsStr::from_bytes(path)));
        }
        let path = PathBuf::from(text);
        if path.is_dir() {
            Reference::Directory(path)
        } else if manifest::is_manifest(&path) {
            Reference::Manifest(path)
        } else {
            Reference::Image(path)
        }
    }

    /// The file of a disk.
    #[must_use]
    pub fn image(&self) -> Option<&Path> {
        match self {
            Reference::Image(path) | Reference::Stored { path, .. } => Some(path),
            Reference::Directory(_) | Reference::Manifest(_) | Reference::Live { .. } => None,
        }
    }

    /// Of a host, the strongest level that it could tell.
    #[must_use]
    pub fn of_host(&self) -> Option<Level> {
        match self {
            Reference::Live { seen, .. } => Some(match **seen {
                Seen::Tree(_) => Level::Tree,
                Seen::Packages(_) => Level::Packages,
            }),
            _ => None,
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Reference::Image(_) => "image",
            Reference::Directory(_) => "directory",
            Reference::Manifest(_) => "manifest",
            Reference::Stored { .. } => "box",
            Reference::Live { .. } => "host",
        }
    }

    /// Fails unless `level` can be told of this kind of thing.
    ///
    /// # Errors
    /// Kind `Usage`: a directory has nothing but its files.
    pub fn check(&self, level: Level) -> Result<()> {
        match self {
            Reference::Directory(path) if !level.is_of_files() => Err(Error::usage(format!(
                "level `{}` cannot be told of the directory `{}`",
                level.as_str(),
                path.display()
            ))
            .cause("a directory has no boot code, partitions or filesystem identity")
            .hint("Add `--level tree` (or `times`, `packages`) for what the files alone tell.")),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reference::Image(path) | Reference::Directory(path) | Reference::Manifest(path) => {
                write!(f, "{}", path.display())
            }
            Reference::Stored { name, .. } | Reference::Live { name, .. } => f.write_str(name),
        }
    }
}

/// An open image that is watched for changes.
#[derive(Debug)]
pub struct Image {
    /// The disk.
    pub container: Container,
    /// Its files.
    pub watch: Watch,
}

impl Image {
    /// Opens the image at `path`.
    ///
    /// # Errors
    /// As [`container::open`].
    pub fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let mut watch = Watch::begin(path)?;
        let options = Options { limits: *limits, ..Options::default() };
        let container = container::open(path, &options)?;
        let mut files = container.files.iter();
        if let Some(image) = files.next() {
            watch.check_opened(&image.metadata)?;
        }
        files.for_each(|file| watch.also(&file.path, &file.metadata));
        Ok(Image { container, watch })
    }

    /// The partition table and the filesystems, with what a person should know about them.
    ///
    /// # Errors
    /// As [`Disk::read`].
    pub fn disk(self, limits: &Limits) -> Result<(Disk, Watch)> {
        Ok((Disk::read(self.container, limits)?, self.watch))
    }

    /// What an error is about.
    #[must_use]
    pub fn title(&self) -> String {
        format!("cannot read the disk `{}`", self.container.path.display())
    }
}

/// What was read from an image.
#[derive(Debug)]
pub struct Read<T> {
    /// It.
    pub what: T,
    /// What a person should know about the image.
    pub notes: Vec<String>,
    /// The image's files, which were the same in the end.
    pub watch: Watch,
}

/// The bytes of the disk in the image at `path`.
///
/// # Errors
/// What cannot be read, or changes meanwhile.
pub fn chunks(path: &Path, limits: &Limits) -> Result<Read<Chunks>> {
    let image = Image::open(path, limits)?;
    let what = Chunks::read(&*image.container.reader).context(|| image.title())?;
    image.watch.check_unchanged()?;
    Ok(Read { what, notes: image.container.notes, watch: image.watch })
}

/// A manifest, verified.
///
/// # Errors
/// Kind `Undetermined`: it cannot be read, or it is refused.
pub fn manifest(path: &Path, limits: &Limits) -> Result<Manifest> {
    let watch = Watch::begin(path)?;
    let what = || format!("cannot read the manifest `{}`", path.display());
    let file = fs::File::open(path).context(what)?;
    watch.check_opened(&file.metadata().context(what)?)?;
    let manifest = Manifest::read(BufReader::with_capacity(1 << 20, file), limits).context(what)?;
    watch.check_unchanged()?;
    Ok(manifest)
}

/// The manifest that a host wrote of itself, verified.
///
/// # Errors
/// Kind `Undetermined`: it is refused.
pub fn told(name: &str, text: &[u8], limits: &Limits) -> Result<Manifest> {
    Manifest::read(text, limits).context(|| format!("`{name}` does not answer as a devbox does"))
}

/// The digest and size of a plain file or a block device.
///
/// # Errors
/// It cannot be read, changes meanwhile, or is no file; [`Limits::deadline`] passed.
pub fn file(path: &Path, limits: &Limits) -> Result<Read<(FileDigest, u64)>> {
    let watch = Watch::begin(path)?;
    // Opening a pipe that nobody writes to would wait for ever.
    let kind = fs::metadata(path)?.file_type();
    if !(kind.is_file() || kind.is_block_device()) {
        return Err(Error::undetermined(format!("`{}` is not a file", path.display()))
            .cause("what a pipe or a character device gives is not there for a second look")
            .hint("Write it to a file first."));
    }
    let mut file = fs::File::open(path)?;
    watch.check_opened(&file.metadata()?)?;
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        limits.check_time()?;
        match file.read(&mut buf)? {
            0 => break,
            len => {
                hash.update(&buf[..len]);
                size += len as u64;
            }
        }
    }
    watch.check_unchanged()?;
    let what = (FileDigest::from_bytes(hash.finish()), size);
    Ok(Read { what, notes: vec![], watch })
}

/// The packages that are installed in the system on a disk.
///
/// # Errors
/// What cannot be read; no package database, or one that is not read (by name).
pub fn packages(disk: &Disk) -> Result<Packages> {
    let (at, listed) = content::root_files(disk)?;
    Packages::read(Files { fs: &**at.filesystem, tree: &listed })
}

/// What a system says it is (os-release(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// `ID`, such as `debian`.
    pub id: Option<String>,
    /// `VERSION_ID`, such as `12`.
    pub version: Option<String>,
}

/// What the system on a disk says it is.
///
/// # Errors
/// What cannot be read; no root filesystem.
pub fn release(disk: &Disk) -> Result<Release> {
    let (at, listed) = content::root_files(disk)?;
    let files = Files { fs: &**at.filesystem, tree: &listed };
    for path in [&b"/etc/os-release"[..], b"/usr/lib/os-release"] {
        if let Some(text) = files.read(path, MAX_RELEASE)? {
            return Ok(Release::parse(&String::from_utf8_lossy(&text)));
        }
    }
    Ok(Release::default())
}

impl Release {
    /// Values that are not plain words are left out.
    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let of = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
            let value = text.lines().find_map(of)?;
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            (!value.is_empty() && value.bytes().all(plain)).then_some(value)
        };
        Release { id: value("ID"), version: value("VERSION_ID") }
    }
}

/// The packages that are installed in the directory at `path`.
///
/// # Errors
/// As [`packages`].
pub fn packages_of_directory(
    directory: &Directory,
    path: &Path,
    limits: &Limits,
) -> Result<Packages> {
    let listed = Listed::read(directory, limits)?;
    let files = Files { fs: directory, tree: &listed };
    Packages::read(files).context(|| of_packages(path))
}

pub(super) fn of_packages(path: &Path) -> String {
    format!("cannot tell the packages of `{}`", path.display())
}
