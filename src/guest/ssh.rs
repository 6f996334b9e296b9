//! Runs commands in a guest through the system's ssh, with a configuration of our own.
//!
//! The host key is known before the first connection, since it was made here and given to the
//! guest; nothing is trusted on first use. One control connection carries all commands: the
//! handshake costs seconds in an emulated guest, a further command a tenth.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fs_err as fs;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio_util::sync::CancellationToken;

use super::keys::KeyPair;
use crate::error::{Error, Result};
use crate::exec::{quote, tools};
use crate::os;

/// The longest line that is passed on whole; a longer one is cut, so that a guest cannot fill our memory.
const LINE_LIMIT: u64 = 64 << 10;
/// ssh adds 17 bytes to the path of its control socket while it makes one.
const CONTROL_LIMIT: usize = os::SOCKET_PATH - 17;
/// How long the guest gets to end a command's processes after a timeout or Ctrl-C.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Where and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name in `Host` lines and messages.
    pub name: String,
    /// Another name in the machine's own `Host` line, for those who include it; none if empty.
    pub alias: String,
    /// The account in the guest.
    pub user: String,
    /// Address on this host.
    pub host: Ipv4Addr,
    /// Port on this host.
    pub port: u16,
}

/// A guest that commands can be run in.
#[derive(Debug, Clone)]
pub struct Client {
    target: Target,
    dir: PathBuf,
    control: Option<PathBuf>,
}

/// Which of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One command for the guest.
#[derive(Default)]
pub struct Remote {
    /// A line for the guest's `sh -c`.
    pub command: String,
    /// Environment of the command; names must be shell names.
    pub env: Vec<(String, String)>,
    /// Standard input; nothing if absent.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl std::fmt::Debug for Remote {
    /// Leaves the environment's values out: they may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Remote {
    /// A command without input and environment.
    #[must_use]
    pub fn new(command: impl Into<String>) -> Self {
        Remote { command: command.into(), ..Remote::default() }
    }

    /// The same with these bytes as standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(Box::new(std::io::Cursor::new(bytes.into())));
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code (128 + signal where the guest's shell says so).
    Code(i32),
    /// It was stopped after its deadline.
    TimedOut,
    /// It was stopped because of Ctrl-C.
    Cancelled,
}

impl Client {
    /// Writes the configuration and the pinned host key into `dir`, which holds the private key
    /// `id_ed25519` ([`Client::key_path`]) already or gets it before the first command.
    ///
    /// `control` is the path of the control connection's socket; left out if it is too long.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(dir: &Path, control: &Path, target: Target, host_key: &str) -> Result<Self> {
        crate::host::private_dir(dir)?;
        // The ssh of Windows has no control connections.
        let short = cfg!(unix) && control.as_os_str().len() <= CONTROL_LIMIT;
        let client =
            Client { target, dir: dir.to_owned(), control: short.then(|| control.to_owned()) };
        let Target { host, port, .. } = client.target;
        // The key alone: its comment is free text.
        let key: Vec<&str> = host_key.split_whitespace().take(2).collect();
        update(&client.known_hosts(), &format!("[{host}]:{port} {}\n", key.join(" ")))?;
        update(&client.config_path(), &client.config())?;
        Ok(client)
    }

    /// Where the user's private key of a machine with this ssh folder is.
    #[must_use]
    pub fn key_path(dir: &Path) -> PathBuf {
        dir.join("id_ed25519")
    }

    /// Where the machine's host key is kept.
    #[must_use]
    pub fn host_key_path(dir: &Path) -> PathBuf {
        dir.join("host_ed25519")
    }

