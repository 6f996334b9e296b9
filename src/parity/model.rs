//! One side of a comparison at one level, in the same form wherever it came from.

use std::path::Path;

use super::Level;
use super::bytes::Chunks;
use super::content::{self, Content};
use super::explain;
use super::explain::view::{self, Origin, View};
use super::hashed::Hashed;
use super::packages::Packages;
use super::subject::{self, Image, Read, Reference, Seen};
use super::watch::Watch;
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};
use crate::image::Limits;
use crate::image::directory::Directory;
use crate::image::disk::{Disk, Holder};

/// What a digest of a manifest is worth.
const CLAIM: &str = "this is a manifest: consistent in itself, and no proof of any disk";

/// What a host's word is worth.
const SELF: &str =
    "the host told this of itself: whoever has taken it over can make it say anything";
/// What the package databases alone prove.
const BY_SHELL: &str = "its shell proves level `packages`, and nothing about any file";

/// What a level knows of its subject.
#[derive(Debug)]
pub enum Model {
    /// A file of the host.
    File {
        /// Its digest.
        digest: FileDigest,
        /// Its length in bytes.
        size: u64,
    },
    /// The bytes of a disk.
    Disk(Chunks),
    /// A system.
    Content(Box<Content>),
    /// The files of one filesystem.
    Tree(Box<Hashed>),
    /// The same with their modification times.
    Times(Box<Hashed>),
    /// The installed packages.
    Packages(Packages),
}

/// What was read of one side.
#[derive(Debug)]
pub struct Reading {
    /// It.
    pub model: Model,
    /// The level's digests.
    pub digests: Vec<String>,
    /// What a person should know about the side.
    pub notes: Vec<String>,
    /// The files of an image.
    pub watch: Option<Watch>,
    /// Where more can be read.
    pub source: Source,
    /// The private SSH host keys in the root filesystem: digest and path of each.
    pub host_keys: Vec<String>,
}

/// What can still be asked after the digests are known.
#[derive(Debug)]
pub enum Source {
    /// A disk.
    Disk {
        /// It.
        disk: Box<Disk>,
        /// What holds the root filesystem, at the levels that look at that alone.
        root: Option<Holder>,
    },
    /// A directory of this host.
    Directory(Directory),
    /// A manifest has no contents, but knows the packages.
    Manifest(Option<Packages>),
    /// Nothing: bytes alone were read.
    Bytes,
}

impl Reading {
    /// Reads all that `level` covers.
    ///
    /// # Errors
    /// What cannot be read (kind `Undetermined`), or a level that this kind of thing has not
    /// (`Usage`).
    pub fn of(of: &Reference, level: Level, limits: &Limits) -> Result<Self> {
        of.check(level)?;
        match of {
            Reference::Image(path) | Reference::Stored { path, .. } => match level {
                Level::File => Ok(Self::of_bytes(subject::file(path, limits)?, |file| {
                    Model::File { digest: file.0, size: file.1 }
                })),
                Level::Disk => Ok(Self::of_bytes(subject::chunks(path, limits)?, Model::Disk)),
                _ => Self::of_disk(path, level, limits),
            },
            Reference::Directory(path) => Self::of_directory(path, level, limits),
            Reference::Manifest(path) => Self::of_manifest(path, level, limits),
            Reference::Live { name, seen } => Self::of_host(name, seen, level, limits),
        }
    }

    fn new(model: Model, notes: Vec<String>, source: Source) -> Self {
        let host_keys = explain::host_keys(model.seen());
        Reading { digests: model.digests(), model, notes, watch: None, source, host_keys }
    }

    fn of_bytes<T>(read: Read<T>, model: impl FnOnce(T) -> Model) -> Self {
        let watch = Some(read.watch);
        Reading { watch, ..Self::new(model(read.what), read.notes, Source::Bytes) }
    }

    fn of_disk(path: &Path, level: Level, limits: &Limits) -> Result<Self> {
        let (disk, watch) = Image::open(path, limits)?.disk(limits)?;
        let (model, root) = Model::of_disk(&disk, level)
            .context(|| format!("cannot tell what `{}` holds", path.display()))?;
        watch.check_unchanged()?;
        let (notes, disk) = (disk.notes(), Box::new(disk));
        Ok(Reading { watch: Some(watch), ..Self::new(model, notes, Source::Disk { disk, root }) })
    }

