//! `devbox screenshot`.

use std::path::PathBuf;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Context as _, Error, Result, exit};
use crate::machine;
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Save a picture of the dev box's screen as PNG, and print its path.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Where the picture goes; an older file there is replaced [default: MACHINE.png]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (instance, _) = shared::running(ctx, args.machine.as_deref())?;
    let to = args.output.unwrap_or_else(|| PathBuf::from(format!("{}.png", instance.name())));
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // QEMU writes where it may write anyway; the picture then appears at once and whole.
    let picture = tempfile::NamedTempFile::new_in(instance.files().dir())?;
    ctx.block_on(async |_| machine::screenshot(instance.files(), picture.path()).await)
        .context(|| format!("cannot take a picture of `{}`", instance.name()))?;
    let failed = |e: std::io::Error| {
        Error::failed(format!("cannot write `{}`", to.display()))
            .cause(e)
            .hint("Name a file in a folder that is there and takes it, with `-o`.")
    };
    let mut new = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    let mut taken = fs_err::File::open(picture.path())?;
    std::io::copy(&mut taken, &mut new).map_err(failed)?;
    new.persist(&to).map_err(|e| failed(e.error))?;
    ui::line(&to.display().to_string())?;
    Ok(exit::OK)
}
