//! Holds a machine still for a moment, so that its disk can be read as it is: its filesystems frozen by
//! the guest's agent where there is one, its processors stopped, QEMU's own caches written.
//!
//! A mark in the runtime folder says that this goes on. Whoever finds it while nobody holds the
//! machine's lock knows that a devbox died then, and lets the machine go on.

use std::time::{Duration, Instant};

use fs_err as fs;
use qapi::qga;

use super::Machine;
use crate::crash;
use crate::error::{Error, Result};
use crate::guest::agent::Agent;

/// Until an agent answers; a guest without one costs this once.
const AGENT: Duration = Duration::from_secs(3);
/// For the guest to write down what it holds in memory, before it is frozen.
const SYNC: Duration = Duration::from_secs(30);
/// For the freeze itself, which then has little to write.
const FREEZE: Duration = Duration::from_secs(10);

/// How a machine stood still.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stood {
    /// How long its processors were stopped; none if they were before.
    pub paused: Option<Duration>,
    /// How long its filesystems were frozen; none if they were not.
    pub frozen: Option<Duration>,
    /// Why they were not, if they should have been.
    pub why_not: Option<String>,
}

impl Machine {
    /// Does `work`, which reads the machine's disk, while the machine stands still. The lock is held.
    ///
    /// # Errors
    /// The machine cannot be stopped or cannot go on, or `work` fails; then it goes on all the same.
    pub async fn stand_still<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(T, Stood)> {
        let mut stood = Stood::default();
        if self.paused().await? {
            // QEMU wrote its caches when it stopped the processors.
            return Ok((joined(tokio::task::spawn_blocking(work).await)?, stood));
        }
        fs::write(self.files.still(), "")?;
        let mut began = Instant::now();
        let mut agent = match self.freeze().await {
            Ok((agent, at)) => {
                began = at;
                Some(agent)
            }
            Err(e) => {
                stood.why_not = Some(e.causes().last().map_or(e.what(), |cause| cause).to_owned());
                None
            }
        };
        crash::point("drift.frozen");
        let stopped = Instant::now();
        let done = match self.pause().await {
            Ok(()) => {
                crash::point("drift.paused");
                let done = joined(tokio::task::spawn_blocking(work).await);
                let went_on = self.go_on().await;
                stood.paused = Some(stopped.elapsed());
                went_on.and(done)
            }
            Err(e) => Err(e),
        };
        if let Some(agent) = &mut agent {
            thaw(agent).await?;
            stood.frozen = Some(began.elapsed());
        }
        let _ = fs::remove_file(self.files.still());
        Ok((done?, stood))
    }

    /// Freezes the guest's filesystems: what it held in memory is on its disk then. With the agent comes
    /// when that began.
    async fn freeze(&self) -> Result<(Agent, Instant)> {
        let mut agent = Agent::connect(&self.files.agent_socket(), AGENT).await?;
        if !agent.allows("guest-fsfreeze-freeze", AGENT).await? {
            return Err(Error::failed("the guest's agent may not freeze its filesystems"));
        }
        // Written before, so that what waits for the frozen filesystems waits for a moment only.
        let _ = agent.run("/bin/sync", &[], b"", SYNC).await;
        let began = Instant::now();
        let frozen = agent.execute(qga::guest_fsfreeze_freeze {}, FREEZE).await;
        if let Err(e) = frozen {
            // Some of them may be.
            let _ = thaw(&mut agent).await;
            return Err(e);
        }
        Ok((agent, began))
    }

    /// Lets a machine go on that a devbox held still which died then. The lock is held.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub(super) async fn go_on_if_left(&self) -> Result<()> {
        if !self.files.still().exists() {
            return Ok(());
        }
        if self.paused().await? {
            self.go_on().await?;
        }
        match Agent::connect(&self.files.agent_socket(), AGENT).await {
            Ok(mut agent) => thaw(&mut agent).await?,
            // Then nobody froze it.
            Err(e) => self.events.warn(format!("the guest's agent does not answer: {}", e.what())),
        }
        let _ = fs::remove_file(self.files.still());
        self.events.note(format!("`{}` goes on: a devbox died while it held it still", self.name));
        Ok(())
    }
}

/// Thaws all filesystems; none need be frozen.
async fn thaw(agent: &mut Agent) -> Result<()> {
    agent.execute(qga::guest_fsfreeze_thaw {}, FREEZE).await.map(drop)
}

fn joined<T>(done: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    done.unwrap_or_else(|e| Err(Error::failed("reading the disk ended early").cause(e)))
}
