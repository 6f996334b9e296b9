//! Packages that are installed in exactly these versions, whatever else the archive has.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::index::Archive;
use crate::digest;
use crate::error::{Error, Result};
use crate::lock::Package;

/// Of what is missing so many are named.
const NAMED: usize = 10;

/// What a disk of packages is locked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// The packages.
    pub packages: Vec<Package>,
    /// Seconds since 1970 UTC, no later than any time on the disk; the date of the suite's index if absent.
    pub epoch: Option<i64>,
    /// Whether nothing else may be installed.
    pub only: bool,
}

impl Locked {
    /// 64 hex digits over all of it.
    pub(super) fn digest(&self) -> String {
        let mut text = format!("devbox/locked/1\n{}\n", self.only);
        for p in &self.packages {
            let _ = writeln!(text, "{:?} {:?} {:?} {:?}", p.name, p.arch, p.version, p.sha256);
        }
        digest::hex(&digest::sha256(text.as_bytes()))
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.packages.iter().map(|package| package.name.clone()).collect()
    }

    /// Fails unless the archive has each of the packages, and as it was.
    ///
    /// # Errors
    /// Names those that it has no more with what it has instead, and those whose archives are others.
    pub(super) fn refuse_missing(&self, found: &[Archive]) -> Result<()> {
        let mut problems = vec![];
        let mut gone = false;
        for package in &self.packages {
            let named =
                || found.iter().filter(|a| a.name == package.name && a.arch == package.arch);
            let mut same = named().filter(|a| a.version == package.version).peekable();
            if same.peek().is_none() {
                gone = true;
                let others = named().map(|a| a.version.as_str()).collect::<BTreeSet<_>>();
                let others = others.into_iter().collect::<Vec<_>>().join(", ");
                let has =
                    if others.is_empty() { "nothing of that name".to_owned() } else { others };
                let (name, version) = (&package.name, &package.version);
                problems.push(format!("`{name}` {version} is locked; the mirror has {has}"));
            } else if let Some(sha256) = &package.sha256
                && let Some(other) = same.clone().next()
                && !same.any(|a| a.sha256 == *sha256)
            {
                problems.push(format!(
                    "the archive of `{}` {} is locked as sha256:{sha256}; the mirror has sha256:{}",
                    package.name, package.version, other.sha256
                ));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(NAMED);
        let mut error = Error::failed("the mirror does not have the packages of the lock");
        for problem in problems.into_iter().take(NAMED) {
            error = error.detail(problem);
        }
        if more > 0 {
            error = error.detail(format!("and {more} more"));
        }
        Err(if gone {
            error.hint("Take what the mirror has now with `devbox lock --update NAME`, or let this host's apt use a mirror that keeps old versions, such as snapshot.debian.org: devbox builds with the mirror of its host.")
        } else {
            error.hint("Do not trust this mirror: an archive of one version never changes.")
        })
    }

    /// A script that makes apt take these versions in the tree `$1` (apt_preferences(5)). Priorities above 1000 hold even
    /// where that is a step back; with a negative one nothing is installed.
    pub(super) fn pin_script(&self) -> String {
        let mut pins = String::new();
        for Package { name, version, .. } in &self.packages {
            let _ = write!(pins, "Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n");
        }
        if self.only {
            pins.push_str("Package: *\nPin: release *\nPin-Priority: -1\n");
        }
        format!(
            "#!/bin/sh\nset -eu\numask 022\nmkdir -p \"$1/etc/apt/preferences.d\"\n\
             cat > \"$1/etc/apt/preferences.d/devbox-lock\" <<'END-OF-FILE'\n{pins}END-OF-FILE\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, sha256: &str) -> Package {
        Package {
            name: name.to_owned(),
            arch: "amd64".to_owned(),
            version: version.to_owned(),
            kind: None,
            sha256: Some(sha256.to_owned()),
            step: false,
        }
    }

    fn archive(name: &str, version: &str, sha256: &str) -> Archive {
        Archive {
            name: name.to_owned(),
            arch: "amd64".to_owned(),
            version: version.to_owned(),
            sha256: sha256.to_owned(),
        }
    }

    #[test]
    fn what_the_mirror_has_no_more_or_has_otherwise_is_named() {
        let locked = Locked {
            packages: vec![package("a", "1", "aa"), package("b", "1", "bb")],
            epoch: None,
            only: true,
        };
        let check = |found: &[Archive]| locked.refuse_missing(found).map_err(|e| e.to_string());
        let (a, b) = (archive("a", "1", "aa"), archive("b", "1", "bb"));
        assert_eq!(check(&[a.clone(), b.clone(), archive("a", "2", "cc")]), Ok(()));
        let e = check(&[archive("a", "2", "cc"), b]).expect_err("gone");
        assert!(e.contains("`a` 1 is locked; the mirror has 2"), "{e}");
        let e = check(std::slice::from_ref(&a)).expect_err("gone");
        assert!(e.contains("`b` 1 is locked; the mirror has nothing of that name"), "{e}");
        let e = check(&[a, archive("b", "1", "xx")]).expect_err("changed");
        assert!(e.contains("`b` 1 is locked as sha256:bb; the mirror has sha256:xx"), "{e}");
        assert!(e.contains("Do not trust"), "{e}");
    }
}
