//! The folder in which an image is put together, and the user namespace that may write in it.
//!
//! A plain user's namespace maps its root to the user's subordinate ids, so it cannot enter the
//! user's private folders nor write into them, and the files that it makes cannot be removed by the
//! user outside. So the work happens in a folder that everybody may write to, which lies in one
//! whose name nobody can guess, and it is removed through the namespace too. As root no ids are
//! mapped and all this is merely harmless.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use crate::error::{Context as _, Error, Result};
use crate::exec::{self, mounts, tools};

/// Folders are entered by name only, not listed, by others: the namespace's root is one of them.
const ENTER: u32 = 0o711;
const ANYBODY: u32 = 0o777;

/// A scratch folder. Removed when dropped; after `kill -9` by the next one that is made.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    /// Held by every child as its standard input, so that a folder in use is never taken for a
    /// left-over, even when devbox itself was killed.
    lock: File,
}

impl Scratch {
    /// A fresh folder; removes what killed runs of this user left behind.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new() -> Result<Self> {
        Self::beneath(&base()?)
    }

    fn beneath(base: &Path) -> Result<Self> {
        remove_leftovers(base)?;
        let dir = tempfile::Builder::new()
            .prefix("s")
            .rand_bytes(16)
            .permissions(std::fs::Permissions::from_mode(ENTER))
            .tempdir_in(base)
            .context(|| format!("cannot make a folder in `{}`", base.display()))?
            .keep();
        // The umask may have taken bits away.
        fs::set_permissions(&dir, std::fs::Permissions::from_mode(ENTER))?;
        let lock = File::create(dir.join("lock"))?;
        let scratch = Scratch { dir, lock };
        scratch
            .lock
            .lock()
            .map_err(|e| Error::failed("cannot lock the scratch folder").cause(e))?;
        let work = scratch.work();
        fs::create_dir(&work)?;
        fs::set_permissions(&work, std::fs::Permissions::from_mode(ANYBODY))?;
        Ok(scratch)
    }

    /// The folder that the namespace's root may write to.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// The folder for what only this user writes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lock as standard input for a child that reads none.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn stdin(&self) -> Result<Stdio> {
        Ok(Stdio::from(self.lock.try_clone()?))
    }

    /// An empty file in the work folder that belongs to this user and that the namespace may write.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn shared_file(&self, name: &str) -> Result<PathBuf> {
        let path = self.work().join(name);
        fs::File::create_new(&path)?;
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// A shell script that runs as the namespace's root, in the work folder.
    ///
    /// # Errors
    /// `mmdebstrap`, which has the helper, is not installed.
    pub fn namespace(&self, script: &str) -> Result<Command> {
        let mut command = namespace(&self.work(), script)?;
        command.stdin(self.stdin()?);
        Ok(command)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove(&self.dir);
    }
}

fn namespace(dir: &Path, script: &str) -> Result<Command> {
    let mut command = tools::MMDEBSTRAP.command()?;
    command.args(["--unshare-helper", "sh", "-c"]).arg(format!("set -eu\n{script}"));
    // The namespace's root may not enter the folders above this one: it starts inside.
    command.current_dir(dir);
    Ok(command)
}

/// The folder of all scratch folders of this user. `/var/tmp` and not `/tmp`, which may be a small
/// filesystem in memory; `TMPDIR` overrides.
fn base() -> Result<PathBuf> {
    let parent = std::env::var_os("TMPDIR").filter(|t| !t.is_empty());
    let parent = parent.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let uid = rustix::process::getuid().as_raw();
    let base = parent.join(format!("devbox-{uid}"));
    match DirBuilder::new().mode(ENTER).create(&base) {
        Ok(()) => fs::set_permissions(&base, std::fs::Permissions::from_mode(ENTER))?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => {
            return Err(Error::failed(format!("cannot make the folder `{}`", base.display()))
                .cause(e)
                .hint("Set `TMPDIR` to a folder that everybody may enter and you may write to."));
        }
    }
    let meta = fs::symlink_metadata(&base)?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o022 != 0 {
        return Err(Error::failed(format!(
            "`{}` is not a folder that only you write to",
            base.display()
        ))
        .hint("Remove it, or set `TMPDIR` to another folder."));
    }
    Ok(base)
}

