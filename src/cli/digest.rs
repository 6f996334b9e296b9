//! `devbox digest`.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::Context;
use crate::cli::limits::LimitArgs;
use crate::cli::live_args::LiveArgs;
use crate::error::{Error, Result, exit};
use crate::parity::Level;
use crate::parity::compare::{Known, Question};
use crate::parity::subject::Reference;
use crate::ui;

/// Print the digest of an image or a directory.
///
/// The digest is computed from the bytes, never read from a record; for a file that nobody changed
/// since, devbox remembers what it computed. Level `content` is the default
/// for an image, and `tree` for a directory. The levels `tree` and `times` have two digests, one a
/// line: the files, and which of them are hard links.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image, a directory (`dir:PATH`), a manifest, a box `NAME:VERSION`, or a host `ssh://…`.
    #[arg(value_name = "A", required_unless_present = "root", conflicts_with = "root")]
    subject: Option<OsString>,
    /// Hash the files of this directory, within its filesystem: `/` for the running host.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What the digest covers.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Read the image, also where the cache knows the digests of an unchanged file.
    #[arg(long)]
    recompute: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// The JSON form; `schema` changes when a field changes its meaning.
#[derive(Serialize)]
struct Json {
    schema: &'static str,
    reference: String,
    of: &'static str,
    level: Level,
    digests: Vec<String>,
    cached: bool,
    notes: Vec<String>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let reference = match (args.root, args.subject) {
        (Some(root), _) => Reference::Directory(root),
        (None, Some(subject)) => {
            let level = args.level.unwrap_or(Level::Tree);
            args.live.parse(&subject, Some(level), &args.limits, ctx)?
        }
        (None, None) => return Err(Error::usage("an image or `--root DIR` is missing")),
    };
    let level = args.level.unwrap_or(match reference {
        Reference::Directory(_) | Reference::Live { .. } => Level::Tree,
        Reference::Image(_) | Reference::Manifest(_) | Reference::Stored { .. } => Level::Content,
    });
    let limits = args.limits.limits();
    let cache = ctx.digests();
    let question = Question {
        level,
        limits: &limits,
        cache: Some(&cache),
        recompute: args.recompute,
        policy: None,
    };
    let Known { digests, notes, cached, .. } =
        question.digests(&reference).map_err(super::parity::could_not_tell)?;
    for note in &notes {
        ctx.events.note(note);
    }
    let text = if args.json {
        let (of, reference) = (reference.kind(), reference.to_string());
        let json = Json { schema: "devbox.digest/1", reference, of, level, digests, cached, notes };
        serde_json::to_string_pretty(&json).map_err(|e| Error::undetermined(e.to_string()))?
    } else {
        digests.join("\n")
    };
    ui::line(&text).map_err(super::parity::could_not_tell)?;
    Ok(exit::OK)
}
