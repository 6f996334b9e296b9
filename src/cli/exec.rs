//! `devbox exec`.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;

use crate::cli::{Context, by_agent, completions::machines, machine as shared, remote, ssh};
use crate::error::Result;
use crate::exec::shell_word;
use crate::machine::record::Login;
use crate::spec::grammar;
use clap_complete::engine::ArgValueCandidates;

/// Run one program in the dev box with exactly these arguments; its exit code is passed on.
///
/// In a machine with `login = "agent"` it runs as root, gets what is piped (up to 16 MiB), and its output comes when it
/// has ended.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Run it in this folder of the guest; the account's home by default
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<OsString>,
    /// Set a variable for it; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The program and its arguments, which no shell changes
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Ends as `devbox ssh` does: the program's exit code, 255 when devbox fails, 2 for wrong usage.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    exec(args, ctx).or_else(|error| Ok(ssh::failed(&error)))
}

fn exec(args: Args, ctx: &Context) -> Result<u8> {
    let line = line(args.workdir.as_deref(), &args.env, &args.command);
    let (instance, record) = shared::running(ctx, args.machine.as_deref())?;
    if record.login == Login::Agent {
        return by_agent::exec(line, &args.command, &instance, &record, ctx);
    }
    let client = instance.client(&record)?;
    // A program that a person talks to gets a terminal; a pipe stays a pipe, byte for byte.
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut command = client.base(!terminal)?;
    if terminal {
        command.arg("-t");
    }
    command.arg(&client.target().name).arg("--").arg(line);
    if terminal {
        match remote::become_ssh(command)? {}
    }
    remote::beside(&command, &instance, &record)
}

/// The line for the guest's login shell, which gives each word back as it was.
fn line(workdir: Option<&OsStr>, env: &[(String, String)], command: &[OsString]) -> OsString {
    let mut line = OsString::new();
    for (name, value) in env {
        line.push(format!("export {name}="));
        line.push(shell_word(OsStr::new(value)));
        line.push("; ");
    }
    if let Some(dir) = workdir {
        line.push("cd -- ");
        line.push(shell_word(dir));
        // As devbox itself: the program was not run.
        line.push(" || exit 255; ");
    }
    line.push("exec");
    for word in command {
        line.push(" ");
        line.push(shell_word(word));
    }
    line
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if grammar::VARIABLE.accepts(name) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected `NAME=VALUE`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_shell_gives_each_word_back_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("a b'c");
        std::fs::create_dir(&place).expect("made");
        let odd = ["", "a b", "$HOME", "it's", "-n", "*", "\\", "a\nb", "~", "ö"];
        let mut command: Vec<OsString> = vec!["printf".into(), "%s\\0".into()];
        command.extend(odd.map(OsString::from));
        command.push(OsString::from_vec(b"\xff\xfe".to_vec()));
        let env = [("A".to_owned(), "x y; exit 1".to_owned())];
        let run = |words: &[OsString]| {
            let line = line(Some(place.as_os_str()), &env, words);
            std::process::Command::new("sh").arg("-c").arg(line).output().expect("sh runs").stdout
        };
        let mut expected: Vec<u8> =
            odd.iter().flat_map(|w| [w.as_bytes(), b"\0"].concat()).collect();
        expected.extend(b"\xff\xfe\0");
        assert_eq!(run(&command), expected);
        let shown = run(&["sh".into(), "-c".into(), "echo \"$A\"; pwd".into()]);
        assert_eq!(String::from_utf8_lossy(&shown), format!("x y; exit 1\n{}\n", place.display()));
    }
}
