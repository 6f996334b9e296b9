//! Machines come up: the box is built once, then each machine is made, booted and waited for, at the
//! same time as the others, and after those that it depends on.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::OnceCell;

use crate::build;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::sandbox::Policy;
use crate::machine::config::{
    Accelerator, Config, Disk, DiskFormat, Firmware, Forward, Lifetime, Network, Protocol,
};
use crate::machine::instance::{BaseImage, Instance, Ready, Record, State};
use crate::machine::lock::Lock;
use crate::machine::{Machine, accel, ready};
use crate::project::order::{self, End, Node};
use crate::project::select::list;
use crate::project::stop::stop;
use crate::project::{Project, Run};
use crate::spec::{self, Spec};
use crate::store::Store;

/// What a caller may choose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long to wait for each machine; `machine.timeout` of the spec if absent.
    pub timeout: Option<Duration>,
    /// Whether `qemu-img` may read disks where this host cannot isolate it.
    pub sandbox: Policy,
}

/// Brings up the machines of `spec` that `names` names, and those that they depend on. What runs
/// already stays as it is.
///
/// # Errors
/// The box could not be built, or a machine did not come up: then those that depend on it are not
/// started, and the others come up. After Ctrl-C (kind `Interrupted`) nothing that was started here runs.
pub async fn up(
    project: &Project,
    spec: &Spec,
    names: &[&str],
    options: &Options,
    run: Run<'_>,
) -> Result<()> {
    let mut nodes = vec![];
    for machine in with_dependencies(spec, names) {
        let instance = Instance::of_project(run.paths, &machine.name, project.dir())?;
        // Locked before the build, so that a second `up` is told at once who is at work.
        let lock = instance.lock("devbox up");
        nodes.push((machine, instance, lock));
    }
    let several = nodes.len() > 1;
    let missing = |(_, instance, lock): &(_, Instance, Result<Lock>)| {
        lock.is_ok() && matches!(instance.record(), Ok(None))
    };
    if nodes.iter().any(missing) {
        build_missing(spec, options, run).await?;
    }
    if several {
        let names: Vec<&str> = nodes.iter().map(|(machine, ..)| machine.name.as_str()).collect();
        run.events.phase(format!("Starting {}", list(&names)));
    }
    let one_of_many = spec.machines.len() > 1;
    let accel = OnceCell::new();
    let nodes: Vec<Node<_>> = nodes
        .into_iter()
        .map(|(machine, instance, lock)| {
            let events = if several { run.events.part(&machine.name) } else { run.events.clone() };
            let start =
                Start { spec, machine, instance, options, one_of_many, run, events, accel: &accel };
            Node {
                name: machine.name.clone(),
                after: machine.depends_on.clone(),
                item: (start, lock),
            }
        })
        .collect();
    let all: Vec<Instance> = nodes.iter().map(|node| node.item.0.instance.clone()).collect();
    let ends = order::run(nodes, async |_, (start, lock): (Start<'_>, Result<Lock>)| {
        let _lock = lock?;
        let came = start.up().await;
        if let Err(e) = &came
            && several
            && e.kind() != Kind::Interrupted
        {
            start.events.warn(format!("did not come up: {}", e.what()));
        }
        came
    })
    .await;
    if run.cancel.is_cancelled() {
        let started =
            all.iter().zip(&ends).filter(|(_, (_, end))| matches!(end, End::Done(Came::Started)));
        let off = join_all(started.map(|(instance, _)| switch_off_again(instance, run))).await;
        off.into_iter().collect::<Result<()>>()?;
    }
    order::together(ends, "not up").map(|_| ())
}

/// The machines of these names and all that they need, in the order of the spec.
fn with_dependencies<'a>(spec: &'a Spec, names: &[&str]) -> Vec<&'a spec::Machine> {
    let mut wanted: Vec<&str> = names.to_vec();
    let mut next = 0;
    while let Some(name) = wanted.get(next).copied() {
        next += 1;
        let needs = spec.machines.iter().filter(|machine| machine.name == name);
        for needed in needs.flat_map(|machine| &machine.depends_on) {
            if !wanted.contains(&needed.as_str()) {
                wanted.push(needed);
            }
        }
    }
    spec.machines.iter().filter(|machine| wanted.contains(&machine.name.as_str())).collect()
}

