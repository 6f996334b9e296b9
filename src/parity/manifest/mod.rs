//! The manifest: everything that parity needs of an image or a directory, as one text file that is
//! verified by itself (`docs/manifest.md`).
//!
//! [`Manifest`] holds the same models that images give; `write` and `json` write them, `read`
//! reads them back and recomputes every digest.

mod entry;
mod growing;
mod json;
mod lines;
mod possible;
mod preimage;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io::Read as _;
use std::path::Path;

use clap::ValueEnum;

use super::bytes::Chunks;
use super::content::{self, Content};
use super::hashed::Hashed;
use super::lookup::Files;
use super::model::Model;
use super::packages::Packages;
use super::subject::Image;
use super::{Level, listed::Listed};
use crate::error::{Context as _, Error, Result};
use crate::image::Limits;
use crate::image::directory::Directory;
use crate::image::tree::Filesystem;

/// The first line without the version.
const MAGIC: &[u8] = b"devbox/manifest/";
/// The version that is written and read.
const VERSION: &[u8] = b"1";
/// Why a line that can be read is still refused.
const NOT_CANONICAL: &str = "it is not as devbox writes it";

/// How often the files of a system that runs are read until nothing changes meanwhile. Each time but the
/// first one, the host has them in memory.
const TRIES: u32 = 3;
/// How many sockets a note names.
const NAMED: usize = 5;

/// How much a manifest holds: what the levels of that name need, and those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Also the digest of every 4 MiB of the disk.
    Disk,
    /// Boot code, partitions, filesystems, files, boot entries.
    Content,
    /// The files of the root filesystem, and the packages.
    Tree,
}

/// What is known of an image or a directory.
#[derive(Debug)]
pub struct Manifest {
    /// What a person should know, in sentences without a full stop.
    pub notes: Vec<String>,
    /// The bytes of the disk.
    pub bytes: Option<Chunks>,
    /// The files, and what is around them.
    pub held: Held,
    /// The packages, or why they cannot be told.
    pub packages: Result<Packages, String>,
}

/// Files, and what is around them.
#[derive(Debug)]
pub enum Held {
    /// A whole system.
    System(Box<Content>),
    /// The files of one filesystem.
    Tree(Box<Hashed>),
}

/// Whether the file at `path` begins as a manifest does; anything but a plain file is none.
#[must_use]
pub fn is_manifest(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    path.metadata().is_ok_and(|meta| meta.is_file())
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok()
        && head == MAGIC
}

impl Manifest {
    /// Reads an image; returns the manifest and what a person should know of the container.
    ///
    /// # Errors
    /// What cannot be read, or changes meanwhile.
    pub fn of_image(path: &Path, scope: Scope, limits: &Limits) -> Result<(Self, Vec<String>)> {
        let of = || format!("cannot tell what `{}` holds", path.display());
        let (disk, watch) = Image::open(path, limits)?.disk(limits)?;
        let bytes = (scope == Scope::Disk).then(|| Chunks::read(&*disk.container.reader));
        let bytes = bytes.transpose().context(of)?;
        let held = match scope {
            Scope::Tree => Held::Tree(Box::new(content::root_tree(&disk).context(of)?)),
            _ => Held::System(Box::new(Content::read(&disk).context(of)?)),
        };
        let packages = match content::root_files(&disk) {
            Ok((at, listed)) => packages(&**at.filesystem, &listed),
            Err(e) => Err(e.what().to_owned()),
        };
        watch.check_unchanged()?;
        let container = disk.container.notes.clone();
        // The same disk in another container is the same system.
        let notes = disk.notes().split_off(container.len());
        Ok((Manifest { notes, bytes, held, packages }, container))
    }

    /// Reads a directory of this host.
    ///
    /// # Errors
    /// What cannot be read, or changes meanwhile.
    pub fn of_directory(path: &Path, limits: &Limits) -> Result<Self> {
        let directory = Directory::open(path, limits)?;
        let tree = Hashed::read(&directory, limits)?;
        let packages = packages(&directory, &tree);
        let notes = directory.notes().to_vec();
        Ok(Manifest { notes, bytes: None, held: Held::Tree(Box::new(tree)), packages })
    }

    /// Reads the directory of a system that runs: sockets, which no image holds, are left out with a note,
    /// and what changes meanwhile is read again.
    ///
    /// # Errors
    /// As [`Manifest::of_directory`]; something changed each time.
    pub fn of_running(path: &Path, limits: &Limits) -> Result<Self> {
        let mut tries = 1;
        loop {
            let directory = Directory::open(path, limits)?;
            let mut listed = Listed::read(&directory, limits)?;
            let sockets = listed.take_sockets();
            let left_out = left_out(sockets.iter().map(|id| listed.show(*id)));
            let tree = match Hashed::of(listed, &directory, limits) {
                Err(_) if tries < TRIES => {
                    tries += 1;
                    continue;
                }
                other => other?,
            };
            let packages = packages(&directory, &tree);
            let notes = directory.notes().iter().cloned().chain(left_out).collect();
            return Ok(Manifest { notes, bytes: None, held: Held::Tree(Box::new(tree)), packages });
        }
    }

    /// What `level` knows of the subject.
    ///
    /// # Errors
    /// Kind `Undetermined`: the manifest does not hold that level.
    pub fn model(self, level: Level) -> Result<Model> {
        let missing = || {
            Error::undetermined(format!("the manifest does not hold level `{}`", level.as_str()))
        };
        let again =
            "Choose `--level tree`, or write the manifest again from the image with more in it.";
        match (level, self.bytes, self.held) {
            (Level::File, ..) => Err(missing().with_kind(crate::error::Kind::Usage).hint(
                "Compare the files themselves with `cmp` or `sha256sum`, or choose another level.",
            )),
            (Level::Disk, Some(chunks), _) => Ok(Model::Disk(chunks)),
            (Level::Content, _, Held::System(content)) => Ok(Model::Content(content)),
            (Level::Tree, _, held) => Ok(Model::Tree(held.root()?)),
            (Level::Times, _, held) => Ok(Model::Times(held.root()?)),
            (Level::Packages, ..) => match self.packages {
                Ok(packages) => Ok(Model::Packages(packages)),
                Err(why) => Err(Error::undetermined(why)
                    .hint("Compare at `--level tree` or `--level content`.")),
            },
            _ => Err(missing().hint(again)),
        }
    }

    /// How much it holds.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match (&self.bytes, &self.held) {
            (Some(_), _) => Scope::Disk,
            (None, Held::System(_)) => Scope::Content,
            (None, Held::Tree(_)) => Scope::Tree,
        }
    }
}

impl Held {
    /// The files of the root filesystem.
    fn root(self) -> Result<Box<Hashed>> {
        match self {
            Held::Tree(tree) => Ok(tree),
            Held::System(content) => content.into_root(),
        }
    }
}

/// What is said of sockets.
fn left_out(paths: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let count = paths.len();
    let paths: Vec<_> = paths.take(NAMED).collect();
    let more = if count > NAMED { " and others" } else { "" };
    let text = format!("left out, since no image holds sockets: {}{more}", paths.join(", "));
    (count > 0).then_some(text)
}

fn packages(fs: &dyn Filesystem, listed: &Listed) -> Result<Packages, String> {
    Packages::read(Files { fs, tree: listed }).map_err(|e| e.what().to_owned())
}
