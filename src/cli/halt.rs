//! `devbox halt`.

use std::time::Duration;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::Result;
use crate::project::stop;
use clap_complete::engine::ArgValueCandidates;

/// A Debian guest shuts down in 5 s, an emulated one in 20; a service may take its 90 s.
pub(super) const TIMEOUT: Duration = Duration::from_secs(120);

/// Shut the dev box down: power button, then off, then kill.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// Switch it off at once, as if its cable was pulled
    #[arg(short, long)]
    force: bool,
    /// How long a guest may take to shut down [default: 120s]
    #[arg(long, value_name = "DURATION", value_parser = shared::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let patience = (!args.force).then_some(args.timeout.unwrap_or(TIMEOUT));
    let nothing = "there is no machine to stop";
    shared::each(ctx, &args.machines, nothing, async |members, run| {
        stop::halt(members, patience, run).await
    })
}
