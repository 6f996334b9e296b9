//! Whether two images are the same, at which level, and where they differ.
//!
//! The rules are `docs/identity.md`; `tests/vectors` holds preimages and digests that do not come
//! from this code.
//!
//! [`spelling`] and [`canonical`] write preimages; [`attributes`] says which extended attributes
//! count. [`listed`] checks a file tree; [`hashed`] turns it, [`bytes`] a disk and [`content`] a
//! system into digests, [`before`] remembers those of a disk that a guest will write to, [`packages`] says what is installed. [`subject`] opens what the user named, [`model`] holds what a level knows of
//! it (a [`manifest`] is a model as a file), and [`compare`] compares two of these: [`trees`] path by path, and what is above the files in
//! `systems`. The [`cache`] remembers the digests of files that [`watch`] finds unchanged.

pub mod attributes;
pub mod before;
mod boot_code;
pub mod bytes;
pub mod cache;
pub mod canonical;
pub mod compare;
pub mod content;
pub mod difference;
pub mod drift;
pub mod explain;
pub mod hashed;
mod layout;
pub mod listed;
pub mod lookup;
pub mod manifest;
pub mod model;
pub mod packages;
pub mod policy;
pub mod report;
mod root;
pub mod spelling;
pub mod subject;
mod systems;
pub mod trees;
pub mod watch;

use serde::Serialize;

/// What "the same" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The file that holds the image, byte for byte.
    File,
    /// The bytes that a guest sees.
    Disk,
    /// Boot code, partition and filesystem identities, files, kernel command lines.
    Content,
    /// The files of the root filesystem.
    Tree,
    /// The files of the root filesystem with their modification times.
    Times,
    /// The packages that the package manager's database names.
    Packages,
}

impl Level {
    /// Whether files alone can tell it, without a disk around them.
    #[must_use]
    pub fn is_of_files(self) -> bool {
        matches!(self, Level::Tree | Level::Times | Level::Packages)
    }

    /// The word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::File => "file",
            Level::Disk => "disk",
            Level::Content => "content",
            Level::Tree => "tree",
            Level::Times => "times",
            Level::Packages => "packages",
        }
    }
}
