//! `devbox folder-server`: what `up` starts in namespaces, and no person.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Result, exit};
use crate::machine::virtiofs::inside;

/// Become the server of a folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder that is only read
    #[arg(long)]
    read_only: Option<PathBuf>,
    /// The server and its words
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    inside::serve(args.read_only.as_deref(), &args.program)?;
    Ok(exit::OK)
}
