//! Installed disks: one for each key, read-only, beside a record. An installation takes minutes to hours, and runs
//! again only when something changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::blocking::exclusive;
use crate::error::{Context as _, Error, Result};
use crate::event::Events;
use crate::host;
use crate::lock::Host;
use crate::os;

/// What is known of an installed disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// When it was installed, in seconds since 1970 UTC.
    pub(super) installed: i64,
    /// The time of its newest file.
    pub(super) newest: i64,
    /// What its installer reached. A record without it is none: the installer runs again.
    pub(super) reached: Vec<Host>,
}

/// The place of one disk.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    key: String,
}

impl Cache {
    pub(super) fn open(cache: &Path, key: &str) -> Result<Self> {
        let dir = cache.join("installed");
        host::private_dir(&dir)?;
        remove_left(&dir)?;
        Ok(Cache { dir, key: key.to_owned() })
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.key))
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.file("qcow2")
    }

    /// The record of a finished disk.
    pub(super) fn find(&self) -> Option<Record> {
        let record = serde_json::from_slice(&fs::read(self.file("json")).ok()?).ok()?;
        self.disk().exists().then_some(record)
    }

    /// Where a disk is before it has its name; an old half one is removed.
    pub(super) fn partial(&self) -> Result<PathBuf> {
        let path = self.file("partial");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(path),
        }
    }

    /// Gives the disk its name: the record first, so that a name always means a whole disk with its record.
    pub(super) fn add(&self, record: &Record) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let partial = self.file("partial");
        fs::File::open(&partial)?.sync_all()?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer_pretty(&mut file, record)
            .map_err(|e| Error::failed("cannot write the record of a disk").cause(e))?;
        file.as_file().sync_all()?;
        let target = self.file("json");
        file.persist(&target)
            .map_err(|e| e.error)
            .context(|| format!("cannot write `{}`", target.display()))?;
        fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o444))?;
        fs::rename(&partial, self.disk())?;
        os::sync_dir(&self.dir)?;
        Ok(())
    }

    /// Waits until nobody else makes this disk. Held until dropped.
    pub(super) async fn lock(&self, events: &Events, cancel: &CancellationToken) -> Result<File> {
        let note = "another devbox runs the same installation; waiting for it";
        exclusive(&self.file("lock"), note, events, cancel).await
    }
}

/// Removes disks that a killed devbox left: those whose lock nobody holds.
fn remove_left(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "partial") {
            continue;
        }
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("lock"))?
            .into_file();
        if lock.try_lock().is_ok() && path.exists() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_once_it_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(dir.path(), "k").expect("made");
        let record = Record { installed: 7, newest: 5, reached: vec![] };
        assert_eq!(cache.find(), None);
        fs::write(cache.partial().expect("a path"), "half").expect("written");
        assert_eq!(cache.find(), None);
        fs::write(cache.partial().expect("a path"), "whole").expect("written");
        cache.add(&record).expect("added");
        assert_eq!(cache.find(), Some(record));
        assert_eq!(fs::read_to_string(cache.disk()).expect("there"), "whole");
        // As devboxes wrote it that did not look at what an installer reaches.
        fs::write(cache.file("json"), r#"{"installed":7,"newest":5}"#).expect("written");
        assert_eq!(cache.find(), None);
        fs::write(cache.partial().expect("a path"), "again").expect("written");
        let record = Record { installed: 9, newest: 5, reached: vec![] };
        cache.add(&record).expect("in its place");
        assert_eq!(cache.find(), Some(record));
        assert_eq!(fs::read_to_string(cache.disk()).expect("there"), "again");
    }

    #[tokio::test]
    async fn what_a_killed_devbox_left_goes_and_what_one_works_on_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (Cache::open(dir.path(), "one"), Cache::open(dir.path(), "two"));
        let (one, two) = (one.expect("made"), two.expect("made"));
        for cache in [&one, &two] {
            fs::write(cache.partial().expect("a path"), "half").expect("written");
        }
        let held = two.lock(&Events::silent(), &CancellationToken::new()).await.expect("free");
        Cache::open(dir.path(), "three").expect("made");
        assert!(!one.file("partial").exists());
        assert!(two.file("partial").exists());
        drop(held);
    }
}
