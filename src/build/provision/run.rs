//! The steps that are run, in one guest, with a layer for each.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::task::JoinHandle;

use crate::build::chain::Chain;
use crate::build::guest::{self, Asleep, Guest};
use crate::build::layers::{self, Base, Draft, Layers, Made, Memory, Planned, Saved};
use crate::build::mirror::Loan;
use crate::build::on_error::{self, Choice, Failed, OnError};
use crate::build::reached::Roles;
use crate::build::steps::secrets::Secrets;
use crate::build::workspace::Workspace;
use crate::build::{Build, outputs, steps};
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::image::container::Format;
use crate::lock::Host;
use crate::machine::config::Accelerator;
use crate::source::SourceDisk;
use crate::spec::{self, Step};

/// The steps that are run.
pub(super) struct Run<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) source: &'a SourceDisk,
    pub(super) layers: &'a Layers,
    pub(super) base: &'a Base,
    pub(super) loans: &'a [Loan],
    pub(super) secrets: &'a Secrets,
    pub(super) chain: Chain,
    /// The public keys that this build and those of its layers logged in with.
    pub(super) keys: Vec<String>,
    pub(super) roles: &'a Roles,
    /// What the steps reached, by the key of the step's layer.
    pub(super) reached: BTreeMap<String, Vec<Host>>,
    /// A layer that no other build starts from.
    pub(super) own: Option<Draft>,
    /// Whether the guest is kept as it is before the last step.
    pub(super) remembers: bool,
    /// The same, while it is written to the host's disk.
    pub(super) remembering: Option<JoinHandle<Result<()>>>,
}

impl Run<'_> {
    /// Boots the disk, runs the steps, shuts down. Each step's layer is kept once the step is done, the last one once
    /// the guest is down.
    pub(super) async fn all(
        &mut self,
        todo: &mut [(&Step, Planned)],
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
        todo: &mut [(&Step, Planned)],
        mut draft: Draft,
        guest: &Guest,
        work: &Workspace,
    ) -> Result<Draft, Stopped> {
        let Build { events, cancel, .. } = *self.build;
        let last = todo.len().saturating_sub(1);
        self.build.verified().await?;
        for n in 0..todo.len() {
            let rest = &mut todo[n..];
            let step = rest[0].0;
            if n == last && n == 0 && self.remembers && !guest.resumed && self.has_room() {
                let below = rest[0].1.below.clone();
                let boot = Planned::boot(&below)?;
                draft = self.next(&boot, draft, guest, Some((&below, work))).await?;
            }
            // What came before is not this step's.
            guest.watch.taken().await?;
            loop {
                let epoch = self.source.epoch;
                // What was mended since it failed, or changed since the build began, is what runs and what is kept.
                layers::plan_anew(rest)?;
                let ran =
                    steps::run(step, epoch, self.loans, self.secrets, guest, events, cancel).await;
                let Err(error) = ran else { break };
                match self.choice(&error, step, guest).await? {
                    Choice::Retry => {}
                    Choice::CleanUp => return Err(error.into()),
                    Choice::Abort => return Err(Stopped { error, disk: Some(draft) }),
                }
            }
            let planned = &rest[0].1;
            if spec::digest::inputs(step)? != planned.inputs {
                return Err(changed_meanwhile(step).into());
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
        let Build { options, events, cancel, .. } = *self.build;
        match options.on_error {
            _ if error.kind() == Kind::Interrupted => Ok(Choice::CleanUp),
            OnError::CleanUp => Ok(Choice::CleanUp),
            OnError::Abort => Ok(Choice::Abort),
            OnError::Ask(question) => {
                let client = &guest.client;
                let mut shell = client.base(false)?;
                shell.arg("-t").arg(&client.target().name);
                let (step, error, over) = (steps::title(step), error.clone(), cancel.clone());
                events.emit(Event::Asks);
                on_error::ask(question, Failed { step, error, shell, over }, cancel).await
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
        // It only makes the next build faster, so nothing that it needs is a reason to fail.
        let not_kept = |e: &Error| {
            events.note(format!("the guest is not kept for the next build: {}", e.what()));
        };
        let remembered = remembered.and_then(|(below, work)| {
            let draft = self.layers.memory_draft(spec.machine.memory).inspect_err(not_kept).ok()?;
            Some((below, work, draft))
        });
        let memory = remembered.as_ref().map(|(_, work, draft)| (draft, *work));
        let saved = guest.put_layer(above.path(), memory).await?;
        let layer = done.path().to_owned();
        self.keep(planned, done, false).await?;
        if let Some((below, _, draft)) = remembered
            && saved.inspect_err(not_kept).is_ok()
        {
            let saved = Saved {
                below: below.to_owned(),
                layer,
                fit: guest.fit.clone(),
                uuid: guest.uuid.clone(),
                names: guest.watch.names().await?,
                image: format!("{}:{}", spec.name, spec.version),
            };
            self.remembering = Some(self.layers.keep_memory(draft, saved));
        }
        Ok(above)
    }

    /// What stays on this host holds no secret of the steps.
    fn refuse_secrets(&self, layer: &Draft, step: &str) -> Result<()> {
        let mut within = self.chain.folders();
        within.push(crate::build::parent(layer.path()));
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

/// Nobody knows which of both contents the guest got.
fn changed_meanwhile(step: &Step) -> Error {
    Error::failed(format!("a file of {} was changed while it ran", steps::title(step)))
        .hint("Run the same command again; the steps before are in the cache.")
}

fn aborted(error: Error, disk: &Path) -> Error {
    error
        .detail(format!("the disk as it was then: {}", disk.display()))
        .detail("it stays until the next build of this spec, with the layers that it lies on")
}
