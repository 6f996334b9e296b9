//! Machines stand still and go on: in memory, or saved to their disk so that a restart of the host does
//! not end them.

use std::time::Instant;

use crate::crash;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::guest::clock;
use crate::helper;
use crate::machine::Machine;
use crate::machine::instance::{Instance, State};
use crate::machine::record::{Ready, Record, SUSPENDED, Saved};
use crate::project::hooks::hooks;
use crate::project::order::{self, Node};
use crate::project::{Member, Run, folders, snapshot};

/// Suspends the machines that run; with `to_disk`, their memory is saved and QEMU ends.
///
/// # Errors
/// One could not be suspended; it goes on, and the others are suspended.
pub async fn suspend(members: &[&Member], to_disk: bool, run: Run<'_>) -> Result<()> {
    let ends = order::run(unordered(members), async |name, instance: &Instance| {
        let _lock = instance.lock("devbox suspend")?;
        let Some(record) = instance.record()? else {
            return Err(not_made(name));
        };
        let Some(machine) = attached(instance, &record, run.events).await? else {
            if record.suspended.is_some() {
                run.events.note(format!("`{name}` is suspended already, on its disk"));
                return Ok(());
            }
            return Err(Error::failed(format!("`{name}` does not run"))
                .hint(format!("Start it with `devbox up {name}`.")));
        };
        let paused = machine.paused().await?;
        if paused && !to_disk {
            run.events.note(format!("`{name}` is suspended already"));
            return Ok(());
        }
        if !paused {
            hooks("before-suspend", instance, run, run.events).await?;
        }
        if to_disk {
            save(instance, machine, record, run).await?;
        } else {
            machine.pause().await?;
            let hint = "go on with `devbox resume`";
            run.events.note(format!("`{name}` is suspended, in memory; {hint}"));
        }
        hooks("after-suspend", instance, run, run.events).await
    });
    order::together(ends.await, "not suspended").map(|_| ())
}

/// Lets suspended machines go on.
///
/// # Errors
/// One is not suspended, or cannot go on.
pub async fn resume(members: &[&Member], run: Run<'_>) -> Result<()> {
    let ends = order::run(unordered(members), async |name, instance: &Instance| {
        let _lock = instance.lock("devbox resume")?;
        let Some(record) = instance.record()? else {
            return Err(not_made(name));
        };
        match wake(instance, record, run, run.events).await? {
            Woken::Yes => Ok(()),
            Woken::WasAwake => {
                run.events.note(format!("`{name}` runs already"));
                Ok(())
            }
            Woken::Off => Err(Error::failed(format!("`{name}` is not suspended but stopped"))
                .hint(format!("Start it with `devbox up {name}`."))),
        }
    });
    order::together(ends.await, "not resumed").map(|_| ())
}

/// What [`wake`] found and did.
#[derive(Debug)]
pub(super) enum Woken {
    /// It stood still and runs now.
    Yes,
    /// It ran.
    WasAwake,
    /// It has no memory to go on with.
    Off,
}

/// Lets one machine go on if it is suspended. Its lock is held.
pub(super) async fn wake(
    instance: &Instance,
    record: Record,
    run: Run<'_>,
    events: &Events,
) -> Result<Woken> {
    let (start, name) = (Instant::now(), instance.name());
    let machine = match attached(instance, &record, events).await? {
        Some(machine) => {
            let paused = machine.paused().await?;
            // A devbox was killed while it suspended this machine to disk, or resumed it from there:
            // what was saved is older than what runs.
            let Some(saved) = record.suspended.clone() else {
                if !paused {
                    return Ok(Woken::WasAwake);
                }
                return go_on(instance, machine, start, run, events).await;
            };
            let ready = ready_again(&machine, &saved);
            instance.save(&Record { suspended: None, ready, ..record })?;
            if paused {
                return go_on(instance, machine, start, run, events).await;
            }
            machine
        }
        None => {
            let Some(saved) = record.suspended.clone() else { return Ok(Woken::Off) };
            hooks("before-resume", instance, run, events).await?;
            events.phase(format!("Resuming `{name}` from its disk"));
            let (machine, mut record) =
                snapshot::start(instance, record, &saved, SUSPENDED, run, events).await?;
            record.suspended = None;
            instance.save(&record)?;
            machine
        }
    };
    awake(instance, &machine, start, run, events).await
}

