//! Level `packages`: what the package manager's database in the root filesystem says is installed.

mod apk;
mod dpkg;
pub mod files;
pub(crate) mod rpm;
mod sqlite;

use std::collections::BTreeMap;

use super::canonical::{self, Package};
use super::difference::{Change, Differences, Kind, Place, note};
use super::lookup::Files;
use super::spelling::spell;
use crate::digest::PackagesDigest;
use crate::error::{Error, Result};
use crate::image::boot::Files as _;
use crate::image::tree::NodeKind;

/// Most bytes of one database. Debian's with all of its packages has about 100 MiB.
const MAX_DATABASE: u64 = 256 << 20;

/// The files of rpm's databases that are not read: NDB, Berkeley DB (rpm, macro `_db_backend`).
const RPM_FILES: [&[u8]; 2] = [b"Packages.db", b"Packages"];
/// pacman's database (pacman(8), `DBPath`).
const PACMAN: &[u8] = b"/var/lib/pacman/local";

/// A database without the system around it.
#[derive(Debug, Clone, Copy)]
pub struct Database<'a> {
    /// Where it is in the root filesystem.
    pub path: &'a [u8],
    /// All of it.
    pub text: &'a [u8],
}

/// The installed packages, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages(Vec<Package>);

impl Packages {
    /// Reads every database of the system in `files`.
    ///
    /// # Errors
    /// Kind `Undetermined`: there is no database, one of a kind that is not read (by name), or a
    /// damaged one.
    pub fn read(files: Files<'_>) -> Result<Self> {
        if let Some(path) = unread(files)? {
            return Err(Error::undetermined(format!("{path} is not read"))
                .hint("Compare at `--level tree` or `--level content`."));
        }
        let found = [dpkg::read(files)?, apk::read(files)?, rpm::read(files)?];
        if found.iter().all(Option::is_none) {
            return Err(no_database());
        }
        Self::of(found.into_iter().flatten().flatten().collect())
    }

    /// Reads the databases of a system of which nothing else is at hand.
    ///
    /// # Errors
    /// As [`Packages::read`]; a file that is no database.
    pub fn of_databases(databases: &[Database<'_>]) -> Result<Self> {
        if databases.is_empty() {
            return Err(no_database());
        }
        let mut found = vec![];
        for Database { path, text } in databases {
            if text.len() as u64 > MAX_DATABASE {
                let what = format!("`{}` has more than {MAX_DATABASE} bytes", spell(path));
                return Err(Error::undetermined(what));
            }
            if dpkg::is_database(path) {
                dpkg::parse(path, text, &mut found)?;
            } else if apk::INSTALLED.contains(path) {
                apk::parse(path, text, &mut found)?;
            } else if rpm::is_database(path) {
                rpm::parse(path, text, &mut found)?;
            } else if !dpkg::is_list(path) {
                let what = format!("`{}` is no package database", spell(path));
                return Err(Error::undetermined(what));
            }
        }
        Self::of(found)
    }

    /// Sorts packages.
    ///
    /// # Errors
    /// Kind `Undetermined`: a package is there twice.
    pub fn of(mut packages: Vec<Package>) -> Result<Self> {
        packages.sort_unstable();
        if let Some(pair) = packages.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = spell(&pair[0].name);
            return Err(Error::undetermined(format!("the package `{name}` is there twice")));
        }
        Ok(Packages(packages))
    }

    /// All of them, in the order of the preimage.
    #[must_use]
    pub fn list(&self) -> &[Package] {
        &self.0
    }

    /// The text that `pkgs1` hashes.
    #[must_use]
    pub fn preimage(&self) -> Vec<u8> {
        canonical::packages(&self.0)
    }

    /// `pkgs1`.
    #[must_use]
    pub fn digest(&self) -> PackagesDigest {
        PackagesDigest::of(&self.preimage())
    }
}

fn no_database() -> Error {
    Error::undetermined("the system has no package database")
        .cause("none of dpkg's, apk's and rpm's was found in the root filesystem")
        .hint("Compare at `--level tree` or `--level content`.")
}

/// A database that is known and not read.
fn unread(files: Files<'_>) -> Result<Option<String>> {
    for folder in rpm::FOLDERS {
        for name in files.list(folder)? {
            if RPM_FILES.contains(&name.as_slice()) {
                let path = spell(&[folder, b"/", &name].concat());
                return Ok(Some(format!("the rpm database `{path}`")));
            }
        }
    }
    let pacman = files.find(PACMAN).is_some_and(|n| matches!(n.kind, NodeKind::Directory { .. }));
    Ok(pacman.then(|| format!("the pacman database `{}`", spell(PACMAN))))
}

/// A record that makes no sense, by the number of the line it begins at.
fn damaged(path: &[u8], line: usize, why: &str) -> Error {
    Error::undetermined(format!("`{}` is damaged at line {line}", spell(path))).cause(why)
}

/// Differences of two systems' packages.
pub(super) fn compare(a: &Packages, b: &Packages, out: &mut Differences) {
    type Sides<'a> = [Vec<&'a Package>; 2];
    let mut all: BTreeMap<(&str, &[u8], &[u8]), Sides<'_>> = BTreeMap::new();
    for (side, packages) in [a, b].into_iter().enumerate() {
        for package in packages.list() {
            let key = (package.kind, &package.name[..], &package.arch[..]);
            all.entry(key).or_default()[side].push(package);
        }
    }
    for ((_, name, arch), [old, new]) in all {
        let mut changes = vec![];
        match (&old[..], &new[..]) {
            ([old], [new]) => {
                note(&mut changes, Kind::Version, spell(&old.version), spell(&new.version));
                note(&mut changes, Kind::Status, spell(&old.status), spell(&new.status));
            }
            // Several versions side by side: no one of them became another one.
            _ => {
                for package in old.iter().filter(|package| !new.contains(package)) {
                    let old = Some(spell(&package.version));
                    changes.push(Change { kind: Kind::Removed, key: None, old, new: None });
                }
                for package in new.iter().filter(|package| !old.contains(package)) {
                    let new = Some(spell(&package.version));
                    changes.push(Change { kind: Kind::Added, key: None, old: None, new });
                }
            }
        }
        out.push(Place::Package(name.to_vec(), arch.to_vec()), changes);
    }
}

#[cfg(test)]
mod tests;
