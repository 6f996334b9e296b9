//! What became of the packages: added, removed, from one version to another.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::parity::canonical::Package;
use crate::parity::packages::Packages;
use crate::parity::spelling::spell;

/// One package that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name, on the second side if it is there.
    pub name: String,
    /// Its name on the first side, if it is another one: a kernel's package has its version in its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formerly: Option<String>,
    /// Its architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// The version on the first side; none if it is not there.
    pub old: Option<String>,
    /// The version on the second side; none if it is not there.
    pub new: Option<String>,
    /// The states in the package manager's database, where these differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<[String; 2]>,
}

impl std::fmt::Display for PackageChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.formerly, &self.old, &self.new) {
            (Some(former), ..) => write!(f, "{former} -> {}", self.name)?,
            (None, Some(old), Some(new)) if old != new => {
                write!(f, "{} {old} -> {new}", self.name)?
            }
            (None, Some(_), Some(_)) => f.write_str(&self.name)?,
            (None, Some(old), None) => write!(f, "-{} {old}", self.name)?,
            (None, None, new) => {
                write!(f, "+{} {}", self.name, new.as_deref().unwrap_or_default())?
            }
        }
        match &self.status {
            Some([old, new]) => write!(f, " ({old} -> {new})"),
            None => Ok(()),
        }
    }
}

/// The packages that differ, and how to find them by name.
#[derive(Debug, Default)]
pub(in crate::parity) struct Installed {
    /// Sorted by name.
    pub(in crate::parity) changes: Vec<PackageChange>,
    by_name: HashMap<Vec<u8>, usize>,
}

impl Installed {
    /// Compares what is installed.
    pub(in crate::parity) fn compare(a: &Packages, b: &Packages) -> Self {
        type Key<'a> = (&'a [u8], &'a [u8]);
        let mut all: BTreeMap<Key<'_>, [Vec<&Package>; 2]> = BTreeMap::new();
        for (side, packages) in [a, b].into_iter().enumerate() {
            for package in packages.list() {
                all.entry((&package.name, &package.arch)).or_default()[side].push(package);
            }
        }
        let mut changes = vec![];
        for ((name, arch), [old, new]) in all {
            if old == new {
                continue;
            }
            let version = |of: &[&Package]| -> Option<String> {
                let all: Vec<_> = of.iter().map(|package| spell(&package.version)).collect();
                (!all.is_empty()).then(|| all.join(" and "))
            };
            let status = match (&old[..], &new[..]) {
                ([x], [y]) if x.status != y.status => Some([spell(&x.status), spell(&y.status)]),
                _ => None,
            };
            changes.push(PackageChange {
                name: spell(name),
                formerly: None,
                arch: if arch.is_empty() { String::new() } else { spell(arch) },
                old: version(&old),
                new: version(&new),
                status,
            });
        }
        let changes = pair_renamed(changes);
        let mut by_name = HashMap::new();
        for (i, change) in changes.iter().enumerate() {
            by_name.insert(change.name.clone().into_bytes(), i);
            if let Some(former) = &change.formerly {
                by_name.insert(former.clone().into_bytes(), i);
            }
        }
        Installed { changes, by_name }
    }

    /// As seen from the other side.
    pub(in crate::parity) fn swapped(&self) -> Self {
        let mut changes = self.changes.clone();
        for change in &mut changes {
            std::mem::swap(&mut change.old, &mut change.new);
            if let Some(former) = &mut change.formerly {
                std::mem::swap(former, &mut change.name);
            }
            if let Some([old, new]) = &mut change.status {
                std::mem::swap(old, new);
            }
        }
        Installed { changes, by_name: self.by_name.clone() }
    }

    /// The change of the package of that name.
    pub(in crate::parity) fn of(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(spell(name).as_bytes()).copied()
    }
}

