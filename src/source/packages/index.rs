//! The archive's lists of packages: which versions it has, and the digests of their archives. Each list is the one that
//! the signed index names.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use fs_err as fs;
use liblzma::bufread::XzDecoder;
use tokio_util::sync::CancellationToken;

use super::archive::{self, Suite};
use crate::digest::{self, Sha256};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::source::disk::scratch::Scratch;
use crate::spec::types::{Arch, Packages};

/// Most bytes of an unpacked list; Debian's main component has some 50 MiB.
const MOST: u64 = 2 << 30;
/// Longest line that is looked at; dependencies of some packages have many KiB.
const LONGEST_LINE: u64 = 4 << 20;

/// One version of a package in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The package.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file that is installed: 64 hex digits.
    pub sha256: String,
}

/// What the archive has of packages with these names.
///
/// # Errors
/// It cannot be reached, is not signed, or changed meanwhile.
pub async fn archives(
    names: &BTreeSet<String>,
    spec: &Packages,
    arch: Arch,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Vec<Archive>> {
    let scratch = Scratch::new()?;
    let suites = archive::suites(spec, arch, &scratch, events, cancel).await?;
    archives_of(&suites, names, spec, &scratch, cancel).await
}

pub(super) async fn archives_of(
    suites: &[Suite],
    names: &BTreeSet<String>,
    spec: &Packages,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<Vec<Archive>> {
    let mut found = vec![];
    for suite in suites {
        if suite.lists.len() != spec.components.len() {
            return Err(Error::failed(format!(
                "the index of `{}` has no `Packages.xz` of each component",
                suite.name
            )));
        }
        for (path, sum) in &suite.lists {
            let file = scratch.dir().join("Packages.xz");
            let _ = fs::remove_file(&file);
            let address = format!("{}/dists/{}/{path}", suite.mirror, suite.name);
            let fetched = archive::fetch(address, &file, scratch, cancel).await;
            // Its words would name the host's mirror.
            fetched.map_err(|e| match e.kind() {
                Kind::Interrupted => e,
                _ => Error::failed(format!("cannot fetch `{path}` of `{}`", suite.name))
                    .hint("Check the network, then run the same command again."),
            })?;
            let (sum, names) = (sum.clone(), names.clone());
            let read = tokio::task::spawn_blocking(move || read(&file, &sum, &names)).await;
            let read = read.map_err(|e| Error::failed("reading a list was stopped").cause(e))?;
            found.extend(
                read.map_err(|e| e.context(format!("`{path}` of `{}` is not used", suite.name)))?,
            );
        }
    }
    Ok(found)
}

fn read(file: &Path, sum: &str, names: &BTreeSet<String>) -> Result<Vec<Archive>> {
    let packed = fs::read(file)?;
    let mut hash = Sha256::new();
    hash.update(&packed);
    let got = digest::hex(&hash.finish());
    if got != sum {
        return Err(Error::failed("the list is not the one of the signed index")
            .detail(format!("signed:  sha256:{sum}"))
            .detail(format!("fetched: sha256:{got}"))
            .hint("Run the same command again: a mirror that is being updated mixes old and new files."));
    }
    let unpacked = XzDecoder::new_multi_decoder(&packed[..]).take(MOST);
    stanzas(BufReader::new(unpacked), names)
        .map_err(|e| Error::failed("the list is damaged").cause(e))
}

/// The packages of these names (deb822(5); "Packages" in Debian's wiki page of the repository format).
fn stanzas(
    mut reader: impl std::io::BufRead,
    names: &BTreeSet<String>,
) -> std::io::Result<Vec<Archive>> {
    let mut found = vec![];
    let mut fields: [Option<String>; 4] = [const { None }; 4];
    let mut line = vec![];
    loop {
        line.clear();
        let n = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        let text = line.trim_ascii_end();
        if text.is_empty() {
            if let [Some(name), Some(arch), Some(version), Some(sha256)] =
                std::mem::take(&mut fields)
                && names.contains(&name)
            {
                found.push(Archive { name, arch, version, sha256: sha256.to_ascii_lowercase() });
            }
            if n == 0 {
                return Ok(found);
            }
            continue;
        }
        for (at, key) in ["Package: ", "Architecture: ", "Version: ", "SHA256: "].iter().enumerate()
        {
            if let Some(value) = text.strip_prefix(key.as_bytes()) {
                fields[at] = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_the_names_are_found_in_all_their_versions() {
        let text = "Package: a\nArchitecture: all\nVersion: 1\nDescription: x\n Package: b\nSHA256: AA\n\n\
            Package: b\nVersion: 1\nArchitecture: amd64\nSHA256: bb\n\nPackage: a\nVersion: 2\n\n\
            Package: a\nVersion: 3\nSHA256: cc\nArchitecture: all";
        let names = BTreeSet::from(["a".to_owned()]);
        let found = stanzas(text.as_bytes(), &names).expect("read");
        let found: Vec<_> = found.iter().map(|a| (&*a.version, &*a.sha256)).collect();
        assert_eq!(found, [("1", "aa"), ("3", "cc")]);
    }

    #[test]
    fn a_list_that_nobody_signed_is_not_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("Packages.xz");
        std::fs::write(&file, "x").expect("written");
        let e = read(&file, &"0".repeat(64), &BTreeSet::new()).expect_err("refused").to_string();
        assert!(e.contains("not the one of the signed index"), "{e}");
    }
}