/// Builds the spec's box if it is not in the store.
async fn build_missing(spec: &Spec, options: &Options, run: Run<'_>) -> Result<()> {
    if Store::open(&run.paths.store)?.find(&spec.name, &spec.version)?.is_some() {
        return Ok(());
    }
    let (name, version) = (&spec.name, &spec.version);
    run.events.note(format!("the box {name}:{version} is not in the store; building it first"));
    let options =
        build::Options { outputs: false, sandbox: options.sandbox, ..build::Options::default() };
    build::run(spec, run.paths, &options, run.events, run.cancel).await.map(|_| ())
}

/// After Ctrl-C: a machine that this run had brought up while others were on their way.
async fn switch_off_again(instance: &Instance, run: Run<'_>) -> Result<()> {
    let _lock = instance.lock("devbox up")?;
    if let Some(record) = instance.record()? {
        let stopped = stop(instance, &record, None, run).await?;
        run.events.note(format!("`{}` {stopped}", instance.name()));
    }
    Ok(())
}

/// How a machine came to be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It ran before.
    Ran,
    /// It was started here.
    Started,
}

/// One machine on its way up; its lock is held.
struct Start<'a> {
    spec: &'a Spec,
    machine: &'a spec::Machine,
    instance: Instance,
    options: &'a Options,
    /// Whether the spec has other machines, so that commands have to name this one.
    one_of_many: bool,
    run: Run<'a>,
    /// The run's events, with the machine's name where several come up.
    events: Events,
    /// What this host runs guests by: found once, when the first machine needs it.
    accel: &'a OnceCell<Accelerator>,
}

