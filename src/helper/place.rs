//! A helper's folder: its lock, its log, its sockets. Nothing in it outlives a restart of the host.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;

use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::host::Paths;
use crate::machine::process::Process;

/// The folder of the helper of one project.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
}

/// Who holds the lock.
#[derive(Debug)]
pub enum Held {
    /// No helper runs.
    Nobody,
    /// A helper runs; who it is, unless it has just begun.
    By(Option<Holder>),
}

/// A helper that runs, as it wrote itself into its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pid: i32,
    start: u64,
    /// Which devbox it is, see [`this_build`].
    pub build: String,
}

impl Holder {
    /// Its process; `None` if that has ended, whoever has its id now.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        Process::open(self.pid).filter(|process| process.start() == self.start)
    }
}

/// The version of this program, and which file it is: another build of the same version is another one.
#[must_use]
pub fn this_build() -> String {
    let file = std::env::current_exe().and_then(fs::metadata);
    let file = file.map_or((0, 0, 0), |meta| (meta.size(), meta.mtime(), meta.mtime_nsec()));
    format!("{} {}.{}.{}", env!("CARGO_PKG_VERSION"), file.0, file.1, file.2)
}

/// The lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Hold {
    /// `None` once it was handed on.
    file: Option<File>,
}

impl Hold {
    /// The lock as what a child inherits: it is the child's from then on, without a moment in which it is
    /// nobody's.
    pub(super) fn hand_on(mut self) -> Stdio {
        self.file.take().map_or_else(Stdio::null, Stdio::from)
    }

    /// Whether the lock is still the one that others find.
    pub(super) fn is_in_place(&self, place: &Place) -> bool {
        self.file.as_ref().is_some_and(|file| place.is_lock(file))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // So that nobody reads a name in a free lock.
            let _ = file.set_len(0);
            // Standard input may be the same lock, and stays open.
            let _ = file.unlock();
        }
    }
}

impl Place {
    /// That of the project in the folder `project`, as [`crate::machine::instance::Instance::project`] names it;
    /// touches nothing.
    #[must_use]
    pub fn of(paths: &Paths, project: &Path) -> Self {
        let machines = sha256(paths.machines.as_os_str().as_encoded_bytes());
        let both = [&machines[..], project.as_os_str().as_encoded_bytes()].concat();
        Place { dir: paths.runtime.join(format!("p{}", short(&both))) }
    }

    /// One with this folder.
    pub(super) fn at(dir: PathBuf) -> Self {
        Place { dir }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the helper did, for people.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    fn wake_socket(&self) -> PathBuf {
        self.dir.join("wake.sock")
    }

    /// The switch's socket for the machine `name`.
    #[must_use]
    pub fn port(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}.sock", short(name.as_bytes())))
    }

    /// Keeps the log of the helper before beside the one that begins. The lock is held.
    pub(super) fn turn_log(&self) {
        let _ = fs::rename(self.log(), self.dir.join("log.1"));
    }

    /// Where a helper's last words go, should it have any.
    pub(super) fn words(&self) -> Result<File> {
        let file = self.dir.join("stderr");
        Ok(fs::OpenOptions::new().create(true).append(true).open(file)?.into())
    }

