//! The machine that the steps run in: started for the build alone, with a login for it alone.

mod start;

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

pub(super) use start::{Asleep, Start, fit};

use super::layers::MemoryDraft;
use super::reached::Watch;
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::guest::ssh::{Client, Ended, Remote};
use crate::guest::work::as_root;
use crate::machine::fit::Fit;
use crate::machine::{DiskErrors, Machine, Stopped};

/// For the guest to write what it holds in memory, a gigabyte on a slow disk.
const SYNC: Duration = Duration::from_secs(300);
/// For a clean shutdown; an emulated Debian takes 10 to 20 s.
const SHUTDOWN: Duration = Duration::from_secs(180);

/// A running guest that takes the build's logins.
#[derive(Debug)]
pub(super) struct Guest {
    machine: Machine,
    pub(super) client: Client,
    /// The base64 part of the public key that it takes.
    pub(super) key: String,
    /// What it reaches.
    pub(super) watch: Watch,
    /// How QEMU knows it.
    pub(super) uuid: String,
    pub(super) fit: Fit,
    /// Whether it goes on from what was remembered of an earlier one.
    pub(super) resumed: bool,
    /// How many layers its disk has got since it runs.
    layers: Cell<usize>,
}

impl Guest {
    /// Failures of its disk.
    pub(super) fn disk_errors(&self) -> DiskErrors {
        self.machine.disk_errors()
    }

    /// What the guest writes on its serial console.
    pub(super) fn serial_log(&self) -> &Path {
        self.machine.serial_log()
    }

    /// Lets the guest write to its disk what it holds in memory.
    pub(super) async fn sync(&self, cancel: &CancellationToken) -> Result<()> {
        let ended = self.client.run(Remote::new(as_root("sync")), |_, _| {}, SYNC, cancel).await?;
        match ended {
            Ended::Code(0) => Ok(()),
            Ended::Cancelled => {
                Err(Error::interrupted("interrupted while the guest wrote its disk"))
            }
            _ => Err(Error::failed("the build's guest did not write its disk (`sync` failed)")
                .detail(format!("serial log: {}", self.serial_log().display()))),
        }
    }

    /// Lets the guest go on in a new layer of its disk, which lies on the present one. What it is at that moment is
    /// written to `memory`, where there is one: the inner result says how that went.
    pub(super) async fn put_layer(
        &self,
        layer: &Path,
        memory: Option<(&MemoryDraft, &Workspace)>,
    ) -> Result<Result<()>> {
        let number = self.layers.get() + 1;
        let state = memory.map(|(draft, _)| draft.state());
        let saved = self.machine.put_layer(number, layer, state.as_deref()).await?;
        self.layers.set(number);
        let Some((draft, work)) = memory else { return Ok(saved) };
        let beside = || -> Result<()> {
            let (ssh, own) = (draft.ssh(), work.file("ssh"));
            crate::host::private_dir(&ssh)?;
            for path in [Client::key_path, Client::host_key_path] {
                fs::copy(path(&own), path(&ssh))?;
            }
            fs::copy(work.file("seed.iso"), draft.seed())?;
            Ok(())
        };
        Ok(saved.and_then(|()| beside()))
    }

    /// Shuts down as a person would; the disk is then as the guest left it.
    pub(super) async fn shut_down(
        mut self,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let start = Instant::now();
        events.phase("Shutting down");
        self.client.disconnect().await;
        let mut disks = self.disk_errors();
        let stopped = match disks.beside(self.machine.shutdown(SHUTDOWN, cancel)).await {
            Ok(stopped) => stopped,
            Err(error) => {
                self.kill().await?;
                return Err(error);
            }
        };
        if cancel.is_cancelled() {
            return Err(Error::interrupted("interrupted while the build's machine shut down"));
        }
        match stopped {
            Stopped::PoweredOff | Stopped::Already => {
                events.done(format!("the guest {stopped}"), start.elapsed());
                Ok(())
            }
            Stopped::Quit | Stopped::Killed => Err(Error::failed(format!(
                "the build's guest {stopped}; its disk may lack what the steps wrote"
            ))
            .detail(format!("serial log: {}", self.serial_log().display()))
            .hint("See at the serial log's end what it waited for; the image needs a power button handler (systemd-logind or acpid).")),
        }
    }

    /// Ends the machine at once; its disk is not used any more.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.client.disconnect().await;
        self.machine.kill().await
    }
}
