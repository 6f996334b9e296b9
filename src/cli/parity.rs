//! `devbox parity`.

use std::ffi::OsString;

use serde::Serialize;

use crate::cli::limits::LimitArgs;
use crate::cli::{Context, reference};
use crate::error::{Error, Kind, Result, exit};
use crate::parity::Level;
use crate::parity::compare::{Comparison, Question, Verdict};
use crate::ui;

/// How many differences are listed without `--all`.
const LISTED: usize = 50;

/// Compare two images and say at which level they match.
///
/// Ends with 0 if they are equal at the level, 1 if they differ, 3 if something could not be read.
/// A side is the path of an image, of a manifest (which holds what `devbox manifest` wrote down), or of
/// a directory (of which only the last three levels can be told), or a box of the store. The levels: `file` the files as they are; `disk` the bytes that a guest sees;
/// `content` boot code, partition and filesystem identities, files, kernel command lines; `tree` the
/// files of the root filesystem; `times` these with their modification times; `packages` what the
/// package manager says is installed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image, a directory (`dir:PATH`), a manifest, or a box `NAME:VERSION`.
    #[arg(value_name = "A")]
    a: OsString,
    /// What to compare it with.
    #[arg(value_name = "B")]
    b: OsString,
    /// What counts as the same.
    #[arg(long, value_enum, default_value_t = Level::Content)]
    level: Level,
    /// Count as equal, at level `disk`, if one disk is the other one followed by zeros.
    #[arg(long)]
    allow_padding: bool,
    /// Read both sides, also where the cache knows the digests of an unchanged file.
    #[arg(long)]
    recompute: bool,
    /// List every difference, not the first 50 alone.
    #[arg(long)]
    all: bool,
    /// Print one JSON object with every difference.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// The JSON form; `schema` changes when a field changes its meaning.
#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (a, b) = (reference::parse(&args.a, ctx)?, reference::parse(&args.b, ctx)?);
    let limits = args.limits.limits();
    let cache = ctx.digests();
    let question = Question {
        level: args.level,
        limits: &limits,
        cache: Some(&cache),
        recompute: args.recompute,
    };
    let comparison = question.compare(&a, &b).map_err(could_not_tell)?;
    for note in &comparison.notes {
        ctx.events.note(note);
    }
    // Nobody has seen a verdict that could not be written: that is not exit code 1, a difference.
    if args.json { print_json(&comparison) } else { print(&comparison, args.all) }
        .map_err(could_not_tell)?;
    Ok(match comparison.verdict {
        Verdict::Equal => exit::OK,
        Verdict::Padded if args.allow_padding => exit::OK,
        Verdict::Padded | Verdict::Different => exit::FAILED,
    })
}

fn print_json(comparison: &Comparison) -> Result<()> {
    let json = Json { schema: "devbox.parity/1", comparison };
    ui::line(&serde_json::to_string_pretty(&json).map_err(|e| Error::failed(e.to_string()))?)
}

fn print(comparison: &Comparison, all: bool) -> Result<()> {
    let level = comparison.level.as_str();
    let digests = comparison.a.digests.join(" ");
    match comparison.verdict {
        Verdict::Equal => {
            return ui::line(&format!("equal at level {level}: {digests}"));
        }
        Verdict::Padded => {
            ui::line(&format!("padded at level {level}: one disk is the other one and zeros"))?;
        }
        Verdict::Different => ui::line(&format!("different at level {level}"))?,
    }
    let listed = if all { usize::MAX } else { LISTED };
    for difference in comparison.differences.iter().take(listed) {
        ui::line(&format!("  {difference}"))?;
    }
    let more = comparison.differences.len().saturating_sub(listed);
    if more > 0 {
        ui::line(&format!("  and {more} more differences (`--all` lists them)"))?;
    }
    Ok(())
}

/// What could not be read is no difference: exit code 3, not 1.
pub(super) fn could_not_tell(e: Error) -> Error {
    if e.kind() == Kind::Failed { e.with_kind(Kind::Undetermined) } else { e }
}
