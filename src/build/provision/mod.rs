//! The disk after the steps: from the cache as far as that goes, the rest run in a guest, a layer each.

mod run;

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::chain::Chain;
use super::layers::{self, Base, Draft, Layers, Reuse};
use super::mirror::Loan;
use super::seal::Values;
use super::workspace::Workspace;
use super::{Build, guest, seed, steps};
use crate::error::{Error, Result};
use crate::lock::Host;
use crate::machine::config::Accelerator;
use crate::source::{self, SourceDisk};
use crate::spec::{Login, Source, Step};
use run::Run;

/// A disk whose steps are done, and what the seal needs to know of how.
pub(super) struct Provisioned {
    pub(super) chain: Chain,
    pub(super) values: Values,
    /// What the steps reached.
    pub(super) hosts: Vec<Host>,
    /// What each step was made of when it ran.
    pub(super) inputs: Vec<Value>,
    /// The guest before the last step, while it is written to the host's disk.
    pub(super) remembering: Option<JoinHandle<Result<()>>>,
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
            return Ok(Provisioned {
                chain,
                values,
                hosts: vec![],
                inputs: vec![],
                remembering: None,
                _layers: None,
                _own: None,
            });
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
            let rest = plan.split_off(start.done.min(plan.len()));
            let mut todo: Vec<_> = steps.iter().skip(start.done).zip(rest).collect();
            if let Err(e) = run.all(&mut todo, memory, work, accelerator).await {
                // The step that failed is the one that is tried again.
                self.remembered(run.remembering).await;
                return Err(e);
            }
            plan.extend(todo.into_iter().map(|(_, planned)| planned));
        }
        values.keys = run.keys;
        let (chain, own, remembering) = (run.chain, run.own, run.remembering);
        let mut hosts = start.reached;
        hosts.extend(run.reached.into_values().flatten());
        hosts.sort();
        hosts.dedup();
        let inputs = plan.into_iter().map(|planned| planned.inputs).collect();
        let (_layers, _own) = (Some(layers), own);
        Ok(Provisioned { chain, values, hosts, inputs, remembering, _layers, _own })
    }

    /// Waits until the guest that is kept is on the host's disk.
    pub(super) async fn remembered(&self, writing: Option<JoinHandle<Result<()>>>) {
        let Some(writing) = writing else { return };
        let failed = match writing.await {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.what().to_owned(),
            Err(e) => e.to_string(),
        };
        self.events.note(format!("the guest is not kept for the next build: {failed}"));
    }

    /// Whether the guest may be kept as it is before the last of these steps: it was told no secret, and has the time of
    /// its host.
    fn remembers(&self, steps: &[Step]) -> bool {
        let before = steps.split_last().map_or(&[][..], |(_, before)| before);
        self.options.clock_ahead == 0 && before.iter().all(|step| step.secrets.is_empty())
    }

    fn base(&self, source: &SourceDisk) -> Result<Base> {
        match &self.spec.source {
            Source::Image(_) | Source::Box(_) => Base::hashed(&source.path, &source.key),
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
