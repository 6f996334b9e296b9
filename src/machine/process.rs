//! QEMU as a process: started in a session of its own, recognised later, signalled without a race.
//!
//! A process id alone names nothing: it may belong to somebody else by now. So a process is opened
//! as a pidfd first, then proven by its command line and its start time, and every signal goes
//! through that pidfd.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use super::config::Lifetime;
use crate::error::{Error, Result};
use crate::exec::{self, Tool};

/// Gives QEMU a session of its own, so that neither Ctrl-C nor the end of a terminal reaches it.
const SETSID: Tool =
    Tool { name: "setsid", why: "to detach a virtual machine", package: "util-linux" };
/// Makes QEMU die with devbox.
const SETPRIV: Tool =
    Tool { name: "setpriv", why: "to end a build's machine with devbox", package: "util-linux" };

/// How long a killed process may take to disappear; the kernel frees a guest's memory first.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Between two looks whether a process has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// A process that was proven to be the one that is meant.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    start: u64,
}

impl Process {
    /// Opens the live process `pid`; `None` if there is none.
    #[must_use]
    pub fn open(pid: i32) -> Option<Self> {
        // A negative number names a group, and rustix panics on it.
        let pid = if pid > 0 { Pid::from_raw(pid)? } else { return None };
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let start = start_time(pid)?;
        let process = Process { pid, pidfd, start };
        process.alive().then_some(process)
    }

    /// Opens the QEMU that wrote `pid_file`, if it is alive and its command line holds `uuid`.
    #[must_use]
    pub fn find(pid_file: &Path, uuid: &str) -> Option<Self> {
        Self::find_with(pid_file, "-uuid", uuid.as_ref())
    }

    fn find_with(pid_file: &Path, option: &str, value: &std::ffi::OsStr) -> Option<Self> {
        let pid = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        let process = Process::open(pid)?;
        // Read after the pidfd was opened, and the process lives still: it is the same one.
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|b| *b == 0).collect();
        let wanted = [option.as_bytes(), value.as_encoded_bytes()];
        let ours = words.windows(2).any(|w| w == wanted);
        (ours && process.alive() && start_time(process.pid) == Some(process.start))
            .then_some(process)
    }

    /// Opens the QEMU that was told to write `pid_file`, whatever its UUID: for a machine whose record
    /// cannot be read.
    #[must_use]
    pub fn find_by_file(pid_file: &Path) -> Option<Self> {
        Self::find_with(pid_file, "-pidfile", pid_file.as_os_str())
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// When the process started, in clock ticks since the host's boot (proc(5), `starttime`).
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether it runs still. A dead process that nobody has waited for is not alive.
    #[must_use]
    pub fn alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Returns when the process has ended. Looks a hundred times a second: tokio has no safe way to
    /// wait for a pidfd, and a look costs a microsecond.
    pub async fn ended(&self) {
        while self.alive() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refuses the signal, or the process is still there after 10 s.
    pub async fn kill(&self) -> Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => {
                return Err(
                    Error::failed(format!("cannot kill QEMU (pid {})", self.pid())).cause(e)
                );
            }
        }
        tokio::time::timeout(KILL_WAIT, self.ended()).await.map_err(|_| {
            Error::failed(format!("QEMU (pid {}) was killed and is still there", self.pid()))
                .hint("The kernel holds it; look for a stuck disk in `dmesg`, then run the same command again.")
        })
    }
}

/// `starttime` of proc(5): field 22; the fields are counted after the last `)`, since the name
/// before it may hold anything.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A process that was started here.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub process: Process,
    /// How it ended, once it has.
    pub exit: watch::Receiver<Option<ExitStatus>>,
}

/// Starts `program` detached from the terminal, with its output in `log`.
///
/// A thread of its own starts the process and waits for it: the kernel ties
/// [`Lifetime::WithParent`] to the thread that forked (prctl(2), `PR_SET_PDEATHSIG`), so that thread
/// must live as long as the process.
///
/// # Errors
/// The program cannot be started, or `log` cannot be written.
pub async fn start(mut command: Command, lifetime: Lifetime, log: &Path) -> Result<Started> {
    let output: File = fs_err::File::create(log)?.into();
    command = wrap(&command, lifetime);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let shown = exec::line(&command);
    let (started, has_started) = oneshot::channel();
    let (ended, exit) = watch::channel(None);
    std::thread::Builder::new().name("qemu".to_owned()).spawn(move || match command.spawn() {
        Err(e) => {
            let _ = started.send(Err(e));
        }
        Ok(mut child) => {
            let _ = started.send(Ok(child.id()));
            ended.send_replace(Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0x7f00))));
        }
    })?;
    let pid = has_started
        .await
        .map_err(|_| Error::failed(format!("cannot start `{shown}`")))?
        .map_err(|e| Error::failed(format!("cannot start `{shown}`")).cause(e))?;
    let pid = i32::try_from(pid).map_err(|e| Error::failed("bad process id").cause(e))?;
    // Nobody but our thread waits for it, so the id is not free yet even if it has ended already.
    match Process::open(pid) {
        Some(process) => Ok(Started { process, exit }),
        None => Err(early_death(&shown, exit, log).await),
    }
}

