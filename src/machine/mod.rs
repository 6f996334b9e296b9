//! One virtual machine under QEMU: config (plain data) -> argv (pure) -> process -> QMP -> ports ->
//! readiness -> stop. Knows no spec, no store and no build.

pub mod accel;
pub mod argv;
pub mod backing;
pub mod board;
pub mod card;
mod cloned;
pub mod config;
pub mod data_disk;
mod disk_errors;
pub mod files;
pub mod firmware;
pub mod fit;
pub mod folder;
pub mod history;
pub mod hotplug;
pub mod installer;
pub mod instance;
mod keyboard;
mod launch;
mod layer;
mod listener;
pub mod lock;
mod migrate;
pub mod pause;
pub mod ports;
pub mod process;
pub mod qmp;
pub mod ready;
pub mod record;
mod record_network;
pub mod serial;
mod snapshot;
pub mod stamp;
pub mod still;
mod stop;
pub mod template;
#[cfg(test)]
mod tests;
mod tpm;
// Its servers need the namespaces of Linux.
#[cfg(target_os = "linux")]
pub mod virtiofs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use qapi::qmp as schema;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::event::Events;
pub use disk_errors::DiskErrors;
use files::Files;
pub use launch::Unrestored;
use ports::BoundForward;
use process::Process;
use qmp::{Failure, Qmp};
use ready::{Probe, Progress};
pub use stop::Stopped;

/// How many lines of the serial console an error shows.
const SERIAL_LINES: usize = 20;
/// For a picture of the screen: some megabytes, encoded by QEMU in a fraction of a second.
const SCREEN_WAIT: Duration = Duration::from_secs(5);

/// A running QEMU.
///
/// Dropping it leaves the machine as it is: [`config::Lifetime`] says what happens when devbox ends.
#[derive(Debug)]
pub struct Machine {
    name: String,
    files: Files,
    serial_log: PathBuf,
    process: Process,
    exit: Option<watch::Receiver<Option<std::process::ExitStatus>>>,
    qmp: Qmp,
    forwards: Vec<BoundForward>,
    events: Events,
    disk_may_wait: bool,
}

impl Machine {
    /// Whether what its disk cannot read may come later: then the guest stands still for a while, and that is no failure.
    pub fn disk_may_wait(&mut self, may: bool) {
        self.disk_may_wait = may;
    }

    /// The connection to the monitor.
    #[must_use]
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The forwards as they were bound; empty for a machine that was [`Machine::attach`]ed to.
    #[must_use]
    pub fn forwards(&self) -> &[BoundForward] {
        &self.forwards
    }

    /// The host's end of the forward to the guest's TCP port `guest`.
    #[must_use]
    pub fn forwarded(&self, guest: u16) -> Option<&BoundForward> {
        self.forwards.iter().find(|f| f.guest == guest && f.protocol == config::Protocol::Tcp)
    }

    /// What the guest wrote on its serial console.
    #[must_use]
    pub fn serial_log(&self) -> &Path {
        &self.serial_log
    }

