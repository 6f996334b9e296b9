//! `devbox completions`, and the names that they complete.

use clap::builder::PossibleValuesParser;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use crate::error::{Error, Result, exit};
use crate::host::Paths;
use crate::project::{Member, Project};
use crate::ui;

/// The variable by which a shell asks for completions.
pub(super) const VARIABLE: &str = "COMPLETE";
const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// Print a script that completes verbs, options and machine names in a shell.
///
/// bash and zsh: `source <(devbox completions bash)` in ~/.bashrc, or with `zsh` in ~/.zshrc. fish:
/// `devbox completions fish | source` in ~/.config/fish/config.fish. The script asks `devbox` each time, so
/// that it knows the machines of the current folder and stays right after an update.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(SHELLS))]
    shell: String,
}

pub(crate) fn run(args: Args, _: &crate::cli::Context) -> Result<u8> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&args.shell) else {
        return Err(Error::usage(format!("no completions are known for `{}`", args.shell))
            .hint("Name another shell."));
    };
    ui::data(|out| {
        shell
            .write_registration(VARIABLE, "devbox", "devbox", "devbox", out)
            .map_err(|e| Error::failed("cannot write to standard output").cause(e))
    })?;
    Ok(exit::OK)
}

/// The machines of the current folder's project; none if there is no project. A completion says nothing.
pub(super) fn machines() -> Vec<CompletionCandidate> {
    let project = Paths::from_env().and_then(|paths| Project::here(&paths));
    let names = |project: Project| {
        project.members().iter().map(Member::name).map(CompletionCandidate::new).collect()
    };
    project.map(names).unwrap_or_default()
}
