//! `devbox suspend`.

use crate::cli::{Context, machine as shared};
use crate::error::Result;
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
    let nothing = "this project has no machine";
    shared::each(ctx, &args.machines, nothing, async |members, run| {
        suspend::suspend(members, args.to_disk, run).await
    })
}
