//! One machine on its way up.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::build::hardware as words;
use crate::crash;
use crate::delta;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::guest::agent::Agent;
use crate::guest::identity::{self, Access, Identity};
use crate::guest::keys::KeyPair;
use crate::guest::network::configure;
use crate::guest::ssh::Client;
use crate::helper;
use crate::host;
use crate::machine::config::{Accelerator, Incoming, MemoryFile};
use crate::machine::history::Held;
use crate::machine::instance::{Instance, State};
use crate::machine::ready::Probe;
use crate::machine::record::{BaseImage, Login, Ready, Record, Shape};
use crate::machine::template::{Template, Templates};
use crate::machine::{Machine, Unrestored, accel, ready};
use crate::project::arriving::{self, Lazy};
use crate::project::bundle::{self, About};
use crate::project::hooks::hooks;
use crate::project::host_settings::hand_over;
use crate::project::network::{self, Plan};
use crate::project::provision::provision;
use crate::project::suspend::{self, Woken};
use crate::project::up::{Options, Wait};
use crate::project::warm::{self, Wanted, Way};
use crate::project::{Run, boxes, disks, folders, hardware, reconcile, rollback, sync};
use crate::spec::{self, Spec};
use crate::store::{BoxRef, Store};

/// Until the agent of a restored guest answers: half a second under emulation.
const AGENT_WAIT: Duration = Duration::from_secs(30);

/// How a machine came to be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It ran before.
    Ran,
    /// It was started here.
    Started,
}

/// Where the guest comes from that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Its firmware was started here.
    Firmware,
    /// It was restored from a template here.
    Template,
    /// It was there: a devbox that is gone had started it, one way or the other.
    Found,
}

/// One machine on its way up; its lock is held.
pub(super) struct Start<'a> {
    pub(super) spec: &'a Spec,
    pub(super) machine: &'a spec::Machine,
    pub(super) instance: Instance,
    pub(super) options: &'a Options,
    /// Whether the spec has other machines, so that commands have to name this one.
    pub(super) one_of_many: bool,
    /// Whether the machine is removed again if it does not come up.
    pub(super) passing: bool,
    /// The private network that it is on, if it is on one.
    pub(super) network: Option<&'a Plan>,
    /// The box, where it is to be read while it arrives.
    pub(super) lazy: Option<&'a Lazy>,
    pub(super) run: Run<'a>,
    /// The run's events, with the machine's name where several come up.
    pub(super) events: Events,
    /// What this host runs guests by: found once, when the first machine needs it.
    pub(super) accel: &'a OnceCell<Accelerator>,
    /// The spec's box: found, pulled or built once, when the first machine needs it.
    pub(super) image: &'a OnceCell<BoxRef>,
}

