//! `devbox resume`.

use crate::cli::{Context, machine as shared};
use crate::error::Result;
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
    let nothing = "this project has no machine";
    shared::each(ctx, &args.machines, nothing, async |members, run| {
        suspend::resume(members, run).await
    })
}
