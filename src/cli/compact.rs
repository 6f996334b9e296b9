//! `devbox compact`.

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::Result;
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
    let nothing = "this project has no machine";
    shared::each(ctx, &args.machines, nothing, async |members, run| {
        compact::compact(members, run).await
    })
}
