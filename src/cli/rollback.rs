//! `devbox rollback`.

use std::io::IsTerminal as _;

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::project::rollback;
use crate::project::up::Options;
use crate::ui;

/// Go back to the box that a machine ran on before, and stay there. Data disks stay, its own disk is made anew.
///
/// `devbox up` does not go forward by itself then; `devbox up --forward` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// The version to go back to, instead of the one before
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    settings: shared::SettingArgs,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (spec, overrides) = args.settings.spec(ctx)?;
    let project = shared::project(ctx)?;
    let (instance, _) = shared::one(ctx, args.machine.as_deref())?;
    let name = instance.name();
    shared::wanted(&project, &spec, &[name.to_owned()])?;
    if !args.force {
        if !std::io::stdin().is_terminal() {
            let what = format!("not rolled back without being asked for: `{name}`");
            return Err(Error::usage(what).hint(
                "Say it with `devbox rollback -f`: its disk, its snapshots and its home folders are lost.",
            ));
        }
        let question = "Its disk, snapshots and home folders are lost.";
        if !ui::ask(&format!("Roll `{name}` back? {question}"))? {
            return Err(Error::failed(format!("not rolled back: `{name}`")));
        }
    }
    let options = Options { overrides, ..Options::default() };
    ctx.block_on(async |cancel| {
        let run = ctx.work(&cancel).of(&project);
        rollback::rollback(&project, &spec, &instance, args.to.as_deref(), &options, run).await
    })?;
    Ok(exit::OK)
}