/// One that went and one that came, of one name but for the numbers in it, are one that changed.
fn pair_renamed(changes: Vec<PackageChange>) -> Vec<PackageChange> {
    let mut groups: BTreeMap<(String, String), [Vec<usize>; 2]> = BTreeMap::new();
    for (i, change) in changes.iter().enumerate() {
        let side = match (&change.old, &change.new) {
            (Some(_), None) => 0,
            (None, Some(_)) => 1,
            _ => continue,
        };
        let key = (without_version(&change.name), change.arch.clone());
        groups.entry(key).or_default()[side].push(i);
    }
    let mut pairs = HashMap::new();
    for [old, new] in groups.into_values() {
        if let ([old], [new]) = (&old[..], &new[..]) {
            pairs.insert(*new, *old);
        }
    }
    let gone: Vec<_> = pairs.values().copied().collect();
    let mut out: Vec<_> = vec![];
    for (i, change) in changes.iter().enumerate() {
        match pairs.get(&i).and_then(|old| changes.get(*old)) {
            Some(old) => out.push(PackageChange {
                formerly: Some(old.name.clone()),
                old: old.old.clone(),
                ..change.clone()
            }),
            None if gone.contains(&i) => {}
            None => out.push(change.clone()),
        }
    }
    out
}

/// A name with each run that begins with a digit and has dots or more digits as `<version>`:
/// `linux-image-6.1.0-50-amd64` and `-6.1.0-56-amd64` are one, `libssl1` and `libssl3` are not.
pub(in crate::parity) fn without_version(name: &str) -> String {
    let parts: Vec<&str> = name.split('-').collect();
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty();
    let is_version = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_digit())
            && part.contains('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'~'))
    };
    let mut out: Vec<&str> = vec![];
    for part in parts {
        if is_version(part) || (is_number(part) && out.last() == Some(&"<version>")) {
            if out.last() != Some(&"<version>") {
                out.push("<version>");
            }
        } else {
            out.push(part);
        }
    }
    out.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(all: &[(&str, &str)]) -> Packages {
        let package = |(name, version): &(&str, &str)| Package {
            kind: "deb",
            name: name.as_bytes().to_vec(),
            arch: b"amd64".to_vec(),
            version: version.as_bytes().to_vec(),
            status: b"install,ok,installed".to_vec(),
        };
        Packages::of(all.iter().map(package).collect()).expect("packages")
    }

    fn changes(a: &[(&str, &str)], b: &[(&str, &str)]) -> Vec<String> {
        let installed = Installed::compare(&packages(a), &packages(b));
        installed.changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_package_says_from_what_to_what() {
        let a = [("bash", "5.1"), ("openssl", "3.0.17"), ("vim", "9")];
        let b = [("bash", "5.1"), ("openssl", "3.0.18"), ("nano", "7")];
        assert_eq!(changes(&a, &b), ["+nano 7", "openssl 3.0.17 -> 3.0.18", "-vim 9"]);
        assert_eq!(changes(&a, &a), Vec::<String>::new());
    }

    #[test]
    fn a_kernel_with_its_version_in_its_name_is_one_that_changed() {
        let a = [("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1"), ("libssl1.1", "1")];
        let b = [("linux-image-6.1.0-56-cloud-amd64", "6.1.190-1"), ("libssl3", "3")];
        assert_eq!(
            changes(&a, &b),
            [
                "-libssl1.1 1",
                "+libssl3 3",
                "linux-image-6.1.0-50-cloud-amd64 -> linux-image-6.1.0-56-cloud-amd64",
            ]
        );
        let a =
            [("linux-image-6.1.0-50-cloud-amd64", "1"), ("linux-image-6.1.0-51-cloud-amd64", "1")];
        assert_eq!(changes(&a, &b[..1]).len(), 3, "nobody knows which of the two became it");
    }

    #[test]
    fn a_change_is_found_by_the_names_of_both_sides() {
        let a = packages(&[("linux-image-6.1.0-50-amd64", "1")]);
        let b = packages(&[("linux-image-6.1.0-56-amd64", "2")]);
        let installed = Installed::compare(&a, &b);
        assert_eq!(installed.of(b"linux-image-6.1.0-50-amd64"), Some(0));
        assert_eq!(installed.of(b"linux-image-6.1.0-56-amd64"), Some(0));
        assert_eq!(installed.of(b"bash"), None);
    }
}
