//! `devbox resume`.

use crate::cli::{Context, machine as shared};
use crate::error::{Result, exit};
use crate::project::suspend;

/// Let a suspended dev box go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE")]
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
    ctx.block_on(async |cancel| suspend::resume(&members, ctx.work(&cancel).of(&project)).await)?;
    Ok(exit::OK)
}
