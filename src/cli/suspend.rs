//! `devbox suspend`.

use crate::cli::{Context, machine as shared};
use crate::error::{Result, exit};
use crate::project::suspend;

/// Let the dev box stand still; `devbox resume` or `devbox up` lets it go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    /// Save its memory to its disk and end QEMU: gives the host its memory back, survives a restart of the host
    #[arg(long)]
    to_disk: bool,
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
    let work = async |cancel| {
        suspend::suspend(&members, args.to_disk, ctx.work(&cancel).of(&project)).await
    };
    ctx.block_on(work)?;
    Ok(exit::OK)
}
