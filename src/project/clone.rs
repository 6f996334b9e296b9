//! A second machine that begins with what is on another one's disk.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::guest::agent::Agent;
use crate::guest::identity;
use crate::machine::Machine;
use crate::machine::instance::Instance;
use crate::machine::record::Record;
use crate::project::Run;
use crate::project::suspend::{attached, not_made};

/// How long a guest has to answer before its disk is copied without its help.
const AGENT_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Makes `target` with the disk of `source`. A source that runs writes out what it holds back and
/// stands still meanwhile; then it goes on. The memory is not copied.
///
/// # Errors
/// There is no source, the target is made already, or its disk cannot be written: then nothing of it
/// stays.
pub async fn clone(source: &Instance, target: &Instance, run: Run<'_>) -> Result<()> {
    if source.files().dir() == target.files().dir() {
        return Err(Error::usage(format!("`{}` cannot become its own clone", source.name()))
            .hint("Name a machine that the spec has and that is not made yet."));
    }
    let start = Instant::now();
    let _lock = source.lock("devbox clone")?;
    let _target_lock = target.lock("devbox clone")?;
    if target.exists() {
        return Err(Error::failed(format!("`{}` is made already", target.name()))
            .hint("Remove it with `devbox destroy`, or name another machine."));
    }
    let Some(record) = source.record()?.filter(|record| !record.unfinished) else {
        target.remove()?;
        return Err(not_made(source.name()));
    };
    run.events.phase(format!("Cloning `{}`", source.name()));
    let copied = match attached(source, &record, run.events).await? {
        Some(machine) => while_it_stands(&machine, source, target, &record, run.events).await,
        None => target.create_clone(source, &record),
    };
    if let Err(e) = copied {
        target.remove()?;
        return Err(e.context(format!("cannot clone `{}`", source.name())));
    }
    let done = format!("`{}` has the disk of `{}`", target.name(), source.name());
    run.events.done(done, start.elapsed());
    Ok(())
}

/// The copy of the disk of a machine that runs.
async fn while_it_stands(
    machine: &Machine,
    source: &Instance,
    target: &Instance,
    record: &Record,
    events: &Events,
) -> Result<Record> {
    let paused = machine.paused().await?;
    if !paused {
        if let Err(e) = sync(machine).await {
            events.warn(format!(
                "what `{}` has not written to its disk yet is not in the clone: {}",
                source.name(),
                e.what()
            ));
        }
        // QEMU writes out what it holds back when it pauses.
        machine.pause().await?;
    }
    let copied = target.create_clone(source, record);
    if !paused {
        machine.go_on().await?;
    }
    copied
}

async fn sync(machine: &Machine) -> Result<()> {
    let mut agent = Agent::connect(&machine.files().agent_socket(), AGENT_WAIT).await?;
    identity::sync(&mut agent).await
}
