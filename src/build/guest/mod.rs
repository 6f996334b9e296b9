//! The machine that the steps run in: started for the build alone, with a login for it alone.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::reached::Watch;
use super::workspace::Workspace;
use super::{hardware, seed};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::guest::keys::KeyPair;
use crate::guest::ssh::{Client, Ended, Remote, Target};
use crate::guest::work::as_root;
use crate::machine::config::{
    self, Accelerator, Config, Disk, DiskFormat, Forward, Lifetime, Network, Protocol,
};
use crate::machine::{DiskErrors, Machine, Stopped, ready};
use crate::spec::Spec;

/// Until the guest takes a login: 60 to 90 s under emulation on an idle host.
const READY: Duration = Duration::from_secs(900);
/// For the guest to write what it holds in memory, a gigabyte on a slow disk.
const SYNC: Duration = Duration::from_secs(300);
/// For a clean shutdown; an emulated Debian takes 10 to 20 s.
const SHUTDOWN: Duration = Duration::from_secs(180);

/// A running guest that takes the build's logins.
#[derive(Debug)]
pub(super) struct Guest {
    machine: Machine,
    pub(super) client: Client,
    /// The base64 part of the build's public key.
    pub(super) key: String,
    /// What it reaches.
    pub(super) watch: Watch,
    /// How many layers its disk has got since it runs.
    layers: Cell<usize>,
}

impl Guest {
    /// Boots `overlay` and waits for a login. Its clock is `ahead` seconds ahead of the host's.
    pub(super) async fn boot(
        spec: &Spec,
        overlay: &Path,
        ahead: i64,
        work: &Workspace,
        accelerator: Accelerator,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Guest> {
        let start = Instant::now();
        events.phase("Booting the image to run its steps");
        let dir = work.machine("steps");
        let ssh_dir = work.file("ssh");
        let (key, host_key) =
            (KeyPair::generate("devbox build")?, KeyPair::generate("build host")?);
        crate::host::private_dir(&ssh_dir)?;
        key.write(&Client::key_path(&ssh_dir))?;
        let uuid = crate::host::new_uuid()?;
        let seed = work.file("seed.iso");
        seed::write(&seed, &uuid, &spec.seal.hostname, config::NAT_MAC, &key, &host_key)?;

        let config = Config {
            name: format!("{}-build", spec.name),
            uuid,
            arch: hardware::arch(spec.arch),
            cpus: spec.machine.cpus,
            memory: spec.machine.memory,
            firmware: hardware::firmware(spec.machine.firmware),
            // Nothing of a TPM gets into an image.
            tpm: false,
            accelerator,
            disks: vec![Disk {
                path: overlay.to_owned(),
                format: DiskFormat::Qcow2,
                read_only: false,
                serial: "devbox-disk".to_owned(),
            }],
            data: vec![],
            seed: Some(seed),
            kernel: None,
            installer: None,
            network: Network::User {
                forwards: vec![Forward {
                    guest: 22,
                    host: None,
                    host_ip: Ipv4Addr::LOCALHOST,
                    protocol: Protocol::Tcp,
                    auto_correct: true,
                }],
                restrict: false,
            },
            rtc: (ahead != 0).then(|| jiff::Timestamp::now().as_second() + ahead),
            lifetime: Lifetime::WithParent,
            agent: false,
            spare_slots: 0,
            card: None,
            folders: vec![],
            owner: None,
            memory_file: None,
            incoming: None,
        };
        let machine = Machine::launch(config, &dir, work.runtime(), events, cancel).await?;
        let mut machine = machine;
        let watch = match Watch::begin(&machine, work.runtime()).await {
            Ok(watch) => watch,
            Err(e) => {
                machine.kill().await?;
                return Err(e);
            }
        };
        let port = machine.forwarded(22).map(|f| (f.host_ip, f.host));
        let Some((host, port)) = port else {
            return Err(Error::failed("the build's machine has no ssh port"));
        };
        let (name, alias) = ("build".to_owned(), String::new());
        let target = Target { name, alias, user: seed::USER.to_owned(), host, port };
        let control = work.runtime().join("c");
        let client = Client::new(&ssh_dir, &control, target, host_key.public())?;
        let key = key.public().split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut guest = Guest { machine, client, key, watch, layers: Cell::new(0) };
        let [banner, login] = ready::ssh_probes(&guest.client);
        let cloud_init = ready::cloud_init_probe(&guest.client);
        let probes = [ready::serial_probe(), banner, login, cloud_init];
        if let Err(e) = guest.machine.wait_ready(&probes, READY, cancel).await {
            guest.kill().await?;
            return Err(e);
        }
        events.done("booted, ssh answers", start.elapsed());
        Ok(guest)
    }

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

    /// Lets the guest go on in a new layer of its disk, which lies on the present one.
    pub(super) async fn put_layer(&self, layer: &Path) -> Result<()> {
        let number = self.layers.get() + 1;
        self.machine.put_layer(number, layer).await?;
        self.layers.set(number);
        Ok(())
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
