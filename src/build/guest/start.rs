//! How the guest of the steps begins: it boots, or goes on where one was remembered.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::Guest;
use crate::build::layers::Memory;
use crate::build::reached::{Names, Watch};
use crate::build::workspace::Workspace;
use crate::build::{hardware, seed};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::guest::identity;
use crate::guest::keys::KeyPair;
use crate::guest::ssh::{Client, Ended, Target};
use crate::guest::work::root_reads;
use crate::host;
use crate::machine::config::{
    self, Accelerator, Config, Disk, DiskFormat, Forward, Incoming, Lifetime, Network, Protocol,
};
use crate::machine::fit::Fit;
use crate::machine::{Machine, Unrestored, ready};
use crate::spec::Spec;

/// Until the guest takes a login: 60 to 90 s under emulation on an idle host.
const READY: Duration = Duration::from_secs(900);
/// The same for one that goes on: its ssh server runs already, and its handshake takes seconds under emulation.
const AWAKE: Duration = Duration::from_secs(180);
/// For a command that takes a tenth of a second.
const SHORT: Duration = Duration::from_secs(60);

/// What the guest is started with.
#[derive(Debug, Clone)]
pub(in crate::build) struct Start<'a> {
    pub(in crate::build) spec: &'a Spec,
    /// The file that it writes to.
    pub(in crate::build) overlay: PathBuf,
    /// How many seconds its clock goes ahead of the host's.
    pub(in crate::build) ahead: i64,
    pub(in crate::build) work: &'a Workspace,
    pub(in crate::build) accelerator: Accelerator,
    pub(in crate::build) events: &'a Events,
    pub(in crate::build) cancel: &'a CancellationToken,
}

/// Why a guest does not go on.
#[derive(Debug)]
pub(in crate::build) enum Asleep {
    /// What was remembered is no good: a boot may do.
    Refused(Error),
    /// A boot would not do either.
    Failed(Error),
}

/// The hardware of a build's guest.
///
/// # Errors
/// QEMU is not installed.
pub(in crate::build) fn fit(spec: &Spec, accelerator: Accelerator) -> Result<Fit> {
    Fit::of(&config(spec, Path::new(""), accelerator, String::new(), PathBuf::new()))
}

fn config(
    spec: &Spec,
    overlay: &Path,
    accelerator: Accelerator,
    uuid: String,
    seed: PathBuf,
) -> Config {
    Config {
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
            below: None,
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
        rtc: None,
        lifetime: Lifetime::WithParent,
        agent: false,
        spare_slots: 0,
        card: None,
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: None,
    }
}

impl Start<'_> {
    /// Boots, and waits for a login.
    pub(in crate::build) async fn boot(&self) -> Result<Guest> {
        let began = Instant::now();
        self.events.phase("Booting the image to run its steps");
        let uuid = host::new_uuid()?;
        let (ssh, seed) = (self.work.file("ssh"), self.work.file("seed.iso"));
        let (key, host_key) = Client::keys(&ssh, "build")?;
        let hostname = &self.spec.seal.hostname;
        seed::write(&seed, &uuid, hostname, config::NAT_MAC, &key, &host_key)?;
        let mut config = config(self.spec, &self.overlay, self.accelerator, uuid, seed);
        config.rtc = (self.ahead != 0).then(|| jiff::Timestamp::now().as_second() + self.ahead);
        let machine = self.launch(config.clone()).await.map_err(Unrestored::into_inner)?;
        let mut guest =
            self.watched(machine, &config, [&key, &host_key], Names::default(), false).await?;
        let [banner, login] = ready::ssh_probes(&guest.client);
        let cloud_init = ready::cloud_init_probe(&guest.client);
        let probes = [ready::serial_probe(), banner, login, cloud_init];
        if let Err(e) = guest.machine.wait_ready(&probes, READY, self.cancel).await {
            guest.kill().await?;
            return Err(e);
        }
        self.events.done("booted, ssh answers", began.elapsed());
        Ok(guest)
    }

    /// Goes on with what was remembered, and waits for a login. The guest has the present time then, and random
    /// state that no other one has.
    pub(in crate::build) async fn resume(&self, memory: &Memory) -> Result<Guest, Asleep> {
        let began = Instant::now();
        self.events.phase("Going on from the guest before the last step");
        let (ssh, seed) = (self.work.file("ssh"), self.work.file("seed.iso"));
        let own = || -> Result<(KeyPair, KeyPair)> {
            host::private_dir(&ssh)?;
            for path in [Client::key_path, Client::host_key_path] {
                fs::copy(path(memory.ssh()), path(&ssh))?;
            }
            fs::copy(memory.seed(), &seed)?;
            Client::keys(&ssh, "build")
        };
        // Somebody removed them meanwhile.
        let (key, host_key) = own().map_err(Asleep::Refused)?;
        let uuid = memory.uuid().to_owned();
        let mut config = config(self.spec, &self.overlay, self.accelerator, uuid, seed);
        config.incoming = Some(Incoming::Memory(memory.state().to_owned()));
        let machine = self.launch(config.clone()).await.map_err(|e| match e {
            Unrestored::Refused(e) => Asleep::Refused(e),
            Unrestored::Failed(e) => Asleep::Failed(e),
        })?;
        let names = memory.names().clone();
        let guest = self.watched(machine, &config, [&key, &host_key], names, true).await;
        let mut guest = guest.map_err(Asleep::Failed)?;
        if let Err(e) = self.wake(&mut guest).await {
            guest.kill().await.map_err(Asleep::Failed)?;
            let interrupted = e.kind() == Kind::Interrupted;
            return Err(if interrupted { Asleep::Failed(e) } else { Asleep::Refused(e) });
        }
        self.events.done("the guest goes on, ssh answers", began.elapsed());
        Ok(guest)
    }

    async fn wake(&self, guest: &mut Guest) -> Result<()> {
        let probes = ready::ssh_probes(&guest.client);
        guest.machine.wait_ready(&probes, AWAKE, self.cancel).await?;
        let entropy = host::random::<64>()?;
        let script = identity::clock_and_entropy(&entropy, jiff::Timestamp::now());
        let remote = root_reads(format!("set -eu\n{script}"));
        match guest.client.run(remote, |_, _| {}, SHORT, self.cancel).await? {
            Ended::Code(0) => Ok(()),
            Ended::Cancelled => Err(Error::interrupted("interrupted while the guest woke up")),
            _ => Err(Error::failed("the guest does not take the time")),
        }
    }

    async fn launch(&self, config: Config) -> Result<Machine, Unrestored> {
        let dir = self.work.machine("steps");
        Machine::restore(config, &dir, self.work.runtime(), self.events, self.cancel).await
    }

    /// The guest of a machine that runs. It is ended where that fails.
    async fn watched(
        &self,
        machine: Machine,
        config: &Config,
        [key, host_key]: [&KeyPair; 2],
        names: Names,
        resumed: bool,
    ) -> Result<Guest> {
        let watch = match Watch::begin(&machine, self.work.runtime(), names).await {
            Ok(watch) => watch,
            Err(e) => {
                let mut machine = machine;
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
        let control = self.work.runtime().join("c");
        let client = Client::new(&self.work.file("ssh"), &control, target, host_key.public())?;
        let key = key.public().split_whitespace().nth(1).unwrap_or_default().to_owned();
        let (uuid, fit) = (config.uuid.clone(), Fit::of(config)?);
        Ok(Guest { machine, client, key, watch, uuid, fit, resumed, layers: Cell::new(0) })
    }
}
