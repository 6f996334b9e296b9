//! The process that serves a box's disk while it arrives: where it is found, and how it is started. What it does is in
//! `arrival`; here is what those need who only see to it that it runs.
//!
//! There is one for each disk, whatever the number of machines that run on it. It may be killed at any moment: QEMU waits
//! for the next one, which begins with what is here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::place::{Held, Hold, Place};
use crate::digest::{FileDigest, hex, sha256};
use crate::error::{Error, Result};
use crate::host::Paths;
use crate::machine::files::Files;
use crate::machine::record::Record;

/// The verb of the command line.
pub const VERB: &str = "box-server";
/// Largest of its own small files, in bytes.
const MOST: u64 = 64 << 10;

/// What a server is to do. Written by whoever starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Where the box comes from, with the digest of its manifest.
    pub address: String,
    /// Whether HTTP without TLS is spoken to its registry.
    pub plain_http: bool,
    /// SHA-256 of its disk.
    pub disk: FileDigest,
}

/// How far a server is. Written by it, now and then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether machines can read from it.
    pub serves: bool,
    /// Whether all is here, under its name in the store.
    pub whole: bool,
    /// Bytes of the whole disk, as they travel.
    pub total: u64,
    /// Bytes of it that are not here.
    pub left: u64,
    /// Bytes that moved since it began.
    pub moved: u64,
    /// Why nothing arrives at the moment, in words.
    pub trouble: Option<String>,
    /// Whether it is of no use to wait: the box itself is wrong.
    pub hopeless: bool,
    /// Whether machines stand still until something comes.
    pub waits: bool,
}

impl Progress {
    /// How much of the box is here, in percent, rounded down.
    #[must_use]
    pub fn percent(&self) -> u64 {
        match self.total {
            0 => 100,
            total => total.saturating_sub(self.left).saturating_mul(100) / total,
        }
    }
}

/// The server of one disk.
#[derive(Debug, Clone)]
pub struct BoxServer {
    place: Place,
    disk: FileDigest,
}

impl BoxServer {
    /// That of the disk with this digest in this user's store; touches nothing.
    #[must_use]
    pub fn of(paths: &Paths, disk: FileDigest) -> Self {
        Self::beside(&paths.runtime, &paths.store, disk)
    }

    /// That of the box of a machine; none for one that was started with its box in the store.
    #[must_use]
    pub fn of_machine(files: &Files, record: &Record) -> Option<Self> {
        let arriving = record.arriving.as_ref()?;
        // A blob is in a folder for its algorithm, in one for all, in the store.
        let store = record.base.disk.ancestors().nth(3)?;
        Some(Self::beside(files.runtime().parent()?, store, arriving.disk))
    }

    fn beside(runtime: &Path, store: &Path, disk: FileDigest) -> Self {
        let both = [store.as_os_str().as_encoded_bytes(), disk.hex().as_bytes()].concat();
        let name = format!("b{}", hex(&sha256(&both)[..4]));
        BoxServer { place: Place::at(runtime.join(name)), disk }
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Where it speaks NBD.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("nbd.sock")
    }

