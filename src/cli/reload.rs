//! `devbox reload`.

use std::time::Duration;

use crate::cli::{Context, completions::machines, halt, machine as shared};
use crate::error::{Result, exit};
use crate::project::up::{Options, up};
use crate::project::{Member, Project, stop};
use clap_complete::engine::ArgValueCandidates;

/// Shut the dev box down and boot it again, with what the spec says now: `halt`, then `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// Switch it off at once, as if its cable was pulled
    #[arg(short, long)]
    force: bool,
    /// How long to wait until a machine is ready; its `timeout` of the spec by default
    #[arg(long, value_name = "DURATION", value_parser = shared::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    settings: shared::SettingArgs,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    // Before anything is stopped: what cannot come up again goes on.
    let (spec, overrides) = args.settings.spec(ctx)?;
    let project = Project::here(&ctx.paths)?;
    let names = shared::wanted(&project, &spec, &args.machines)?;
    let chosen = |member: &&Member| names.contains(&member.name());
    let members: Vec<&Member> = project.existing().filter(chosen).collect();
    let patience = (!args.force).then_some(halt::TIMEOUT);
    let options = Options { timeout: args.timeout, overrides, ..Options::default() };
    ctx.block_on(async |cancel| {
        stop::halt(&members, patience, ctx.work(&cancel).of(&project)).await?;
        up(&project, &spec, &names, &options, ctx.work(&cancel).of(&project)).await
    })?;
    Ok(exit::OK)
}
