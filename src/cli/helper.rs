//! `devbox helper`: what `up` starts, and no person.

use std::path::PathBuf;

use crate::cli::Context;
use crate::error::{Result, exit};
use crate::helper;

/// Stay beside the machines of a project: their switch, their clocks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The project's folder
    project: PathBuf,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    helper::serve(&ctx.paths, &args.project)?;
    Ok(exit::OK)
}
