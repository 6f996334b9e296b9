//! Whether anything changes below folders of this host, by inotify(7).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Room for events that are read at once; each is 16 bytes and a name.
const ROOM: usize = 64 << 10;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Folders that are watched, with all folders below them.
#[derive(Debug)]
pub(super) struct Watch {
    fd: OwnedFd,
    roots: Vec<PathBuf>,
}

impl Watch {
    /// Watches these folders from now on.
    ///
    /// # Errors
    /// The kernel has no room for so many.
    pub(super) fn new(roots: &[PathBuf]) -> Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let fd = fd.map_err(|e| {
            Error::failed("cannot watch folders").cause(e).hint(
                "Raise `fs.inotify.max_user_instances` (sysctl), or end other programs that watch.",
            )
        })?;
        let watch = Watch { fd, roots: roots.to_owned() };
        watch.all()?;
        Ok(watch)
    }

    /// Every folder; one that is watched already stays so.
    fn all(&self) -> Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        for root in &self.roots {
            // One that goes while it is looked at is none to watch.
            for entry in walkdir::WalkDir::new(root).into_iter().flatten() {
                if !entry.file_type().is_dir() {
                    continue;
                }
                match inotify::add_watch(&self.fd, entry.path(), flags) {
                    Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                    Err(e) => {
                        let what = format!("cannot watch `{}`", entry.path().display());
                        return Err(Error::failed(what).cause(e).hint(
                            "Raise `fs.inotify.max_user_watches` (sysctl), or mount a smaller folder.",
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns when something has changed. What comes new is watched too. Looks some times a second: tokio
    /// has no safe way to wait for an inotify.
    ///
    /// # Errors
    /// The kernel has no room for a new folder.
    pub(super) async fn changed(&mut self) -> Result<()> {
        loop {
            let (mut any, mut folders) = (false, false);
            {
                let mut room = vec![MaybeUninit::uninit(); ROOM];
                let mut reader = Reader::new(&self.fd, &mut room);
                loop {
                    match reader.next() {
                        Ok(event) => {
                            any = true;
                            // After lost events nothing is known of what came new.
                            folders |= event
                                .events()
                                .intersects(ReadFlags::ISDIR | ReadFlags::QUEUE_OVERFLOW);
                        }
                        Err(Errno::AGAIN) => break,
                        Err(Errno::INTR) => {}
                        Err(e) => return Err(std::io::Error::from(e).into()),
                    }
                }
            }
            if folders {
                self.all()?;
            }
            if any {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_seen_also_in_folders_that_come_later() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut watch = Watch::new(&[dir.path().to_owned()]).expect("watched");
        let nothing = tokio::time::timeout(Duration::from_millis(100), watch.changed()).await;
        assert!(nothing.is_err(), "nothing has changed");
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).expect("made");
        let wait = Duration::from_secs(10);
        tokio::time::timeout(wait, watch.changed()).await.expect("seen").expect("read");
        // What `a` brought along is still to be told.
        while tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_ok() {}
        std::fs::write(deep.join("c"), "x").expect("written");
        tokio::time::timeout(wait, watch.changed()).await.expect("seen").expect("read");
    }
}
