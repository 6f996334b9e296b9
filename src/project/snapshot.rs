//! Snapshots of one machine: its disk, and its memory where it runs.

use std::path::PathBuf;
use std::time::Instant;

use crate::crash;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::guest::ssh::Client;
use crate::helper;
use crate::machine::instance::{Instance, State, alone};
use crate::machine::record::{Record, Saved};
use crate::machine::{Machine, accel};
use crate::project::suspend::{attached, not_made, now, ready_again, set_clock};
use crate::project::{Run, arriving, folders, hardware, network};

/// Longest name of a snapshot; qcow2 has room for 65,535 bytes, a list of names has not.
const LONGEST_NAME: usize = 63;

/// What a restored machine does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on from its memory.
    Runs,
    /// It is stopped: the snapshot has no memory.
    Stopped,
}

/// Saves the machine as `name`; `pushed` marks it for [`newest_pushed`].
///
/// # Errors
/// There is one of that name, the name is not allowed (kind `Usage`), or QEMU refuses.
pub async fn save(instance: &Instance, name: &str, pushed: bool, run: Run<'_>) -> Result<()> {
    check_name(name)?;
    let start = Instant::now();
    let _lock = instance.lock("devbox snapshot")?;
    let mut record = record(instance)?;
    if record.snapshots.contains_key(name) {
        return Err(Error::failed(format!(
            "`{}` has a snapshot `{name}` already",
            instance.name()
        ))
        .hint(format!("Choose another name, or remove it with `devbox snapshot delete {name}`.")));
    }
    refuse_suspended(instance, &record)?;
    run.events.phase(format!("Saving `{}` as `{name}`", instance.name()));
    let saved = match attached(instance, &record, run.events).await? {
        Some(machine) => {
            let had = let_go(&machine, instance, &mut record, run).await?;
            let saved = async {
                // Of a save whose record a crash prevented.
                machine.delete_snapshot(name).await?;
                machine.save_snapshot(name).await
            };
            let saved = saved.await;
            if had {
                folders::mount(&machine, instance, &mut record, run, run.events).await?;
            }
            saved?;
            let ready = record.was_ready(machine.process());
            let provisioned = record.provisioned.clone();
            Saved { made: now(), shape: record.shape, ready, pushed, provisioned }
        }
        None => {
            let _ = offline(instance, "-d", name);
            offline(instance, "-c", name)?;
            let provisioned = record.provisioned.clone();
            Saved { made: now(), shape: None, ready: false, pushed, provisioned }
        }
    };
    crash::point("snapshot.saved");
    let with = if saved.shape.is_some() { "with its memory" } else { "its disk" };
    record.snapshots.insert(name.to_owned(), saved);
    instance.save(&record)?;
    run.events.done(format!("`{name}` is saved, {with}"), start.elapsed());
    Ok(())
}

/// Unmounts the machine's folders, without which QEMU cannot save it; whether there were any.
async fn let_go(
    machine: &Machine,
    instance: &Instance,
    record: &mut Record,
    run: Run<'_>,
) -> Result<bool> {
    if !folders::any(machine, record).await? {
        return Ok(false);
    }
    if machine.paused().await? {
        return Err(Error::failed(format!(
            "`{}` is suspended and has folders mounted, which cannot be saved with it",
            instance.name()
        ))
        .hint("Let it go on with `devbox resume` first."));
    }
    folders::unmount(machine, instance, record, run).await?;
    Ok(true)
}

