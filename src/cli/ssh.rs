//! `devbox ssh`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Kind, Result, exit};
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Open a shell in the dev box, or run one command; its exit code is passed on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Run this command line instead of a shell
    #[arg(short, long, value_name = "CMD", allow_hyphen_values = true)]
    command: Option<OsString>,
    /// Options for ssh itself (`-- -A -L 8080:localhost:80`)
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Ends with the guest's exit code; with 255, as ssh itself, when devbox fails, and with 2 when the
/// machine is not named as it has to be.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    match exec(args, ctx) {
        Ok(never) => match never {},
        Err(error) => Ok(failed(&error)),
    }
}

/// Prints why the guest's command did not run, and gives the exit code.
pub(super) fn failed(error: &Error) -> u8 {
    ui::error(error);
    if error.kind() == Kind::Usage { exit::USAGE } else { exit::SSH_FAILED }
}

/// Becomes ssh, so that the terminal, signals and the exit code are ssh's own.
fn exec(args: Args, ctx: &Context) -> Result<std::convert::Infallible> {
    let (instance, record) = shared::running(ctx, args.machine.as_deref())?;
    let client = instance.client(&record)?;
    let mut command = client.base(args.command.is_some())?;
    command.args(args.args).arg(&client.target().name);
    if let Some(remote) = args.command {
        command.arg("--").arg(remote);
    }
    let e = command.exec();
    Err(Error::failed("cannot start `ssh`").cause(e))
}
