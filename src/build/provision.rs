//! The disk after the steps: from the cache as far as that goes, the rest run in a guest, a layer each.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::task::JoinHandle;

use super::chain::Chain;
use super::guest::{self, Asleep, Guest};
use super::layers::{self, Base, Draft, Layers, Made, Memory, Planned, Reuse, Saved};
use super::mirror::Loan;
use super::on_error::{self, Choice, Failed, OnError};
use super::reached::Roles;
use super::seal::Values;
use super::steps::secrets::Secrets;
use super::workspace::Workspace;
use super::{Build, outputs, seed, steps};
use crate::error::{Error, Kind, Result};
use crate::image::container::Format;
use crate::lock::Host;
use crate::machine::config::Accelerator;
use crate::source::{self, SourceDisk};
use crate::spec::{Login, Source, Step};

/// A disk whose steps are done, and what the seal needs to know of how.
pub(super) struct Provisioned {
    pub(super) chain: Chain,
    pub(super) values: Values,
    /// What the steps reached.
    pub(super) hosts: Vec<Host>,
    /// Held, so that no layer of the chain is removed.
    _layers: Option<Layers>,
    _own: Option<Draft>,
}

impl Build<'_> {
    /// Brings the disk to where `steps` are done; all of the spec's, or the first of them. Without steps nothing has
    /// to boot, and the image is sealed as the source made it.
    pub(super) async fn provision(
        &self,
        source: &SourceDisk,
        steps: &[Step],
        work: &Workspace,
        accelerator: Accelerator,
    ) -> Result<Provisioned> {
        let loans = self.loans().await?;
        let mut values = Values {
            epoch: source.epoch,
            hostname: self.spec.seal.hostname.clone(),
            by_agent: self.spec.machines.iter().any(|machine| machine.login == Login::Agent),
            user: seed::USER.to_owned(),
            keys: vec![],
            forbidden: loans.iter().filter_map(Loan::trace).collect(),
            secrets: vec![],
        };
        if steps.is_empty() {
            let chain = Chain::new(source, vec![]);
            return Ok(Provisioned { chain, values, hosts: vec![], _layers: None, _own: None });
        }
        let secrets = steps::prepare(steps)?;
        values.secrets = secrets.traces().to_vec();
        let layers = Layers::open(self.paths)?;
        let mut plan = layers::plan(self.spec, source)?;
        plan.truncate(steps.len());
        let base = self.base(source)?;
        let (events, cancel) = (self.events, self.cancel);
        let mut start = layers.find(&plan, &base, self.reuse()?, events, cancel).await?;
        let fit = guest::fit(self.spec, accelerator)?;
        let remembers = self.remembers(steps);
        let memory = match remembers {
            true => layers.before_last(&plan, &base, &mut start, &fit, events, cancel).await?,
            false => None,
        };
        let roles = self.roles(&loans);
        self.refuse_other_hosts(&start.reached, None)?;
        for step in &steps[..start.done] {
            self.events.note(format!("{} is in the cache", steps::title(step)));
        }
        if let (Some(step), Some(why)) = (steps.get(start.done), &start.why) {
            self.events.note(format!("{} runs: {why}", steps::title(step)));
        }
        let mut run = Run {
            build: self,
            source,
            layers: &layers,
            base: &base,
            loans: &loans,
            secrets: &secrets,
            chain: Chain::new(source, start.files),
            keys: start.keys,
            roles: &roles,
            reached: BTreeMap::new(),
            own: None,
            remembers,
            remembering: None,
        };
        // One that was not shut down is booted for that: the seal wants a disk that nothing holds in memory.
        if start.done < steps.len() || !start.down {
            let todo = steps.iter().zip(&plan).skip(start.done).collect::<Vec<_>>();
            let ran = run.all(&todo, memory, work, accelerator).await;
            // Also after a failure: the step that failed is the one that is tried again.
            run.remembered().await;
            ran?;
        }
        values.keys = run.keys;
        let (chain, own) = (run.chain, run.own);
        let mut hosts = start.reached;
        hosts.extend(run.reached.into_values().flatten());
        hosts.sort();
        hosts.dedup();
        Ok(Provisioned { chain, values, hosts, _layers: Some(layers), _own: own })
    }

    /// Whether the guest may be kept as it is before the last of these steps: it was told no secret, and has the time of
    /// its host.
    fn remembers(&self, steps: &[Step]) -> bool {
        let before = steps.split_last().map_or(&[][..], |(_, before)| before);
        self.options.clock_ahead == 0 && before.iter().all(|step| step.secrets.is_empty())
    }

    fn base(&self, source: &SourceDisk) -> Result<Base> {
        match &self.spec.source {
            Source::Image(_) => Base::hashed(&source.path, &source.key),
            Source::Packages(_) | Source::Iso(_) => Base::own(&source.path),
        }
    }

    fn reuse(&self) -> Result<Reuse> {
        match (&self.options.from_step, self.options.no_cache) {
            (_, true) => Ok(Reuse::Nothing),
            (Some(step), false) => Ok(Reuse::Before(self.step_named(step)?)),
            (None, false) => Ok(Reuse::All),
        }
    }

    /// The index of the step with this name or number.
    pub(super) fn step_named(&self, word: &str) -> Result<usize> {
        let steps = &self.spec.steps;
        let named = steps.iter().position(|step| step.name == word);
        let number = word.parse::<usize>().ok().filter(|n| (1..=steps.len()).contains(n));
        named.or_else(|| number.map(|n| n - 1)).ok_or_else(|| {
            let names: Vec<_> = steps.iter().map(|step| format!("`{}`", step.name)).collect();
            Error::usage(format!("the spec has no step `{word}`")).hint(match names.len() {
                0 => "It has no steps at all.".to_owned(),
                _ => format!("Its steps are {}; a number from 1 does as well.", names.join(", ")),
            })
        })
    }

    /// The host's mirrors in place of the spec's.
    async fn loans(&self) -> Result<Vec<Loan>> {
        let Source::Packages(packages) = &self.spec.source else { return Ok(vec![]) };
        let mirrors = source::packages::host_mirrors(packages, self.spec.arch, self.cancel).await?;
        Ok(mirrors.iter().filter_map(|(own, host)| Loan::new(own, host)).collect())
    }
}

