//! `devbox ssh`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use crate::cli::{Context, machine as shared};
use crate::error::{Error, Result, exit};
use crate::ui;

/// Open a shell in the dev box, or run one command; its exit code is passed on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this command instead of a shell
    #[arg(short, long, value_name = "CMD", allow_hyphen_values = true)]
    command: Option<OsString>,
    /// Options for ssh itself (`-- -A -L 8080:localhost:80`)
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Ends with the guest's exit code; with 255, as ssh itself, when devbox fails.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let error = match exec(args, ctx) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    ui::error(&error);
    Ok(exit::SSH_FAILED)
}

/// Becomes ssh, so that the terminal, signals and the exit code are ssh's own.
fn exec(args: Args, ctx: &Context) -> Result<std::convert::Infallible> {
    let (instance, record) = shared::running(ctx)?;
    let client = instance.client(&record)?;
    let mut command = client.base(args.command.is_some())?;
    command.args(args.args).arg(&client.target().name);
    if let Some(remote) = args.command {
        command.arg("--").arg(remote);
    }
    let e = command.exec();
    Err(Error::failed("cannot start `ssh`").cause(e))
}
