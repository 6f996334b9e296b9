//! QEMU as a process: started away from the terminal, recognised later, signalled without a race.
//!
//! A process id alone names nothing: it may belong to somebody else by now. So a process is opened
//! first, then proven by its command line and its start time; see [`crate::os::Watched`].

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::config::Lifetime;
use crate::error::{Error, Result};
use crate::exec;
use crate::os::{self, Bond, Watched};

/// How long a killed process may take to disappear; the kernel frees a guest's memory first.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Between two looks whether a process has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a process may take from its last word to its end.
const PARTING: Duration = Duration::from_millis(300);

/// A process that was proven to be the one that is meant.
#[derive(Debug)]
pub struct Process(Watched);

impl Process {
    /// Opens the live process `pid`; `None` if there is none.
    #[must_use]
    pub fn open(pid: i32) -> Option<Self> {
        Watched::open(pid).map(Process)
    }

    /// Opens the QEMU that wrote `pid_file`, if it is alive and its command line holds `uuid`.
    #[must_use]
    pub fn find(pid_file: &Path, uuid: &str) -> Option<Self> {
        Self::find_with(pid_file, "-uuid", uuid.as_ref())
    }

    /// Opens the process that wrote its id into `pid_file`, if it is alive and has these two words one after
    /// the other on its command line.
    pub(super) fn find_with(
        pid_file: &Path,
        option: &str,
        value: &std::ffi::OsStr,
    ) -> Option<Self> {
        let pid = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        let process = Process::open(pid)?;
        let words = process.0.words()?;
        let wanted = [option.as_bytes(), value.as_encoded_bytes()];
        words.windows(2).any(|w| w == wanted).then_some(process)
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
        self.0.pid()
    }

    /// When the process started, in a unit of the system's.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.0.start()
    }

    /// Whether it runs still. A dead process that nobody has waited for is not alive.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.0.alive()
    }

    /// Returns when the process has ended. Looks a hundred times a second: tokio has no safe way to
    /// wait for a pidfd, and a look costs a microsecond.
    pub async fn ended(&self) {
        while self.alive() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it has ended, or does so at once: who talked to the guest hears of the end some milliseconds before
    /// the process is gone, while the kernel still frees its memory.
    pub async fn has_ended(&self) -> bool {
        tokio::time::timeout(PARTING, self.ended()).await.is_ok()
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refuses the signal, or the process is still there after 10 s.
    pub async fn kill(&self) -> Result<()> {
        self.0.kill().map_err(|e| {
            Error::failed(format!("cannot kill QEMU (pid {})", self.pid())).cause(e)
        })?;
        tokio::time::timeout(KILL_WAIT, self.ended()).await.map_err(|_| {
            Error::failed(format!("QEMU (pid {}) was killed and is still there", self.pid()))
                .hint("The kernel holds it; look for a stuck disk in `dmesg`, then run the same command again.")
        })
    }
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
pub async fn start(
    mut command: Command,
    stdin: Stdio,
    lifetime: Lifetime,
    log: &Path,
) -> Result<Started> {
    let output: File = fs_err::File::create(log)?.into();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let program = program.to_string_lossy().into_owned();
    command = wrap(&command, lifetime);
    command.stdin(stdin).stdout(output.try_clone()?).stderr(output);
    let shown = exec::line(&command);
    let (started, has_started) = oneshot::channel();
    let (ended, exit) = watch::channel(None);
    std::thread::Builder::new().name("qemu".to_owned()).spawn(move || match command.spawn() {
        Err(e) => {
            let _ = started.send(Err(e));
        }
        Ok(mut child) => {
            let tie = (lifetime == Lifetime::WithParent).then(|| os::tie(&child)).transpose();
            if let Err(e) = &tie {
                let _ = child.kill();
                let _ = started.send(Err(std::io::Error::new(e.kind(), e.to_string())));
            } else {
                let _ = started.send(Ok(child.id()));
            }
            // A child that cannot be waited for has no status; who waits for one sees the sender gone.
            ended.send_replace(child.wait().ok());
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
        None => Err(early_death(&program, &shown, exit, log).await),
    }
}

async fn early_death(
    program: &str,
    shown: &str,
    mut exit: watch::Receiver<Option<ExitStatus>>,
    log: &Path,
) -> Error {
    let _ = exit.wait_for(Option::is_some).await;
    let mut error = Error::failed(format!("`{program}` ended at once"));
    if let Some(status) = *exit.borrow() {
        error = error.cause(status);
    }
    for line in exec::last_lines(&std::fs::read(log).unwrap_or_default(), 10) {
        error = error.detail(line);
    }
    error.detail(format!("command: {shown}"))
}

/// The same command behind the words that the system has for this, which replace themselves by it: the
/// process id stays. Without them it is kept from Ctrl-C alone.
fn wrap(command: &Command, lifetime: Lifetime) -> Command {
    let bond = match lifetime {
        Lifetime::Detached => Bond::None,
        Lifetime::WithParent => Bond::Starter,
    };
    let found = behind(command, bond);
    let in_front = found.is_some();
    let mut wrapped = found.unwrap_or_else(|| bare(command));
    if lifetime == Lifetime::WithParent || !in_front {
        // A group leader cannot call setsid(2) without a fork, so `setsid` gets no group.
        os::detach(&mut wrapped);
    }
    wrapped
}

/// The same program and words, in a process that ends with the thread that starts it, however that ends,
/// where the system has a program for this.
#[must_use]
pub fn tied(command: &Command) -> Command {
    behind(command, Bond::Starter).unwrap_or_else(|| bare(command))
}

fn bare(command: &Command) -> Command {
    let mut bare = Command::new(command.get_program());
    bare.args(command.get_args());
    bare
}

/// The command behind the system's words for this bond; `None` where it has none.
fn behind(command: &Command, bond: Bond) -> Option<Command> {
    let [program, options @ ..] = os::in_front(bond) else { return None };
    let mut behind = Command::new(which::which(program).ok()?);
    behind.args(options).arg(command.get_program()).args(command.get_args());
    Some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::Signal;

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
            let started =
                start(command, Stdio::null(), Lifetime::WithParent, &log).await.expect("started");
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
