//! The folders of one build, its lock, and what is left of them.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::layers::Draft;
use crate::digest;
use crate::error::Result;
use crate::host::{self, Paths};
use crate::machine::lock::Lock;
use crate::spec::Spec;

/// Logs of failed builds that are kept; the oldest goes first.
const KEPT_LOGS: usize = 10;
/// What may stay in a log folder: text and a picture. Keys, seeds and disks never stay.
const EVIDENCE: &[&str] = &["log", "txt", "png"];

/// The folders of one build. Dropped, the work is gone; the logs stay unless the build succeeded.
#[derive(Debug)]
pub(super) struct Workspace {
    work: PathBuf,
    logs: PathBuf,
    runtime: PathBuf,
    keep_logs: bool,
    _lock: Lock,
}

impl Workspace {
    /// Takes the lock of this spec's builds and makes the folders. What a killed build left is
    /// removed: whoever holds the lock is the only one.
    pub(super) fn open(spec: &Spec, paths: &Paths) -> Result<Self> {
        let key = key(spec);
        let builds = paths.cache.join("build");
        host::private_dir(&builds)?;
        let lock = Lock::acquire(&builds.join(format!("{key}.lock")), "devbox build")?;
        let work = builds.join(&key);
        remove(&work)?;
        let _ = fs::remove_file(failed_disk(&work));
        host::private_dir(&work)?;
        let all = paths.cache.join("logs");
        host::private_dir(&all)?;
        let now = jiff::Zoned::now().strftime("%Y%m%dT%H%M%S");
        let logs = all.join(format!("{now}-{}-{}", spec.name, spec.version));
        remove(&logs)?;
        host::private_dir(&logs)?;
        prune(&all, KEPT_LOGS)?;
        host::private_dir(&paths.runtime)?;
        let runtime = paths.runtime.join(format!("b-{}", &key[key.len() - 8..]));
        remove(&runtime)?;
        Ok(Workspace { work, logs, runtime, keep_logs: true, _lock: lock })
    }

    /// A file of the work.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// The folder of one of the build's machines; its logs stay after a failure.
    pub(super) fn machine(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// Keeps the disk of a step that failed, until the next build of this spec.
    pub(super) fn failed(&self, disk: Draft) -> Result<PathBuf> {
        let path = failed_disk(&self.work);
        disk.move_to(&path)?;
        Ok(path)
    }

    /// Where the sockets of the build's machines go.
    pub(super) fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Nobody needs the logs of a build that succeeded.
    pub(super) fn succeeded(&mut self) {
        self.keep_logs = false;
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Nothing can be told to anybody here; what stays is removed by the next build.
        let _ = remove(&self.work);
        let _ = remove(&self.runtime);
        let _ = if self.keep_logs { strip(&self.logs).map(|_| ()) } else { remove(&self.logs) };
    }
}

/// A name for the builds of one spec: two folders with the same spec do not wait for each other.
fn key(spec: &Spec) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = digest::sha256(spec.dir.as_os_str().as_bytes());
    format!("{}-{}", spec.name, digest::hex(&dir[..4]))
}

/// Beside the folder of a spec's builds.
fn failed_disk(work: &Path) -> PathBuf {
    work.with_extension("failed.qcow2")
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Removes all but the evidence from a log folder, and the folder if none is left. Says whether
/// anything is left.
fn strip(dir: &Path) -> Result<bool> {
    let mut left = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            left |= strip(&path)?;
        } else if path.extension().is_some_and(|e| EVIDENCE.iter().any(|k| e == *k)) {
            left = true;
        } else {
            fs::remove_file(path)?;
        }
    }
    if !left {
        fs::remove_dir(dir)?;
    }
    Ok(left)
}

/// Removes the oldest folders; their names begin with their time.
fn prune(dir: &Path, keep: usize) -> Result<()> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    names.sort();
    for old in names.iter().take(names.len().saturating_sub(keep)) {
        remove(old)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_evidence_stays_in_a_log_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let logs = dir.path().join("logs");
        fs::create_dir_all(logs.join("machine/ssh")).expect("made");
        for name in ["machine/serial.log", "machine/ssh/id_ed25519", "machine/seed.iso"] {
            fs::write(logs.join(name), "x").expect("written");
        }
        assert!(strip(&logs).expect("strips"));
        assert!(logs.join("machine/serial.log").exists());
        assert!(!logs.join("machine/seed.iso").exists());
        assert!(!logs.join("machine/ssh").exists());
    }

    #[test]
    fn old_logs_go_first() {
        let dir = tempfile::tempdir().expect("folder");
        for name in ["20260103T000000-a", "20260101T000000-b", "20260102T000000-c"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        prune(dir.path(), 2).expect("prunes");
        assert!(!dir.path().join("20260101T000000-b").exists());
        assert!(dir.path().join("20260102T000000-c").exists());
    }
}
