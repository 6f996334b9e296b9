//! `devbox build --on-error`: what a person is asked after a step has failed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::ValueEnum;

use crate::build::OnError;
use crate::build::on_error::{Choice, Failed};
use crate::error::Result;
use crate::event::Events;

/// What is wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// End the guest and remove its disk; the steps before stay in the cache
    Cleanup,
    /// End the guest and keep its disk
    Abort,
    /// Ask what to do while the guest still runs; `cleanup` without a terminal, which is told
    Ask,
    /// Open a shell in the guest, then ask; `cleanup` without a terminal, which is told
    Shell,
}

impl Wish {
    /// What is done then: nobody can be asked without a terminal, which is told.
    pub(crate) fn on_error(self, events: &Events) -> OnError {
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let ask = match self {
            Wish::Cleanup => return OnError::CleanUp,
            Wish::Abort => return OnError::Abort,
            Wish::Ask => ask,
            Wish::Shell => shell,
        };
        if terminal {
            return OnError::Ask(ask);
        }
        let word = if self == Wish::Ask { "ask" } else { "shell" };
        events.warn(format!(
            "`--on-error {word}` needs a terminal, as standard input and standard error; a step that fails is cleaned up (`--on-error abort` keeps its disk)"
        ));
        OnError::CleanUp
    }
}

fn say(text: &str) {
    let mut err = anstream::stderr().lock();
    let _ = write!(err, "{text}");
    let _ = err.flush();
}

fn ask(failed: Failed) -> Result<Choice> {
    say(&format!("\nerror: {}\n", failed.error));
    question(failed)
}

fn shell(mut failed: Failed) -> Result<Choice> {
    say(&format!("\nerror: {}\n", failed.error));
    open(&mut failed);
    question(failed)
}

fn question(mut failed: Failed) -> Result<Choice> {
    while !failed.over.is_cancelled() {
        say(&format!(
            "{} failed. [r]un it again, open a [s]hell in the guest, [c]lean up, or [k]eep its disk and end? ",
            failed.step
        ));
        let mut answer = vec![];
        if std::io::stdin().lock().read_until(b'\n', &mut answer)? == 0 {
            say("\nThere is no answer: cleaning up.\n");
            return Ok(Choice::CleanUp);
        }
        let answer = String::from_utf8_lossy(&answer).trim().to_ascii_lowercase();
        match answer.as_str() {
            "r" | "run" | "retry" => return Ok(Choice::Retry),
            "c" | "clean" | "cleanup" => return Ok(Choice::CleanUp),
            "k" | "keep" => return Ok(Choice::Abort),
            "s" | "shell" => open(&mut failed),
            _ => say("Answer with one of the letters in brackets.\n"),
        }
    }
    Ok(Choice::CleanUp)
}

/// A shell in the guest; how what ran in it ended says nothing.
fn open(failed: &mut Failed) {
    say(
        "A shell in the guest, as the build's account; `sudo -i` makes it root, `exit` comes back.\n",
    );
    match failed.shell.status() {
        // What ssh itself ends with (ssh(1), "EXIT STATUS").
        Ok(status) if status.code() == Some(255) => {
            say("The connection to the guest ended, or was not made.\n");
        }
        Ok(_) => say("Back from the guest.\n"),
        Err(e) => say(&format!("ssh cannot be started: {e}\n")),
    }
}
