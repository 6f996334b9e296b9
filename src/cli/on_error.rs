//! `devbox build --on-error`: what a person is asked after a step has failed.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;

use crate::build::OnError;
use crate::build::on_error::{Choice, Failed};
use crate::error::Result;

/// What is wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// End the guest and remove its disk; the steps before stay in the cache
    Cleanup,
    /// End the guest and keep its disk
    Abort,
    /// Ask what to do while the guest still runs; `cleanup` without a terminal
    Ask,
    /// Open a shell in the guest, then ask; `cleanup` without a terminal
    Shell,
}

impl From<Wish> for OnError {
    fn from(wish: Wish) -> Self {
        // Nobody is there to answer: as if it was not wished for.
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        match wish {
            Wish::Abort => OnError::Abort,
            Wish::Ask if terminal => OnError::Ask(ask),
            Wish::Shell if terminal => OnError::Ask(shell),
            Wish::Cleanup | Wish::Ask | Wish::Shell => OnError::CleanUp,
        }
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
    loop {
        say(&format!(
            "{} failed. [r]un it again, open a [s]hell in the guest, [c]lean up, or [k]eep its disk and end? ",
            failed.step
        ));
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer)? == 0 {
            return Ok(Choice::CleanUp);
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "r" | "run" => return Ok(Choice::Retry),
            "c" | "clean" => return Ok(Choice::CleanUp),
            "k" | "keep" => return Ok(Choice::Abort),
            "s" | "shell" => open(&mut failed),
            _ => say("Answer with one of the letters in brackets.\n"),
        }
    }
}

/// A shell in the guest; how it ends says nothing.
fn open(failed: &mut Failed) {
    say(
        "A shell in the guest, as the build's account; `sudo -i` makes it root, `exit` comes back.\n",
    );
    if let Err(e) = failed.shell.status() {
        say(&format!("ssh cannot be started: {e}\n"));
    }
}