impl Start<'_> {
    /// Brings it up, with what the spec wants before and after.
    pub(super) async fn up(&self) -> Result<Came> {
        hooks("before-up", &self.instance, self.run, &self.events).await?;
        let came = self.come().await?;
        hooks("after-up", &self.instance, self.run, &self.events).await?;
        Ok(came)
    }

    async fn come(&self) -> Result<Came> {
        if self.run.cancel.is_cancelled() {
            return Err(Error::interrupted(format!("`{}` was not started", self.machine.name)));
        }
        let record = match self.instance.record()? {
            Some(record) if record.unfinished => {
                self.discard(&record).await?;
                None
            }
            other => other,
        };
        let record = match record {
            Some(record) if self.goes_forward(&record).await? => None,
            other => other,
        };
        let Some(record) = record else {
            self.first_start().await?;
            return Ok(Came::Started);
        };
        let record =
            match suspend::wake(&self.instance, record.clone(), self.run, &self.events).await? {
                Woken::Yes => self.instance.record()?.unwrap_or(record),
                Woken::WasAwake | Woken::Off => record,
            };
        self.mention_other_box(&record);
        match self.instance.state(&record) {
            State::Running(process) => {
                self.mention_other_shape(&record);
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
        self.boot(record).await?;
        Ok(Came::Started)
    }

    /// Where that is asked for: lets the machine follow the spec again, and throws its own disk away if it runs on another
    /// box. True if it did.
    async fn goes_forward(&self, record: &Record) -> Result<bool> {
        if !self.options.forward {
            return Ok(false);
        }
        self.instance.change_history(|history| history.held.take().is_some())?;
        let image = self.of_spec().await?;
        if image.manifest_digest().to_string() == record.base.manifest {
            return Ok(false);
        }
        let (name, to) = (self.instance.name(), image.config().reference());
        let from = &record.base.reference;
        self.events.phase(format!("Changing `{name}` over from {from} to {to}"));
        rollback::clear(&self.instance, record, self.run).await?;
        for disk in record.disks.iter().filter(|disk| disk.path.exists()) {
            self.events.note(format!("its disk `{}` stays", disk.name));
        }
        Ok(true)
    }

    /// What a crash left of a machine that was being restored from a template: nobody has used it.
    async fn discard(&self, record: &Record) -> Result<()> {
        if let State::Running(process) = self.instance.state(record) {
            process.kill().await?;
        }
        self.instance.files().remove_run_files();
        self.instance.clear()
    }

    /// Makes a machine on the spec's box and starts it: from a template, or from its firmware where that
    /// cannot be, which is said.
    async fn first_start(&self) -> Result<()> {
        let base = self.base().await?;
        let disk = self.disk(&base)?;
        let arrives = self.arrives(&base);
        if !arrives && hardware::login(self.machine) == Login::Agent && !warm::agent_in(&base)? {
            let name = self.instance.name();
            return Err(Error::failed(format!("the image of `{name}` has no guest agent"))
                .cause("`login = \"agent\"` is the only way into the machine then")
                .hint("Install `qemu-guest-agent` in a step and build the box anew, or set `login = \"ssh\"`."));
        }
        let accelerator = self.accelerator().await?;
        let way = if self.options.cold || arrives {
            // A template is of a whole box.
            None
        } else if let Some(why) = folders::no_template(self.spec, &self.machine.name) {
            self.events.note(format!("{why}; booting"));
            None
        } else {
            let shape = hardware::shape(self.machine, accelerator);
            let timeout = self.timeout();
            let wanted = Wanted { base: &base, disk, shape, user: &self.machine.user, timeout };
            Some((wanted.key()?, wanted.way(self.run, &self.events).await?))
        };
        match way {
            Some((key, Way::Warm(template))) => {
                match self.restore(&template, base.clone(), disk).await {
                    Err(Unrestored::Refused(e)) => {
                        self.events.warn(format!(
                            "the template of {} is not used: {}; booting instead",
                            base.reference,
                            warm::reason(&e)
                        ));
                        Templates::new(&self.run.paths.templates).discard(&key)?;
                    }
                    Err(Unrestored::Failed(e)) => {
                        // Nobody has used it: nothing of it stays.
                        if self.instance.record()?.is_some_and(|record| record.unfinished) {
                            self.instance.clear()?;
                        }
                        return Err(e);
                    }
                    Ok(()) => return Ok(()),
                }
            }
            Some((_, Way::Cold(why))) => self.events.note(format!("{why}; booting")),
            None => {}
        }
        let record = self.create(base, disk, None)?;
        self.boot(record).await
    }

    /// Restores a new machine from `template` and gives it its own identity.
    async fn restore(
        &self,
        template: &Template,
        base: BaseImage,
        disk: u64,
    ) -> Result<(), Unrestored> {
        let (start, name) = (Instant::now(), self.instance.name());
        let mut record = self.create(base, disk, Some(template)).map_err(Unrestored::Failed)?;
        record.account = template.ids();
        self.events
            .phase(format!("Starting `{name}` from the template of {}", template.reference()));
        let mut machine = self.launch(&mut record, Some(template)).await?;
        crash::point("up.restored");
        let identified = tokio::select! {
            given = self.identify(&machine, template.home(), &mut record) => given,
            () = machine.process().ended() => Err(Error::failed("QEMU ended")),
            () = self.run.cancel.cancelled() => {
                Err(Error::interrupted(format!("interrupted while `{name}` started")))
            }
        };
        if let Err(e) = identified {
            machine.kill().await.map_err(Unrestored::Failed)?;
            return Err(match e.kind() {
                Kind::Interrupted => Unrestored::Failed(e),
                _ => Unrestored::Refused(e),
            });
        }
        crash::point("up.identified");
        record.unfinished = false;
        self.instance.save(&record).map_err(Unrestored::Failed)?;
        self.events.done(format!("`{name}` goes on from the template, as itself"), start.elapsed());
        self.wait(&mut machine, record, Origin::Template).await.map_err(Unrestored::Failed)
    }

    /// Replaces what the guest has of its template, and puts it on the private network.
    /// `home` is that of the account that is logged in to, where that is how it is entered.
    async fn identify(&self, machine: &Machine, home: &str, record: &mut Record) -> Result<()> {
        // First the card: the guest finds it while it does the rest.
        let plugged = match self.network {
            Some(plan) => network::plug(plan, machine, &self.instance, record, self.run).await,
            None => Ok(()),
        };
        let (user_key, host_key) = match record.login {
            Login::Ssh => {
                let (user, host) =
                    Client::keys(&self.instance.files().ssh_dir(), self.instance.name())?;
                (Some(user), host)
            }
            // Nobody has to know it; the other machines of the template do not have it.
            Login::Agent => (None, KeyPair::generate(self.instance.name())?),
        };
        let mut agent = Agent::connect(&machine.files().agent_socket(), AGENT_WAIT).await?;
        let access = user_key.as_ref().map(|key| Access { home, authorized_key: key.public() });
        let identity = Identity { hostname: self.instance.name(), host_key: &host_key, access };
        identity::give(&mut agent, &identity).await?;
        if let Some(script) = self.network.and_then(|plan| plan.script(&self.instance)) {
            let joined = match plugged {
                Ok(()) => configure(&mut agent, &script).await,
                Err(e) => Err(e),
            };
            network::said(joined, self.instance.name(), &self.events)?;
        }
        identity::sync(&mut agent).await
    }

    /// Replaces what cloud-init leaves of the machine that this one was cloned from. True if it did.
    async fn identify_clone(&self, machine: &Machine, record: &mut Record) -> Result<bool> {
        let Some(original) = record.identity_of.clone() else { return Ok(false) };
        let given = async {
            if record.login == Login::Agent {
                return self.identify(machine, "/", record).await;
            }
            let socket = machine.files().agent_socket();
            let mut agent = Agent::connect(&socket, AGENT_WAIT).await?;
            let account = identity::prepare(&mut agent, &record.user).await?;
            drop(agent);
            self.identify(machine, &account.home, record).await
        };
        if let Err(e) = given.await {
            self.events.warn(format!(
                "`{}` has the machine id of `{original}` still, which the next `devbox up` replaces: {}",
                self.instance.name(),
                warm::reason(&e)
            ));
            return Ok(false);
        }
        record.identity_of = None;
        self.instance.save(record)?;
        Ok(true)
    }

    /// The spec's box.
    async fn of_spec(&self) -> Result<BoxRef> {
        let ensure = || boxes::ensure(self.spec, self.options, self.run);
        self.image.get_or_try_init(ensure).await.cloned()
    }

    /// The spec's box, if it is to be read while it arrives, and is not here.
    fn lazily(&self) -> Result<Option<&Lazy>> {
        let Some(lazy) = self.lazy else { return Ok(None) };
        let (name, version) = (&self.spec.name, &self.spec.version);
        let here = Store::open(&self.run.paths.store)?.find(name, version)?.is_some();
        Ok((!here).then_some(lazy))
    }

    /// The sealed image that a new machine runs on: the one that it is held on, or the spec's.
    async fn base(&self) -> Result<BaseImage> {
        let held = self.instance.history()?.held;
        let held = held.and_then(|held| held.manifest.parse().ok());
        let found = match held {
            Some(manifest) => {
                let store = Store::open(&self.run.paths.store)?;
                let found = store.get(manifest).map_err(|e| {
                    let forward = format!("{} --forward", self.command("up"));
                    e.context(format!("`{}` is held on a box that is gone", self.instance.name()))
                        .hint(format!("Pull it again, or follow the spec with `{forward}`."))
                })?;
                delta::whole(&store, found, &self.events, self.run.cancel).await?
            }
            None => match self.lazily()? {
                Some(lazy) => return Ok(lazy.base.clone()),
                None => self.of_spec().await?,
            },
        };
        Ok(BaseImage {
            reference: found.config().reference(),
            manifest: found.manifest_digest().to_string(),
            disk: std::path::absolute(found.disk_path())?,
            size: found.disk_size(),
        })
    }

    /// Whether this image is not here yet.
    fn arrives(&self, base: &BaseImage) -> bool {
        self.lazy.is_some_and(|lazy| lazy.base == *base) && !base.disk.exists()
    }

    /// Bytes of the machine's disk.
    fn disk(&self, base: &BaseImage) -> Result<u64> {
        match self.machine.disk {
            Some(disk) if disk < base.size => Err(Error::usage(format!(
                "`machine.disk` of `{}` is smaller than its image: {disk} and {} bytes",
                self.instance.name(),
                base.size
            ))
            .hint("Make `machine.disk` larger, or leave it out.")),
            disk => Ok(disk.unwrap_or(base.size)),
        }
    }

    fn timeout(&self) -> Duration {
        self.options.timeout.unwrap_or(self.machine.timeout)
    }

    /// Makes a machine on `base`.
    fn create(&self, base: BaseImage, disk: u64, template: Option<&Template>) -> Result<Record> {
        // Nothing is removed from the store between looking for the box and recording that it is used.
        let _hold = Store::open(&self.run.paths.store)?.hold()?;
        if !base.disk.exists() && !self.arrives(&base) {
            let what = format!("the box `{}` was removed from the store again", base.reference);
            return Err(Error::failed(what).hint("Run `devbox up` again."));
        }
        self.events.phase(format!("Making `{}` from {}", self.instance.name(), base.reference));
        let login = hardware::login(self.machine);
        let arriving = self.lazy.filter(|_| self.arrives(&base)).map(|lazy| lazy.arriving.clone());
        self.instance.create(base, disk, &self.machine.user, login, template, arriving)
    }

    /// Says which box of the spec this machine does not run on, or how it is not entered, and how it would be.
    fn mention_other_box(&self, record: &Record) {
        let other = reconcile::other_box(self.spec, record, self.run.paths);
        let other = match self.instance.history().map(|history| history.held) {
            Err(e) => {
                self.events.warn(e.what());
                other
            }
            Ok(None) => other,
            Ok(Some(held)) => {
                self.mention_held(&held, record, other.is_some());
                None
            }
        };
        for why in other.into_iter().chain(reconcile::other_login(self.machine, record)) {
            self.events.warn(format!(
                "{why}; to change over, run `{}` (its disk is lost), then `devbox up`",
                self.command("destroy")
            ));
        }
    }

    /// Says that a rollback keeps this machine from following the spec; one that the spec has caught up with ends.
    fn mention_held(&self, held: &Held, record: &Record, differs: bool) {
        let (name, reference) = (self.instance.name(), &held.reference);
        if held.manifest != record.base.manifest {
            self.events.warn(format!(
                "a rollback of `{name}` to {reference} was interrupted, and it runs on {}; run `{} --to {}` again, or `{} --forward`",
                record.base.reference,
                self.command("rollback"),
                held.manifest,
                self.command("up")
            ));
        } else if differs {
            self.events.note(format!(
                "`{name}` stays on {reference} since it was rolled back; `{} --forward` follows the spec again (its disk is lost)",
                self.command("up")
            ));
        } else if let Err(e) = self.instance.change_history(|history| history.held.take().is_some())
        {
            self.events.warn(e.what());
        }
    }

    /// Says what of the spec's hardware and folders a machine that runs does not have, and how it would.
    fn mention_other_shape(&self, record: &Record) {
        let shape = reconcile::other_shape(self.machine, record);
        for why in shape.into_iter().chain(reconcile::other_folders(self.spec, record)) {
            self.events.warn(format!("{why}; to change over, run `{}`", self.command("reload")));
        }
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
        self.ensure_helper().await;
        // QEMU need not be asked where nothing of it is wanted.
        if was_ready && self.network.is_none() && folders::devices(&record.folders).is_empty() {
            self.events.note(format!("`{name}` runs already"));
            let mut record = record.clone();
            self.folders(None, &mut record).await?;
            self.provision(record).await?;
            return Ok(true);
        }
        let attached = suspend::attached(&self.instance, record, &self.events).await?;
        let Some(mut machine) = attached else { return Ok(false) };
        if was_ready {
            self.events.note(format!("`{name}` runs already"));
            let mut record = record.clone();
            self.join(&machine, &mut record).await?;
            self.folders(Some(&machine), &mut record).await?;
            self.provision(record).await?;
            return Ok(true);
        }
        if !machine.guest_started().await? {
            machine.kill().await?;
            return Ok(false);
        }
        self.events.phase(format!("Waiting for `{name}`, which was started before"));
        self.wait(&mut machine, record.clone(), Origin::Found).await?;
        Ok(true)
    }

    /// Starts the machine and waits until it is ready.
    async fn boot(&self, mut record: Record) -> Result<()> {
        if !record.base.disk.exists() && record.arriving.is_none() {
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
        let launched = self.launch(&mut record, None).await;
        let mut machine = launched.map_err(Unrestored::into_inner)?;
        crash::point("up.started");
        self.wait(&mut machine, record, Origin::Firmware).await
    }

    /// What this host runs guests by; said once, for all machines.
    async fn accelerator(&self) -> Result<Accelerator> {
        let choose = async || {
            let choice =
                accel::choose(&self.run.paths.cache, words::arch(self.machine.arch)).await?;
            self.run.events.note(&choice.reason);
            Ok::<_, Error>(choice.accelerator)
        };
        self.accel.get_or_try_init(choose).await.copied()
    }

    /// Starts QEMU, and records the forwards that it has.
    async fn launch(
        &self,
        record: &mut Record,
        template: Option<&Template>,
    ) -> Result<Machine, Unrestored> {
        let accelerator = self.accelerator().await.map_err(Unrestored::Failed)?;
        record.disks = disks::prepare(self.machine, &self.instance, self.run.paths)
            .map_err(Unrestored::Failed)?;
        arriving::ensure(record, self.run, &self.events).await.map_err(Unrestored::Failed)?;
        let mut config = hardware::config(self.machine, &self.instance, record, accelerator);
        if config.disks.iter().all(|disk| disk.below.is_none()) {
            record.arriving = None;
        }
        if let Some(template) = template {
            let parts = template.parts();
            config.memory_file = Some(MemoryFile { path: parts.memory, written: false });
            config.incoming = Some(Incoming::Template(parts.state));
        } else if self.network.is_some() {
            // A template knows no card: its machines get theirs when they run.
            config.card = Some(network::card(&self.instance, self.run.paths));
        }
        record.folders = folders::of_spec(self.spec, &self.machine.name);
        folders::configure(&mut config, record, &self.events).map_err(Unrestored::Failed)?;
        let shape = Shape::from(&config);
        let (dir, runtime) = (self.instance.files().dir(), self.instance.files().runtime());
        let machine = Machine::restore(config, dir, runtime, &self.events, self.run.cancel).await?;
        record.forwards = machine.forwards().to_vec();
        record.shape = Some(shape);
        record.address = self.network.and_then(|plan| plan.address(&self.machine.name));
        let own = self.options.overrides.iter().filter(|o| o.machine == self.machine.name);
        record.overrides = own.map(ToString::to_string).collect();
        record.ready = None;
        self.instance.save(record).map_err(Unrestored::Failed)?;
        let noted =
            self.instance.change_history(|history| history.started(&record.base, suspend::now()));
        if let Err(e) = noted {
            self.events.warn(format!("{}; a rollback of this start is not possible", e.what()));
        }
        self.ensure_helper().await;
        for forward in machine.forwards() {
            let (protocol, guest) = (forward.protocol.as_str(), forward.guest);
            self.events.note(format!(
                "{}:{} leads to {protocol} port {guest}",
                forward.host_ip, forward.host
            ));
        }
        Ok(machine)
    }

    /// Has somebody switch its frames and keep its clock.
    async fn ensure_helper(&self) {
        helper::ensure(self.run.paths, self.instance.project(), &self.events).await;
    }

    /// Puts a machine that runs on the private network, also one that was on it before: the others may be
    /// new.
    async fn join(&self, machine: &Machine, record: &mut Record) -> Result<()> {
        let (plan, instance) = (self.network, &self.instance);
        network::join(plan, machine, instance, record, self.run, &self.events).await
    }

    /// Waits until the guest is ready, and records that this process was seen ready. After Ctrl-C the
    /// machine is switched off; after a timeout it stays, since the cause is inside.
    async fn wait(&self, machine: &mut Machine, mut record: Record, origin: Origin) -> Result<()> {
        let (start, name) = (Instant::now(), self.instance.name());
        let timeout = self.timeout();
        let client = match record.login {
            Login::Ssh => Some(self.instance.client(&record)?),
            Login::Agent => None,
        };
        let probes = match &client {
            Some(client) => self.probes(client, origin),
            None => self.agent_probes(&machine.files().agent_socket(), origin),
        };
        machine.disk_may_wait(record.arriving.is_some());
        let waited = record.clone();
        let wait = async |machine: &mut Machine, probes: &[Probe]| {
            tokio::select! {
                e = arriving::watch(&waited, self.run, &self.events) => Err(e),
                ended = machine.wait_ready(probes, timeout, self.run.cancel) => ended,
            }
        };
        let mut ended = wait(machine, &probes).await;
        if ended.is_ok()
            && self.identify_clone(machine, &mut record).await?
            && let Some(client) = &client
        {
            // Its ssh server has another key now, and starts anew.
            client.disconnect().await;
            let probes = ready::ssh_probes(client);
            ended = wait(machine, &probes).await;
        }
        match ended {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Interrupted => {
                let stopped = machine.switch_off().await?;
                return Err(e.detail(format!("`{name}` {stopped}")));
            }
            Err(e) if machine.process().alive() && !self.passing => {
                return Err(self.bundled(e, machine.qmp().trace()).hint(format!(
                    "`{name}` runs still: wait longer with `{}`, or stop it with `{}`.",
                    self.command("up"),
                    self.command("halt -f")
                )));
            }
            Err(e) => return Err(self.bundled(e, machine.qmp().trace())),
        }
        if self.options.wait == Wait::Ready {
            record.ready = Some(Ready::from(machine.process()));
            self.instance.save(&record)?;
        }
        let how = match self.options.wait {
            Wait::Boot => "has booted",
            Wait::Ssh if client.is_none() => "runs programs",
            Wait::Ssh => "takes logins",
            Wait::Ready => "is ready",
        };
        let next = match client {
            Some(_) => format!("log in with `{}`", self.command("ssh")),
            None => format!("run programs in it with `{} -- PROGRAM`", self.command("exec")),
        };
        let ready = format!("`{name}` {how}; {next}");
        self.events.done(ready, start.elapsed());
        if origin != Origin::Template {
            self.join(machine, &mut record).await?;
        }
        if self.options.wait != Wait::Ready {
            return Ok(());
        }
        self.folders(Some(machine), &mut record).await?;
        self.provision(record).await
    }

    /// Mounts the data disks, then the folders, which may lie on them; the machine goes on where a folder
    /// fails, since it can be of use without. `machine` may be absent where no folder has a device.
    async fn folders(&self, machine: Option<&Machine>, record: &mut Record) -> Result<()> {
        disks::mount(self.machine, &self.instance, record, self.run, &self.events).await?;
        let mounted = async {
            if let Some(machine) = machine {
                folders::mount(machine, &self.instance, record, self.run, &self.events).await?;
            }
            let copied = sync::copies(self.spec, &self.machine.name);
            if copied.is_empty() {
                return Ok(());
            }
            let client = self.instance.client(record)?;
            sync::copy_all(&client, &copied, self.run.cancel, &self.events).await
        };
        let mounted = mounted.await;
        mounted.map_err(|e| match e.kind() {
            Kind::Interrupted => e,
            _ if self.passing => self.bundled(e, vec![]),
            _ => e.hint(format!(
                "`{}` runs; after a correction, run `{}`.",
                self.machine.name,
                self.command("reload")
            )),
        })
    }

    /// Does what of `[[provision]]` is due; the machine goes on where it fails, since the cause is inside.
    async fn provision(&self, mut record: Record) -> Result<()> {
        let (machine, instance) = (self.machine, &self.instance);
        hand_over(machine, self.network, instance, &mut record, self.run, &self.events).await?;
        let which = &self.options.provision;
        let done =
            provision(self.spec, &self.instance, &mut record, which, self.run, &self.events).await;
        done.map_err(|e| match e.kind() {
            Kind::Interrupted => e,
            _ if self.passing => self.bundled(e, vec![]),
            _ => e.hint(format!(
                "`{}` runs; correct the script, then run `{}` again.",
                self.machine.name,
                self.command("up")
            )),
        })
    }

    /// A failed wait with the file that holds its evidence.
    fn bundled(&self, e: Error, trace: Vec<String>) -> Error {
        let file = match self.passing {
            false => self.instance.files().bundle(),
            true => self.run.paths.bundles.join(format!("{}.tar.gz", self.instance.id())),
        };
        let about = About { failure: Some(&e), trace, spec: Some(self.spec) };
        let parent = file.parent().map_or(Ok(()), host::private_dir);
        match parent.and_then(|()| bundle::write(&self.instance, &about, &file)) {
            Ok(()) => e.detail(format!("all of it in one file, to pass on: {}", file.display())),
            Err(no_bundle) => e.detail(format!("no bundle: {}", no_bundle.what())),
        }
    }

    /// What has to be seen of the guest. One that was restored writes nothing on its console, and its
    /// cloud-init had finished before it was saved.
    fn probes(&self, client: &Client, origin: Origin) -> Vec<Probe> {
        let [banner, login] = ready::ssh_probes(client);
        let mut probes = match origin {
            Origin::Firmware => vec![ready::serial_probe()],
            Origin::Template | Origin::Found => vec![],
        };
        match (self.options.wait, origin) {
            (Wait::Boot, Origin::Template) => {}
            (Wait::Boot, _) => probes.push(banner),
            (Wait::Ssh, _) | (Wait::Ready, Origin::Template) => probes.extend([banner, login]),
            (Wait::Ready, _) => {
                probes.extend([banner, login, ready::cloud_init_probe(client)]);
            }
        }
        probes
    }

    /// The same of a guest that is entered by its agent alone.
    fn agent_probes(&self, socket: &Path, origin: Origin) -> Vec<Probe> {
        let [answers, runs] = ready::entered_by_agent(socket);
        let mut probes = match origin {
            Origin::Firmware => vec![ready::serial_probe()],
            Origin::Template | Origin::Found => vec![],
        };
        probes.push(answers);
        if self.options.wait != Wait::Boot {
            probes.push(runs);
        }
        if self.options.wait == Wait::Ready && origin != Origin::Template {
            probes.push(ready::agent_cloud_init_probe(socket));
        }
        probes
    }
}
