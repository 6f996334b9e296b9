//! `devbox up`.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::build::{self, Options};
use crate::cli::{Context, machine as shared};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::exec::sandbox::Policy;
use crate::machine::config::{
    Accelerator, Config, Disk, DiskFormat, Firmware, Forward, Lifetime, Network, Protocol,
};
use crate::machine::instance::{BaseImage, Instance, Ready, Record, State};
use crate::machine::{Machine, accel, ready};
use crate::spec::{self, Spec};
use crate::store::Store;

/// Boot the dev box of this project; builds its box first if it is not there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to wait until the machine is ready; `machine.timeout` of the spec by default
    #[arg(long, value_name = "DURATION", value_parser = shared::duration)]
    timeout: Option<Duration>,
    /// Where a box has to be built, let `qemu-img` read disks with all your rights if this host cannot isolate it.
    #[arg(long)]
    allow_unsandboxed: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let spec = spec::load(None)?;
    ctx.block_on(async |cancel| up(&spec, &args, ctx, &cancel).await)?;
    Ok(crate::error::exit::OK)
}

async fn up(spec: &Spec, args: &Args, ctx: &Context, cancel: &CancellationToken) -> Result<()> {
    let timeout = args.timeout.unwrap_or(spec.machine.timeout);
    let project = shared::project()?;
    let instance = Instance::of_project(&ctx.paths, &spec.name, &project)?;
    if let Some((other, _)) = Instance::existing(&ctx.paths, &project)?
        && other.name() != instance.name()
    {
        return Err(Error::failed(format!(
            "this project has a machine with another name: `{}`",
            other.name()
        ))
        .hint(format!(
            "Remove it with `devbox destroy`, or set `name = \"{}\"` in the spec again.",
            other.name()
        )));
    }
    let _lock = instance.lock("devbox up")?;
    let record = match instance.record()? {
        None => {
            let sandbox = Policy::from_flag(args.allow_unsandboxed);
            create(spec, &instance, sandbox, ctx, cancel).await?
        }
        Some(record) => {
            mention_other_box(spec, &record, ctx);
            match instance.state(&record) {
                State::Running(process) => {
                    let was_ready = record.was_ready(&process);
                    if resume(&instance, &record, was_ready, timeout, ctx, cancel).await? {
                        return Ok(());
                    }
                }
                State::Died => ctx.events.warn(format!(
                    "QEMU of `{}` ended unexpectedly; starting it again",
                    instance.name()
                )),
                State::Stopped => {}
            }
            record
        }
    };
    boot(spec, &instance, record, timeout, ctx, cancel).await
}

/// Makes a machine on the spec's box, which is built first if it is not in the store.
async fn create(
    spec: &Spec,
    instance: &Instance,
    sandbox: Policy,
    ctx: &Context,
    cancel: &CancellationToken,
) -> Result<Record> {
    let store = Store::open(&ctx.paths.store)?;
    if store.find(&spec.name, &spec.version)?.is_none() {
        ctx.events.note(format!(
            "the box {}:{} is not in the store; building it first",
            spec.name, spec.version
        ));
        let options = Options { outputs: false, sandbox, ..Options::default() };
        build::run(spec, &ctx.paths, &options, &ctx.events, cancel).await?;
    }
    // Nothing is removed from the store between finding the box and recording that it is used.
    let _hold = store.hold()?;
    let Some(found) = store.find(&spec.name, &spec.version)? else {
        return Err(Error::failed(format!(
            "the box `{}:{}` was removed from the store again",
            spec.name, spec.version
        ))
        .hint("Run `devbox up` again."));
    };
    let base = BaseImage {
        reference: found.config().reference(),
        manifest: found.manifest_digest().to_string(),
        disk: std::path::absolute(found.disk_path())?,
        size: found.disk_size(),
    };
    ctx.events.phase(format!("Making `{}` from {}", instance.name(), base.reference));
    instance.create(base, spec.machine.disk, &spec.machine.user)
}

/// Says when the spec names another box than the machine runs on.
fn mention_other_box(spec: &Spec, record: &Record, ctx: &Context) {
    let wanted = format!("{}:{}", spec.name, spec.version);
    let stored = || {
        let found = Store::open(&ctx.paths.store).ok()?.find(&spec.name, &spec.version).ok()??;
        Some(found.manifest_digest().to_string())
    };
    let why = if record.base.reference != wanted {
        format!("`{}` runs on {}, and the spec is {wanted}", record.name, record.base.reference)
    } else if stored().is_some_and(|manifest| manifest != record.base.manifest) {
        format!("`{}` runs on an older build of {wanted}", record.name)
    } else {
        return;
    };
    ctx.events.warn(format!(
        "{why}; to change over, run `devbox destroy` (its disk is lost), then `devbox up`"
    ));
}

