//! `devbox exec` in a machine that is entered by its guest agent alone.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::guest::agent::Ran;
use crate::guest::program::{INPUT_LIMIT, Program};
use crate::machine::instance::{Instance, State};
use crate::machine::record::Record;

/// What an agent starts has neither a home nor a folder of its own.
const AT_HOME: &str = "HOME=~root; export HOME; cd -- \"$HOME\" 2>/dev/null || cd /; ";
/// Until it is said that the input is waited for: a pipe that nobody closes looks like a guest that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the line of a shell as root, with the input that is piped; gives its exit code. All that it writes comes when
/// it has ended.
///
/// # Errors
/// The input is too large, the agent refuses, or the machine ends before the command does.
pub(super) fn exec(
    line: OsString,
    command: &[OsString],
    instance: &Instance,
    record: &Record,
    ctx: &Context,
) -> Result<u8> {
    let shown = command.first().map_or_else(String::new, |word| word.to_string_lossy().into());
    let Ok(line) = line.into_string() else {
        return Err(Error::usage(format!("an argument of `{shown}` is not UTF-8"))
            .cause("the guest agent takes text alone")
            .hint("Name such a file by a pattern that a shell in the guest expands (`sh -c 'cat caf*'`)."));
    };
    let input = input(&shown, ctx)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed("cannot start the async runtime").cause(e))?;
    let socket = instance.files().agent_socket();
    let line = format!("{AT_HOME}{line}");
    let ran = runtime.block_on(async {
        let program = Program::start(&socket, "/bin/sh", &["-c", &line], &input).await?;
        wait(&program, &shown, instance.name(), ctx).await
    });
    let ran = match ran {
        Ok(ran) => ran,
        Err(e) => return Err(unanswered(e, &runtime, &shown, instance, record)),
    };
    std::io::stdout().write_all(&ran.out)?;
    std::io::stdout().flush()?;
    std::io::stderr().write_all(&ran.err)?;
    if ran.cut {
        let mib = crate::guest::agent::OUTPUT_LIMIT >> 20;
        ctx.events.warn(format!(
            "`{shown}` wrote more than came: the guest agent keeps {mib} MiB of each output; write to a file in the guest"
        ));
    }
    Ok(u8::try_from(ran.code).unwrap_or(exit::SSH_FAILED))
}

/// What is piped into devbox, whole: the agent takes it with the command.
fn input(shown: &str, ctx: &Context) -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(vec![]);
    }
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![];
        let read = stdin.lock().take(INPUT_LIMIT as u64 + 1).read_to_end(&mut bytes);
        // Nobody is there to hear it any more.
        let _ = send.send(read.map(|_| bytes));
    });
    let gone = || Error::failed("cannot read the standard input");
    let bytes = match receive.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => {
            ctx.events.note("waiting for the end of the input, which the guest agent takes whole; `< /dev/null` gives none");
            receive.recv().map_err(|_| gone())?
        }
        read => read.map_err(|_| gone())?,
    };
    let bytes = bytes.map_err(|e| gone().cause(e))?;
    if bytes.len() > INPUT_LIMIT {
        let mib = INPUT_LIMIT >> 20;
        return Err(Error::usage(format!("the input of `{shown}` has more than {mib} MiB"))
            .cause("the guest agent takes it whole, in one command")
            .hint("Hand it over in parts (`split`, then `tee -a FILE`), let the guest fetch it, or put it into the image."));
    }
    Ok(bytes)
}

/// Waits for the program; signals are passed on. The second one ends devbox, whatever the program does.
async fn wait(program: &Program<'_>, shown: &str, name: &str, ctx: &Context) -> Result<Ran> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut passed_on = false;
    loop {
        // A wait that ends here closes its conversation, so that the signal has the agent for itself.
        let got = tokio::select! {
            ran = program.wait() => return ran,
            _ = int.recv() => "INT",
            _ = term.recv() => "TERM",
            _ = hup.recv() => "HUP",
        };
        let goes_on = || {
            Error::interrupted(format!("interrupted while `{shown}` ran in `{name}`"))
                .detail(format!("`{shown}` may run on in the guest"))
        };
        if passed_on {
            return Err(goes_on());
        }
        passed_on = true;
        let sent = tokio::select! {
            sent = program.signal(got) => sent,
            _ = int.recv() => return Err(goes_on()),
            _ = term.recv() => return Err(goes_on()),
        };
        if let Err(e) = sent {
            ctx.events.warn(e.what());
        }
    }
}

/// Why the agent says nothing: its machine is gone, or it is.
fn unanswered(
    e: Error,
    runtime: &tokio::runtime::Runtime,
    shown: &str,
    instance: &Instance,
    record: &Record,
) -> Error {
    let name = instance.name();
    let ended = match instance.state(record) {
        State::Running(process) => runtime.block_on(process.has_ended()),
        _ => true,
    };
    if ended {
        return Error::failed(format!("`{name}` ended while the command ran in it"))
            .hint(format!("Start it again with `devbox up {name}`."));
    }
    if e.kind() == crate::error::Kind::Interrupted {
        return e;
    }
    e.context(format!("cannot run `{shown}` in `{name}`")).hint(format!(
        "See what the guest says with `devbox logs {name}`; its agent starts anew with `devbox reload {name}`."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_begins_at_the_home_of_root() {
        let line = format!("{AT_HOME}printf '%s %s' \"$HOME\" \"$PWD\"");
        for shell in ["sh", "bash"] {
            let mut command = std::process::Command::new(shell);
            command.env_clear().env("PATH", "/usr/bin:/bin").arg("-c").arg(&line);
            let out = command.output().expect("it runs");
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            let (home, place) = said.split_once(' ').expect("two words");
            assert!(home.starts_with('/'), "{said}");
            // Who may not enter it is at the root.
            assert!(place == home || place == "/", "{said}");
        }
    }
}
