//! `devbox cp`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytesize::ByteSize;
use clap::ValueHint;

use crate::cli::{Context, machine as shared};
use crate::error::{Error, Result, exit};
use crate::guest::copy::{self, Arrived, GuestPath};
use crate::guest::ssh::Client;
use crate::spec::problem::shown as escaped;

/// Copy files and folders between the host and the dev box; `MACHINE:PATH` or `:PATH` is a path in it.
#[derive(Debug, clap::Args)]
#[command(override_usage = "devbox cp [OPTIONS] <SOURCE>... <TARGET>")]
pub(crate) struct Args {
    /// Copy folders with all that is in them
    #[arg(long, short)]
    recursive: bool,
    /// What to copy, then where to: into it if it is a folder, else under its name
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "TARGET"], value_hint = ValueHint::AnyPath)]
    paths: Vec<OsString>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let mut sides: Vec<Side<'_>> = args.paths.iter().map(|path| Side::of(path)).collect();
    let several = sides.len() > 2;
    let Some(target) = sides.pop() else {
        return Err(Error::usage("no target is named").hint("Name a source and a target."));
    };
    match target {
        Side::Guest(machine, path) => {
            let sources: Vec<&Path> = sides.iter().filter_map(Side::host).collect();
            if sources.len() < sides.len() {
                return Err(one_side());
            }
            let client = client(ctx, machine)?;
            let to = GuestPath::new(path);
            for source in sources {
                copy::to_guest(&client, source, &to, args.recursive, several)?;
                ctx.events.note(format!(
                    "copied `{}` to `{}`",
                    source.display(),
                    shown(&client, path)
                ));
            }
        }
        Side::Host(target) => {
            if several && !target.is_dir() {
                return Err(Error::failed(format!("`{}` is no folder", target.display()))
                    .hint("Make the folder first: several things go into one."));
            }
            // All of them, before the first is copied.
            let sources: Option<Vec<_>> = sides.iter().map(Side::guest).collect();
            for (machine, path) in sources.ok_or_else(one_side)? {
                let client = client(ctx, machine)?;
                let from = GuestPath::new(path);
                let arrived = copy::to_host(&client, &from, target, args.recursive)?;
                let files = match arrived.files {
                    1 => "1 file".to_owned(),
                    n => format!("{n} files"),
                };
                ctx.events.note(format!(
                    "copied `{}` to `{}`: {files}, {}{}",
                    shown(&client, path),
                    target.display(),
                    ByteSize(arrived.bytes).display().iec(),
                    left_out(&arrived)
                ));
            }
        }
    }
    Ok(exit::OK)
}

/// What did not come along. A guest made the names up, and they go to a terminal.
fn left_out(arrived: &Arrived) -> String {
    let names: Vec<String> = arrived.names.iter().map(|name| escaped(name)).collect();
    match arrived.left_out {
        0 => String::new(),
        n => format!(
            "; left out {n}, such as {}: no devices, pipes, or links that lead out are copied",
            names.join(", ")
        ),
    }
}

fn one_side() -> Error {
    Error::usage("either the sources or the target must be in the dev box, and the other on this host")
        .hint("Write `MACHINE:PATH`, or `:PATH` where the project has one machine; `./a:b` is a file of this host.")
}

fn client(ctx: &Context, machine: Option<&str>) -> Result<Client> {
    let (instance, record) = shared::running(ctx, machine)?;
    instance.client(&record)
}

fn shown(client: &Client, path: &OsStr) -> String {
    format!("{}:{}", client.target().name, path.to_string_lossy())
}

/// A path on the command line.
enum Side<'a> {
    Host(&'a Path),
    Guest(Option<&'a str>, &'a OsStr),
}

impl<'a> Side<'a> {
    /// As scp reads it: a colon before any slash ends the machine's name.
    fn of(text: &'a OsStr) -> Self {
        let bytes = text.as_bytes();
        let host = Side::Host(Path::new(text));
        let Some(colon) = bytes.iter().position(|b| *b == b':' || *b == b'/') else { return host };
        match (bytes[colon], std::str::from_utf8(&bytes[..colon])) {
            (b':', Ok(name)) => {
                let name = (!name.is_empty()).then_some(name);
                Side::Guest(name, OsStr::from_bytes(&bytes[colon + 1..]))
            }
            _ => host,
        }
    }

    fn host(&self) -> Option<&'a Path> {
        match self {
            Side::Host(path) => Some(path),
            Side::Guest(..) => None,
        }
    }

    fn guest(&self) -> Option<(Option<&'a str>, &'a OsStr)> {
        match self {
            Side::Host(_) => None,
            Side::Guest(machine, path) => Some((*machine, path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_a_machine() {
        let of = |text: &str| match Side::of(OsStr::new(text)) {
            Side::Host(path) => format!("host {}", path.display()),
            Side::Guest(name, path) => {
                format!("guest {} {}", name.unwrap_or("-"), path.to_string_lossy())
            }
        };
        assert_eq!(of("web:/etc/a:b"), "guest web /etc/a:b");
        assert_eq!(of(":a"), "guest - a");
        assert_eq!(of("web:"), "guest web ");
        assert_eq!(of("./a:b"), "host ./a:b");
        assert_eq!(of("/a:b"), "host /a:b");
        assert_eq!(of("plain"), "host plain");
    }
}