/// A machine that stands still in memory.
async fn go_on(
    instance: &Instance,
    machine: Machine,
    start: Instant,
    run: Run<'_>,
    events: &Events,
) -> Result<Woken> {
    hooks("before-resume", instance, run, events).await?;
    machine.go_on().await?;
    awake(instance, &machine, start, run, events).await
}

/// What is to be done once the guest goes on.
async fn awake(
    instance: &Instance,
    machine: &Machine,
    start: Instant,
    run: Run<'_>,
    events: &Events,
) -> Result<Woken> {
    let name = instance.name();
    set_clock(machine, events).await;
    helper::ensure(run.paths, instance.project(), events).await;
    // Of an earlier time to disk, also of one that a crash kept from being finished.
    machine.delete_snapshot(SUSPENDED).await?;
    if let Some(mut record) = instance.record()? {
        folders::mount(machine, instance, &mut record, run, events).await?;
    }
    events.done(format!("`{name}` goes on"), start.elapsed());
    hooks("after-resume", instance, run, events).await?;
    Ok(Woken::Yes)
}

/// The guest's clock stood still, too.
pub(super) async fn set_clock(machine: &Machine, events: &Events) {
    if let Err(e) = clock::set(&machine.files().agent_socket()).await {
        events.warn(format!(
            "the guest's clock is late by the time it stood still: {}",
            e.causes().last().map_or(e.what(), |cause| cause)
        ));
    }
}

/// Saves the memory to the disk and ends QEMU.
async fn save(
    instance: &Instance,
    mut machine: Machine,
    mut record: Record,
    run: Run<'_>,
) -> Result<()> {
    let (start, name, events) = (Instant::now(), instance.name(), run.events);
    events.phase(format!("Saving the memory of `{name}`"));
    let shape = record.shape.ok_or_else(|| {
        Error::failed(format!("it is not known what hardware `{name}` runs on"))
            .hint(format!("Restart it with `devbox reload {name}`."))
    })?;
    let was_paused = machine.paused().await?;
    let folders = folders::any(&machine, &record).await?;
    if folders {
        // A guest that stands still lets go of nothing.
        machine.go_on().await?;
        let unmounted = folders::unmount(&machine, instance, &mut record, run).await;
        if unmounted.is_err() && was_paused {
            machine.pause().await?;
        }
        unmounted?;
    }
    machine.pause().await?;
    let saved = async {
        machine.delete_snapshot(SUSPENDED).await?;
        machine.save_snapshot(SUSPENDED).await
    };
    if let Err(e) = saved.await {
        if !machine.process().alive() {
            return Err(e);
        }
        if !was_paused || folders {
            machine.go_on().await?;
            folders::mount(&machine, instance, &mut record, run, events).await?;
        }
        return Err(e.hint("The machine goes on. Free some space, or suspend it in memory."));
    }
    crash::point("suspend.saved");
    let ready = record.was_ready(machine.process());
    let provisioned = record.provisioned.clone();
    record.suspended =
        Some(Saved { made: now(), shape: Some(shape), ready, pushed: false, provisioned });
    instance.save(&record)?;
    crash::point("suspend.recorded");
    if let Ok(client) = instance.client(&record) {
        client.disconnect().await;
    }
    machine.switch_off().await?;
    events.done(format!("`{name}` is suspended, on its disk"), start.elapsed());
    Ok(())
}

/// The machine, if its QEMU runs.
pub(super) async fn attached(
    instance: &Instance,
    record: &Record,
    events: &Events,
) -> Result<Option<Machine>> {
    if !matches!(instance.state(record), State::Running(_)) {
        return Ok(None);
    }
    let files = instance.files();
    let (name, uuid) = (instance.name(), &record.uuid);
    Machine::attach(name, uuid, files.dir(), files.runtime(), events).await
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Machines stand still and go on in any order.
fn unordered<'a>(members: &[&'a Member]) -> Vec<Node<&'a Instance>> {
    let node = |member: &&'a Member| Node {
        name: member.name().to_owned(),
        after: vec![],
        item: &member.instance,
    };
    members.iter().map(node).collect()
}

pub(super) fn not_made(name: &str) -> Error {
    Error::failed(format!("`{name}` is not made yet"))
        .hint(format!("Make and start it with `devbox up {name}`."))
}

/// The process of a machine that was ready when it was saved is ready.
pub(super) fn ready_again(machine: &Machine, saved: &Saved) -> Option<Ready> {
    saved.ready.then(|| Ready::from(machine.process()))
}
