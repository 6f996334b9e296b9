//! One side of a comparison at one level, in the same form wherever it came from.

use std::path::Path;

use super::Level;
use super::bytes::Chunks;
use super::content::{self, Content};
use super::hashed::Hashed;
use super::packages::Packages;
use super::subject::{self, Read, Reference};
use super::watch::Watch;
use crate::digest::FileDigest;
use crate::error::{Context as _, Result};
use crate::image::Limits;
use crate::image::disk::Disk;

/// What a digest of a manifest is worth.
const CLAIM: &str = "this is a manifest: consistent in itself, and no proof of any disk";

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
}

impl Reading {
    /// Reads all that `level` covers.
    ///
    /// # Errors
    /// What cannot be read (kind `Undetermined`), or a level that this kind of thing has not
    /// (`Usage`).
    pub fn of(of: &Reference, level: Level, limits: &Limits) -> Result<Self> {
        of.check(level)?;
        let (model, notes, watch) = match of {
            Reference::Image(path) | Reference::Stored { path, .. } => {
                let read = Model::of_image(path, level, limits)?;
                (read.what, read.notes, Some(read.watch))
            }
            Reference::Directory(path) => {
                let (model, notes) = Model::of_directory(path, level, limits)?;
                (model, notes, None)
            }
            Reference::Manifest(path) => {
                let (model, notes) = Model::of_manifest(path, level, limits)?;
                (model, notes, None)
            }
        };
        let digests = model.digests();
        Ok(Reading { model, digests, notes, watch })
    }
}

impl Model {
    fn of_image(path: &Path, level: Level, limits: &Limits) -> Result<Read<Self>> {
        fn held<T>(read: Read<T>, model: impl FnOnce(T) -> Model) -> Read<Model> {
            Read { what: model(read.what), notes: read.notes, watch: read.watch }
        }
        let disk = |read: &dyn Fn(&Disk) -> Result<Model>| subject::read(path, limits, read);
        match level {
            Level::File => Ok(held(subject::file(path, limits)?, |(digest, size)| Model::File {
                digest,
                size,
            })),
            Level::Disk => Ok(held(subject::chunks(path, limits)?, Model::Disk)),
            Level::Content => disk(&|disk| Ok(Model::Content(Box::new(Content::read(disk)?)))),
            Level::Tree => disk(&|disk| Ok(Model::Tree(Box::new(content::root_tree(disk)?)))),
            Level::Times => disk(&|disk| Ok(Model::Times(Box::new(content::root_tree(disk)?)))),
            Level::Packages => disk(&|disk| Ok(Model::Packages(subject::packages(disk)?))),
        }
    }

    fn of_manifest(path: &Path, level: Level, limits: &Limits) -> Result<(Self, Vec<String>)> {
        let manifest = subject::manifest(path, limits)?;
        let mut notes = manifest.notes.clone();
        notes.push(CLAIM.to_owned());
        let model = manifest.model(level).context(|| match level {
            Level::Packages => subject::of_packages(path),
            _ => format!("cannot compare `{}`", path.display()),
        })?;
        Ok((model, notes))
    }

    fn of_directory(path: &Path, level: Level, limits: &Limits) -> Result<(Self, Vec<String>)> {
        if level == Level::Packages {
            let (packages, notes) = subject::packages_of_directory(path, limits)?;
            return Ok((Model::Packages(packages), notes));
        }
        let (tree, notes) = subject::directory(path, limits)?;
        let tree = Box::new(tree);
        Ok((if level == Level::Times { Model::Times(tree) } else { Model::Tree(tree) }, notes))
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