    fn of_directory(path: &Path, level: Level, limits: &Limits) -> Result<Self> {
        let directory = Directory::open(path, limits)?;
        let model = match level {
            Level::Packages => {
                Model::Packages(subject::packages_of_directory(&directory, path, limits)?)
            }
            Level::Times => Model::Times(Box::new(Hashed::read(&directory, limits)?)),
            _ => Model::Tree(Box::new(Hashed::read(&directory, limits)?)),
        };
        let notes = directory.notes().to_vec();
        Ok(Self::new(model, notes, Source::Directory(directory)))
    }

    fn of_manifest(path: &Path, level: Level, limits: &Limits) -> Result<Self> {
        let manifest = subject::manifest(path, limits)?;
        let mut notes = manifest.notes.clone();
        notes.push(CLAIM.to_owned());
        let packages = manifest.packages.as_ref().ok().cloned();
        let model = manifest.model(level).context(|| match level {
            Level::Packages => subject::of_packages(path),
            _ => format!("cannot compare `{}`", path.display()),
        })?;
        Ok(Self::new(model, notes, Source::Manifest(packages)))
    }
}

impl Reading {
    fn of_host(name: &str, seen: &Seen, level: Level, limits: &Limits) -> Result<Self> {
        let (model, packages, mut notes) = match seen {
            Seen::Tree(text) => {
                let manifest = subject::told(name, text, limits)?;
                let packages = manifest.packages.as_ref().ok().cloned();
                let notes = manifest.notes.clone();
                let what = || format!("cannot tell what `{name}` holds");
                (manifest.model(level).context(what)?, packages, notes)
            }
            Seen::Packages(packages) if level == Level::Packages => {
                let notes = vec![BY_SHELL.to_owned()];
                (Model::Packages(packages.clone()), Some(packages.clone()), notes)
            }
            Seen::Packages(_) => {
                let what = format!("level `{}` cannot be told of `{name}`", level.as_str());
                return Err(Error::undetermined(what).cause(BY_SHELL));
            }
        };
        notes.push(SELF.to_owned());
        Ok(Self::new(model, notes, Source::Manifest(packages)))
    }
}

impl Reading {
    /// What explains its differences.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        let origin = match &self.source {
            Source::Disk { disk, root } => Origin::Disk(disk, root.as_ref()),
            Source::Directory(directory) => Origin::Directory(directory),
            Source::Manifest(packages) => Origin::Manifest(packages.as_ref()),
            Source::Bytes => Origin::Bytes,
        };
        let (seen, host_keys) = (self.model.seen(), &self.host_keys[..]);
        View { seen, origin, host_keys, has_digests: true }
    }
}

impl Model {
    /// What a level above the bytes knows of a disk, and where the root filesystem is if it looked there alone.
    fn of_disk(disk: &Disk, level: Level) -> Result<(Self, Option<Holder>)> {
        Ok(match level {
            Level::Packages => (Model::Packages(subject::packages(disk)?), None),
            Level::Tree | Level::Times => {
                let (holder, tree) = content::root(disk)?;
                let tree = Box::new(tree);
                let model =
                    if level == Level::Times { Model::Times(tree) } else { Model::Tree(tree) };
                (model, Some(holder))
            }
            _ => (Model::Content(Box::new(Content::read(disk)?)), None),
        })
    }

    fn seen(&self) -> view::Seen<'_> {
        match self {
            Model::Content(content) => view::Seen::Content(content),
            Model::Tree(tree) | Model::Times(tree) => view::Seen::Tree(tree),
            Model::Packages(packages) => view::Seen::Packages(packages),
            Model::File { .. } | Model::Disk(_) => view::Seen::Bytes,
        }
    }

    /// The level's digests: one, or at the levels `tree` and `times` the tree's and `links1`.
    #[must_use]
    pub fn digests(&self) -> Vec<String> {
        match self {
            Model::File { digest, .. } => vec![digest.to_string()],
            Model::Disk(chunks) => vec![chunks.digest().to_string()],
            Model::Content(content) => vec![content.digest().to_string()],
            Model::Tree(tree) => vec![tree.tree1().to_string(), tree.links1().to_string()],
            Model::Times(tree) => vec![tree.tree1t().to_string(), tree.links1().to_string()],
            Model::Packages(packages) => vec![packages.digest().to_string()],
        }
    }
}
