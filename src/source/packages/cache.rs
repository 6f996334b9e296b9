//! Finished disks: one per key, read-only, each beside a record of the inputs that made it, so that
//! a rebuild can say why.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::archive::Suite;
use super::locked::Locked;
use super::recipe;
use crate::blocking::exclusive;
use crate::digest;
use crate::error::{Context as _, Error, Result};
use crate::event::Events;
use crate::host;
use crate::source::seed::Seed;
use crate::spec::types::{Arch, Packages};

/// What made a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Digest of what was asked for: the spec's source, architecture, seed, wished epoch.
    pub(super) asked: String,
    /// Version of the recipe.
    pub(super) recipe: u32,
    /// Each suite's name and the digest of its packages.
    pub(super) suites: BTreeMap<String, String>,
    /// Seconds since 1970 UTC, no later than any time on the disk.
    pub(super) epoch: i64,
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Digest over the packages that it was locked to; none where the archive decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) locked: Option<String>,
}

impl Record {
    pub(super) fn new(
        spec: &Packages,
        arch: Arch,
        wished: Option<i64>,
        seed: &Seed,
        suites: &[Suite],
    ) -> Self {
        // Length-free but unambiguous: Debug quotes each string.
        let asked = format!("devbox/packages/1\n{spec:?}\n{arch:?}\n{wished:?}\n{}\n", seed.hex());
        Record {
            asked: digest::hex(&digest::sha256(asked.as_bytes())),
            recipe: recipe::VERSION,
            suites: suites.iter().map(|s| (s.name.clone(), s.packages.clone())).collect(),
            // The suite's own date and not the newest of all: it stays for months, and with it all
            // that is derived from it.
            epoch: wished.unwrap_or_else(|| suites.first().map_or(0, |s| s.date)),
            size: spec.disk_size,
            locked: None,
        }
    }

    /// The same with these packages, whatever the archive has besides.
    pub(super) fn locked(self, locked: &Locked) -> Self {
        Record { locked: Some(locked.digest()), epoch: locked.epoch.unwrap_or(self.epoch), ..self }
    }

    /// 64 hex digits over all but the epoch, which an unchanged archive may carry forward.
    pub(super) fn key(&self) -> String {
        let mut text = format!("{}\n{}\n", self.asked, self.recipe);
        if let Some(locked) = &self.locked {
            text.push_str(&format!("locked {locked} {}\n", self.epoch));
            return digest::hex(&digest::sha256(text.as_bytes()));
        }
        for (name, packages) in &self.suites {
            text.push_str(&format!("{name} {packages}\n"));
        }
        digest::hex(&digest::sha256(text.as_bytes()))
    }

    /// Why a disk made by `old` does not do.
    fn changed_since(&self, old: &Record) -> Vec<String> {
        let mut why = vec![];
        if old.recipe != self.recipe {
            why.push("devbox's recipe changed".to_owned());
        }
        for (name, packages) in &self.suites {
            if old.suites.get(name) != Some(packages) {
                why.push(format!("{name} changed"));
            }
        }
        why
    }
}

/// The cache's folder.
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let dir = cache.join("packages");
        host::private_dir(&dir)?;
        Ok(Cache { dir })
    }

    pub(super) fn disk(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.raw"))
    }

    fn record(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.json"))
    }

    /// The record of a finished disk. A disk whose size is not the recorded one counts as absent.
    pub(super) fn find(&self, key: &str) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record(key)).ok()?).ok()?;
        let size = fs::metadata(self.disk(key)).ok()?.len();
        (size == record.size).then_some(record)
    }

    /// The finished disks of the same request, whatever the archive had when they were made: keys and records.
    pub(super) fn all(&self, asked: &Record) -> Vec<(String, Record)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return vec![] };
        let keys = entries.flatten().filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            name.strip_suffix(".json").map(str::to_owned)
        });
        let found = keys.filter_map(|key| self.find(&key).map(|record| (key, record)));
        let same = |r: &Record| r.asked == asked.asked && r.recipe == asked.recipe;
        let mut all: Vec<_> = found.filter(|(_, record)| same(record)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Why the newest disk of the same request does not do; empty if there is none.
    pub(super) fn explain(&self, record: &Record) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return vec![] };
        let old = entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json"));
        let newest = old
            .filter_map(|e| {
                let time = e.metadata().ok()?.modified().ok()?;
                let old: Record = serde_json::from_slice(&fs::read(e.path()).ok()?).ok()?;
                (old.asked == record.asked).then_some((time, old))
            })
            .max_by_key(|(time, _)| *time);
        newest.map(|(_, old)| record.changed_since(&old)).unwrap_or_default()
    }

    /// Where a disk is put together before it has its name; an old half one is removed.
    pub(super) fn partial(&self, key: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{key}.partial"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(path),
        }
    }

    /// Gives a finished disk its name: the record first, the disk last, so that a name always means
    /// a whole disk with its record.
    pub(super) fn add(&self, key: &str, record: &Record) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let partial = self.dir.join(format!("{key}.partial"));
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer_pretty(&mut file, record)
            .map_err(|e| Error::failed("cannot write the record of a disk").cause(e))?;
        file.as_file().sync_all()?;
        let target = self.record(key);
        file.persist(&target)
            .map_err(|e| e.error)
            .context(|| format!("cannot write `{}`", target.display()))?;
        fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o444))?;
        fs::rename(&partial, self.disk(key))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }

    /// Waits until nobody else makes the disk of this key. Held until dropped.
    pub(super) async fn lock(
        &self,
        key: &str,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<File> {
        let note = "another devbox makes the same disk; waiting for it";
        exclusive(&self.dir.join(format!("{key}.lock")), note, events, cancel).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(security: &str) -> Record {
        let suites = [("bookworm", "aa"), ("bookworm-security", security)];
        Record {
            asked: "q".to_owned(),
            recipe: recipe::VERSION,
            suites: suites.map(|(n, d)| (n.to_owned(), d.to_owned())).into(),
            epoch: 7,
            size: 3,
            locked: None,
        }
    }

    #[test]
    fn a_changed_suite_is_another_key_and_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(dir.path()).expect("made");
        let old = record("bb");
        assert_eq!(cache.find(&old.key()), None);
        std::fs::write(cache.partial(&old.key()).expect("a path"), b"raw").expect("written");
        cache.add(&old.key(), &old).expect("added");
        assert_eq!(cache.find(&old.key()), Some(old.clone()));

        let new = record("cc");
        assert_ne!(new.key(), old.key());
        assert_eq!(cache.explain(&new), ["bookworm-security changed"]);
    }

    #[test]
    fn a_disk_of_another_size_is_not_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(dir.path()).expect("made");
        let record = record("bb");
        std::fs::write(cache.partial(&record.key()).expect("a path"), b"ra").expect("written");
        cache.add(&record.key(), &record).expect("added");
        assert_eq!(cache.find(&record.key()), None);
    }
}
