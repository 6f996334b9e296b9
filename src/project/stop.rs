//! Machines go down: each after those that depend on it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::helper;
use crate::machine::instance::{Instance, State};
use crate::machine::process::Process;
use crate::machine::record::Record;
use crate::machine::{Machine, Stopped};
use crate::project::hooks::hooks;
use crate::project::order::{self, Node};
use crate::project::{Member, Run, disks, snapshot};

/// Stops the machines that run: politely for as long as `patience`, at once without.
///
/// # Errors
/// One could not be stopped; what it depends on then goes on, the others are stopped.
pub async fn halt(members: &[&Member], patience: Option<Duration>, run: Run<'_>) -> Result<()> {
    let ends = order::run(nodes(members), async |_, instance: &Instance| {
        let _lock = instance.lock("devbox halt")?;
        let Some(record) = instance.record()? else { return Ok(()) };
        if record.suspended.is_some() && !matches!(instance.state(&record), State::Running(_)) {
            snapshot::forget_memory(instance, &record)?;
            run.events.note(format!(
                "`{}` was suspended; its saved memory is thrown away, its disk stays",
                instance.name()
            ));
            return Ok(());
        }
        let running = matches!(instance.state(&record), State::Running(_));
        if running {
            hooks("before-halt", instance, run, run.events).await?;
        }
        let stopped = stop(instance, &record, patience, run).await?;
        let late = match (stopped, patience) {
            (Stopped::Quit, Some(patience)) => {
                format!("did not shut down within {} s and ", patience.as_secs())
            }
            _ => String::new(),
        };
        run.events.note(format!("`{}` {late}{stopped}", instance.name()));
        if running { hooks("after-halt", instance, run, run.events).await } else { Ok(()) }
    });
    let ends = ends.await;
    projects(members).into_iter().for_each(|project| helper::wake(run.paths, project));
    order::together(ends, "not stopped").map(|_| ())
}

/// Switches the machines off and removes them; data disks that outlive a machine only `with_disks`. A damaged record does not keep one from being removed.
///
/// # Errors
/// One could not be stopped or removed; what it depends on then stays, the others go.
pub async fn destroy(members: &[&Member], with_disks: bool, run: Run<'_>) -> Result<()> {
    let ends = order::run(nodes(members), async |name, instance: &Instance| {
        if run.cancel.is_cancelled() {
            return Err(Error::interrupted(format!("`{name}` was not destroyed")));
        }
        let lock = instance.lock("devbox destroy")?;
        let made = instance.exists();
        if made {
            hooks("before-destroy", instance, run, run.events).await?;
        }
        match instance.record() {
            Ok(Some(record)) => {
                stop(instance, &record, None, run).await?;
            }
            Ok(None) => {}
            Err(_) => {
                if let Some(process) = Process::find_by_file(&instance.files().pid_file()) {
                    process.kill().await?;
                }
            }
        }
        instance.remove()?;
        if with_disks {
            disks::remove(run.paths, instance)?;
        }
        drop(lock);
        if made {
            run.events.note(format!("`{name}` was destroyed"));
            for disk in disks::staying(run.paths, instance) {
                let how = "`devbox destroy --disks` removes it";
                run.events.note(format!("its disk stays: {} ({how})", disk.display()));
            }
            hooks("after-destroy", instance, run, run.events).await?;
        }
        Ok(())
    });
    let ends = ends.await;
    for project in projects(members) {
        helper::end(run.paths, project).await;
    }
    order::together(ends, "not destroyed").map(|_| ())
}

/// The folders of their projects.
fn projects<'a>(members: &[&'a Member]) -> BTreeSet<&'a Path> {
    members.iter().map(|member| member.instance.project()).collect()
}

/// Each machine after those that depend on it.
fn nodes<'a>(members: &[&'a Member]) -> Vec<Node<&'a Instance>> {
    let dependants = |name: &str| {
        let of = members.iter().filter(|other| other.depends_on.iter().any(|d| d == name));
        of.map(|other| other.name().to_owned()).collect()
    };
    let node = |member: &&'a Member| Node {
        name: member.name().to_owned(),
        after: dependants(member.name()),
        item: &member.instance,
    };
    members.iter().map(node).collect()
}

/// Stops one machine if it runs: politely for as long as `patience`, at once without. Its lock is held.
///
/// # Errors
/// QEMU does not answer and was not to be killed, or is still there after it was.
pub async fn stop(
    instance: &Instance,
    record: &Record,
    patience: Option<Duration>,
    run: Run<'_>,
) -> Result<Stopped> {
    let State::Running(process) = instance.state(record) else { return Ok(Stopped::Already) };
    let (name, files) = (instance.name(), instance.files());
    run.events.phase(format!("Stopping `{name}`"));
    if let Ok(client) = instance.client(record) {
        client.disconnect().await;
    }
    let machine =
        Machine::attach(name, &record.uuid, files.dir(), files.runtime(), run.events).await;
    match (machine, patience) {
        (Ok(Some(mut machine)), Some(timeout)) => {
            if machine.paused().await? {
                // A guest that stands still does not notice its power button.
                machine.go_on().await?;
            }
            machine.shutdown(timeout, run.cancel).await
        }
        (Ok(Some(mut machine)), None) => machine.switch_off().await,
        (Ok(None), _) => Ok(Stopped::Already),
        // QEMU hangs: it can only be killed, which is what force means.
        (Err(_), None) => {
            process.kill().await?;
            files.remove_run_files();
            Ok(Stopped::Killed)
        }
        (Err(e), Some(_)) => Err(e.hint(format!("End it with `devbox halt -f {name}`."))),
    }
}
