//! Runs an installer: the `iso` source's disk, from the cache or made now.
//!
//! The first start has the medium, the answers and what is typed; each later one has the disk alone, as after a person
//! took the CDs out. Every reboot ends QEMU and starts it anew, so that what a start has is all in its arguments.

mod cache;
mod cpio;
mod media;
mod server;
mod typing;
mod watch;

use std::path::Path;
use std::time::Instant;

use fs_err as fs;
use serde_json::json;

use self::cache::{Cache, Record};
use self::media::Media;
use self::server::Server;
use self::watch::{Ending, Limits, Watched};
use super::reached::{Names, Watch};
use super::workspace::Workspace;
use super::{Build, hardware, newest_file, outputs};
use crate::digest::{self, FileDigest};
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::image::container::Format;
use crate::lock::Host;
use crate::machine::Machine;
use crate::machine::config::{Accelerator, Config, Disk, DiskFormat, Lifetime, Network};
use crate::source::SourceDisk;
use crate::source::medium::Medium;
use crate::spec::boot_command::variables::Variables;
use crate::spec::boot_command::{self, Action};
use crate::spec::{self, Boot, End, InputFormat, IsoSource};

/// The rules by which installers are run; a change of what one sees is a new name.
const RULES: &str = "devbox/installed/1";
/// The host in the network of QEMU's user-mode NAT.
const HOST: &str = "10.0.2.2";

impl Build<'_> {
    /// The installed disk.
    pub(super) async fn installation(
        &self,
        source: &IsoSource,
        medium: &Medium,
        work: &Workspace,
    ) -> Result<SourceDisk> {
        let digest = format!("sha256:{}", medium.sha256).parse::<FileDigest>();
        let digest = digest.map_err(|e| Error::failed("a damaged digest").cause(e))?;
        let mut inputs = json!({
            "source": spec::digest::installation(source, Some(&digest))?,
            "arch": self.spec.arch.as_str(),
            "firmware": hardware::firmware(self.spec.machine.firmware).as_str(),
            "hostname": self.spec.seal.hostname,
        });
        inputs.sort_all_objects();
        let key = digest::hex(&digest::sha256(format!("{RULES}\n{inputs}").as_bytes()));
        let cache = Cache::open(&self.paths.cache, &key)?;
        let _lock = cache.lock(self.events, self.cancel).await?;
        let finished = |record: Record| {
            let disk = SourceDisk {
                path: cache.disk(),
                format: InputFormat::Qcow2,
                size: source.disk_size,
                epoch: self.spec.seal.epoch.unwrap_or(record.newest),
                key: key.clone(),
            };
            // One build has one source.
            let _ = self.installer.set(record.reached);
            disk
        };
        if let Some(record) = cache.find().filter(|_| !self.options.reinstall) {
            let since = jiff::Timestamp::from_second(record.installed).unwrap_or_default();
            self.events.note(format!(
                "installed on {} from the same inputs, reusing its disk; `--reinstall` installs again",
                since.strftime("%F")
            ));
            self.refuse_other_hosts(&record.reached, None)?;
            return Ok(finished(record));
        }
        let disk = cache.partial()?;
        let installed = async {
            let reached = self.install(source, medium, &disk, work).await?;
            // A disk that cannot be built on is not kept.
            super::Bootable::find(&disk, Format::Qcow2, &[super::parent(&disk)])?;
            Ok::<_, Error>((newest_file(&disk, Format::Qcow2)?, reached))
        };
        let (newest, reached) = installed.await.inspect_err(|_| {
            // What cannot be removed now goes with the next installation.
            let _ = fs::remove_file(&disk);
        })?;
        let now = jiff::Timestamp::now().as_second();
        let record = Record { installed: now, newest: newest.min(now), reached };
        cache.add(&record)?;
        Ok(finished(record))
    }

    /// Installs onto a new disk, and tells what the installer reached.
    async fn install(
        &self,
        source: &IsoSource,
        medium: &Medium,
        disk: &Path,
        work: &Workspace,
    ) -> Result<Vec<Host>> {
        let start = Instant::now();
        let accelerator = self.accelerator().await?;
        let name = medium.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.events.phase(format!("Installing from `{name}`"));
        let dir = work.file("install");
        crate::host::private_dir(&dir)?;
        let server = match source.serves() {
            true => Some(Server::start(self.events).await?),
            false => None,
        };
        let variables = Variables {
            hostname: self.spec.seal.hostname.clone(),
            server: server.as_ref().map(|server| (HOST.to_owned(), server.port())),
        };
        let media =
            media::prepare(source, medium, &variables, server.as_ref(), &dir, self.cancel).await?;
        new_disk(disk, source.disk_size)?;
        let run = Installation {
            build: self,
            source,
            disk,
            server: server.as_ref(),
            end: start + source.timeout,
            accelerator,
            work,
        };
        let reached = run.all(media, &variables).await?;
        let used = outputs::allocated(&*outputs::open(disk, Format::Qcow2)?.reader)?;
        if let Some(server) = &server {
            for name in server.ignored().0 {
                self.events.warn(format!("the installer never asked for the answer file `{name}`"));
            }
        }
        self.events.done(format!("installed, {} MiB on the disk", used >> 20), start.elapsed());
        Ok(reached)
    }
}

/// An installation that runs.
struct Installation<'a> {
    build: &'a Build<'a>,
    source: &'a IsoSource,
    disk: &'a Path,
    server: Option<&'a Server>,
    end: Instant,
    accelerator: Accelerator,
    work: &'a Workspace,
}

