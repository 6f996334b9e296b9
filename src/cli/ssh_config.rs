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
    /// Print one line for the top of ~/.ssh/config instead, by which every program of ssh knows all machines
    #[arg(long, conflicts_with_all = ["machine", "host"])]
    include: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    if args.include {
        // ssh takes the first value that it finds, and a folder of its own for each machine.
        let all = ctx.paths.machines.join("*/ssh/config");
        return ui::line(&format!("Include \"{}\"", all.display())).map(|()| exit::OK);
    }
    let (instance, record) = shared::running(ctx, args.machine.as_deref())?;
    let client = instance.client(&record)?;
    let host = args.host.as_deref().unwrap_or(instance.name());
    ui::line(client.config_for_people(host).trim_end())?;
    Ok(exit::OK)
}
