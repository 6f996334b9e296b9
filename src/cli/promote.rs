//! `devbox promote`.

use clap_complete::engine::ArgValueCandidates;

use crate::cli::limits::LimitArgs;
use crate::cli::{Context, completions::machines, drift, machine as shared};
use crate::error::{Kind, Result, exit};
use crate::project::promote;
use crate::ui;

/// Print what a machine changed as a patch of its spec: packages, files, links and modes.
///
/// Files are copied to `promoted/` beside the spec. Secrets (password hashes, keys, tokens) are named
/// and left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Change the spec and write the files instead of printing the patch
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let report = drift::look(ctx, args.machine.as_deref(), &args.limits)
        .map_err(|e| if e.kind() == Kind::Undetermined { e.with_kind(Kind::Failed) } else { e })?;
    let project = shared::project(ctx)?;
    let patch = promote::patch(&report, project.dir())?;
    for (place, why) in &patch.left_out {
        ctx.events.warn(format!("left out: {place}: {why}"));
    }
    if patch.is_empty() {
        ctx.events.note(format!("`{}` has nothing to promote", report.machine));
        return Ok(exit::OK);
    }
    if !args.write {
        let text = patch.text();
        ui::line(text.trim_end_matches('\n'))?;
        return Ok(exit::OK);
    }
    patch.write(project.dir())?;
    ctx.events.note("the spec is changed; give it another `version`, then `devbox build`");
    Ok(exit::OK)
}