/// Goes back to the snapshot `name`; what happened since is lost.
///
/// # Errors
/// There is no such snapshot, or it cannot be restored.
pub async fn restore(instance: &Instance, name: &str, run: Run<'_>) -> Result<Then> {
    let start = Instant::now();
    let _lock = instance.lock("devbox snapshot")?;
    let record = record(instance)?;
    let saved = find(instance, &record, name)?.clone();
    let mut record = Record {
        provisioned: saved.provisioned.clone(),
        // What the guest had of its host then is not known: the next `up` hands it over again.
        host_settings: record.host_settings.map(|_| String::new()),
        ..record
    };
    run.events.phase(format!("Going back to `{name}`"));
    let machine = attached(instance, &record, run.events).await?;
    if saved.shape.is_none() {
        if let Some(mut machine) = machine {
            if let Ok(client) = instance.client(&record) {
                client.disconnect().await;
            }
            machine.switch_off().await?;
        }
        offline(instance, "-a", name)?;
        let record = Record { suspended: None, ready: None, ..record };
        instance.save(&record)?;
        run.events.done(format!("the disk is that of `{name}`"), start.elapsed());
        return Ok(Then::Stopped);
    }
    let client = instance.client(&record).ok();
    let (machine, mut record) = match machine {
        // A snapshot has no devices of folders: a machine that cannot let go of them is started anew.
        Some(machine)
            if record.shape == saved.shape
                && let_go(&machine, instance, &mut record, run).await.is_ok() =>
        {
            disconnect(client).await;
            machine.pause().await?;
            machine.load_snapshot(name).await?;
            machine.go_on().await?;
            let ready = ready_again(&machine, &saved);
            let record = Record { suspended: None, ready, ..record };
            instance.save(&record)?;
            (machine, record)
        }
        other => {
            disconnect(client).await;
            if let Some(mut machine) = other {
                machine.switch_off().await?;
            }
            let record = Record { suspended: None, ..record };
            self::start(instance, record, &saved, name, run, run.events).await?
        }
    };
    set_clock(&machine, run.events).await;
    folders::mount(&machine, instance, &mut record, run, run.events).await?;
    run.events.done(format!("`{}` goes on from `{name}`", instance.name()), start.elapsed());
    Ok(Then::Runs)
}

/// The guest's end of the connection is of another time.
async fn disconnect(client: Option<Client>) {
    if let Some(client) = client {
        client.disconnect().await;
    }
}

/// Removes the snapshot `name`.
///
/// # Errors
/// There is no such snapshot, or it cannot be removed.
pub async fn delete(instance: &Instance, name: &str, run: Run<'_>) -> Result<()> {
    let _lock = instance.lock("devbox snapshot")?;
    let mut record = record(instance)?;
    find(instance, &record, name)?;
    // First the record: a snapshot that nothing names is only space, a name of nothing is a lie.
    record.snapshots.remove(name);
    instance.save(&record)?;
    crash::point("snapshot.forgotten");
    match attached(instance, &record, run.events).await? {
        Some(machine) => machine.delete_snapshot(name).await?,
        None => offline(instance, "-d", name)?,
    }
    run.events.note(format!("the snapshot `{name}` of `{}` is removed", instance.name()));
    Ok(())
}

/// A name for `push` that is not taken: `push-1`, `push-2`, ….
///
/// # Errors
/// The machine is not made.
pub fn next_pushed(instance: &Instance) -> Result<String> {
    let record = record(instance)?;
    let numbers = record.snapshots.keys().filter_map(|n| n.strip_prefix("push-")?.parse().ok());
    Ok(format!("push-{}", numbers.max().unwrap_or(0u64) + 1))
}

/// The snapshot that `pop` takes.
///
/// # Errors
/// Nothing was pushed.
pub fn newest_pushed(instance: &Instance) -> Result<String> {
    let record = record(instance)?;
    let number = |name: &str| name.strip_prefix("push-").and_then(|n| n.parse::<u64>().ok());
    let pushed = record.snapshots.iter().filter(|(_, saved)| saved.pushed);
    let newest = pushed.max_by_key(|(name, saved)| (saved.made, number(name)));
    newest.map(|(name, _)| name.clone()).ok_or_else(|| {
        Error::failed(format!("`{}` has no pushed snapshot", instance.name()))
            .hint("Make one with `devbox snapshot push`.")
    })
}

/// Starts QEMU with the memory of the snapshot `tag`. The lock is held.
pub(super) async fn start(
    instance: &Instance,
    mut record: Record,
    saved: &Saved,
    tag: &str,
    run: Run<'_>,
    events: &Events,
) -> Result<(Machine, Record)> {
    let Some(shape) = saved.shape else {
        return Err(Error::failed(format!("the snapshot `{tag}` has no memory")));
    };
    let choice = accel::choose(&run.paths.cache, shape.arch).await?;
    if choice.accelerator != shape.accelerator {
        return Err(Error::failed(format!(
            "the memory of `{}` cannot be used on this host now: it needs another accelerator",
            instance.name()
        ))
        .cause(&choice.reason)
        .hint(
            "Start it anew with `devbox halt`, then `devbox up`: what was only in memory is lost.",
        ));
    }
    arriving::ensure(&record, run, events).await?;
    let card = network::card(instance, run.paths);
    let mut config = hardware::saved(instance, &record, shape, card, tag);
    folders::configure(&mut config, &record, events)?;
    let (dir, runtime) = (instance.files().dir(), instance.files().runtime());
    let machine = Machine::launch(config, dir, runtime, events, run.cancel).await?;
    record.forwards = machine.forwards().to_vec();
    record.shape = Some(shape);
    record.ready = ready_again(&machine, saved);
    instance.save(&record)?;
    helper::ensure(run.paths, instance.project(), events).await;
    Ok((machine, record))
}

