//! `devbox parity`.

use std::ffi::OsString;

use crate::cli::Context;
use crate::cli::attest_args::AttestArgs;
use crate::cli::limits::LimitArgs;
use crate::cli::live_args::LiveArgs;
use crate::cli::policy_args::PolicyArgs;
use crate::cli::report_args::ReportArgs;
use crate::error::{Error, Kind, Result, exit};
use crate::parity::Level;
use crate::parity::compare::Question;
use crate::parity::report::Report;
use crate::parity::report::failed::Failed;
use crate::parity::report::text::Shown;

/// Compare two images and say at which level they match.
///
/// Differences are grouped by cause, the most important first: what boots, what may become root, who may
/// come in, packages, services, configuration, the rest. Secrets are never shown.
///
/// What differs on purpose is declared in `[parity]` of devbox.toml (`docs/parity.md`).
///
/// Ends with 0 if they are equal at the level, or differ as declared, 1 if they differ, 3 if something could not be read.
/// A side is the path of an image, of a manifest (which holds what `devbox manifest` wrote down), or of
/// a directory (of which only the last three levels can be told), a box of the store, or a host that
/// runs, `ssh://USER@HOST[:PORT][/DIR]` (the last three levels; this devbox is sent there if it is a
/// static program, and nothing is left). The levels: `file` the files as they are; `disk` the bytes that a guest sees;
/// `content` boot code, partition and filesystem identities, files, kernel command lines; `tree` the
/// files of the root filesystem; `times` these with their modification times; `packages` what the
/// package manager says is installed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image, a directory (`dir:PATH`), a manifest, a box `NAME:VERSION`, or a host `ssh://…`.
    #[arg(value_name = "A")]
    a: OsString,
    /// What to compare it with.
    #[arg(value_name = "B")]
    b: OsString,
    /// What counts as the same: `content`, or what the policy requires; of a host the strongest that it can
    /// tell, `tree` or `packages`.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Count as equal, at level `disk`, if one disk is the other one followed by zeros.
    #[arg(long)]
    allow_padding: bool,
    /// Read both sides, also where the cache knows the digests of an unchanged file.
    #[arg(long)]
    recompute: bool,
    /// List every difference below its group.
    #[arg(long)]
    all: bool,
    /// List every difference of this group, as `access.sudo`; several times for several.
    #[arg(long = "group", value_name = "ID")]
    groups: Vec<String>,
    /// List the differences at paths that fit, as `/etc/**`.
    #[arg(long, value_name = "GLOB")]
    path: Option<String>,
    #[command(flatten)]
    reports: ReportArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    attest: AttestArgs,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let shown = Shown::parse(args.all, &args.groups, args.path.as_deref())?;
    args.attest.refuse_hosts([&args.a, &args.b])?;
    let policy = args.policy.policy(ctx)?;
    let level = args.level.or(policy.as_ref().map(|policy| policy.require));
    let reports = args.reports.open()?;
    let (a, b, level) = args.live.both([&args.a, &args.b], level, &args.limits, ctx)?;
    let limits = args.limits.limits();
    let attest = args.attest.begin(&a, &b)?;
    let cache = ctx.digests();
    let question = Question {
        level,
        limits: &limits,
        cache: Some(&cache),
        recompute: args.recompute || attest.is_some(),
        policy: args.policy.in_force(policy.as_ref()),
    };
    let (comparison, explanation) = match question.explain(&a, &b).map_err(could_not_tell) {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::Undetermined => {
            let (sides, level) = ([a.to_string(), b.to_string()], question.level);
            reports.fail(&Failed { sides, level, error: &error }).map_err(could_not_tell)?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let report = Report::new(comparison, explanation, args.allow_padding);
    for note in &report.comparison.notes {
        ctx.events.note(note);
    }
    // Nobody has seen a verdict that could not be written: that is not exit code 1, a difference.
    reports.write(&report, &shown, ctx).map_err(could_not_tell)?;
    if let Some(attest) = attest {
        let policy = report.explanation.policy.as_ref();
        return attest.finish(&report.comparison, policy, &limits, ctx).map_err(could_not_tell);
    }
    Ok(if report.accepted { exit::OK } else { exit::FAILED })
}

/// What could not be read is no difference: exit code 3, not 1.
pub(super) fn could_not_tell(e: Error) -> Error {
    if e.kind() == Kind::Failed { e.with_kind(Kind::Undetermined) } else { e }
}
