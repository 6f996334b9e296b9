//! `devbox box-server`: what `up` starts, and no person.

use crate::arrival;
use crate::cli::Context;
use crate::digest::FileDigest;
use crate::error::{Error, Result, exit};

/// Serve a box's disk to machines while it arrives.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// SHA-256 of the disk, as hex digits
    disk: String,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let disk: FileDigest = format!("sha256:{}", args.disk)
        .parse()
        .map_err(|_| Error::usage(format!("`{}` is no SHA-256", args.disk)))?;
    arrival::serve(&ctx.paths, disk)?;
    Ok(exit::OK)
}
