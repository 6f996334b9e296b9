//! `devbox ssh-config`.

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Result, exit};
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Print an ssh configuration for the dev box.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// The name in the `Host` line; the machine's name by default
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (instance, record) = shared::running(ctx, args.machine.as_deref())?;
    let client = instance.client(&record)?;
    let host = args.host.as_deref().unwrap_or(instance.name());
    ui::line(client.config_for_people(host).trim_end())?;
    Ok(exit::OK)
}
