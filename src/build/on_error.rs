//! What is done after a step has failed.

use std::process::Command;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// What a caller wants to be done after a step has failed.
#[derive(Debug, Clone, Copy, Default)]
pub enum OnError {
    /// The guest ends and its disk goes; the layers of the steps before stay.
    #[default]
    CleanUp,
    /// The guest ends, its disk stays as it was.
    Abort,
    /// Somebody is asked, while the guest runs. Called on a thread of its own; it may wait for a person.
    Ask(fn(Failed) -> Result<Choice>),
}

/// A step that has failed, with its guest, which runs.
#[derive(Debug)]
pub struct Failed {
    /// `step 2 install`.
    pub step: String,
    /// Why.
    pub error: Error,
    /// Opens a shell in the guest, on the terminal.
    pub shell: Command,
    /// Cancelled once nobody waits for the answer any more.
    pub over: CancellationToken,
}

/// What to do then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// As [`OnError::CleanUp`].
    CleanUp,
    /// As [`OnError::Abort`].
    Abort,
    /// The step is run again, in the guest as it is now.
    Retry,
}

/// Asks, and waits for the answer.
///
/// # Errors
/// Kind `Interrupted`: Ctrl-C was the answer.
pub(super) async fn ask(
    question: fn(Failed) -> Result<Choice>,
    failed: Failed,
    cancel: &CancellationToken,
) -> Result<Choice> {
    let (answer, answered) = oneshot::channel();
    // No task of the runtime: its end would wait for a person.
    std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
        let _ = answer.send(question(failed));
    })?;
    tokio::select! {
        answer = answered => answer.unwrap_or(Ok(Choice::CleanUp)),
        () = cancel.cancelled() => {
            Err(Error::interrupted("interrupted while it was asked what to do about the failed step"))
        }
    }
}
