//! A script for a guest's root, by the way on which its machine is entered.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::exec::last_lines;
use crate::guest::agent::Agent;
use crate::guest::ssh::Ended;
use crate::guest::work::{LAST_LINES, Work, failure, root_reads};
use crate::machine::instance::Instance;
use crate::machine::record::{Login, Record};
use crate::project::Run;

/// Until an agent answers; others may talk to it meanwhile.
const AGENT_WAIT: Duration = Duration::from_secs(30);

/// What the script is for, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script<'a> {
    /// In messages: `mounting the disk `data``.
    pub(super) title: &'a str,
    /// How long it may take.
    pub(super) timeout: Duration,
}

impl Script<'_> {
    /// Runs `text`; gives the last lines of its standard output. The machine runs.
    ///
    /// # Errors
    /// The script failed, with its last lines, or took too long; or nobody answers.
    pub(super) async fn run(
        self,
        text: String,
        instance: &Instance,
        record: &Record,
        run: Run<'_>,
        events: &Events,
    ) -> Result<Vec<String>> {
        if record.login == Login::Ssh {
            let client = instance.client(record)?;
            let work = Work { title: self.title, client: &client, events, cancel: run.cancel };
            return work.execute(root_reads(text), self.timeout).await;
        }
        let work = async {
            let mut agent = Agent::connect(&instance.files().agent_socket(), AGENT_WAIT).await?;
            agent.run("/bin/sh", &["-s"], text.as_bytes(), self.timeout).await
        };
        let ran = tokio::select! {
            ran = work => ran.map_err(|e| e.context(format!("{} failed", self.title)))?,
            () = run.cancel.cancelled() => {
                return Err(Error::interrupted(format!("interrupted while {} ran", self.title)));
            }
        };
        for line in String::from_utf8_lossy(&ran.out).lines() {
            events.output(self.title, line);
        }
        for line in String::from_utf8_lossy(&ran.err).lines() {
            events.output(self.title, line);
        }
        if ran.code == 0 {
            return Ok(last_lines(&ran.out, LAST_LINES));
        }
        let said = if ran.err.is_empty() { &ran.out } else { &ran.err };
        let code = i32::try_from(ran.code).unwrap_or(-1);
        Err(failure(self.title, Ended::Code(code), self.timeout, last_lines(said, LAST_LINES)))
    }
}