impl Installation<'_> {
    /// All starts, until the end that the spec names; what was reached in them.
    async fn all(&self, media: Media, variables: &Variables) -> Result<Vec<Host>> {
        let typed = match &self.source.boot {
            Boot::Command { wait, command } => Some((*wait, actions(command, variables)?)),
            Boot::Cd | Boot::Kernel { .. } => None,
        };
        let mut first = Some(media);
        let mut reboots = 0;
        let mut reached = vec![];
        loop {
            let media = first.take();
            let labels = media.as_ref().map(|media| media.labels.clone()).unwrap_or_default();
            let is_first = media.is_some();
            let mut machine = self.start(media).await?;
            let watch = Watch::begin(&machine, self.work.runtime(), Names::default()).await;
            let watch = match watch {
                Ok(watch) => watch,
                Err(e) => {
                    machine.kill().await?;
                    return Err(e);
                }
            };
            if let Some(port) = machine.vnc_port().await.ok().flatten() {
                self.build.events.note(format!("the screen is on 127.0.0.1:{port} (VNC)"));
            }
            let watched = Watched {
                limits: Limits {
                    start: is_first.then_some(self.source.start_timeout),
                    end: self.end,
                    whole: self.source.timeout,
                },
                server: self.server,
                labels: &labels,
                events: self.build.events,
                cancel: self.build.cancel,
            };
            let typed = typed.as_ref().filter(|_| is_first);
            let typed = typed.map(|(wait, actions)| (*wait, &**actions));
            let ending = match watched.until_end(&mut machine, typed).await {
                Ok(ending) => ending,
                Err(e) => {
                    machine.kill().await?;
                    return Err(e);
                }
            };
            if is_first && self.is_empty()? {
                return Err(self.nothing_written(ending, &machine).await);
            }
            let answers = self.server.map(Server::port);
            reached.extend(self.build.installer_reached(&watch, answers).await?);
            match (ending, self.source.end) {
                (Ending::PoweredOff, _) | (Ending::Rebooted, End::Reboot) => {
                    reached.sort();
                    reached.dedup();
                    return Ok(reached);
                }
                (Ending::Rebooted, End::PowerOff) if reboots < self.source.reboots => {
                    reboots += 1;
                    // The next start has a log of its own.
                    let kept = self.work.machine("install").join(format!("serial-{reboots}.log"));
                    fs::copy(machine.serial_log(), kept)?;
                    self.build.events.note(format!(
                        "the guest reboots, and starts from its disk without the CDs ({} of {})",
                        reboots, self.source.reboots
                    ));
                }
                (Ending::Rebooted, End::PowerOff) => {
                    return Err(self.rebooted_too_often(reboots, &machine).await);
                }
            }
        }
    }

    /// Starts the machine: with the media, or from its disk alone.
    async fn start(&self, media: Option<Media>) -> Result<Machine> {
        let Build { spec, events, cancel, options, .. } = *self.build;
        let (mut installer, kernel) = match media {
            Some(media) => (media.installer, media.kernel),
            None => Default::default(),
        };
        installer.vnc = options.vnc;
        let config = Config {
            name: format!("{}-install", spec.name),
            uuid: crate::host::new_uuid()?,
            arch: hardware::arch(spec.arch),
            cpus: spec.machine.cpus,
            memory: spec.machine.memory,
            firmware: hardware::firmware(spec.machine.firmware),
            tpm: false,
            accelerator: self.accelerator,
            disks: vec![Disk {
                path: self.disk.to_owned(),
                format: DiskFormat::Qcow2,
                read_only: false,
                below: None,
                serial: "devbox-disk".to_owned(),
            }],
            data: vec![],
            seed: None,
            kernel,
            installer: Some(installer),
            network: Network::User { forwards: vec![], restrict: false },
            rtc: None,
            lifetime: Lifetime::WithParent,
            agent: false,
            spare_slots: 0,
            card: None,
            folders: vec![],
            owner: None,
            memory_file: None,
            incoming: None,
        };
        let dir = self.work.machine("install");
        Machine::launch(config, &dir, self.work.runtime(), events, cancel).await
    }

    /// Whether nobody has written to the disk.
    fn is_empty(&self) -> Result<bool> {
        Ok(outputs::open(self.disk, Format::Qcow2)?.reader.next_data(0)?.is_none())
    }

    async fn nothing_written(&self, ending: Ending, machine: &Machine) -> Error {
        let what = match ending {
            Ending::PoweredOff => {
                "the guest powered itself off and had written nothing to its disk"
            }
            Ending::Rebooted => "the guest rebooted and had written nothing to its disk",
        };
        let mut error = Error::failed(what);
        if let Some(server) = self.server {
            error = watch::never_asked(error, server);
        }
        machine.evidence(error).await.hint(
            "Read the end of the serial log: the installer stopped early, or is not meant for this hardware (the disk is virtio).",
        )
    }

    async fn rebooted_too_often(&self, reboots: u32, machine: &Machine) -> Error {
        let error = Error::failed(format!(
            "the guest rebooted {} times and did not power itself off: a reboot loop",
            reboots + 1
        ));
        machine.evidence(error).await.hint(
            "Let the installer power the guest off, or write `end = \"reboot\"` where its first reboot is the end; `reboots` allows more of them.",
        )
    }
}

/// What a command with its variables replaced asks for; it was checked with the spec.
fn actions(command: &str, variables: &Variables) -> Result<Vec<Action>> {
    boot_command::parse(&variables.replace(command).0).map_err(|faults| {
        let told: Vec<String> =
            faults.iter().map(|f| format!("{}, at character {}", f.what, f.at)).collect();
        Error::usage("the boot command cannot be typed").cause(told.join("; "))
    })
}

/// An empty disk.
fn new_disk(path: &Path, size: u64) -> Result<()> {
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["create", "-q", "-f", "qcow2"]).arg(path).arg(size.to_string());
    exec::output(&mut command)?;
    Ok(())
}