/// The steps that are run.
struct Run<'a> {
    build: &'a Build<'a>,
    source: &'a SourceDisk,
    layers: &'a Layers,
    base: &'a Base,
    loans: &'a [Loan],
    secrets: &'a Secrets,
    chain: Chain,
    /// The public keys that this build and those of its layers logged in with.
    keys: Vec<String>,
    roles: &'a Roles,
    /// What the steps reached, by the key of the step's layer.
    reached: BTreeMap<String, Vec<Host>>,
    /// A layer that no other build starts from.
    own: Option<Draft>,
    /// Whether the guest is kept as it is before the last step.
    remembers: bool,
    /// The same, while it is written to the host's disk.
    remembering: Option<JoinHandle<Result<()>>>,
}

impl Run<'_> {
    /// Boots the disk, runs the steps, shuts down. Each step's layer is kept once the step is done, the last one once
    /// the guest is down.
    async fn all(
        &mut self,
        todo: &[(&Step, &Planned)],
        memory: Option<Memory>,
        work: &Workspace,
        accelerator: Accelerator,
    ) -> Result<()> {
        let Build { events, cancel, .. } = *self.build;
        let (mut guest, draft) = self.begin(memory, work, accelerator).await?;
        if !self.keys.contains(&guest.key) {
            self.keys.push(guest.key.clone());
        }
        let mut disks = guest.disk_errors();
        let draft = match disks.beside(self.steps(todo, draft, &guest, work)).await {
            Ok(draft) => draft,
            Err(Stopped { error, disk }) => {
                // What the guest still had in memory is lost where it cannot write; the step's error is what counts.
                if disk.is_some() && guest.sync(cancel).await.is_err() {
                    events.warn("the guest did not write all that it had in memory");
                }
                guest.kill().await?;
                let Some(disk) = disk else { return Err(error) };
                return Err(match self.refuse_secrets(&disk, "the step") {
                    Ok(()) => aborted(error, &work.failed(disk)?),
                    Err(secret) => error.detail(format!("the disk is not kept: {}", secret.what())),
                });
            }
        };
        guest.shut_down(events, cancel).await?;
        let keeps = self.chain.layers().len() < layers::MOST;
        match todo.last().filter(|_| keeps) {
            Some((_, planned)) => self.keep(planned, draft, true).await,
            // All were in the cache, the last as it was while its guest ran; or there are too many.
            None => {
                self.chain.push(draft.path().to_owned());
                self.own = Some(draft);
                Ok(())
            }
        }
    }

    /// A guest and what it writes to: one that goes on where there is one, or one that boots.
    async fn begin(
        &self,
        memory: Option<Memory>,
        work: &Workspace,
        accelerator: Accelerator,
    ) -> Result<(Guest, Draft)> {
        let Build { spec, options, events, cancel, .. } = *self.build;
        let ahead = options.clock_ahead;
        let start = |draft: &Draft| {
            let overlay = draft.path().to_owned();
            guest::Start { spec, overlay, ahead, work, accelerator, events, cancel }
        };
        if let Some(memory) = memory {
            let draft = self.draft()?;
            match start(&draft).resume(&memory).await {
                Ok(guest) => return Ok((guest, draft)),
                Err(Asleep::Failed(e)) => return Err(e),
                Err(Asleep::Refused(e)) => {
                    memory.discard();
                    events.note(format!("the guest does not go on, so it boots: {}", e.what()));
                }
            }
        }
        let draft = self.draft()?;
        let guest = start(&draft).boot().await?;
        Ok((guest, draft))
    }

    /// Runs the steps; what the guest writes to after the last of them.
    async fn steps(
        &mut self,
        todo: &[(&Step, &Planned)],
        mut draft: Draft,
        guest: &Guest,
        work: &Workspace,
    ) -> Result<Draft, Stopped> {
        let Build { events, cancel, .. } = *self.build;
        let last = todo.len().saturating_sub(1);
        for (n, (step, planned)) in todo.iter().enumerate() {
            if n == last && n == 0 && self.remembers && !guest.resumed && self.has_room() {
                let boot = Planned::boot(&planned.below)?;
                draft = self.next(&boot, draft, guest, Some((&planned.below, work))).await?;
            }
            // What came before is not this step's.
            guest.watch.taken().await?;
            loop {
                let epoch = self.source.epoch;
                let ran =
                    steps::run(step, epoch, self.loans, self.secrets, guest, events, cancel).await;
                let Err(error) = ran else { break };
                match self.choice(&error, step, guest).await? {
                    Choice::Retry => {}
                    Choice::CleanUp => return Err(error.into()),
                    Choice::Abort => return Err(Stopped { error, disk: Some(draft) }),
                }
            }
            let reached = self.build.reached(step, guest, self.roles).await?;
            self.reached.insert(planned.key.clone(), reached);
            if n < last && self.has_room() {
                let remembered = n + 1 == last && self.remembers;
                let remembered = remembered.then_some((&*planned.key, work));
                draft = self.next(planned, draft, guest, remembered).await?;
            }
        }
        Ok(draft)
    }

    /// What is to be done after a step has failed.
    async fn choice(&self, error: &Error, step: &Step, guest: &Guest) -> Result<Choice> {
        let Build { options, cancel, .. } = *self.build;
        match options.on_error {
            _ if error.kind() == Kind::Interrupted => Ok(Choice::CleanUp),
            OnError::CleanUp => Ok(Choice::CleanUp),
            OnError::Abort => Ok(Choice::Abort),
            OnError::Ask(question) => {
                let client = &guest.client;
                let mut shell = client.base(false)?;
                shell.arg("-t").arg(&client.target().name);
                let failed = Failed { step: steps::title(step), error: error.clone(), shell };
                on_error::ask(question, failed, cancel).await
            }
        }
    }

    /// A file on top of the chain, for the guest to write to.
    fn draft(&self) -> Result<Draft> {
        let draft = self.layers.draft()?;
        let (below, format) = self.chain.top();
        let policy = self.build.options.sandbox;
        outputs::overlay(below, format, self.source.size, draft.path(), policy)?;
        Ok(draft)
    }

    /// Whether the chain takes another layer, and the one of the last step.
    fn has_room(&self) -> bool {
        self.chain.layers().len() + 1 < layers::MOST
    }

    /// Lets the guest go on in a new layer, and keeps the one that a step was done in. Where a key is given, the guest
    /// is kept too, for a step that is made on what has this key.
    async fn next(
        &mut self,
        planned: &Planned,
        done: Draft,
        guest: &Guest,
        remembered: Option<(&str, &Workspace)>,
    ) -> Result<Draft> {
        let Build { spec, options, events, cancel, .. } = *self.build;
        guest.sync(cancel).await?;
        let above = self.layers.draft()?;
        let (size, policy) = (self.source.size, options.sandbox);
        outputs::overlay(done.path(), Format::Qcow2, size, above.path(), policy)?;
        let Some((below, work)) = remembered else {
            guest.put_layer(above.path(), None).await??;
            self.keep(planned, done, false).await?;
            return Ok(above);
        };
        let memory = self.layers.memory_draft()?;
        let saved = guest.put_layer(above.path(), Some((&memory, work))).await?;
        let layer = done.path().to_owned();
        self.keep(planned, done, false).await?;
        match saved {
            Ok(()) => {
                let saved = Saved {
                    below: below.to_owned(),
                    layer,
                    fit: guest.fit.clone(),
                    uuid: guest.uuid.clone(),
                    names: guest.watch.names().await?,
                    image: format!("{}:{}", spec.name, spec.version),
                };
                self.remembering = Some(self.layers.keep_memory(memory, saved));
            }
            // It would only have made the next build faster.
            Err(e) => {
                events.note(format!("the guest is not kept for the next build: {}", e.what()))
            }
        }
        Ok(above)
    }

    /// Waits until the guest that is kept is on the host's disk.
    async fn remembered(&mut self) {
        let Some(writing) = self.remembering.take() else { return };
        let failed = match writing.await {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.what().to_owned(),
            Err(e) => e.to_string(),
        };
        let events = self.build.events;
        events.note(format!("the guest is not kept for the next build: {failed}"));
    }

    /// What stays on this host holds no secret of the steps.
    fn refuse_secrets(&self, layer: &Draft, step: &str) -> Result<()> {
        let mut within = self.chain.folders();
        within.push(super::parent(layer.path()));
        self.secrets.refuse_in(layer.path(), &within, step)
    }

    async fn keep(&mut self, planned: &Planned, draft: Draft, down: bool) -> Result<()> {
        let Build { spec, events, cancel, .. } = *self.build;
        let image = format!("{}:{}", spec.name, spec.version);
        self.refuse_secrets(&draft, &format!("the step `{}`", planned.title))?;
        let below = self.chain.layers().last().map(|layer| &**layer);
        let reached = self.reached.get(&planned.key).map(Vec::as_slice).unwrap_or_default();
        let made = Made { base: self.base, below, keys: &self.keys, reached, down, image: &image };
        let kept = self.layers.keep(planned, draft, made, events, cancel).await?;
        self.chain.push(kept);
        Ok(())
    }
}

/// Why not all steps were run; with the disk as it was then where that is wanted.
struct Stopped {
    error: Error,
    disk: Option<Draft>,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped { error, disk: None }
    }
}

fn aborted(error: Error, disk: &Path) -> Error {
    error
        .detail(format!("the disk as it was then: {}", disk.display()))
        .detail("it stays until the next build of this spec, with the layers that it lies on")
}
