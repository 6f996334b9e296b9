//! `devbox destroy`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::project::disks::staying;
use crate::project::{Member, Project, select, stop};
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Stop the dev box and delete its disk. The box in the store stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// Those of the project in this folder, which may be gone, instead of the current one
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Their data disks too that would outlive them
    #[arg(long)]
    disks: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let project = match &args.project {
        Some(dir) => Project::at(dir, &ctx.paths)?,
        None => shared::project(ctx)?,
    };
    let chosen = select::members(&project.members().iter().collect::<Vec<_>>(), &args.machines)?;
    // A folder without a record is the rest of an interrupted making: it goes too, without a word.
    let there = |member: &&Member| args.disks || member.instance.files().dir().exists();
    let members: Vec<&Member> = chosen.into_iter().filter(there).collect();
    let has_disks = |m: &Member| args.disks && !staying(&ctx.paths, &m.instance).is_empty();
    let made = members.iter().filter(|m| m.instance.exists() || has_disks(m));
    let made: Vec<&str> = made.map(|m| m.name()).collect();
    let names = select::list(&made);
    if made.is_empty() {
        ctx.events.note("there is no machine to destroy");
    } else if !args.force {
        let disks = if made.len() == 1 { "its disk" } else { "their disks" };
        if !std::io::stdin().is_terminal() {
            let what = format!("not destroyed without being asked for: {names}");
            return Err(Error::usage(what).hint(format!(
                "Say it with `devbox destroy -f`: {disks} and all on it are lost."
            )));
        }
        if !ui::ask(&format!("Destroy {names} and all that is on {disks}?"))? {
            return Err(Error::failed(format!("not destroyed: {names}")));
        }
    }
    ctx.block_on(async |cancel| {
        stop::destroy(&members, args.disks, ctx.work(&cancel).of(&project)).await
    })?;
    Ok(exit::OK)
}
