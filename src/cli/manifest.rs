//! `devbox manifest`.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::limits::LimitArgs;
use crate::cli::live_args::{self, LiveArgs};
use crate::cli::new_file::NewFile;
use crate::error::{Error, Result, exit};
use crate::image::Limits;
use crate::parity::Level;
use crate::parity::manifest::{Manifest, Scope};
use crate::parity::subject::{self, Reference, Seen};
use crate::ui;

/// Write down what an image holds, to compare it later without the image.
///
/// The manifest is one text file: every file with its digest, mode, owner and time, every partition,
/// the boot entries, the packages. `devbox parity` and `devbox digest` take it in place of the image.
/// The same image gives the same manifest, whatever its container. Keep it as confidential as the
/// image: it names every file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image, a directory, a box `NAME:VERSION`, a host `ssh://…`, or a manifest to verify and write
    /// again.
    #[arg(value_name = "A")]
    subject: OsString,
    /// How much it holds: `disk` all, `content` all but the digests of the disk's bytes, `tree` the
    /// files of the root filesystem. A directory has `tree` alone.
    #[arg(long, value_enum)]
    level: Option<Scope>,
    /// Write to this file, which must not be there yet, in place of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the same records as JSON Lines, for other programs; devbox reads the text alone.
    #[arg(long)]
    json: bool,
    /// The directory is of a system that runs: leave sockets out, and read again what changes meanwhile.
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    if live_args::is_live(&args.subject) {
        refuse_above_files(&args.subject, args.level)?;
    }
    let output = args.output.as_deref().map(|path| NewFile { path, option: "--output" });
    if let Some(output) = output {
        output.refuse_existing()?;
    }
    let reference = args.live.parse(&args.subject, Some(Level::Tree), &args.limits, ctx)?;
    let limits = args.limits.limits();
    let manifest = match &reference {
        Reference::Directory(path)
            if args.running && matches!(args.level, None | Some(Scope::Tree)) =>
        {
            Manifest::of_running(path, &limits)
        }
        Reference::Image(_)
        | Reference::Manifest(_)
        | Reference::Stored { .. }
        | Reference::Live { .. }
            if args.running =>
        {
            Err(Error::usage(format!("`{reference}` is no directory"))
                .hint("Leave `--running` out."))
        }
        _ => read(&reference, args.level, &limits, ctx),
    };
    let manifest = manifest.map_err(super::parity::could_not_tell)?;
    for note in &manifest.notes {
        ctx.events.note(note);
    }
    if let Err(why) = &manifest.packages {
        ctx.events.note(format!("without packages: {why}"));
    }
    let write = |out: &mut dyn Write| {
        if args.json { manifest.write_json(out) } else { manifest.write(out) }
    };
    match output {
        None => ui::data(write)?,
        Some(output) => {
            output.write(write)?;
            ctx.events.note(format!("wrote `{}`", output.path.display()));
        }
    }
    Ok(exit::OK)
}

/// A host has the levels of a directory.
fn refuse_above_files(host: &OsStr, level: Option<Scope>) -> Result<()> {
    if matches!(level, None | Some(Scope::Tree)) {
        return Ok(());
    }
    let host = host.to_string_lossy();
    Err(too_much(&format!("`{host}`"), "of a host that runs, only the files are read")
        .hint("Leave `--level` out, or use `--level tree`."))
}

fn too_much(what: &str, why: &str) -> Error {
    Error::usage(format!("{what} has no manifest of that level")).cause(why)
}

fn read(of: &Reference, level: Option<Scope>, limits: &Limits, ctx: &Context) -> Result<Manifest> {
    match of {
        Reference::Image(path) | Reference::Stored { path, .. } => {
            let (manifest, notes) = Manifest::of_image(path, level.unwrap_or(Scope::Disk), limits)?;
            for note in notes {
                ctx.events.note(note);
            }
            Ok(manifest)
        }
        Reference::Directory(_) if !matches!(level, None | Some(Scope::Tree)) => {
            Err(too_much(&format!("the directory `{of}`"), "a directory has nothing but its files")
                .hint("Leave `--level` out, or use `--level tree`."))
        }
        Reference::Directory(path) => Manifest::of_directory(path, limits),
        Reference::Live { name, seen } => match &**seen {
            Seen::Tree(text) => subject::told(name, text, limits),
            Seen::Packages(_) => Err(too_much(&format!("`{name}`"), "only its packages are known")),
        },
        Reference::Manifest(path) => {
            let manifest = subject::manifest(path, limits)?;
            match level {
                Some(level) if level != manifest.scope() => {
                    Err(too_much(&format!("`{of}`"), "a manifest is written again as it is")
                        .hint("Leave `--level` out, or name the image."))
                }
                _ => Ok(manifest),
            }
        }
    }
}