    /// The machine's files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// QEMU's process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether the guest was let run; false when devbox died between starting QEMU and that.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub async fn guest_started(&self) -> Result<bool> {
        let status = self.qmp.execute(schema::query_status {}).await;
        let status = status.map_err(|e| self.undone("cannot ask QEMU about", &e))?;
        Ok(status.status != schema::RunState::prelaunch)
    }

    /// The error of something that QEMU was to do and did not; `what` is said of the machine.
    fn undone(&self, what: &str, why: &Failure) -> Error {
        why.of(format!("{what} `{}`", self.name))
    }

    /// Waits until all probes are true, in their order.
    ///
    /// # Errors
    /// The deadline passed, QEMU ended, or the wait was cancelled. The error names the probe that
    /// failed and what was seen before it, the last serial lines, and the paths of the evidence; a
    /// screenshot is taken if QEMU still lives.
    pub async fn wait_ready(
        &mut self,
        probes: &[Probe],
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let mut progress = Progress::new(probes);
        let events = self.events.clone();
        let mut disks = self.disk_errors();
        let end = tokio::select! {
            error = disks.next() => return Err(error),
            () = progress.run(&self.serial_log, |seen| events.note(seen)) => End::Never,
            () = tokio::time::sleep(timeout) => End::Deadline,
            () = self.process.ended() => End::Died,
            () = cancel.cancelled() => End::Cancelled,
        };
        let Some(unready) = progress.unready() else { return Ok(()) };
        let name = &self.name;
        let mut error = match end {
            End::Cancelled => {
                return Err(Error::interrupted(format!("interrupted while `{name}` started"))
                    .detail(format!("waited for {}", unready.probe.description)));
            }
            End::Deadline => Error::failed(format!(
                "`{name}` was not ready within {} s: {} did not come",
                timeout.as_secs(),
                unready.probe.description
            )),
            End::Never => Error::failed(format!(
                "`{name}` cannot be ready: {} does not come",
                unready.probe.description
            )),
            End::Died => Error::failed(format!(
                "QEMU ended while `{name}` started: {} did not come",
                unready.probe.description
            )),
        };
        error = match serial::kernel_panic(&self.serial_log) {
            Some(panic) => error.cause(format!("the guest's kernel died: {panic}")),
            None => error.cause(&unready.last),
        };
        for seen in &unready.seen {
            error = error.detail(format!("seen before: {seen}"));
        }
        error = self.evidence(error).await;
        Err(if matches!(end, End::Died) {
            error.hint("Run the same command again; if QEMU ends again, read its log.")
        } else {
            error.hint(unready.probe.hint)
        })
    }

    /// Waits until the guest has powered itself off and QEMU has ended.
    ///
    /// # Errors
    /// It did not within `timeout`, QEMU failed, or the wait was cancelled; with the last serial lines.
    pub async fn wait_exit(&mut self, timeout: Duration, cancel: &CancellationToken) -> Result<()> {
        let name = self.name.clone();
        let mut disks = self.disk_errors();
        tokio::select! {
            error = disks.next() => return Err(error),
            () = self.process.ended() => {}
            () = tokio::time::sleep(timeout) => {
                let error = Error::failed(format!(
                    "`{name}` did not power itself off within {} s", timeout.as_secs()));
                return Err(self.evidence(error).await);
            }
            () = cancel.cancelled() => {
                return Err(Error::interrupted(format!("interrupted while `{name}` was running")));
            }
        }
        if let Some(status) = self.exit_status().await
            && !status.success()
        {
            let error = Error::failed(format!("QEMU of `{name}` ended badly")).cause(status);
            return Err(self.evidence(error).await);
        }
        Ok(())
    }

    /// How QEMU ended, where it is a child of ours.
    async fn exit_status(&mut self) -> Option<std::process::ExitStatus> {
        let exit = self.exit.as_mut()?;
        *exit.wait_for(Option::is_some).await.ok()?
    }

    /// Adds what a person needs to find the cause: the last serial lines, QEMU's own words, a picture of the screen,
    /// and the paths of all of it.
    pub async fn evidence(&self, mut error: Error) -> Error {
        let lines = serial::last_lines(&self.serial_log, SERIAL_LINES);
        if !lines.is_empty() {
            error = error.detail("last lines of the serial console:");
        }
        for line in lines {
            error = error.detail(format!("  | {line}"));
        }
        let qemu_log = self.files.qemu_log();
        for line in crate::exec::last_lines(&std::fs::read(&qemu_log).unwrap_or_default(), 5) {
            error = error.detail(format!("QEMU: {line}"));
        }
        error = error.detail(format!("serial log: {}", self.serial_log.display()));
        error = error.detail(format!("QEMU's log: {}", qemu_log.display()));
        match self.screenshot().await {
            Ok(path) => error.detail(format!("screenshot: {}", path.display())),
            Err(_) => error,
        }
    }

    /// Takes a picture of the guest's screen.
    ///
    /// # Errors
    /// QEMU is gone or refuses.
    pub async fn screenshot(&self) -> Result<PathBuf> {
        let path = self.files.screenshot();
        dump_screen(&self.qmp, &path).await?;
        Ok(path)
    }
}

/// Takes a picture of the screen of a guest that runs, as PNG into `to`. Asks the monitor for short
/// questions, so that it waits for no other command.
///
/// # Errors
/// QEMU does not answer, or refuses.
pub async fn screenshot(files: &Files, to: &Path) -> Result<()> {
    let qmp = Qmp::connect(&files.watch_socket(), SCREEN_WAIT).await?;
    dump_screen(&qmp, to).await
}

async fn dump_screen(qmp: &Qmp, to: &Path) -> Result<()> {
    let command = schema::screendump {
        filename: to.to_string_lossy().into_owned(),
        device: None,
        head: None,
        format: Some(schema::ImageFormat::png),
    };
    let result = qmp.execute_within(command, SCREEN_WAIT).await;
    result.map(drop).map_err(|e| e.of("cannot take a screenshot"))
}

/// How a wait ended without being ready.
enum End {
    /// All probes are true, or one of them never will be.
    Never,
    Deadline,
    Died,
    Cancelled,
}
