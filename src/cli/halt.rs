//! `devbox halt`.

use std::time::Duration;

use crate::cli::{Context, machine as shared};
use crate::error::{Result, exit};
use crate::machine::instance::{Instance, Record, State};
use crate::machine::{Machine, Stopped};

/// A Debian guest shuts down in 5 s, an emulated one in 20; a service may take its 90 s.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Shut the dev box down: power button, then off, then kill.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Switch it off at once, as if its cable was pulled
    #[arg(short, long)]
    force: bool,
    /// How long the guest may take to shut down [default: 120s]
    #[arg(long, value_name = "DURATION", value_parser = shared::duration)]
    timeout: Option<Duration>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let Some((instance, record)) = shared::existing(ctx)? else {
        ctx.events.note("this project has no machine");
        return Ok(exit::OK);
    };
    let _lock = instance.lock("devbox halt")?;
    let patience = (!args.force).then_some(args.timeout.unwrap_or(TIMEOUT));
    let stopped = stop(ctx, &instance, &record, patience)?;
    let late = match (stopped, patience) {
        (Stopped::Quit, Some(patience)) => {
            format!("did not shut down within {} s and ", patience.as_secs())
        }
        _ => String::new(),
    };
    ctx.events.note(format!("`{}` {late}{stopped}", instance.name()));
    Ok(exit::OK)
}

/// Stops the machine if it runs: politely for as long as `patience`, at once without.
pub(super) fn stop(
    ctx: &Context,
    instance: &Instance,
    record: &Record,
    patience: Option<Duration>,
) -> Result<Stopped> {
    let State::Running(process) = instance.state(record) else { return Ok(Stopped::Already) };
    ctx.events.phase(format!("Stopping `{}`", instance.name()));
    let files = instance.files();
    ctx.block_on(async |cancel| {
        if let Ok(client) = instance.client(record) {
            client.disconnect().await;
        }
        let name = instance.name();
        let machine =
            Machine::attach(name, &record.uuid, files.dir(), files.runtime(), &ctx.events).await;
        match (machine, patience) {
            (Ok(Some(mut machine)), Some(timeout)) => machine.shutdown(timeout, &cancel).await,
            (Ok(Some(mut machine)), None) => machine.switch_off().await,
            (Ok(None), _) => Ok(Stopped::Already),
            // QEMU hangs: it can only be killed, which is what force means.
            (Err(_), None) => {
                process.kill().await?;
                files.remove_run_files();
                Ok(Stopped::Killed)
            }
            (Err(e), Some(_)) => Err(e.hint("End it with `devbox halt -f`.")),
        }
    })
}