impl Start<'_> {
    async fn up(&self) -> Result<Came> {
        if self.run.cancel.is_cancelled() {
            return Err(Error::interrupted(format!("`{}` was not started", self.machine.name)));
        }
        let record = match self.instance.record()? {
            None => self.create()?,
            Some(record) => {
                self.mention_other_box(&record);
                match self.instance.state(&record) {
                    State::Running(process) => {
                        if self.resume(&record, record.was_ready(&process)).await? {
                            return Ok(Came::Ran);
                        }
                    }
                    State::Died => self.events.warn(format!(
                        "QEMU of `{}` ended unexpectedly; starting it again",
                        self.instance.name()
                    )),
                    State::Stopped => {}
                }
                record
            }
        };
        self.boot(record).await?;
        Ok(Came::Started)
    }

    /// Makes a machine on the spec's box.
    fn create(&self) -> Result<Record> {
        let (name, version) = (&self.spec.name, &self.spec.version);
        let store = Store::open(&self.run.paths.store)?;
        // Nothing is removed from the store between finding the box and recording that it is used.
        let _hold = store.hold()?;
        let Some(found) = store.find(name, version)? else {
            return Err(Error::failed(format!(
                "the box `{name}:{version}` was removed from the store again"
            ))
            .hint("Run `devbox up` again."));
        };
        let base = BaseImage {
            reference: found.config().reference(),
            manifest: found.manifest_digest().to_string(),
            disk: std::path::absolute(found.disk_path())?,
            size: found.disk_size(),
        };
        self.events.phase(format!("Making `{}` from {}", self.instance.name(), base.reference));
        self.instance.create(base, self.machine.disk, &self.machine.user)
    }

    /// Says when the spec names another box than the machine runs on.
    fn mention_other_box(&self, record: &Record) {
        let wanted = format!("{}:{}", self.spec.name, self.spec.version);
        let stored = || {
            let store = Store::open(&self.run.paths.store).ok()?;
            let found = store.find(&self.spec.name, &self.spec.version).ok()??;
            Some(found.manifest_digest().to_string())
        };
        let why = if record.base.reference != wanted {
            format!("`{}` runs on {}, and the spec is {wanted}", record.name, record.base.reference)
        } else if stored().is_some_and(|manifest| manifest != record.base.manifest) {
            format!("`{}` runs on an older build of {wanted}", record.name)
        } else {
            return;
        };
        self.events.warn(format!(
            "{why}; to change over, run `{}` (its disk is lost), then `devbox up`",
            self.command("destroy")
        ));
    }

    /// A command about this machine, as a person has to type it.
    fn command(&self, verb: &str) -> String {
        if self.one_of_many {
            format!("devbox {verb} {}", self.machine.name)
        } else {
            format!("devbox {verb}")
        }
    }

    /// A machine that runs already: nothing to do if it was ready, else its wait goes on. False if its
    /// guest was never started, because the devbox that started it died: then QEMU is ended.
    async fn resume(&self, record: &Record, was_ready: bool) -> Result<bool> {
        let name = self.instance.name();
        if was_ready {
            self.events.note(format!("`{name}` runs already"));
            return Ok(true);
        }
        let files = self.instance.files();
        let attached =
            Machine::attach(name, &record.uuid, files.dir(), files.runtime(), &self.events).await?;
        let Some(mut machine) = attached else { return Ok(false) };
        if !machine.guest_started().await? {
            machine.kill().await?;
            return Ok(false);
        }
        self.events.phase(format!("Waiting for `{name}`, which was started before"));
        self.wait(&mut machine, record.clone()).await?;
        Ok(true)
    }

    /// Starts the machine and waits until it is ready.
    async fn boot(&self, mut record: Record) -> Result<()> {
        if !record.base.disk.exists() {
            return Err(Error::failed(format!(
                "the image of `{}` is gone: `{}`",
                record.name,
                record.base.disk.display()
            ))
            .hint(format!(
                "The machine's disk is useless without it: run `{}`, then `devbox up`.",
                self.command("destroy")
            )));
        }
        self.events.phase(format!("Booting `{}`", self.instance.name()));
        let choose = async || {
            let choice = accel::choose(&self.run.paths.cache).await?;
            self.run.events.note(&choice.reason);
            Ok::<_, Error>(choice.accelerator)
        };
        let accelerator = *self.accel.get_or_try_init(choose).await?;
        let config = config(self.machine, &self.instance, &record, accelerator);
        let (dir, runtime) = (self.instance.files().dir(), self.instance.files().runtime());
        let mut machine =
            Machine::launch(config, dir, runtime, &self.events, self.run.cancel).await?;
        record.forwards = machine.forwards().to_vec();
        record.ready = None;
        self.instance.save(&record)?;
        crash::point("up.started");
        for forward in machine.forwards() {
            let (protocol, guest) = (forward.protocol.as_str(), forward.guest);
            self.events.note(format!(
                "{}:{} leads to {protocol} port {guest}",
                forward.host_ip, forward.host
            ));
        }
        self.wait(&mut machine, record).await
    }

    /// Waits until the guest is ready, and records that this process was seen ready. After Ctrl-C the
    /// machine is switched off; after a timeout it stays, since the cause is inside.
    async fn wait(&self, machine: &mut Machine, mut record: Record) -> Result<()> {
        let (start, name) = (Instant::now(), self.instance.name());
        let timeout = self.options.timeout.unwrap_or(self.machine.timeout);
        let client = self.instance.client(&record)?;
        let mut probes = ready::ssh_probes(&client);
        probes.push(ready::cloud_init_probe(&client));
        match machine.wait_ready(&probes, timeout, self.run.cancel).await {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Interrupted => {
                let stopped = machine.switch_off().await?;
                return Err(e.detail(format!("`{name}` {stopped}")));
            }
            Err(e) if machine.process().alive() => {
                return Err(e.hint(format!(
                    "`{name}` runs still: wait longer with `{}`, or stop it with `{}`.",
                    self.command("up"),
                    self.command("halt -f")
                )));
            }
            Err(e) => return Err(e),
        }
        record.ready = Some(Ready::from(machine.process()));
        self.instance.save(&record)?;
        let ready = format!("`{name}` is ready; log in with `{}`", self.command("ssh"));
        self.events.done(ready, start.elapsed());
        Ok(())
    }
}

fn config(
    machine: &spec::Machine,
    instance: &Instance,
    record: &Record,
    accelerator: Accelerator,
) -> Config {
    let forwards: Vec<Forward> = machine
        .ports
        .iter()
        .map(|port| Forward {
            guest: port.guest,
            host: port.host,
            host_ip: port.host_ip,
            protocol: match port.protocol {
                spec::Protocol::Tcp => Protocol::Tcp,
                spec::Protocol::Udp => Protocol::Udp,
            },
            auto_correct: port.auto_correct,
        })
        .collect();
    Config {
        name: record.name.clone(),
        uuid: record.uuid.clone(),
        cpus: machine.cpus,
        memory: machine.memory,
        firmware: match machine.firmware {
            spec::Firmware::Bios => Firmware::Bios,
            spec::Firmware::Uefi => Firmware::Uefi,
        },
        accelerator,
        disks: vec![Disk {
            path: instance.files().overlay(),
            format: DiskFormat::Qcow2,
            read_only: false,
            serial: "root".to_owned(),
        }],
        seed: Some(instance.files().seed()),
        kernel: None,
        network: Network::User { forwards: record.wishes(&forwards), restrict: false },
        rtc: None,
        lifetime: Lifetime::Detached,
        agent: true,
    }
}
