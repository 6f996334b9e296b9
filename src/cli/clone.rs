//! `devbox clone`.

use std::path::PathBuf;

use clap_complete::engine::ArgValueCandidates;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::machine::instance::Instance;
use crate::project::{Project, clone};
use crate::spec;

/// Make a machine that begins with what is on another one's disk, with an identity of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The new machine is one that a spec names and that is not made yet: another one of this project, or,
with --project, one of another folder, such as a second checkout of the same repository.")]
pub(crate) struct Args {
    /// The machine to copy
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    source: String,
    /// The machine to make; in another project, one of the same name if this is left out
    #[arg(value_name = "NEW", required_unless_present = "project")]
    target: Option<String>,
    /// The folder of the devbox.toml that names the new machine; this project by default
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    project: Option<PathBuf>,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (source, record) = shared::one(ctx, Some(&args.source))?;
    let name = args.target.as_deref().unwrap_or(&args.source);
    let target = match &args.project {
        None => member(&shared::project(ctx)?, name)?,
        Some(folder) => {
            // Loaded for its problems: a project that is wrong is not one without machines.
            spec::load(Some(&folder.join(spec::FILE_NAME)))?;
            member(&Project::at(folder, &ctx.paths)?, name)?
        }
    };
    ctx.block_on(async |cancel| clone::clone(&source, &target, ctx.work(&cancel)).await)?;
    let at = match &args.project {
        None => format!("`devbox up {name}`"),
        Some(folder) => format!("`devbox up {name}` in `{}`", folder.display()),
    };
    ctx.events.note(format!("{} is its image; start it with {at}", record.base.reference));
    Ok(exit::OK)
}

/// The machine of this name, which the project's spec has.
fn member(project: &Project, name: &str) -> Result<Instance> {
    let found = project.members().iter().find(|member| member.name() == name);
    match found.filter(|member| member.in_spec == Some(true)) {
        Some(member) => Ok(member.instance.clone()),
        None => Err(Error::usage(format!(
            "`{}` names no machine `{name}`",
            project.dir().join(spec::FILE_NAME).display()
        ))
        .hint(format!("Write `[machines.{name}]` into it, or name one of its machines."))),
    }
}
