//! A lock that the kernel frees when its holder ends, however it ends.

use std::fs::File;
use std::fs::TryLockError;
use std::io::ErrorKind::NotFound;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::{host, os};

/// Who only looks ([`Lock::holder`]) holds the lock for microseconds; that must not fail an `up`.
const GRACE: Duration = Duration::from_millis(200);

/// An exclusive lock on a file; the file names the holder.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock or fails within a quarter of a second; `command` is what the holder does (`devbox up`).
    /// Makes its folder if needed.
    ///
    /// # Errors
    /// Another process holds it: the message names its command, process id and since when.
    pub fn acquire(path: &Path, command: &str) -> Result<Self> {
        let start = Instant::now();
        let mut file = loop {
            if let Some(dir) = path.parent() {
                host::private_dir(dir)?;
            }
            let mut options = fs_err::OpenOptions::new();
            let mut file: File =
                match options.read(true).write(true).create(true).truncate(false).open(path) {
                    // Removed with the machine, between the two steps.
                    Err(e) if e.kind() == NotFound && start.elapsed() < GRACE => continue,
                    other => other?.into(),
                };
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => break file,
                // Whoever held it removed it with the machine: the next one is another file.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if start.elapsed() < GRACE => {
                    std::thread::sleep(GRACE / 10);
                }
                Err(TryLockError::WouldBlock) => return Err(held(&mut file, path)),
                Err(TryLockError::Error(e)) => {
                    return Err(Error::failed(format!("cannot lock `{}`", path.display())).cause(e));
                }
            }
        };
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S");
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{command}\n{}\n{now}", std::process::id())?;
        Ok(Lock { file })
    }

    /// Who holds the lock now: the words of the message, `None` if nobody does.
    #[must_use]
    pub fn holder(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        // A shared try: two who only look do not disturb each other.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(describe(&mut file)),
            _ => None,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // So that the next reader finds no holder's name in a free lock.
        let _ = self.file.set_len(0);
    }
}

/// Whether this file is the one that others find at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(found)) => os::fingerprint(&held) == os::fingerprint(&found),
        _ => false,
    }
}

fn describe(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let mut lines = text.lines();
    match (lines.next(), lines.next(), lines.next()) {
        (Some(command), Some(pid), Some(since)) => {
            format!("`{command}` (pid {pid}) is working on this machine since {since}")
        }
        _ => "another devbox is working on this machine".to_owned(),
    }
}

fn held(file: &mut File, path: &Path) -> Error {
    Error::failed(describe(file))
        .detail(format!("lock: {}", path.display()))
        .hint("Wait until it is done, or end it, then run the same command again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it_and_a_freed_lock_names_nobody() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path, "devbox up").expect("free");
        let e = Lock::acquire(&path, "devbox halt").expect_err("held");
        let pid = std::process::id();
        assert!(e.what().starts_with(&format!("`devbox up` (pid {pid}) is working")), "{e}");
        assert!(Lock::holder(&path).is_some_and(|h| h.contains("devbox up")));
        drop(first);
        assert_eq!(Lock::holder(&path), None);
        Lock::acquire(&path, "devbox halt").expect("free again");
    }
    #[test]
    fn a_lock_that_was_removed_with_its_machine_is_not_held_by_two() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("machine/lock");
        let first = Lock::acquire(&path, "devbox destroy").expect("free");
        let second = std::thread::scope(|scope| {
            let waits = scope.spawn(|| Lock::acquire(&path, "devbox up"));
            // It has the file open by now, and waits for it.
            std::thread::sleep(GRACE / 4);
            std::fs::remove_dir_all(dir.path().join("machine")).expect("removed");
            drop(first);
            waits.join().expect("ends").expect("free")
        });
        let e = Lock::acquire(&path, "devbox halt").expect_err("held");
        assert!(e.what().starts_with("`devbox up` (pid "), "{e}");
        drop(second);
    }
}