    /// Makes both keys of a new machine, or reads those that are there.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn keys(dir: &Path, name: &str) -> Result<(KeyPair, KeyPair)> {
        crate::host::private_dir(dir)?;
        let one = |path: PathBuf, comment: String| {
            if path.exists() {
                return KeyPair::read(&path);
            }
            let pair = KeyPair::generate(&comment)?;
            pair.write(&path)?;
            Ok(pair)
        };
        let user = one(Self::key_path(dir), format!("devbox {name}"))?;
        let host = one(Self::host_key_path(dir), format!("{name} host key"))?;
        Ok((user, host))
    }

    /// Where it logs in.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The configuration file, for `ssh -F`.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("config")
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// What people put into their own configuration: Vagrant's keys in Vagrant's order, with the
    /// host key pinned.
    #[must_use]
    pub fn config_for_people(&self, host: &str) -> String {
        let Target { user, host: address, port, .. } = &self.target;
        let (known, key) = (quoted(&self.known_hosts()), quoted(&Self::key_path(&self.dir)));
        format!(
            "Host {host}\n  HostName {address}\n  User {user}\n  Port {port}\n  \
             UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n  PasswordAuthentication no\n  \
             IdentityFile {key}\n  IdentitiesOnly yes\n  LogLevel ERROR\n"
        )
    }

    fn config(&self) -> String {
        let Target { name, alias, .. } = &self.target;
        let mut text = self.config_for_people(format!("{name} {alias}").trim_end());
        let mut add = |line: &str| {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        };
        add("GlobalKnownHostsFile /dev/null");
        add("UpdateHostKeys no");
        add("HostKeyAlgorithms ssh-ed25519");
        add("PreferredAuthentications publickey");
        // An emulated guest under load can be silent for long; one that is gone is noticed by QEMU's end.
        add("ServerAliveInterval 15");
        add("ServerAliveCountMax 8");
        if let Some(control) = &self.control {
            add("ControlMaster auto");
            add(&format!("ControlPath {}", quoted(control)));
            add("ControlPersist 60");
        }
        text
    }

    /// The ssh command up to and without the remote command. `batch` never asks anything.
    ///
    /// # Errors
    /// ssh is not installed.
    pub fn base(&self, batch: bool) -> Result<std::process::Command> {
        let mut command = std::process::Command::new(tools::SSH.find()?);
        command.arg("-F").arg(self.config_path());
        if batch {
            command.args(["-T", "-o", "BatchMode=yes"]);
        }
        Ok(command)
    }

    /// A command that runs `remote` in the guest, for callers that handle its streams themselves.
    ///
    /// # Errors
    /// ssh is not installed.
    pub fn command(&self, remote: &str) -> Result<tokio::process::Command> {
        let mut command = self.base(true)?;
        command.arg(&self.target.name).arg("--").arg(remote);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command and passes its lines on as they come.
    ///
    /// On a timeout or a cancellation the command's process group in the guest is ended too, as far
    /// as the guest still answers.
    ///
    /// # Errors
    /// The guest cannot be reached, or the connection broke.
    pub async fn run(
        &self,
        remote: Remote,
        mut on_line: impl FnMut(Stream, &str),
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Ended> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let token = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pid_file = format!("/tmp/.devbox-{token}.pid");
        let mut command = self.command(&wrap(&remote, &pid_file))?;
        command.stdin(if remote.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        os::detach(command.as_std_mut());
        let mut child =
            command.spawn().map_err(|e| Error::failed("cannot start `ssh`").cause(e))?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut to), Some(mut from)) = (stdin, remote.stdin) {
                // A command that reads no more ends its input early; that is its business.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            }
        };
        let mut last = Vec::new();
        let ended = {
            let mut lines = Lines::new(stdout, stderr);
            let work = async {
                let read = async {
                    while let Some((stream, line)) = lines.next().await {
                        on_line(stream, &line);
                        if stream == Stream::Err {
                            last.push(line);
                            last.drain(..last.len().saturating_sub(5));
                        }
                    }
                };
                tokio::join!(feed, read);
                child.wait().await
            };
            tokio::select! {
                status = work => Ok(status?),
                () = tokio::time::sleep(timeout) => Err(Ended::TimedOut),
                () = cancel.cancelled() => Err(Ended::Cancelled),
            }
        };
        let status = match ended {
            Ok(status) => status,
            Err(stopped) => {
                self.end_remote(&pid_file).await;
                return Ok(stopped);
            }
        };
        match status.code() {
            // ssh's own failures have the code 255 too; the connection tells them apart.
            Some(255) if !self.connected().await => {
                let mut error =
                    Error::failed(format!("the ssh connection to `{}` broke", self.target.name));
                for line in last {
                    error = error.detail(line);
                }
                // The build's guest has no alias, and is no machine that `status` knows.
                Err(error.hint(if self.target.alias.is_empty() {
                    "Look at the end of the serial log for what became of the guest."
                } else {
                    "See `devbox status`."
                }))
            }
            Some(code) => Ok(Ended::Code(code)),
            None => Err(Error::failed("`ssh` was killed").cause(status)),
        }
    }

    /// Whether the control connection stands.
    async fn connected(&self) -> bool {
        self.control_command("check").await
    }

    /// Ends the control connection; no harm if there is none.
    pub async fn disconnect(&self) {
        self.control_command("exit").await;
    }

    async fn control_command(&self, what: &str) -> bool {
        if self.control.as_ref().is_none_or(|path| !path.exists()) {
            return false;
        }
        let Ok(mut command) = self.base(true) else { return false };
        command.args(["-O", what]).arg(&self.target.name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let status = command.kill_on_drop(true).status();
        matches!(tokio::time::timeout(KILL_WAIT, status).await, Ok(Ok(s)) if s.success())
    }

    /// Ends the process group that a command's wrapper wrote down. Through sudo where that works,
    /// since steps run as root.
    async fn end_remote(&self, pid_file: &str) {
        let script = format!(
            "p=$(cat {pid_file} 2>/dev/null) || exit 0; rm -f {pid_file}; \
             k() {{ sudo -n kill \"-$1\" -- \"-$p\" 2>/dev/null || kill \"-$1\" -- \"-$p\" 2>/dev/null; }}; \
             k TERM; n=0; while [ $n -lt 10 ] && kill -0 -- \"-$p\" 2>/dev/null; do n=$((n+1)); sleep 0.2; done; k KILL"
        );
        let Ok(mut command) = self.command(&script) else { return };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _ = tokio::time::timeout(KILL_WAIT, command.status()).await;
    }
}

