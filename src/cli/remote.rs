//! A command in a guest by ssh, whose streams and exit code are ssh's own.

use std::convert::Infallible;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result, exit};
use crate::machine::instance::{Instance, State};
use crate::machine::process;
use crate::machine::record::Record;

/// Becomes ssh, so that terminal and signals are ssh's own, too.
///
/// # Errors
/// It cannot be started.
pub(super) fn become_ssh(mut command: Command) -> Result<Infallible> {
    Err(cannot_start(command.exec()))
}

/// Runs ssh beside devbox, and gives its exit code. One that shares a connection says nothing when that
/// breaks (ssh(1), `ControlMaster`), so a machine that ended is noticed here.
///
/// # Errors
/// It cannot be started, or QEMU ended before the command did.
pub(super) fn beside(command: &Command, instance: &Instance, record: &Record) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed("cannot start the async runtime").cause(e))?;
    let status = runtime.block_on(wait(command))?;
    let code = code(status);
    let ended = || match instance.state(record) {
        State::Running(process) => runtime.block_on(process.has_ended()),
        _ => true,
    };
    if code == exit::SSH_FAILED && ended() {
        let name = instance.name();
        return Err(Error::failed(format!("`{name}` ended while the command ran in it"))
            .hint(format!("Start it again with `devbox up {name}`.")));
    }
    Ok(code)
}

/// Ends with devbox, also where that is killed; until then, signals are passed on.
async fn wait(command: &Command) -> Result<ExitStatus> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut child =
        tokio::process::Command::from(process::tied(command)).spawn().map_err(cannot_start)?;
    loop {
        use rustix::process::Signal;
        let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        let got = tokio::select! {
            status = child.wait() => return status.map_err(cannot_start),
            _ = int.recv() => Signal::INT,
            _ = term.recv() => Signal::TERM,
            _ = hup.recv() => Signal::HUP,
        };
        if let Some(pid) = pid {
            // From a terminal it has it already; it has not been waited for, so the id is its own.
            let _ = rustix::process::kill_process(pid, got);
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    // As a shell says it.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::SSH_FAILED)
}

fn cannot_start(e: std::io::Error) -> Error {
    Error::failed("cannot start `ssh`").cause(e)
}