/// Removes the memory of a machine that is suspended to its disk: it is then stopped.
pub(super) fn forget_memory(instance: &Instance, record: &Record) -> Result<Record> {
    let record = Record { suspended: None, ready: None, ..record.clone() };
    instance.save(&record)?;
    offline(instance, "-d", crate::machine::record::SUSPENDED)?;
    Ok(record)
}

/// Removes all snapshots from the data disks of a machine whose own disk goes: they belong together.
pub(super) fn forget_on_data_disks(record: &Record) {
    let names = record.snapshots.keys().map(String::as_str);
    let suspended = record.suspended.as_ref().map(|_| crate::machine::record::SUSPENDED);
    for name in names.chain(suspended) {
        for disk in record.disks.iter().filter(|disk| disk.path.exists()) {
            let Ok(mut command) = tools::QEMU_IMG.command() else { return };
            command.args(["snapshot", "-d", name]).arg(&disk.path);
            // One that was plugged in later has none of that name.
            let _ = exec::output(&mut command);
        }
    }
}

/// `qemu-img snapshot` on the disks that no QEMU uses.
fn offline(instance: &Instance, what: &str, name: &str) -> Result<()> {
    let record = instance.record()?;
    let own = record.as_ref().map_or(&[][..], |record| &record.disks);
    let data = own.iter().map(|disk| disk.path.clone()).filter(|path| path.exists());
    let overlay = instance.files().overlay();
    let first = match record.as_ref().is_some_and(|record| record.awaited().is_some()) {
        true => alone(&overlay),
        false => overlay.into_os_string(),
    };
    for disk in std::iter::once(first).chain(data.map(PathBuf::into_os_string)) {
        let mut command = tools::QEMU_IMG.command()?;
        command.args(["snapshot", what, name]).arg(disk);
        exec::output(&mut command)?;
    }
    Ok(())
}

fn record(instance: &Instance) -> Result<Record> {
    instance.record()?.ok_or_else(|| not_made(instance.name()))
}

fn find<'a>(instance: &Instance, record: &'a Record, name: &str) -> Result<&'a Saved> {
    record.snapshots.get(name).ok_or_else(|| {
        let error = Error::failed(format!("`{}` has no snapshot `{name}`", instance.name()));
        match record.snapshots.is_empty() {
            true => error.hint("Make one with `devbox snapshot save`."),
            false => error.hint("See which it has with `devbox snapshot list`."),
        }
    })
}

/// Its disk belongs to the memory that is saved in it.
fn refuse_suspended(instance: &Instance, record: &Record) -> Result<()> {
    if record.suspended.is_some() && !matches!(instance.state(record), State::Running(_)) {
        return Err(Error::failed(format!("`{}` is suspended to its disk", instance.name()))
            .hint("Let it go on with `devbox resume` first."));
    }
    Ok(())
}

/// Letters, digits, `-`, `_` and `.`; not a number alone, which `qemu-img` takes for an id.
fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.chars().all(|c| c.is_ascii_digit());
    if fits {
        return Ok(());
    }
    Err(Error::usage(format!("`{name}` is no name for a snapshot")).hint(format!(
        "Use letters, digits, `-`, `_` and `.`, at most {LONGEST_NAME}, and not digits alone."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_qemu_would_misread_are_refused() {
        for name in ["before-upgrade", "v1.2", "2024_a"] {
            check_name(name).expect(name);
        }
        for name in ["", "1", "42", "-a", ".a", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert_eq!(check_name(name).expect_err(name).kind(), crate::error::Kind::Usage);
        }
    }
}
