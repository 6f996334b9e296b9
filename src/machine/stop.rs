//! Stops a machine: a ladder from polite to certain, which says on which rung it ended.

use std::time::Duration;

use qapi::qmp as schema;
use tokio_util::sync::CancellationToken;

use super::Machine;
use crate::error::{Error, Result};

/// How long QEMU may take to write its disks and end after `quit`.
const QUIT_WAIT: Duration = Duration::from_secs(5);

/// How a machine was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It had ended already.
    Already,
    /// The guest shut down after its power button was pressed.
    PoweredOff,
    /// QEMU was told to end: the guest did not shut down in time, or was not asked.
    Quit,
    /// QEMU did not answer and was killed.
    Killed,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stopped::Already => "was stopped already",
            Stopped::PoweredOff => "shut down",
            Stopped::Quit => "was switched off",
            Stopped::Killed => "did not answer and was killed",
        })
    }
}

impl Machine {
    /// Presses the power button, waits up to `timeout` for the guest, then switches the machine off,
    /// then kills QEMU. Cancelling skips the rest of the wait for the guest.
    ///
    /// # Errors
    /// QEMU is still there after it was killed.
    pub async fn shutdown(
        &mut self,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Stopped> {
        if !self.process.alive() {
            self.files.remove_run_files();
            return Ok(Stopped::Already);
        }
        let pressed = self.qmp.execute(schema::system_powerdown {}).await;
        if pressed.is_ok() {
            tokio::select! {
                () = self.process.ended() => {
                    self.files.remove_run_files();
                    return Ok(Stopped::PoweredOff);
                }
                () = tokio::time::sleep(timeout) => {}
                () = cancel.cancelled() => {}
            }
        }
        self.switch_off().await
    }

    /// Switches the machine off at once, as if its cable was pulled; QEMU still writes its disks.
    ///
    /// # Errors
    /// QEMU is still there after it was killed.
    pub async fn switch_off(&mut self) -> Result<Stopped> {
        if !self.process.alive() {
            self.files.remove_run_files();
            return Ok(Stopped::Already);
        }
        // QEMU can close the connection before its answer is read; only its end counts.
        let _ = self.qmp.execute_within(schema::quit {}, QUIT_WAIT).await;
        if tokio::time::timeout(QUIT_WAIT, self.process.ended()).await.is_ok() {
            self.files.remove_run_files();
            return Ok(Stopped::Quit);
        }
        self.kill().await?;
        Ok(Stopped::Killed)
    }

    /// Kills QEMU and waits until it is gone.
    ///
    /// # Errors
    /// It is still there after 10 s.
    pub async fn kill(&mut self) -> Result<()> {
        self.process
            .kill()
            .await
            .map_err(|e: Error| e.context(format!("cannot stop `{}`", self.name)))?;
        self.files.remove_run_files();
        Ok(())
    }
}
