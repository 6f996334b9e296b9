//! In what a lock differs from its spec, or from another one.

use std::collections::BTreeMap;

use super::input::inputs;
use super::{HOSTS, Host, Input, Lock, LockedBox, Package, SOURCE, fingerprint};
use crate::digest::FileDigest;
use crate::error::Result;
use crate::spec::{Checksum, Source, Spec};

/// One thing that is not as locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What `devbox lock --update` calls it.
    pub name: String,
    /// What differs, in words for people.
    pub what: String,
}

impl Difference {
    fn new(name: &str, what: String) -> Self {
        Difference { name: name.to_owned(), what }
    }
}

impl Lock {
    /// In what this lock does not fit the spec. Reads the files that the steps name, and nothing over a network.
    ///
    /// # Errors
    /// A file that a step names cannot be read.
    pub fn unfit(&self, spec: &Spec) -> Result<Vec<Difference>> {
        let mut all = vec![];
        let locked = self.input(SOURCE).and_then(|digest| digest.parse::<FileDigest>().ok());
        match (spec.source.file(), &locked) {
            (Some((_, Checksum::Sha256(stated))), Some(locked)) if *stated != locked.hex() => {
                let what = format!(
                    "the source's image is sha256:{stated} in the spec and {locked} in the lock"
                );
                all.push(Difference::new(SOURCE, what));
            }
            (Some(_), Some(_)) => {}
            (None, Some(_)) if self.fits_box(spec) => {}
            (None, Some(_)) if matches!(spec.source, Source::Box(_)) => {
                let what = match (&self.source_box, &spec.source) {
                    (Some(locked), Source::Box(source)) => format!(
                        "the source is `{}` in the spec and `{}` in the lock",
                        LockedBox::wanted(source),
                        locked.wanted
                    ),
                    _ => "the source's box is not locked".to_owned(),
                };
                all.push(Difference::new(SOURCE, what));
            }
            (None, _) if self.snapshot.is_some() => {}
            (None, _) | (Some(_), None) => {
                let what = "what the image starts from is not locked";
                all.push(Difference::new(SOURCE, what.to_owned()));
            }
        }
        let found = inputs(spec, locked.as_ref())?;
        all.extend(changes(&digests(&self.inputs), &digests(&found)));
        // What is left are keys of the spec itself.
        if all.is_empty() && fingerprint(spec, locked.as_ref())? != self.spec {
            let what = "`[source]`, `[seal]`, `name`, `arch` or the order of the steps was changed in devbox.toml";
            // Both are in one digest.
            let or = if locked.is_some() { ", or the digest of `source` in the lock" } else { "" };
            all.push(Difference::new("spec", format!("{what}{or}")));
        }
        Ok(all)
    }

    fn fits_box(&self, spec: &Spec) -> bool {
        matches!(&spec.source, Source::Box(source) if self.pinned_box(source).is_some())
    }

    /// What became different from `self` to `other`.
    #[must_use]
    pub fn changed(&self, other: &Lock) -> Vec<Difference> {
        let mut all = vec![];
        match (&self.source_box, &other.source_box) {
            (Some(old), Some(new)) if old.version != new.version => {
                let what = format!("the source's box was {} and is {}", old.version, new.version);
                all.push(Difference::new(SOURCE, what));
            }
            _ => {}
        }
        all.extend(changes(&digests(&self.inputs), &digests(&other.inputs)));
        let missing = |a: &Lock, b: &Lock| -> Vec<Host> {
            a.hosts.iter().filter(|host| !b.hosts.contains(host)).cloned().collect()
        };
        for host in missing(other, self) {
            let what = format!("{} reaches `{host}`, which is not locked", host.by());
            all.push(Difference::new(HOSTS, what));
        }
        for host in missing(self, other) {
            all.push(Difference::new(HOSTS, format!("{} no longer reaches `{host}`", host.by())));
        }
        all.extend(packages(&self.packages, &other.packages));
        all
    }
}

fn digests(inputs: &[Input]) -> BTreeMap<&str, &str> {
    inputs.iter().map(|input| (&*input.name, &*input.digest)).collect()
}

/// Inputs by name, before and now.
fn changes(then: &BTreeMap<&str, &str>, now: &BTreeMap<&str, &str>) -> Vec<Difference> {
    let mut all = vec![];
    for (name, old) in then {
        match now.get(name) {
            None => {
                all.push(Difference::new(name, format!("`{name}` is locked and no longer there")))
            }
            Some(new) if new != old => {
                all.push(Difference::new(
                    name,
                    format!("`{name}` was changed: {old} is locked, {new} is there"),
                ));
            }
            Some(_) => {}
        }
    }
    let added = now.keys().filter(|name| !then.contains_key(*name));
    all.extend(added.map(|name| Difference::new(name, format!("`{name}` is not locked"))));
    all
}

/// In what packages that are there differ from locked ones; where an archive's digest is known on both sides, in that
/// too.
#[must_use]
pub fn packages(locked: &[Package], found: &[Package]) -> Vec<Difference> {
    type Sides<'a> = [Vec<&'a Package>; 2];
    let mut all: BTreeMap<(&str, &str), Sides<'_>> = BTreeMap::new();
    for (side, list) in [locked, found].into_iter().enumerate() {
        for package in list {
            all.entry((&package.name, &package.arch)).or_default()[side].push(package);
        }
    }
    let mut out = vec![];
    for ((name, _), [locked, found]) in all {
        let versions = |list: &[&Package]| {
            list.iter().map(|p| p.version.as_str()).collect::<Vec<_>>().join(", ")
        };
        let what = match (&locked[..], &found[..]) {
            (locked, []) => format!("`{name}` {} is locked and not installed", versions(locked)),
            ([], found) => format!("`{name}` {} is installed and not locked", versions(found)),
            (locked, found) if versions(locked) != versions(found) => {
                format!("`{name}` is locked at {} and is {}", versions(locked), versions(found))
            }
            (locked, found) => {
                let other =
                    locked.iter().zip(found).find_map(|(a, b)| match (&a.sha256, &b.sha256) {
                        (Some(a), Some(b)) if a != b => Some((a, b)),
                        _ => None,
                    });
                let Some((a, b)) = other else { continue };
                format!("the archive of `{name}` is locked as sha256:{a} and is sha256:{b}")
            }
        };
        out.push(Difference::new(name, what));
    }
    out
}
