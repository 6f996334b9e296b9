//! Which versions came from where, as far as a signature was demanded: `accepted.json`. It is what a place is held to that gives
//! an older version than before. Versions are compared, never times.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use fs_err as fs;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::Store;
use super::layout::{self, MAX_JSON};
use crate::error::{Error, Result};

const FILE: &str = "accepted.json";
/// Most versions of a place that are remembered.
const MOST: usize = 1024;

/// The places by their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    places: BTreeMap<String, Place>,
}

/// What came from one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The version that each channel gave last.
    #[serde(default)]
    pub channels: BTreeMap<String, String>,
    /// All versions.
    #[serde(default)]
    pub versions: BTreeSet<String>,
}

impl Accepted {
    /// What came from `place`.
    #[must_use]
    pub fn of(&self, place: &str) -> Place {
        self.places.get(place).cloned().unwrap_or_default()
    }
}

impl Store {
    /// What was accepted so far.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged: then nobody can tell what is older; kind `Undetermined`.
    pub fn accepted(&self) -> Result<Accepted> {
        let path = self.root.join(FILE);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Accepted::default()),
            Err(e) => return Err(e.into()),
        };
        let mut bytes = vec![];
        file.take(MAX_JSON + 1).read_to_end(&mut bytes)?;
        layout::parse(&bytes).map_err(|e: Error| {
            e.context(format!(
                "`{}` is damaged, which says what was accepted before",
                path.display()
            ))
            .hint("Remove it: then the next versions are accepted whatever came before.")
        })
    }

    /// Remembers that `place` gave `version`; `channel`: by which name that moves, if by one. What another pull remembered at
    /// the same moment stays if it is newer, unless the channel may go `back`.
    ///
    /// # Errors
    /// As [`Store::accepted`]; the store cannot be written.
    pub fn accept(
        &self,
        place: &str,
        channel: Option<&str>,
        version: &str,
        back: bool,
    ) -> Result<()> {
        let _lock = self.lock()?;
        let before = self.accepted()?;
        let mut after = before.clone();
        let of = after.places.entry(place.to_owned()).or_default();
        if of.versions.len() < MOST {
            of.versions.insert(version.to_owned());
        }
        if let Some(channel) = channel
            && (of.channels.len() < MOST || of.channels.contains_key(channel))
            && (back || !of.channels.get(channel).is_some_and(|last| is_older(version, last)))
        {
            of.channels.insert(channel.to_owned(), version.to_owned());
        }
        if after == before {
            return Ok(());
        }
        layout::replace(&self.root, FILE, &layout::encode(&after)?)
    }
}

fn is_older(version: &str, than: &str) -> bool {
    match (Version::parse(version), Version::parse(than)) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_remembered_and_a_damaged_record_is_no_empty_one() {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).expect("store");
        assert_eq!(store.accepted().expect("none"), Accepted::default());
        let web = "oci://r/web";
        store.accept(web, Some("stable"), "1.1.0", false).expect("kept");
        store.accept(web, None, "1.0.0", false).expect("kept");
        store.accept(web, Some("stable"), "1.10.0", false).expect("kept");
        store.accept(web, Some("stable"), "1.9.0", false).expect("kept");
        let last =
            |store: &Store| store.accepted().expect("reads").of(web).channels["stable"].clone();
        assert_eq!(last(&store), "1.10.0");
        store.accept(web, Some("stable"), "1.2.0", true).expect("kept");
        let of = store.accepted().expect("reads").of("oci://r/web");
        assert_eq!(of.channels.get("stable").map(String::as_str), Some("1.2.0"));
        assert_eq!(of.versions.len(), 5);
        assert_eq!(store.accepted().expect("reads").of("oci://r/other"), Place::default());
        std::fs::write(dir.path().join(FILE), "{\"places\": {").expect("written");
        let e = store.accepted().expect_err("damaged");
        assert_eq!(e.kind(), crate::error::Kind::Undetermined);
        store.accept(web, None, "9.0.0", false).expect_err("damaged");
    }
}
