//! `devbox provision`.

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Result, exit};
use crate::project::provision::Which;
use crate::project::{Project, up};

/// Do in machines that run what `[[provision]]` of the spec says, done before or not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// Only these of `[[provision]]`, by name
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    with: Vec<String>,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let spec = crate::spec::load(None)?;
    let project = Project::here(&ctx.paths)?;
    let names = shared::wanted(&project, &spec, &args.machines)?;
    let which = if args.with.is_empty() { Which::All } else { Which::Named(args.with) };
    which.check(&spec)?;
    if spec.provision.is_empty() {
        ctx.events.note("the spec has no `[[provision]]`");
        return Ok(exit::OK);
    }
    ctx.block_on(async |cancel| {
        up::provision(&project, &spec, &names, &which, ctx.work(&cancel)).await
    })?;
    Ok(exit::OK)
}
