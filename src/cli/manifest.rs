//! `devbox manifest`.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli::Context;
use crate::cli::limits::LimitArgs;
use crate::error::{Error, Result, exit};
use crate::image::Limits;
use crate::parity::manifest::{Manifest, Scope};
use crate::parity::subject::{self, Reference};
use crate::ui;

/// Write down what an image holds, to compare it later without the image.
///
/// The manifest is one text file: every file with its digest, mode, owner and time, every partition,
/// the boot entries, the packages. `devbox parity` and `devbox digest` take it in place of the image.
/// The same image gives the same manifest, whatever its container. Keep it as confidential as the
/// image: it names every file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image, a directory, a box `NAME:VERSION`, or a manifest to verify and write again.
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
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let reference = super::reference::parse(&args.subject, ctx)?;
    if let Some(output) = &args.output {
        refuse_existing(output)?;
    }
    let limits = args.limits.limits();
    let manifest =
        read(&reference, args.level, &limits, ctx).map_err(super::parity::could_not_tell)?;
    for note in &manifest.notes {
        ctx.events.note(note);
    }
    if let Err(why) = &manifest.packages {
        ctx.events.note(format!("without packages: {why}"));
    }
    let write = |out: &mut dyn Write| {
        if args.json { manifest.write_json(out) } else { manifest.write(out) }
    };
    match &args.output {
        None => ui::data(write)?,
        Some(path) => {
            file(path, write)?;
            ctx.events.note(format!("wrote `{}`", path.display()));
        }
    }
    Ok(exit::OK)
}

fn read(of: &Reference, level: Option<Scope>, limits: &Limits, ctx: &Context) -> Result<Manifest> {
    let too_much = |what: &str, why: &str| {
        Error::usage(format!("{what} has no manifest of that level")).cause(why)
    };
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

fn refuse_existing(path: &Path) -> Result<()> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    Err(Error::usage(format!("`{}` is there already", path.display()))
        .hint("Remove it, or name another file with `--output`."))
}

/// Writes a file that is there as a whole or not at all.
fn file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let what = || format!("cannot write `{}`", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // As a program that writes a file plainly would make it.
    let mode = std::fs::Permissions::from_mode(0o666);
    let temporary =
        tempfile::Builder::new().prefix(".manifest-").permissions(mode).tempfile_in(folder);
    let temporary = temporary.map_err(|e| {
        Error::usage(what())
            .cause(e)
            .hint("Choose a place that exists and that you may write to with `--output`.")
    })?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    write(&mut out)?;
    let temporary = out.into_inner().map_err(|e| Error::from(e.into_error()).context(what()))?;
    temporary.as_file().sync_all().map_err(|e| Error::from(e).context(what()))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => refuse_existing(path),
        Err(e) => Err(Error::from(e.error).context(what())),
    }
}
