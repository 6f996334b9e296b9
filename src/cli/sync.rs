//! `devbox sync`.

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Result, exit};
use crate::project::{Project, sync};

/// Copy the folders of `[[mounts]]` with `type = "rsync"` into machines that run; what the host does not have is deleted there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// Go on, and copy again whenever something changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let mut spec = crate::spec::load(None)?;
    crate::spec::personal::apply(&mut spec, &ctx.paths.settings, &[])?;
    let project = Project::here(&ctx.paths)?;
    let names = shared::wanted(&project, &spec, &args.machines)?;
    ctx.block_on(async |cancel| {
        sync::sync(&project, &spec, &names, args.watch, ctx.work(&cancel)).await
    })?;
    Ok(exit::OK)
}
