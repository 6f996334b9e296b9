//! Windows, as far as safe Rust goes: the standard library, `socket2` and `win32job`.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::windows::fs::MetadataExt as _;
use std::os::windows::io::AsRawHandle as _;
use std::os::windows::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Bond, bridge};
use crate::error::{Error, Result};

/// A Unix socket's path holds so many bytes (`sockaddr_un` of afunix.h, 108 with the zero).
pub const SOCKET_PATH: usize = 107;
/// Process creation flags (Microsoft, "Process Creation Flags"): no console of ours, and no Ctrl-C of it.
const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
const CREATE_NO_WINDOW: u32 = 0x0800_0000;
/// A time of a file counts so many steps a second.
const STEPS: u64 = 10_000_000;

/// A connection to a socket of this host: two threads carry its bytes, since tokio knows no Unix sockets here.
pub type Stream = tokio::io::DuplexStream;

/// Connects to the socket that QEMU made at `path`. QEMU listens on Unix sockets since 7.2, Windows has
/// them since 10 (1803). A named pipe would serve one client once; a port would serve everybody.
///
/// # Errors
/// Nothing listens there.
pub async fn connect(path: &Path) -> std::io::Result<Stream> {
    let path = path.to_owned();
    let open = tokio::task::spawn_blocking(move || open(&path)).await;
    let from_peer = open.map_err(std::io::Error::other)??;
    let to_peer = from_peer.try_clone()?;
    bridge::join(from_peer, to_peer, |to_peer| {
        let _ = to_peer.shutdown(Shutdown::Write);
    })
}

fn open(path: &Path) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// The same without a runtime; each read waits for `patience` at most.
///
/// # Errors
/// Nothing listens there.
pub fn connect_blocking(path: &Path, patience: Duration) -> std::io::Result<impl Read + Write> {
    let socket = open(path)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// Gives a program no part of our console, so that neither Ctrl-C nor its end reaches it.
pub fn detach(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW);
}

/// Ends a program with all that it started. Windows knows no gentle way for one without a window.
pub fn end_group(leader: u32, _gently: bool) {
    let mut command = Command::new("taskkill");
    command.args(["/T", "/F", "/PID"]).arg(leader.to_string());
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// The words in front of a program that starts it under this bond: none, [`detach`] does it.
#[must_use]
pub fn in_front(_bond: Bond) -> &'static [&'static str] {
    &[]
}

/// What ends a program with devbox while it is held: the system closes the job with devbox.
#[derive(Debug)]
pub struct Tie {
    _job: win32job::Job,
}

/// Ties a program that was started to devbox by a job object.
///
/// # Errors
/// The system makes no job, or does not take the program into it.
pub fn tie(child: &Child) -> std::io::Result<Tie> {
    let mut limits = win32job::ExtendedLimitInfo::new();
    limits.limit_kill_on_job_close();
    let job = win32job::Job::create_with_limit_info(&limits).map_err(std::io::Error::other)?;
    job.assign_process(child.as_raw_handle() as isize).map_err(std::io::Error::other)?;
    Ok(Tie { _job: job })
}

/// The name of devbox's folder in the user's own folder of temporary files.
#[must_use]
pub fn runtime_name() -> String {
    "devbox".to_owned()
}

/// Creates a folder with its parents in the user's profile, whose access list keeps others out of all
/// that is made below it.
///
/// # Errors
/// The folder cannot be made, or it is not in the profile.
pub fn private_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| {
        Error::failed(format!("cannot create the folder `{}`", path.display())).cause(e)
    })?;
    let profile = etcetera::home_dir().map_err(|e| {
        Error::failed("cannot find your profile's folder").cause(e).hint("Set `USERPROFILE`.")
    })?;
    // Both as the system names them: without links and short names.
    if fs::canonicalize(path)?.starts_with(fs::canonicalize(&profile)?) {
        return Ok(());
    }
    Err(Error::failed(format!(
        "`{}` is not in your profile, and others may read it",
        path.display()
    ))
    .hint(format!("Set `DEVBOX_HOME` and `TEMP` to folders below `{}`.", profile.display())))
}

/// Lets only this user read a file that these options make: its folder's access list says so already.
pub fn private_file(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    options
}

/// Lets only this user read a file, which its folder's access list says already.
///
/// # Errors
/// None.
pub fn make_private(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Makes durable what was renamed or removed in a folder: NTFS has it in its journal, and no folder can be synced.
///
/// # Errors
/// None.
pub fn sync_dir(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Free bytes for this user on the volume that holds `path`.
///
/// # Errors
/// No volume is known to hold it: a share of another host.
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let path = std::path::absolute(path)?;
    let disks = sysinfo::Disks::new_with_refreshed_list().map_err(std::io::Error::other)?;
    let holding = disks.iter().filter(|disk| path.starts_with(disk.mount_point()));
    let nearest = holding.max_by_key(|disk| disk.mount_point().as_os_str().len());
    nearest.map(sysinfo::Disk::available_space).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::Unsupported, "it is on no volume of this host")
    })
}

/// Bytes of a file. At most so many are on the disk: no safe call tells which are holes, and QEMU's layers have none.
#[must_use]
pub fn stored_bytes(meta: &Metadata) -> u64 {
    meta.file_size()
}

/// What changes when another file takes a file's place, and when somebody writes to it: when it was made,
/// and the time of its last change in seconds and nanoseconds, both since 1601.
#[must_use]
pub fn fingerprint(meta: &Metadata) -> (u64, (i64, i64)) {
    let changed = meta.last_write_time();
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    (meta.creation_time(), (whole(changed / STEPS), whole(changed % STEPS * 100)))
}

/// Text of the system from bytes that are UTF-8, as everything is that is made here.
#[must_use]
pub fn os_string(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Random bytes, fit for keys.
///
/// # Errors
/// The system's random source cannot be read.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes).map_err(std::io::Error::other)
}

/// Two connected sockets, each to be the standard input of a program: there are none here.
///
/// # Errors
/// Always.
pub fn socket_pair() -> std::io::Result<(Stdio, Stdio)> {
    let why = "programs of Windows take no socket as their standard input";
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, why))
}
