//! The disk after the steps: from the cache as far as that goes, the rest run in a guest, a layer each.

use std::collections::BTreeMap;
use std::path::Path;

use super::chain::Chain;
use super::guest::Guest;
use super::layers::{self, Base, Draft, Layers, Made, Planned, Reuse};
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
        let start = layers.find(&plan, &base, self.reuse()?, self.events, self.cancel).await?;
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
        };
        // One that was not shut down is booted for that: the seal wants a disk that nothing holds in memory.
        if start.done < steps.len() || !start.down {
            let todo = steps.iter().zip(&plan).skip(start.done).collect::<Vec<_>>();
            run.all(&todo, work, accelerator).await?;
        }
        values.keys = run.keys;
        let (chain, own) = (run.chain, run.own);
        let mut hosts = start.reached;
        hosts.extend(run.reached.into_values().flatten());
        hosts.sort();
        hosts.dedup();
        Ok(Provisioned { chain, values, hosts, _layers: Some(layers), _own: own })
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
}

impl Run<'_> {
    /// Boots the disk, runs the steps, shuts down. Each step's layer is kept once the step is done, the last one once
    /// the guest is down.
    async fn all(
        &mut self,
        todo: &[(&Step, &Planned)],
        work: &Workspace,
        accelerator: Accelerator,
    ) -> Result<()> {
        let Build { spec, options, events, cancel, .. } = *self.build;
        let draft = self.draft()?;
        let (disk, ahead) = (draft.path(), options.clock_ahead);
        let mut guest = Guest::boot(spec, disk, ahead, work, accelerator, events, cancel).await?;
        self.keys.push(guest.key.clone());
        let mut disks = guest.disk_errors();
        let draft = match disks.beside(self.steps(todo, draft, &guest)).await {
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

    /// Runs the steps; what the guest writes to after the last of them.
    async fn steps(
        &mut self,
        todo: &[(&Step, &Planned)],
        mut draft: Draft,
        guest: &Guest,
    ) -> Result<Draft, Stopped> {
        let Build { events, cancel, .. } = *self.build;
        for (n, (step, planned)) in todo.iter().enumerate() {
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
            let another = n + 1 < todo.len() && self.chain.layers().len() + 1 < layers::MOST;
            if another {
                draft = self.next(planned, draft, guest).await?;
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

    /// Lets the guest go on in a new layer, and keeps the one that a step was done in.
    async fn next(&mut self, planned: &Planned, done: Draft, guest: &Guest) -> Result<Draft> {
        let Build { options, cancel, .. } = *self.build;
        guest.sync(cancel).await?;
        let above = self.layers.draft()?;
        let (size, policy) = (self.source.size, options.sandbox);
        outputs::overlay(done.path(), Format::Qcow2, size, above.path(), policy)?;
        guest.put_layer(above.path()).await?;
        self.keep(planned, done, false).await?;
        Ok(above)
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
