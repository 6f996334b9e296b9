//! On which images a machine ran, and when; and whether it is held on one of them. It outlives what the machine is made of,
//! and goes with the machine's folder.

use std::io::{Read as _, Write as _};
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::record::BaseImage;
use crate::error::{Error, Result};
use crate::os;

/// The version of the file's shape.
const FORMAT: u32 = 1;
/// Images that are remembered, the newest.
const REMEMBERED: usize = 50;
/// Largest file in bytes: that many images take some 10 KiB.
const LARGEST: u64 = 1 << 20;

/// What a machine ran on: `history.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    format: u32,
    /// The oldest first. The last one is open while the machine is made of it.
    pub ran: Vec<Ran>,
    /// The image that the machine is made of next time, whatever the spec says; none if it follows the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// An image that a machine ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// `name:version`.
    pub reference: String,
    /// The digest of its manifest in the store.
    pub manifest: String,
    /// When it was first started on it, in seconds since 1970.
    pub from: i64,
    /// When its disk was thrown away; none while it is there.
    pub until: Option<i64>,
}

/// An image that a machine stays on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// `name:version`.
    pub reference: String,
    /// The digest of its manifest in the store.
    pub manifest: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

impl Default for History {
    fn default() -> Self {
        History { format: FORMAT, ran: vec![], held: None }
    }
}

impl History {
    /// What is in the file `path`; nothing if there is none.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or of another devbox.
    pub fn read(path: &Path) -> Result<Self> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(History::default()),
            Err(e) => return Err(e.into()),
        };
        let damaged = |why: String| {
            Error::failed(format!("the machine's history `{}` is damaged", path.display()))
                .cause(why)
                .hint("Remove the file; the machine stays, and only a rollback of it has nowhere to go.")
        };
        let mut bytes = vec![];
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(damaged(format!("it has more than {LARGEST} bytes")));
        }
        let history: History =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if history.format != FORMAT {
            return Err(damaged(format!("its format is {}, not {FORMAT}", history.format)));
        }
        Ok(history)
    }

    /// Writes it, durably and at once.
    ///
    /// # Errors
    /// It cannot be written; then the file is as it was.
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(path);
        let cannot = || format!("cannot write the machine's history `{}`", path.display());
        let write = || -> Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut new, self).map_err(std::io::Error::from)?;
            writeln!(new)?;
            new.as_file().sync_all()?;
            new.persist(path).map_err(|e| Error::from(e.error))?;
            Ok(os::sync_dir(folder)?)
        };
        write().map_err(|e| e.context(cannot()))
    }

    /// Notes that the machine is made of `base`. Whether that is new.
    pub fn started(&mut self, base: &BaseImage, now: i64) -> bool {
        match self.ran.last_mut() {
            Some(last) if last.manifest == base.manifest => {
                // A machine that was reset, and is made of the same image again.
                return last.until.take().is_some();
            }
            Some(last) => {
                last.until.get_or_insert(now);
            }
            None => {}
        }
        self.ran.push(Ran {
            reference: base.reference.clone(),
            manifest: base.manifest.clone(),
            from: now,
            until: None,
        });
        let over = self.ran.len().saturating_sub(REMEMBERED);
        self.ran.drain(..over);
        true
    }

    /// Notes that the machine's disk is thrown away.
    pub fn ended(&mut self, now: i64) {
        if let Some(last) = self.ran.last_mut() {
            last.until.get_or_insert(now);
        }
    }

    /// The last image that was another one than the one with this manifest.
    #[must_use]
    pub fn before(&self, manifest: &str) -> Option<&Ran> {
        self.ran.iter().rev().find(|ran| ran.manifest != manifest)
    }

    /// The images that a rollback needs: the one before `runs`, and the one that the machine is held on. Of a machine
    /// that is not made, the last one.
    pub fn needed(&self, runs: Option<&str>) -> impl Iterator<Item = &str> {
        let before = match runs {
            Some(runs) => self.before(runs),
            None => self.ran.last(),
        };
        let held = self.held.iter().map(|held| &*held.manifest);
        before.map(|ran| &*ran.manifest).into_iter().chain(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(version: &str) -> BaseImage {
        BaseImage {
            reference: format!("web:{version}"),
            manifest: format!("sha256:{version}"),
            disk: "disk".into(),
            size: 1,
        }
    }

    #[test]
    fn what_ran_is_remembered_once_and_closed_by_what_came_next() {
        let mut history = History::default();
        assert!(history.started(&base("1.0.0"), 10));
        assert!(!history.started(&base("1.0.0"), 11), "a restart is no news");
        assert!(history.before("sha256:1.0.0").is_none());
        assert!(history.started(&base("1.1.0"), 20));
        assert_eq!(history.ran[0].until, Some(20));
        assert_eq!(history.before("sha256:1.1.0").expect("the old one").reference, "web:1.0.0");
        history.ended(30);
        assert!(history.started(&base("1.1.0"), 31), "it is open again");
        assert_eq!((history.ran.len(), history.ran[1].until), (2, None));
        assert!(history.started(&base("1.0.0"), 40));
        assert_eq!(history.before("sha256:1.0.0").expect("back").reference, "web:1.1.0");
        let needed: Vec<&str> = history.needed(Some("sha256:1.0.0")).collect();
        assert_eq!(needed, ["sha256:1.1.0"]);
        assert_eq!(history.needed(None).collect::<Vec<_>>(), ["sha256:1.0.0"]);
    }

    #[test]
    fn it_is_bounded_and_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("history.json");
        assert_eq!(History::read(&path).expect("none"), History::default());
        let mut history = History::default();
        for n in 0..120 {
            history.started(&base(&format!("1.{n}.0")), n);
        }
        history.held = Some(Held {
            reference: "web:1.0.0".to_owned(),
            manifest: "sha256:00".to_owned(),
            since: 5,
        });
        assert_eq!(history.ran.len(), REMEMBERED);
        assert_eq!(history.ran.last().expect("one").reference, "web:1.119.0");
        history.write(&path).expect("written");
        assert_eq!(History::read(&path).expect("read"), history);
        for text in ["", "{}", "[]", r#"{"format":2,"ran":[]}"#] {
            std::fs::write(&path, text).expect("written");
            let e = History::read(&path).expect_err("damaged").to_string();
            assert!(e.contains("history.json` is damaged"), "{e}");
        }
    }
}
