//! What Linux and macOS have in common.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};

/// Until a socket whose line is full is tried again.
const TURNED_AWAY: Duration = Duration::from_millis(20);

/// A connection to a socket of this host.
pub type Stream = tokio::net::UnixStream;

/// Connects to the socket that QEMU made at `path`, once there is a place in its line: QEMU talks to one at a time, has a
/// single one wait, and the kernel turns away those behind it (unix(7), EAGAIN). Whoever calls says how long that may take.
///
/// # Errors
/// Nothing listens there.
pub async fn connect(path: &Path) -> std::io::Result<Stream> {
    loop {
        match Stream::connect(path).await {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(TURNED_AWAY).await;
            }
            connected => return connected,
        }
    }
}

/// The same without a runtime; each read waits for `patience` at most.
///
/// # Errors
/// Nothing listens there.
pub fn connect_blocking(path: &Path, patience: Duration) -> std::io::Result<impl Read + Write> {
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

/// Keeps Ctrl-C at the terminal away from a program: it gets a group of its own.
pub fn detach(command: &mut Command) {
    command.process_group(0);
}

/// Ends the group of a program that [`detach`] has set apart: `gently` lets it clean up.
pub fn end_group(leader: u32, gently: bool) {
    let signal = if gently { Signal::TERM } else { Signal::KILL };
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}

/// The name of devbox's folder in a folder for everybody's temporary files.
#[must_use]
pub fn runtime_name() -> String {
    format!("devbox-{}", rustix::process::getuid().as_raw())
}

/// Creates a folder that only this user can enter, with its parents.
///
/// # Errors
/// The folder cannot be made, or it belongs to somebody else.
pub fn private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| {
        Error::failed(format!("cannot create the folder `{}`", path.display())).cause(e)
    })?;
    let meta = fs::symlink_metadata(path)?;
    let me = rustix::process::getuid().as_raw();
    if !meta.is_dir() || meta.uid() != me {
        return Err(Error::failed(format!("`{}` is not a folder of yours", path.display())).hint(
            "Remove it, or set `DEVBOX_HOME` and `XDG_RUNTIME_DIR` to folders of your own.",
        ));
    }
    Ok(())
}

/// Lets only this user read a file that these options make.
pub fn private_file(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    options.mode(0o600)
}

/// Lets only this user read a file.
///
/// # Errors
/// It cannot be changed.
pub fn make_private(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Makes durable what was renamed or removed in a folder.
///
/// # Errors
/// It cannot be opened or synced.
pub fn sync_dir(path: &Path) -> std::io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Free bytes for this user on the filesystem that holds `path`, which is there.
///
/// # Errors
/// The filesystem cannot be asked.
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that a file takes on the disk; holes count nothing.
#[must_use]
pub fn stored_bytes(meta: &Metadata) -> u64 {
    // The unit of `st_blocks` (stat(3type)).
    const BLOCK: u64 = 512;
    meta.blocks() * BLOCK
}

/// What changes when another file takes a file's place, and when somebody writes to it: its number, and
/// the time of its last change in seconds and nanoseconds.
#[must_use]
pub fn fingerprint(meta: &Metadata) -> (u64, (i64, i64)) {
    (meta.ino(), (meta.mtime(), meta.mtime_nsec()))
}

/// Text of the system from its bytes.
#[must_use]
pub fn os_string(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}

/// Random bytes, fit for keys.
///
/// # Errors
/// The kernel's random source cannot be read.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    fs::File::open("/dev/urandom")?.read_exact(bytes)
}

/// Two connected sockets, each to be the standard input of a program; neither has a name.
///
/// # Errors
/// The process has too many open files.
pub fn socket_pair() -> std::io::Result<(Stdio, Stdio)> {
    let (a, b) = std::os::unix::net::UnixStream::pair()?;
    Ok((OwnedFd::from(a).into(), OwnedFd::from(b).into()))
}
