//! `devbox reset`.

use std::io::IsTerminal as _;

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::project::reset;
use crate::ui;

/// Throw away what a machine changed: the next `up` starts it anew of its image. Data disks stay.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let project = shared::project(ctx)?;
    let (instance, _) = shared::one(ctx, args.machine.as_deref())?;
    let name = instance.name();
    if !args.force {
        if !std::io::stdin().is_terminal() {
            let what = format!("not reset without being asked for: `{name}`");
            return Err(Error::usage(what).hint(
                "Say it with `devbox reset -f`: its disk, its snapshots and its home folders are lost.",
            ));
        }
        if !ui::ask(&format!("Reset `{name}`? Its disk, snapshots and home folders are lost."))? {
            return Err(Error::failed(format!("not reset: `{name}`")));
        }
    }
    ctx.block_on(async |cancel| reset::reset(&instance, ctx.work(&cancel).of(&project)).await)?;
    Ok(exit::OK)
}