    /// What it did, for people.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.place.log()
    }

    fn job_file(&self) -> PathBuf {
        self.dir().join("job")
    }

    fn progress_file(&self) -> PathBuf {
        self.dir().join("progress")
    }

    /// Why the last one ended before it served anything.
    fn failure_file(&self) -> PathBuf {
        self.dir().join("failure")
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(self.place.held(), Ok(Held::By(_)))
    }

    /// How far it is; none if it does not run, or has just begun.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        // Until it has signed its lock, what stands there is of one before it, which may have been killed.
        let Ok(Held::By(Some(holder))) = self.place.held() else { return None };
        holder.process()?;
        serde_json::from_slice(&small(&self.progress_file())?).ok()
    }

    /// Why the last one ended, in words, if that was a failure.
    #[must_use]
    pub fn failure(&self) -> Option<Vec<String>> {
        serde_json::from_slice(&small(&self.failure_file())?).ok()
    }

    /// What it is to do.
    #[must_use]
    pub fn job(&self) -> Option<Job> {
        let job: Job = serde_json::from_slice(&small(&self.job_file())?).ok()?;
        (job.disk == self.disk).then_some(job)
    }

    /// Has it run. True if it was started here.
    ///
    /// # Errors
    /// Its folder cannot be written, or devbox cannot be started.
    pub fn start(&self, job: &Job) -> Result<bool> {
        crate::host::private_dir(self.dir())?;
        // Somebody who only looks has the lock for microseconds.
        for _ in 0..5 {
            if let Some(lock) = self.place.hold()? {
                self.spawn(lock, job)?;
                return Ok(true);
            }
            if matches!(self.place.held()?, Held::By(Some(_))) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    fn spawn(&self, lock: Hold, job: &Job) -> Result<()> {
        let json = |e| Error::failed("cannot write what a server is to do").cause(e);
        replace(&self.job_file(), &serde_json::to_vec(job).map_err(json)?)?;
        let _ = fs::remove_file(self.failure_file());
        let mut child = Command::new(std::env::current_exe()?)
            .arg(VERB)
            .arg(self.disk.hex())
            .current_dir("/")
            .stdin(lock.hand_on())
            .stdout(Stdio::null())
            .stderr(self.place.words()?)
            .spawn()
            .map_err(|e| Error::failed("cannot start the server of the box").cause(e))?;
        // It outlives us; until then somebody has to wait for it.
        std::thread::Builder::new().name("box-server".to_owned()).spawn(move || child.wait())?;
        Ok(())
    }

    /// The lock that the server was started with, signed; none if this process is not the one that was started.
    ///
    /// # Errors
    /// The lock cannot be written.
    // Only what fetches boxes serves them.
    #[cfg(feature = "images")]
    pub(crate) fn begin(&self) -> Result<Option<Begun>> {
        crate::host::private_dir(self.dir())?;
        let inherited = self.place.inherited();
        let Some(mut lock) = inherited.map_or_else(|| self.place.hold(), |l| Ok(Some(l)))? else {
            return Ok(None);
        };
        for old in [self.progress_file(), self.failure_file()] {
            let _ = fs::remove_file(old);
        }
        Place::sign(&mut lock)?;
        self.place.turn_log();
        Ok(Some(Begun { lock, server: self.clone() }))
    }
}

/// The lock of a server, while it runs.
#[cfg(feature = "images")]
#[derive(Debug)]
pub(crate) struct Begun {
    lock: Hold,
    server: BoxServer,
}

#[cfg(feature = "images")]
impl Begun {
    /// Whether its folder is still there.
    pub(crate) fn is_in_place(&self) -> bool {
        self.lock.is_in_place(&self.server.place)
    }

    /// Says how far it is. Where its folder was removed under it, what stands there is another one's, and nothing is written.
    pub(crate) fn tell(&self, progress: &Progress) {
        if self.is_in_place()
            && let Ok(text) = serde_json::to_vec(progress)
        {
            let _ = replace(&self.server.progress_file(), &text);
        }
    }

    /// Says why it ends.
    pub(crate) fn fail(&self, lines: &[String]) {
        if self.is_in_place()
            && let Ok(text) = serde_json::to_vec(lines)
        {
            let _ = replace(&self.server.failure_file(), &text);
        }
    }

    /// Adds a line to its log.
    pub(crate) fn log(&self, text: std::fmt::Arguments<'_>) {
        if !self.is_in_place() {
            return;
        }
        super::log::Log::new(&self.server.place).line(text);
    }

    /// Ends: nothing of it is left but its words, and those only where something went wrong.
    pub(crate) fn end(self, well: bool) {
        if !self.is_in_place() {
            return;
        }
        let _ = fs::remove_file(self.server.socket());
        if well {
            let dir = self.server.dir().to_owned();
            drop(self.lock);
            // Unless another one has begun meanwhile.
            if matches!(self.server.place.held(), Ok(Held::Nobody)) {
                let _ = fs::remove_dir_all(dir);
            }
        }
    }
}

fn small(path: &Path) -> Option<Vec<u8>> {
    let meta = std::fs::metadata(path).ok()?;
    (meta.len() <= MOST).then(|| std::fs::read(path).ok())?
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let folder = path.parent().unwrap_or(path);
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    new.persist(path).map_err(|e| Error::from(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_server_said_is_not_its_successor_s() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = FileDigest::of(b"disk");
        let server = BoxServer::beside(dir.path(), dir.path(), disk);
        fs::create_dir_all(server.dir()).expect("folder");
        let progress = Progress {
            serves: true,
            whole: false,
            total: 2,
            left: 1,
            moved: 1,
            trouble: None,
            hopeless: false,
            waits: false,
        };
        let text = serde_json::to_vec(&progress).expect("json");
        replace(&server.progress_file(), &text).expect("written");
        assert_eq!(server.progress(), None, "nobody runs");
        let mut lock = server.place.hold().expect("lock").expect("nobody has it");
        assert!(server.runs());
        assert_eq!(server.progress(), None, "the next one has just begun");
        Place::sign(&mut lock).expect("signed");
        assert_eq!(server.progress(), Some(progress));
    }
}
