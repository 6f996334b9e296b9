//! `devbox ssh`.

use std::ffi::OsString;

use crate::cli::{Context, completions::machines, machine as shared, remote};
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
    exec(args, ctx).or_else(|error| Ok(failed(&error)))
}

/// Prints why the guest's command did not run, and gives the exit code.
pub(super) fn failed(error: &Error) -> u8 {
    ui::error(error);
    if error.kind() == Kind::Usage { exit::USAGE } else { exit::SSH_FAILED }
}

fn exec(args: Args, ctx: &Context) -> Result<u8> {
    let (instance, record) = shared::running(ctx, args.machine.as_deref())?;
    let client = instance.client(&record)?;
    let mut command = client.base(args.command.is_some())?;
    // With options of somebody's own it may be anything: a terminal, a tunnel.
    let beside = args.command.is_some() && args.args.is_empty();
    command.args(args.args).arg(&client.target().name);
    if let Some(line) = args.command {
        command.arg("--").arg(line);
    }
    if beside {
        return remote::beside(&command, &instance, &record);
    }
    match remote::become_ssh(command)? {}
}
