//! The files in the headers of rpm's packages: names, states, flags and digests.

use super::super::rpm::header::{Damage, Header, tag};
use super::super::rpm::{databases, headers};
use super::{Checksum, Owners, unhex};
use crate::error::Result;
use crate::parity::lookup::Files;

/// `RPMFILE_CONFIG`, and `RPMFILE_GHOST`: no file that the package brings, but one that is its own.
const CONFIG: u32 = 1;
const GHOST: u32 = 1 << 6;
/// `RPMVERIFY_FILEDIGEST`: the content is expected to stay as it was.
const VERIFIED: u32 = 1;
/// `RPMFILE_STATE_NORMAL`: neither another package's now nor left out.
const NORMAL: u8 = 0;
/// `PGPHASHALGO_MD5` and `PGPHASHALGO_SHA256`; others are known to nobody's packages.
const MD5: u32 = 1;
const SHA256: u32 = 8;

/// Most bytes of a path (`PATH_MAX`, linux/limits.h).
const MAX_PATH: usize = 4096;

/// Adds what rpm's database says, if there is one.
pub(super) fn read(files: Files<'_>, owners: &mut Owners) -> Result<()> {
    for path in databases(files) {
        let Some(bytes) = owners.list(files, &path)? else { continue };
        // What is damaged is told by level `packages`; here it says nothing of files.
        let _: std::result::Result<(), String> = headers(&bytes, &mut |header| {
            // As does a package whose lists make no sense.
            if let Ok(list) = list(header) {
                add(header, list, owners)?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// The lists of a package, side by side. The later ones may be missing.
struct List<'a> {
    folders: Vec<&'a [u8]>,
    folder_of: Vec<u32>,
    names: Vec<&'a [u8]>,
    flags: Vec<u32>,
    verified: Vec<u32>,
    states: &'a [u8],
    digests: Vec<&'a [u8]>,
    algorithm: u32,
}

fn list<'a>(header: &Header<'a>) -> Result<List<'a>, Damage> {
    Ok(List {
        folders: header.strings(tag::DIR_NAMES)?,
        folder_of: header.numbers(tag::DIR_INDEXES)?,
        names: header.strings(tag::BASE_NAMES)?,
        flags: header.numbers(tag::FILE_FLAGS)?,
        verified: header.numbers(tag::FILE_VERIFY_FLAGS)?,
        states: header.chars(tag::FILE_STATES)?,
        digests: header.strings(tag::FILE_DIGESTS)?,
        algorithm: header.numbers(tag::FILE_DIGEST_ALGORITHM)?.first().copied().unwrap_or(MD5),
    })
}

fn add(header: &Header<'_>, list: List<'_>, owners: &mut Owners) -> Result<(), Damage> {
    let text = |tag| header.string(tag).map(Option::unwrap_or_default);
    let package = owners.add_package(text(tag::NAME)?, text(tag::ARCH)?);
    for (i, (name, folder)) in list.names.iter().zip(&list.folder_of).enumerate() {
        let folder = list.folders.get(*folder as usize).filter(|path| path.starts_with(b"/"));
        let Some(folder) = folder else { continue };
        if list.states.get(i).is_some_and(|state| *state != NORMAL) {
            continue;
        }
        // A folder's name counts for each of its files: a list is longer than its header.
        if folder.len() + name.len() > MAX_PATH || !owners.spend(folder.len() + name.len()) {
            continue;
        }
        let path = [folder, *name].concat();
        owners.own(&path, package);
        let flags = list.flags.get(i).copied().unwrap_or_default();
        let is_verified = list.verified.get(i).is_none_or(|flags| flags & VERIFIED != 0);
        if let Some(owned) = owners.entry(&path) {
            owned.is_config |= flags & (CONFIG | GHOST) != 0 || !is_verified;
            if flags & GHOST == 0
                && let Some(digest) = list.digests.get(i)
                && let Some(sum) = checksum(list.algorithm, digest)
            {
                owned.checksum = Some(sum);
            }
        }
    }
    Ok(())
}

fn checksum(algorithm: u32, digits: &[u8]) -> Option<Checksum> {
    match algorithm {
        MD5 => unhex(digits).map(Checksum::Md5),
        SHA256 => unhex(digits).map(Checksum::Sha256),
        _ => None,
    }
}