/// The line for the guest's login shell. sshd gives each command a session, so the shell's process
/// id is the id of the whole process group.
fn wrap(remote: &Remote, pid_file: &str) -> String {
    let mut inner = String::new();
    for (name, value) in &remote.env {
        inner.push_str(&format!("export {name}={}; ", quote(&OsString::from(value))));
    }
    inner.push_str(&remote.command);
    let inner = quote(&OsString::from(inner));
    format!("echo $$ >{pid_file}; sh -c {inner}; s=$?; rm -f {pid_file}; exit $s")
}

/// Writes a file that another ssh may be reading: at once, and only if it changes.
fn update(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    new.write_all(text.as_bytes())?;
    new.persist(path).map_err(|e| Error::from(e.error))?;
    Ok(())
}

/// A path for ssh's configuration: in quotes if it has spaces; `%` starts a token there.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%");
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

/// Both outputs of a command, line by line as they come.
struct Lines {
    out: Option<BufReader<tokio::process::ChildStdout>>,
    err: Option<BufReader<tokio::process::ChildStderr>>,
    out_line: Vec<u8>,
    err_line: Vec<u8>,
}

impl Lines {
    fn new(
        out: Option<tokio::process::ChildStdout>,
        err: Option<tokio::process::ChildStderr>,
    ) -> Self {
        Lines {
            out: out.map(BufReader::new),
            err: err.map(BufReader::new),
            out_line: vec![],
            err_line: vec![],
        }
    }

    /// The next line of either; `None` when both have ended.
    async fn next(&mut self) -> Option<(Stream, String)> {
        loop {
            let Lines { out, err, out_line, err_line } = self;
            tokio::select! {
                line = next_line(out, out_line), if out.is_some() => match line {
                    Some(line) => return Some((Stream::Out, line)),
                    None => self.out = None,
                },
                line = next_line(err, err_line), if err.is_some() => match line {
                    Some(line) => return Some((Stream::Err, line)),
                    None => self.err = None,
                },
                else => return None,
            }
        }
    }
}

/// What was read of a line stays in `line` when this is dropped, so nothing is lost in a `select!`.
async fn next_line<R: AsyncRead + Unpin>(
    read: &mut Option<BufReader<R>>,
    line: &mut Vec<u8>,
) -> Option<String> {
    let read = read.as_mut()?;
    let left = LINE_LIMIT.saturating_sub(line.len() as u64);
    let n = read.take(left).read_until(b'\n', line).await.unwrap_or(0);
    if n == 0 && line.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned();
    line.clear();
    Some(text)
}