/// Removes the folders whose lock nobody holds.
fn remove_leftovers(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base)? {
        let dir = entry?.path();
        // Without a lock file it is being made this moment, or was killed before it held anything.
        let Ok(lock) = File::open(dir.join("lock")) else { continue };
        match lock.try_lock() {
            // What cannot be removed stands in the way of nothing; the next one tries again.
            Ok(()) => drop(remove(&dir)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
    }
    Ok(())
}

/// What the namespace's root made goes through the namespace; the lock goes last. What a killed program left mounted
/// there is unmounted first: nothing of another filesystem is removed.
fn remove(dir: &Path) -> Result<()> {
    mounts::clear(dir)?;
    let work = dir.join("work");
    if work.exists() && fs::remove_dir_all(&work).is_err() {
        let script = "find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +";
        let mut command = namespace(&work, script)?;
        exec::output(command.stdin(Stdio::null()))?;
    }
    Ok(fs::remove_dir_all(dir)?)
}

/// Fails unless this user can have a user namespace whose root writes into a scratch folder.
///
/// # Errors
/// Says what this host lacks and how to get it.
pub async fn prove(scratch: &Scratch, cancel: &CancellationToken) -> Result<()> {
    let command = scratch.namespace("touch probe && chown 1:1 probe && rm probe")?;
    exec::group::run(command, |_| {}, cancel).await.map(drop).map_err(|e| {
        if e.kind() == crate::error::Kind::Interrupted {
            return e;
        }
        e.context("cannot build an image without root on this host: user namespaces do not work")
            .hint("Give your user a range of ids with `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"`.")
            .hint("Allow user namespaces: `sudo sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu also `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`.")
            .hint("In a container, run it with user namespaces allowed, or run devbox as root.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_scratch_is_gone_and_a_killed_one_goes_with_the_next() {
        let base = tempfile::tempdir().expect("a folder");
        let killed = Scratch::beneath(base.path()).expect("made");
        std::fs::write(killed.work().join("file"), b"x").expect("written");
        let left = killed.dir().to_owned();
        let used = Scratch::beneath(base.path()).expect("made");
        assert!(left.exists(), "a folder in use must stay");

        // As after kill -9: the lock is gone with its holder, the folder is not.
        let killed = std::mem::ManuallyDrop::new(killed);
        killed.lock.unlock().expect("unlocked");
        let next = Scratch::beneath(base.path()).expect("made");
        assert!(!left.exists());
        let dirs = [used.dir().to_owned(), next.dir().to_owned()];
        drop((used, next));
        assert!(dirs.iter().all(|d| !d.exists()));
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "what was not run has to be seen")]
    fn what_is_mounted_in_a_left_over_is_unmounted_and_stays_as_it_is() {
        if !rustix::process::getuid().is_root() {
            eprintln!(
                "not run: what_is_mounted_in_a_left_over_is_unmounted_and_stays_as_it_is: only root mounts"
            );
            return;
        }
        let (base, outside) = (tempfile::tempdir(), tempfile::tempdir());
        let (base, outside) = (base.expect("a folder"), outside.expect("a folder"));
        std::fs::write(outside.path().join("file"), b"x").expect("written");
        let killed = Scratch::beneath(base.path()).expect("made");
        let place = killed.work().join("tree/with space");
        std::fs::create_dir_all(place.join("in")).expect("made");
        for _ in 0..2 {
            rustix::mount::mount_bind(outside.path(), &place).expect("mounted");
        }
        let killed = std::mem::ManuallyDrop::new(killed);
        killed.lock.unlock().expect("unlocked");
        drop(Scratch::beneath(base.path()).expect("made"));
        assert!(!killed.dir().exists());
        assert!(outside.path().join("file").exists(), "removed through a mount");
    }
}
