//! A piece of work in a guest that has a title: its lines are events, and its failure shows the last ones.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ssh::{Client, Ended, Remote, Stream};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::exec::quote;

/// Lines of output that a failure shows.
pub const LAST_LINES: usize = 15;

/// What has the title, and where it runs.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// In messages: `step 2 install`.
    pub title: &'a str,
    /// The guest.
    pub client: &'a Client,
    /// Takes the lines.
    pub events: &'a Events,
    /// Cancelled by Ctrl-C.
    pub cancel: &'a CancellationToken,
}

impl Work<'_> {
    /// Runs a command; gives the last lines of its standard output.
    ///
    /// # Errors
    /// It ended with another code than 0, took longer than `timeout`, or the connection broke; with its
    /// last lines.
    pub async fn execute(&self, remote: Remote, timeout: Duration) -> Result<Vec<String>> {
        self.execute_within(remote, timeout, timeout).await
    }

    /// The same for a command that has `left` of a `timeout` that it shares with others.
    ///
    /// # Errors
    /// As of [`execute`](Self::execute); it names `timeout`.
    pub async fn execute_within(
        &self,
        remote: Remote,
        left: Duration,
        timeout: Duration,
    ) -> Result<Vec<String>> {
        let mut last: VecDeque<String> = VecDeque::new();
        let mut out = vec![];
        let on_line = |stream: Stream, line: &str| {
            if stream == Stream::Out {
                out.push(line.to_owned());
                out.drain(..out.len().saturating_sub(LAST_LINES));
            }
            self.events.output(self.title, line);
            last.push_back(line.to_owned());
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        };
        let ended = self.client.run(remote, on_line, left, self.cancel).await;
        match ended {
            Ok(Ended::Code(0)) => Ok(out),
            Ok(ended) => Err(failure(self.title, ended, timeout, last)),
            Err(e) => Err(with_lines(e.context(format!("{} failed", self.title)), last)),
        }
    }
}

/// What a piece of work that ended so is for people, with its last lines.
pub fn failure(
    title: &str,
    ended: Ended,
    timeout: Duration,
    last: impl IntoIterator<Item = String>,
) -> Error {
    let error = match ended {
        Ended::Code(code) => Error::failed(format!("{title} failed with exit code {code}")),
        Ended::TimedOut => Error::failed(format!(
            "{title} took longer than {} s and was stopped",
            timeout.as_secs()
        ))
        .hint("Give it a longer `timeout`, or find out in its last lines what it waits for."),
        Ended::Cancelled => return Error::interrupted(format!("interrupted while {title} ran")),
    };
    with_lines(error, last)
}

fn with_lines(mut error: Error, last: impl IntoIterator<Item = String>) -> Error {
    let mut last = last.into_iter().peekable();
    if last.peek().is_some() {
        error = error.detail("its last lines:");
    }
    for line in last {
        error = error.detail(format!("  | {line}"));
    }
    error
}

/// A script that the guest's root reads: one too long for a command line, or not for others' eyes.
#[must_use]
pub fn root_reads(script: String) -> Remote {
    Remote::new(as_root("exec sh")).stdin(script.into_bytes())
}

/// A script for the guest's root.
#[must_use]
pub fn as_root(script: &str) -> String {
    format!("sudo -n sh -c {}", quote(OsStr::new(script)))
}
