//! Packages that were added to a machine, and which files come with packages.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::image::disk::Holder;
use crate::parity::canonical::Package;
use crate::parity::drift::{Drift, Found};

/// What happened to the packages.
#[derive(Debug, Default)]
pub(super) struct Packages {
    /// Asked for by somebody, sorted.
    pub(super) added: Vec<String>,
    /// Of another version, as `name old -> new`.
    pub(super) changed: Vec<String>,
    /// Gone, by name.
    pub(super) removed: Vec<String>,
    /// Absolute paths of the files of all these.
    files: BTreeSet<Vec<u8>>,
}

impl Packages {
    /// Compares dpkg's databases of both sides; nothing where there is none.
    pub(super) fn of(drift: &Drift, found: &Found, holder: &Holder) -> Result<Self> {
        let (Some(old), Some(new)) = found.packages(drift)? else { return Ok(Packages::default()) };
        let installed = |all: &[Package]| -> Vec<Package> {
            all.iter().filter(|one| is_installed(one)).cloned().collect()
        };
        let (old, new) = (installed(old.list()), installed(new.list()));
        let states = found.after(drift, holder, b"var/lib/apt/extended_states")?;
        let automatic = automatic(&String::from_utf8_lossy(&states.unwrap_or_default()));
        let same = |a: &Package, b: &Package| (&a.name, &a.arch) == (&b.name, &b.arch);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut all = Packages::default();
        for one in &new {
            let name = text(&one.name);
            match old.iter().find(|other| same(one, other)) {
                Some(other) if other.version == one.version => continue,
                Some(other) => {
                    let (from, to) = (text(&other.version), text(&one.version));
                    all.changed.push(format!("{name} {from} -> {to}"));
                }
                None if automatic.contains(&name) => {}
                None => all.added.push(name),
            }
            all.own(&lists(found, drift, holder, one, true)?);
        }
        for one in old.iter().filter(|one| !new.iter().any(|other| same(one, other))) {
            all.removed.push(text(&one.name));
            all.own(&lists(found, drift, holder, one, false)?);
        }
        all.added.dedup();
        Ok(all)
    }

    fn own(&mut self, list: &[u8]) {
        self.files.extend(list.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }

    /// Whether the path, without a leading `/`, comes with one of them.
    pub(super) fn owns(&self, path: &[u8]) -> bool {
        let absolute = [b"/", path].concat();
        // With merged /usr, lists name the files of `/usr/lib` as those of `/lib`.
        self.files.contains(&absolute)
            || path.strip_prefix(b"usr").is_some_and(|rest| self.files.contains(rest))
    }
}

/// Whether all of a package is there: `want,flag,status` (docs/identity.md).
fn is_installed(one: &Package) -> bool {
    one.kind == "deb" && one.status.ends_with(b",installed")
}

/// The list of a package's files (dpkg-query(1)).
fn lists(
    found: &Found,
    drift: &Drift,
    holder: &Holder,
    one: &Package,
    after: bool,
) -> Result<Vec<u8>> {
    let with_arch = [&one.name[..], b":", &one.arch[..]].concat();
    for name in [&one.name[..], &with_arch[..]] {
        let path = [b"var/lib/dpkg/info/", name, b".list"].concat();
        let list = match after {
            true => found.after(drift, holder, &path)?,
            false => found.before(drift, holder, &path)?,
        };
        if let Some(list) = list {
            return Ok(list);
        }
    }
    Ok(vec![])
}

/// Packages that came along with others (`/var/lib/apt/extended_states`).
fn automatic(states: &str) -> BTreeSet<String> {
    let stanzas = states.split("\n\n").filter(|one| one.contains("Auto-Installed: 1"));
    let name =
        |one: &str| one.lines().find_map(|line| Some(line.strip_prefix("Package: ")?.to_owned()));
    stanzas.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_there_does_not_count() {
        let is = |status: &str| {
            let (name, arch, version) = (b"a".to_vec(), b"all".to_vec(), b"1".to_vec());
            is_installed(&Package { kind: "deb", name, arch, version, status: status.into() })
        };
        assert!(is("install,ok,installed") && is("hold,ok,installed"));
        assert!(!is("deinstall,ok,config-files") && !is("install,ok,half-installed"));
    }

    #[test]
    fn packages_that_came_along_are_told_apart() {
        let states = "Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: b\nAuto-Installed: 0\n\n";
        assert_eq!(automatic(states).into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
