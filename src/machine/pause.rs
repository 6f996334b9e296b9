//! Lets a guest stand still and go on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use qapi::qmp as schema;
use serde_json::Value;

use super::Machine;
use crate::error::Result;
use crate::os;

/// For one line of QEMU's answer: a millisecond on an idle host.
const ANSWER: Duration = Duration::from_secs(2);
/// QEMU finishes what is being read first, and a box that arrives lets a read wait for up to 45 seconds.
const STOPS: Duration = Duration::from_secs(60);
/// Far above the lines that are read here.
const LONGEST: u64 = 64 << 10;

impl Machine {
    /// Stops the virtual processors. The machine keeps its memory and its ports.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub async fn pause(&self) -> Result<()> {
        self.stop_processors().await?;
        let status = self.qmp.execute(schema::query_status {}).await;
        let status = status.map_err(|e| self.undone("cannot ask QEMU about", &e))?;
        if status.status == schema::RunState::io_error {
            // One that stands still since it could not read is left as it is by `stop`, and would go on once it can. What it
            // reads is repeated, and kept if it fails again.
            self.go_on().await?;
            self.stop_processors().await?;
        }
        Ok(())
    }

    async fn stop_processors(&self) -> Result<()> {
        let stopped = self.qmp.execute_within(schema::stop {}, STOPS).await;
        stopped.map_err(|e| self.undone("cannot suspend", &e))?;
        Ok(())
    }

    /// Lets the virtual processors run.
    ///
    /// # Errors
    /// QEMU does not answer, or the guest cannot go on.
    pub async fn go_on(&self) -> Result<()> {
        let started = self.qmp.execute(schema::cont {}).await;
        started.map_err(|e| self.undone("cannot resume", &e))?;
        Ok(())
    }

    /// Whether its virtual processors were stopped by [`Machine::pause`].
    ///
    /// # Errors
    /// QEMU does not answer.
    pub async fn paused(&self) -> Result<bool> {
        let status = self.qmp.execute(schema::query_status {}).await;
        let status = status.map_err(|e| self.undone("cannot ask QEMU about", &e))?;
        Ok(status.status == schema::RunState::paused)
    }
}

/// Whether a machine stands still by [`Machine::pause`]; false if its QEMU does not answer on the socket
/// for short questions.
#[must_use]
pub fn is_paused(watch_socket: &Path) -> bool {
    run_state(watch_socket).as_deref() == Some("paused")
}

/// QEMU's name of what the machine does (`running`, `paused`, …).
fn run_state(watch_socket: &Path) -> Option<String> {
    let mut stream = os::connect_blocking(watch_socket, ANSWER).ok()?;
    let words = "{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"query-status\"}\n";
    stream.write_all(words.as_bytes()).ok()?;
    // A greeting, an answer to the first command, then the one that is meant; events in between.
    let mut lines = BufReader::new(stream.take(LONGEST)).lines();
    lines.by_ref().find_map(|line| {
        let value: Value = serde_json::from_str(&line.ok()?).ok()?;
        value["return"]["status"].as_str().map(str::to_owned)
    })
}
