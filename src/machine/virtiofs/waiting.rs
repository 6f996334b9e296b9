//! A server that waits at its gate.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{Daemon, ids, inside};
use crate::error::{Error, Result};
use crate::exec::{self, Tool, tools};
use crate::guest::folder::{Folder, Ids};
use crate::machine::files::Files;

/// Keeps Ctrl-C and the end of a terminal away from a server.
const SETSID: Tool =
    Tool { name: "setsid", why: "to serve folders to a machine", package: "util-linux" };
/// Until `unshare` has made the namespaces: a millisecond on an idle host.
const NAMESPACE_WAIT: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// A log that has grown beyond is begun anew.
const LOG_LIMIT: u64 = 1 << 20;

/// What becomes a server when its gate is opened, and ends when the gate is closed.
#[derive(Debug)]
pub(super) struct Waiting {
    gate: UnixStream,
    socket: PathBuf,
    log: PathBuf,
    /// Where its words begin in the log.
    from: usize,
}

impl Waiting {
    /// One for `folder`, whose files belong to `owner` in the guest where they are the host user's.
    pub(super) fn start(folder: &Folder, owner: Ids, files: &Files) -> Result<Self> {
        let what = || format!("`{}` cannot be served by virtiofsd", folder.source.display());
        let daemon = Daemon::find()?;
        let ranges = ids::Ranges::of_this_user()?;
        daemon.serves(owner)?;
        // One that translates ids by itself wants to be root in its namespace.
        let within = if daemon.translates { Ids { uid: 0, gid: 0 } } else { owner };
        let socket = files.folder_socket();
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .map_err(|e| Error::failed(format!("cannot make `{}`", socket.display())).cause(e))?;
        let (gate, inner) = UnixStream::pair()?;
        let (log, output, from) = log(files)?;

        let mut command = in_namespaces()?;
        command.arg(std::env::current_exe()?).arg(inside::VERB);
        if !folder.writable {
            command.arg(inside::READ_ONLY).arg(&folder.source);
        }
        command.arg("--").arg(&daemon.path).args(daemon.words(&folder.source, owner));
        command.current_dir("/").stdin(OwnedFd::from(listener));
        command.stdout(OwnedFd::from(inner)).stderr(output);
        let mut child = command.spawn().map_err(|e| Error::failed(what()).cause(e))?;
        // Its socket and its end of the gate are the child's alone from here on.
        drop(command);
        let waiting = Waiting { gate, socket, log, from };
        let mapped = namespace_of(&mut child).and_then(|()| ranges.apply(child.id(), within));
        // It ends by itself; somebody has to wait for it as long as we are there.
        std::thread::Builder::new().name("virtiofsd".to_owned()).spawn(move || child.wait())?;
        match mapped {
            Ok(()) => Ok(waiting),
            Err(e) => {
                waiting.forget_name();
                Err(waiting.explain(e.context(what())))
            }
        }
    }

    /// Where QEMU reaches it.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Nobody else is to reach it.
    pub(super) fn forget_name(&self) {
        let _ = fs::remove_file(&self.socket);
    }

    /// Lets it become the server.
    pub(super) fn open(&self) -> Result<()> {
        Ok((&self.gate).write_all(inside::GO)?)
    }

    /// What it has said, as details of an error about it.
    pub(super) fn explain(&self, error: Error) -> Error {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = exec::last_lines(said.get(self.from..).unwrap_or_default(), 5);
        said.into_iter().fold(error, Error::detail)
    }
}

/// The log of the machine's servers, open, and its length.
fn log(files: &Files) -> Result<(PathBuf, std::fs::File, usize)> {
    let log = files.folders_log();
    if log.metadata().is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::remove_file(&log)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(&log)?;
    let from = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    Ok((log, file, from))
}

/// `unshare` in a session of its own. What it starts keeps all its rights in the namespace, which are none outside.
fn in_namespaces() -> Result<Command> {
    let unshare = tools::UNSHARE.find()?;
    let mut command = SETSID.command()?;
    command.arg(unshare).args(["--user", "--mount", "--keep-caps", "--"]);
    Ok(command)
}

/// Waits until the child has a user namespace of its own.
fn namespace_of(child: &mut Child) -> Result<()> {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/user"));
    let (own, id) = (namespace("self")?, child.id().to_string());
    let start = Instant::now();
    while namespace(&id).is_ok_and(|its| its == own) {
        if child.try_wait()?.is_some() {
            return Err(Error::failed("this host allows no user namespaces").hint(
                "Allow them: `sudo sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu also `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`; or set `type = \"9p\"`, which needs none.",
            ));
        }
        if start.elapsed() > NAMESPACE_WAIT {
            return Err(Error::failed("`unshare` made no user namespace in time"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