/// A machine that runs already: nothing to do if it was ready, else its wait goes on. False if its
/// guest was never started, because the devbox that started it died: then QEMU is ended.
async fn resume(
    instance: &Instance,
    record: &Record,
    was_ready: bool,
    timeout: Duration,
    ctx: &Context,
    cancel: &CancellationToken,
) -> Result<bool> {
    let name = instance.name();
    if was_ready {
        ctx.events.note(format!("`{name}` runs already"));
        return Ok(true);
    }
    let files = instance.files();
    let attached =
        Machine::attach(name, &record.uuid, files.dir(), files.runtime(), &ctx.events).await?;
    let Some(mut machine) = attached else { return Ok(false) };
    if !machine.guest_started().await? {
        machine.kill().await?;
        return Ok(false);
    }
    ctx.events.phase(format!("Waiting for `{name}`, which was started before"));
    wait(instance, &mut machine, record.clone(), timeout, ctx, cancel).await?;
    Ok(true)
}

/// Starts the machine and waits until it is ready.
async fn boot(
    spec: &Spec,
    instance: &Instance,
    mut record: Record,
    timeout: Duration,
    ctx: &Context,
    cancel: &CancellationToken,
) -> Result<()> {
    if !record.base.disk.exists() {
        return Err(Error::failed(format!(
            "the image of `{}` is gone: `{}`",
            record.name,
            record.base.disk.display()
        ))
        .hint(
            "The machine's disk is useless without it: run `devbox destroy`, then `devbox up`.",
        ));
    }
    ctx.events.phase(format!("Booting `{}`", instance.name()));
    let choice = accel::choose(&ctx.paths.cache).await?;
    ctx.events.note(&choice.reason);
    let config = config(spec, instance, &record, choice.accelerator);
    let (dir, runtime) = (instance.files().dir(), instance.files().runtime());
    let mut machine = Machine::launch(config, dir, runtime, &ctx.events, cancel).await?;
    record.forwards = machine.forwards().to_vec();
    record.ready = None;
    instance.save(&record)?;
    crash::point("up.started");
    for forward in machine.forwards() {
        let (protocol, guest) = (forward.protocol.as_str(), forward.guest);
        ctx.events
            .note(format!("{}:{} leads to {protocol} port {guest}", forward.host_ip, forward.host));
    }
    wait(instance, &mut machine, record, timeout, ctx, cancel).await
}

/// Waits until the guest is ready, and records that this process was seen ready. After Ctrl-C the
/// machine is switched off; after a timeout it stays, since the cause is inside.
async fn wait(
    instance: &Instance,
    machine: &mut Machine,
    mut record: Record,
    timeout: Duration,
    ctx: &Context,
    cancel: &CancellationToken,
) -> Result<()> {
    let start = Instant::now();
    let client = instance.client(&record)?;
    let mut probes = ready::ssh_probes(&client);
    probes.push(ready::cloud_init_probe(&client));
    match machine.wait_ready(&probes, timeout, cancel).await {
        Ok(()) => {}
        Err(e) if e.kind() == Kind::Interrupted => {
            let stopped = machine.switch_off().await?;
            return Err(e.detail(format!("`{}` {stopped}", instance.name())));
        }
        Err(e) if machine.process().alive() => {
            return Err(e.hint(format!(
                "`{}` runs still: wait longer with `devbox up`, or stop it with `devbox halt -f`.",
                instance.name()
            )));
        }
        Err(e) => return Err(e),
    }
    record.ready = Some(Ready::from(machine.process()));
    instance.save(&record)?;
    ctx.events
        .done(format!("`{}` is ready; log in with `devbox ssh`", instance.name()), start.elapsed());
    Ok(())
}

fn config(spec: &Spec, instance: &Instance, record: &Record, accelerator: Accelerator) -> Config {
    let forwards: Vec<Forward> = spec
        .machine
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
        cpus: spec.machine.cpus,
        memory: spec.machine.memory,
        firmware: match spec.machine.firmware {
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