async fn early_death(
    shown: &str,
    mut exit: watch::Receiver<Option<ExitStatus>>,
    log: &Path,
) -> Error {
    let _ = exit.wait_for(Option::is_some).await;
    let mut error = Error::failed("QEMU ended at once");
    if let Some(status) = *exit.borrow() {
        error = error.cause(status);
    }
    for line in exec::last_lines(&std::fs::read(log).unwrap_or_default(), 10) {
        error = error.detail(line);
    }
    error.detail(format!("command: {shown}"))
}

/// The same command under `setpriv` or `setsid`, which replace themselves by it: the process id stays.
/// Without them the machine gets a process group of its own, which Ctrl-C does not reach either.
fn wrap(command: &Command, lifetime: Lifetime) -> Command {
    let (tool, options): (Tool, &[&str]) = match lifetime {
        Lifetime::Detached => (SETSID, &[]),
        Lifetime::WithParent => (SETPRIV, &["--pdeathsig", "KILL", "--"]),
    };
    let mut wrapped = match tool.find() {
        Ok(path) => {
            let mut wrapped = Command::new(path);
            wrapped.args(options).arg(command.get_program());
            wrapped
        }
        Err(_) => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args());
    if lifetime == Lifetime::WithParent || tool.find().is_err() {
        // A group leader cannot call setsid(2) without a fork, so `setsid` gets no group.
        wrapped.process_group(0);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(words: &[&str]) -> std::process::Child {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60; :"]).args(words);
        let child = command.spawn().expect("sh runs");
        // The kernel wakes the parent before the child's arguments are in place.
        let shown = format!("/proc/{}/cmdline", child.id());
        while std::fs::read(&shown).expect("it lives").is_empty() {
            std::thread::sleep(PAUSE);
        }
        child
    }

    #[tokio::test]
    async fn a_stale_pid_file_never_names_an_unrelated_process() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("qemu.pid");
        let mut child = sleeper(&["sh", "-uuid", "ours"]);
        std::fs::write(&file, format!("{}\n", child.id())).expect("written");
        assert!(Process::find(&file, "another").is_none(), "another machine's QEMU");
        assert!(Process::find(&file, "our").is_none(), "the whole word counts");
        let found = Process::find(&file, "ours").expect("ours");
        found.kill().await.expect("killed");
        assert!(Process::find(&file, "ours").is_none(), "dead, though nobody has waited for it");
        child.wait().expect("reaped");
        for text in ["", "x", "0", "-1", "1", "99999999999"] {
            std::fs::write(&file, text).expect("written");
            assert!(Process::find(&file, "ours").is_none(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_child_of_a_build_dies_when_its_starter_is_killed() {
        // The starter is a second process of this test program, which kills itself.
        let dir = tempfile::tempdir().expect("dir");
        let log = dir.path().join("log");
        if let Some(pid_to) = std::env::var_os("DEVBOX_TEST_PARENT") {
            let mut command = Command::new("sleep");
            command.arg("60");
            let started = start(command, Lifetime::WithParent, &log).await.expect("started");
            // Tied to us once `setpriv` has become the program.
            let name = format!("/proc/{}/comm", started.process.pid());
            while std::fs::read_to_string(&name).expect("it lives") != "sleep\n" {
                tokio::time::sleep(PAUSE).await;
            }
            std::fs::write(pid_to, started.process.pid().to_string()).expect("written");
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, Signal::KILL).expect("killed");
        }
        let pid_to = dir.path().join("pid");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([
            "--exact",
            "machine::process::tests::a_child_of_a_build_dies_when_its_starter_is_killed",
        ]);
        let status = command.env("DEVBOX_TEST_PARENT", &pid_to).status().expect("runs");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        let pid = std::fs::read_to_string(&pid_to).expect("pid").parse().expect("a number");
        if let Some(child) = Process::open(pid) {
            tokio::time::timeout(Duration::from_secs(5), child.ended()).await.expect("it died too");
        }
    }
}
