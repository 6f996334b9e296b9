//! Machines come up: the box is built once, then each machine is made, booted and waited for, at the
//! same time as the others, and after those that it depends on.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OnceCell;

use crate::error::{Error, Kind, Result};
use crate::exec::sandbox::Policy;
use crate::machine::instance::{Instance, State};
use crate::machine::lock::Lock;
use crate::project::network::Plan;
use crate::project::newer::Newer;
use crate::project::order::{self, End, Node};
use crate::project::provision::{self, Which};
use crate::project::select::list;
use crate::project::start::{Came, Start};
use crate::project::stop::stop;
use crate::project::{Project, Run, boxes};
use crate::registry::{self, Address};
use crate::spec::personal::Override;
use crate::spec::{self, Spec};

/// What a caller may choose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long to wait for each machine; `machine.timeout` of the spec if absent.
    pub timeout: Option<Duration>,
    /// Whether `qemu-img` may read disks where this host cannot isolate it.
    pub sandbox: Policy,
    /// Boots a new machine instead of restoring it from a template.
    pub cold: bool,
    /// Changes machines over that run on another box than the spec's: their own disks go, their data disks stay. Ends what
    /// a rollback held.
    pub forward: bool,
    /// What must be true of a machine before it is up.
    pub wait: Wait,
    /// In what the machines of the spec follow somebody's own settings.
    pub overrides: Vec<Override>,
    /// What of `[[provision]]` is done.
    pub provision: Which,
    /// Where the box comes from if it is not in the store: its machines start while it arrives.
    pub from: Option<(Address, registry::Options)>,
    /// Fails where the box is not what `devbox.lock` has.
    pub locked: bool,
    /// The same as `from` for one that lives at `registry` of the spec, instead of pulling it first.
    pub lazy: bool,
    /// Removes a machine again that was made here and did not come up.
    pub destroy_on_error: bool,
}

/// How far a machine must have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wait {
    /// Its ssh server speaks; a restored machine has its own identity. Of one that is entered by its guest
    /// agent: the agent answers.
    Boot,
    /// A login works, or the agent runs programs.
    Ssh,
    /// The same, and cloud-init has finished.
    #[default]
    Ready,
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
        let held = || instance.history().is_ok_and(|history| history.held.is_some());
        lock.is_ok() && matches!(instance.record(), Ok(None)) && (options.forward || !held())
    };
    let (image, mut lazy) = (OnceCell::new(), None);
    if nodes.iter().any(missing) {
        lazy = boxes::lazy(spec, options, run).await?;
        if lazy.is_none() {
            image.get_or_try_init(|| boxes::ensure(spec, options, run)).await?;
        }
    }
    let newer = Newer::ask(spec, run.paths);
    if several {
        let names: Vec<&str> = nodes.iter().map(|(machine, ..)| machine.name.as_str()).collect();
        run.events.phase(format!("Starting {}", list(&names)));
    }
    let one_of_many = spec.machines.len() > 1;
    let accel = OnceCell::new();
    let network = Plan::new(spec, project.dir(), run.paths)?;
    let nodes: Vec<Node<_>> = nodes
        .into_iter()
        .map(|(machine, instance, lock)| {
            let events = if several { run.events.part(&machine.name) } else { run.events.clone() };
            let made_here = matches!(instance.record(), Ok(None));
            // What a reset left here is not thrown away.
            let reset = instance.files().reset().exists();
            let passing = options.destroy_on_error && made_here && !reset;
            let (accel, image) = (&accel, &image);
            let start = Start {
                spec,
                machine,
                instance,
                options,
                one_of_many,
                network: network.as_ref(),
                lazy: lazy.as_ref(),
                passing,
                run,
                events,
                accel,
                image,
            };
            Node {
                name: machine.name.clone(),
                after: machine.depends_on.clone(),
                item: (start, lock),
            }
        })
        .collect();
    let all: Vec<Instance> = nodes.iter().map(|node| node.item.0.instance.clone()).collect();
    let ends = order::run(nodes, async |_, (start, lock): (Start<'_>, Result<Lock>)| {
        let lock = lock?;
        let came = match start.up().await {
            Err(e) if start.passing => Err(remove_again(&start.instance, lock, e, run).await),
            came => came,
        };
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
    if !run.cancel.is_cancelled() {
        newer.tell(run.events).await;
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

/// A machine that was made here and did not come up, where none of that kind is to stay.
async fn remove_again(instance: &Instance, lock: Lock, e: Error, run: Run<'_>) -> Error {
    let removed = async {
        if let Some(record) = instance.record()? {
            stop(instance, &record, None, run).await?;
        }
        instance.remove()
    };
    let removed = removed.await;
    drop(lock);
    let name = instance.name();
    match removed {
        Ok(()) => e.detail(format!("`{name}` was removed again, as `--destroy-on-error` asks")),
        Err(not) => e
            .detail(format!("`{name}` could not be removed: {}", not.what()))
            .hint(format!("Remove it with `devbox destroy -f {name}`.")),
    }
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

/// Does in machines that run what `which` of `[[provision]]` is.
///
/// # Errors
/// A machine does not run, or something failed in one; the others go on.
pub async fn provision(
    project: &Project,
    spec: &Spec,
    names: &[&str],
    which: &Which,
    run: Run<'_>,
) -> Result<()> {
    let several = names.len() > 1;
    let mut nodes = vec![];
    for name in names {
        let item = Instance::of_project(run.paths, name, project.dir())?;
        nodes.push(Node { name: (*name).to_owned(), after: vec![], item });
    }
    let ends = order::run(nodes, async |name, instance: Instance| {
        let _lock = instance.lock("devbox provision")?;
        let events = if several { run.events.part(name) } else { run.events.clone() };
        let record = instance.record()?;
        let running = record.filter(|r| matches!(instance.state(r), State::Running(_)));
        let Some(mut record) = running else {
            return Err(Error::failed(format!("`{name}` does not run"))
                .hint(format!("Start it with `devbox up {name}`.")));
        };
        provision::provision(spec, &instance, &mut record, which, run, &events).await
    });
    order::together(ends.await, "not provisioned").map(|_| ())
}
