//! `devbox compact`.

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Result, exit};
use crate::project::compact;

/// Give back to the host what the dev box's disk does not need any more.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let project = shared::project(ctx)?;
    let members = shared::existing(&project, &args.machines)?;
    if members.is_empty() {
        ctx.events.note("this project has no machine");
        return Ok(exit::OK);
    }
    ctx.block_on(async |cancel| compact::compact(&members, ctx.work(&cancel)).await)?;
    Ok(exit::OK)
}