    fn is_lock(&self, file: &File) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let there = std::fs::metadata(self.lock()).map(id).ok();
        there.is_some() && there == file.metadata().map(id).ok()
    }

    /// Who holds the lock now.
    ///
    /// # Errors
    /// The lock cannot be read.
    pub fn held(&self) -> Result<Held> {
        let mut file: File = match fs::File::open(self.lock()) {
            Ok(file) => file.into(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Held::Nobody),
            Err(e) => return Err(e.into()),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Held::Nobody),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Held::By(serde_json::from_str(&text).ok()))
            }
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// Takes the lock, which names nobody yet; `None` if somebody has it.
    pub(super) fn hold(&self) -> Result<Option<Hold>> {
        let mut options = fs::OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file: File = options.open(self.lock())?.into();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        file.set_len(0)?;
        Ok(Some(Hold { file: Some(file) }))
    }

    /// The lock that this process was started with, as its standard input.
    pub(super) fn inherited(&self) -> Option<Hold> {
        let file = File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
        self.is_lock(&file).then_some(Hold { file: Some(file) })
    }

    /// Writes this process into the lock that it holds.
    pub(super) fn sign(hold: &mut Hold) -> Result<()> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let start = Process::open(pid).map(|process| process.start());
        let start = start.ok_or_else(|| Error::failed("cannot read `/proc` about this process"))?;
        let holder = Holder { pid, start, build: this_build() };
        let text = serde_json::to_vec(&holder)
            .map_err(|e| Error::failed("cannot write the helper's lock").cause(e))?;
        if let Some(file) = &mut hold.file {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&text)?;
        }
        Ok(())
    }

    /// Where [`Place::wake`] is heard. The lock is held.
    pub(super) fn bind_wake(&self) -> Result<UnixDatagram> {
        bind(&self.wake_socket()).map_err(|e| {
            let socket = self.wake_socket();
            Error::failed(format!("cannot listen on `{}`", socket.display())).cause(e)
        })
    }

    /// Has the helper look at the machines now, if there is one.
    pub(super) fn wake(&self) {
        if let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
            && socket.set_nonblocking(true).is_ok()
        {
            // One that has not begun to listen looks by itself.
            let _ = socket.send_to(b"look", self.wake_socket());
        }
    }

    /// Removes all sockets. The lock is held.
    pub(super) fn remove_sockets(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "sock") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A socket at `path`, in place of what a killed helper left there.
pub(super) fn bind(path: &Path) -> std::io::Result<UnixDatagram> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixDatagram::bind(path)
}

/// Eight hex digits.
fn short(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path) -> Place {
        Place { dir: dir.to_owned() }
    }

    #[test]
    fn one_helper_holds_the_lock_and_says_who_it_is() {
        let dir = tempfile::tempdir().expect("dir");
        let place = place(dir.path());
        assert!(matches!(place.held().expect("read"), Held::Nobody), "no lock file yet");
        let mut hold = place.hold().expect("free").expect("nobody has it");
        assert!(place.hold().expect("looked").is_none(), "a second one");
        assert!(matches!(place.held().expect("read"), Held::By(None)), "it has not signed");
        Place::sign(&mut hold).expect("signed");
        let Held::By(Some(holder)) = place.held().expect("read") else { panic!("held") };
        assert_eq!(holder.build, this_build());
        assert_eq!(holder.process().expect("lives").pid(), holder.pid);
        assert!(hold.is_in_place(&place));
        drop(hold);
        assert!(matches!(place.held().expect("read"), Held::Nobody));
    }

    #[test]
    fn a_lock_that_is_handed_on_is_the_child_s() {
        let dir = tempfile::tempdir().expect("dir");
        let place = place(dir.path());
        let hold = place.hold().expect("free").expect("nobody has it");
        let mut sleep = std::process::Command::new("sleep");
        let mut child = sleep.arg("60").stdin(hold.hand_on()).spawn().expect("sleep runs");
        // What was handed on stays open in the command.
        drop(sleep);
        assert!(matches!(place.held().expect("read"), Held::By(None)));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(matches!(place.held().expect("read"), Held::Nobody));
    }

    #[test]
    fn a_process_that_has_the_id_of_a_dead_helper_is_not_taken_for_it() {
        let own = Process::open(rustix::process::getpid().as_raw_nonzero().get()).expect("me");
        let holder = Holder { pid: own.pid(), start: own.start() + 1, build: String::new() };
        assert!(holder.process().is_none());
    }

    #[test]
    fn a_folder_that_was_taken_away_is_noticed() {
        let dir = tempfile::tempdir().expect("dir");
        let place = place(dir.path());
        let hold = place.hold().expect("free").expect("nobody has it");
        std::fs::remove_file(place.lock()).expect("removed");
        assert!(!hold.is_in_place(&place));
        // Another one made it anew: the lock that we hold is nobody's any more.
        let other = place.hold().expect("free").expect("another file");
        assert!(!hold.is_in_place(&place) && other.is_in_place(&place));
    }
}
