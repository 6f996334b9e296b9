//! A program in a guest that runs longer than a conversation with the guest's agent should.
//!
//! QEMU lets one at a time talk to an agent, and others wait without a word: the helper that keeps the
//! clock, a snapshot that freezes the disk. So each question is a conversation of its own.

use std::path::Path;
use std::time::Duration;

use super::agent::{Agent, Ran};
use crate::error::{Error, Result};
use crate::exec::last_lines;

/// Most bytes of input that are handed over: as many as an agent keeps of an output. In base64 they are a third of
/// what it reads as one text (QEMU's qga/commands.c: 64 MB).
pub const INPUT_LIMIT: usize = super::agent::OUTPUT_LIMIT;
/// Until an agent answers: others may talk to it, and an emulated guest may be busy.
const ANSWER: Duration = Duration::from_secs(60);
/// For an answer with all that a program wrote, or a command with all that it reads: an emulated guest takes
/// them byte by byte.
const TRANSFER: Duration = Duration::from_secs(600);
/// Between the first two questions whether it has ended; later ones come farther apart.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// A program that was started in a guest.
#[derive(Debug)]
pub struct Program<'a> {
    socket: &'a Path,
    pid: i64,
}

impl<'a> Program<'a> {
    /// Starts a program through the agent on `socket`, as the agent's user (root), with this standard input.
    ///
    /// # Errors
    /// No agent answers, it refuses, or the program cannot be started.
    pub async fn start(
        socket: &'a Path,
        program: &str,
        args: &[&str],
        input: &[u8],
    ) -> Result<Self> {
        let mut agent = Agent::connect(socket, ANSWER).await?;
        let pid = agent.start(program, args, input, TRANSFER).await?;
        Ok(Program { socket, pid })
    }

    /// Waits until it has ended. A wait that is dropped can be begun again.
    ///
    /// # Errors
    /// The agent does not answer any more, or knows nothing of the program, since it was started anew.
    pub async fn wait(&self) -> Result<Ran> {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut agent = Agent::connect(self.socket, ANSWER).await?;
            if let Some(ran) = agent.ended(self.pid, TRANSFER).await? {
                return Ok(ran);
            }
            drop(agent);
            tokio::time::sleep(pause).await;
            pause = LAST_PAUSE.min(pause * 3 / 2);
        }
    }

    /// Sends it a signal, by its name without `SIG`.
    ///
    /// # Errors
    /// The agent does not answer, or the program has ended.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let mut agent = Agent::connect(self.socket, ANSWER).await?;
        let script = format!("kill -{name} {}", self.pid);
        let ran = agent.run("/bin/sh", &["-c", &script], b"", ANSWER).await?;
        if ran.code == 0 {
            return Ok(());
        }
        let why = last_lines(&ran.err, 1).pop().unwrap_or_default();
        Err(Error::failed("the program in the guest cannot be ended").cause(why))
    }
}
