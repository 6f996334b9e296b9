//! rpm's database: `rpmdb.sqlite` with the header of each installed package in the table `Packages`
//! (rpm, lib/backend/sqlite.c), as Fedora, RHEL from 9 on and openSUSE's newer ones have it.

pub(super) mod header;

use self::header::{Header, tag};
use super::sqlite::{Database, Value};
use super::{MAX_DATABASE, Package};
use crate::error::{Error, Result};
use crate::image::boot::Files as _;
use crate::parity::lookup::Files;
use crate::parity::spelling::spell;

/// The folders of rpm itself, of SUSE and new Fedoras, and of rpm-ostree (rpm, macro `_dbpath`); one
/// is often a link to another.
pub(super) const FOLDERS: [&[u8]; 3] =
    [b"/var/lib/rpm", b"/usr/lib/sysimage/rpm", b"/usr/share/rpm"];
const NAME: &[u8] = b"rpmdb.sqlite";
/// What SQLite has not yet written into the database, or may have to take back from it.
const BESIDE: [&[u8]; 2] = [b"-wal", b"-journal"];

/// The packages; none if there is no database.
pub(super) fn read(files: Files<'_>) -> Result<Option<Vec<Package>>> {
    let mut found = None;
    for path in databases(files) {
        let all: &mut Vec<Package> = found.get_or_insert_default();
        for beside in BESIDE.map(|end| [&path[..], end].concat()) {
            if files.size(&beside)?.is_some_and(|size| size > 0) {
                return Err(not_whole(&path, &beside));
            }
        }
        if let Some(bytes) = files.read(&path, MAX_DATABASE)? {
            parse(&path, &bytes, all)?;
        }
    }
    Ok(found)
}

/// Whether a database of this kind can be at `path`.
pub(super) fn is_database(path: &[u8]) -> bool {
    FOLDERS.iter().any(|folder| [folder, &b"/"[..], NAME].concat() == path)
}

/// The packages in a database.
pub(super) fn parse(path: &[u8], database: &[u8], all: &mut Vec<Package>) -> Result<()> {
    let read = headers(database, &mut |header| {
        all.push(package(header)?);
        Ok(())
    });
    read.map_err(|why| {
        Error::undetermined(format!("the rpm database `{}` is damaged", spell(path))).cause(why)
    })
}

/// A database with something in `beside` that SQLite would put into it.
pub(crate) fn not_whole(path: &[u8], beside: &[u8]) -> Error {
    let (path, beside) = (spell(path), spell(beside));
    Error::undetermined(format!("the rpm database `{path}` is not whole"))
        .cause(format!("`{beside}` has changes that belong into it"))
        .hint("Run `rpm --rebuilddb` in the system, or compare at `--level tree`.")
}

/// The paths of all databases of this kind, each file once.
pub(super) fn databases(files: Files<'_>) -> Vec<Vec<u8>> {
    let mut known = vec![];
    let mut paths = vec![];
    for folder in FOLDERS {
        let path = [folder, b"/", NAME].concat();
        if let Some(id) = files.tree.find(&path)
            && !known.contains(&id)
        {
            known.push(id);
            paths.push(path);
        }
    }
    paths
}

/// Calls `each` with the header of every package in a database.
pub(super) fn headers(
    database: &[u8],
    each: &mut dyn FnMut(&Header<'_>) -> Result<(), header::Damage>,
) -> Result<(), String> {
    // hnum INTEGER PRIMARY KEY, blob BLOB
    let there = Database::open(database)?.rows(b"Packages", &mut |row| {
        let [_, Value::Blob(blob)] = row else {
            return Err("a row of `Packages` is no package".into());
        };
        Ok(each(&Header::of(blob)?)?)
    })?;
    if there { Ok(()) } else { Err("it has no table `Packages`".into()) }
}

fn package(header: &Header<'_>) -> Result<Package, header::Damage> {
    let text = |tag| header.string(tag).map(Option::unwrap_or_default);
    let (version, release) = (text(tag::VERSION)?, text(tag::RELEASE)?);
    let mut full = match header.numbers(tag::EPOCH)?.first() {
        Some(epoch) => format!("{epoch}:").into_bytes(),
        None => vec![],
    };
    full.extend([version, b"-", release].concat());
    let name = text(tag::NAME)?.to_vec();
    if name.is_empty() || version.is_empty() || release.is_empty() {
        return Err("a package has no name or no version");
    }
    Ok(Package {
        kind: "rpm",
        name,
        arch: text(tag::ARCH)?.to_vec(),
        version: full,
        status: vec![],
    })
}

#[cfg(test)]
mod tests;
