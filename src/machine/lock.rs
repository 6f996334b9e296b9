//! A lock that the kernel frees when its holder ends, however it ends.

use std::fs::File;
use std::fs::TryLockError;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Who only looks ([`Lock::holder`]) holds the lock for microseconds; that must not fail an `up`.
const GRACE: Duration = Duration::from_millis(200);

/// An exclusive lock on a file; the file names the holder.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock or fails within a quarter of a second; `command` is what the holder does (`devbox up`).
    ///
    /// # Errors
    /// Another process holds it: the message names its command, process id and since when.
    pub fn acquire(path: &Path, command: &str) -> Result<Self> {
        let mut file: File = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?
            .into();
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < GRACE => {
                    std::thread::sleep(GRACE / 10);
                }
                Err(TryLockError::WouldBlock) => return Err(held(&mut file, path)),
                Err(TryLockError::Error(e)) => {
                    return Err(Error::failed(format!("cannot lock `{}`", path.display())).cause(e));
                }
            }
        }
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
}
