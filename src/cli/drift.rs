//! `devbox drift`.

use std::time::{Duration, Instant};

use clap_complete::engine::ArgValueCandidates;
use serde_json::{Value, json};

use crate::cli::limits::LimitArgs;
use crate::cli::parity::could_not_tell;
use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Kind, Result, exit};
use crate::machine::still::Stood;
use crate::parity::drift::classes::{Class, Own, Verdict, verdict};
use crate::parity::explain::Explanation;
use crate::parity::report::drift::Changed;
use crate::parity::report::text::Shown;
use crate::project::drift::{self, Report, Stand};
use crate::spec::Spec;
use crate::ui;

/// Say what a machine changed since it was made of its sealed image.
///
/// Each change is `state` (what every machine has of its own: keys, logs, caches), `work` (home
/// folders, mounts) or `drift` (everything else). Drift is grouped by cause, the most important first, as
/// `devbox parity` does. Ends with 0 for `clean` and `state-only`, 1 for
/// `drifted`, 3 if something could not be read.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// List every change, also state and work
    #[arg(long)]
    all: bool,
    /// List every change of this group, as `services.enabled`; several times for several
    #[arg(long = "group", value_name = "ID")]
    groups: Vec<String>,
    /// List the drift at paths that fit, as `/etc/**`
    #[arg(long, value_name = "GLOB")]
    path: Option<String>,
    /// Print one JSON object with every group and every change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let shown = Shown::parse(args.all, &args.groups, args.path.as_deref())?;
    let report = look(ctx, args.machine.as_deref(), &args.limits)?;
    // A machine that ran goes on by now.
    let start = Instant::now();
    let why = report.explain().map_err(could_not_tell)?;
    let took = report.took + start.elapsed();
    for note in report.notes.iter().chain(&why.notes) {
        ctx.events.note(note);
    }
    if args.json { print_json(&report, &why, took) } else { print(&report, &why, &shown) }
        .map_err(could_not_tell)?;
    Ok(match verdict(&report.changes) {
        Verdict::Clean | Verdict::StateOnly => exit::OK,
        Verdict::Drifted(_) => exit::FAILED,
    })
}

/// Compares the machine with its image; what cannot be read is of kind `Undetermined`.
pub(super) fn look(ctx: &Context, machine: Option<&str>, limits: &LimitArgs) -> Result<Report> {
    let project = shared::project(ctx)?;
    let (instance, _) = shared::one(ctx, machine)?;
    let own = Own { work: work(project.spec(), instance.name()), ..Own::default() };
    let limits = limits.limits();
    let report = ctx.block_on(async |cancel| {
        drift::look(&instance, &own, &limits, ctx.work(&cancel).of(&project)).await
    });
    report.map_err(|e| if e.kind() == Kind::Interrupted { e } else { could_not_tell(e) })
}

/// Where the spec mounts folders and data disks.
fn work(spec: Option<&Spec>, name: &str) -> Vec<String> {
    let Some(spec) = spec else { return vec![] };
    let mounts = spec.mounts.iter().map(|mount| mount.target.clone());
    let machines = spec.machines.iter().filter(|machine| machine.name == name);
    let disks = machines.flat_map(|machine| &machine.disks).filter_map(|disk| disk.target.clone());
    mounts.chain(disks).collect()
}

fn stand(report: &Report) -> &'static str {
    match &report.stand {
        Stand::Off => "stopped",
        Stand::Still(stood) => match (stood.paused, stood.frozen) {
            (None, _) => "suspended",
            (_, Some(_)) => "running, frozen",
            (_, None) => "running, paused",
        },
    }
}

/// How long the guest stood still, in milliseconds.
fn stood(report: &Report, which: impl Fn(&Stood) -> Option<Duration>) -> Value {
    let Stand::Still(stood) = &report.stand else { return Value::Null };
    which(stood).map_or(Value::Null, |time| json!(milliseconds(time)))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn counted(report: &Report, class: Class) -> usize {
    report.changes.iter().filter(|one| one.class == class).count()
}

fn print_json(report: &Report, why: &Explanation, took: Duration) -> Result<()> {
    let changed = Changed { changes: &report.changes, why };
    let json: Value = json!({
        "schema": "devbox.drift/1",
        "machine": report.machine,
        "box": report.reference,
        "manifest": report.manifest,
        "verdict": verdict(&report.changes).to_string(),
        "counts": {
            "drift": counted(report, Class::Drift),
            "work": counted(report, Class::Work),
            "state": counted(report, Class::State),
        },
        "machine_was": stand(report),
        "changed_bytes": report.found.bytes,
        "files_read": report.found.read,
        "milliseconds": milliseconds(took),
        "paused_milliseconds": stood(report, |stood| stood.paused),
        "frozen_milliseconds": stood(report, |stood| stood.frozen),
        "groups": why.groups,
        "changes": changed.each().collect::<Vec<_>>(),
        "notes": report.notes,
    });
    ui::line(&format!("{json:#}"))
}

fn print(report: &Report, why: &Explanation, shown: &Shown) -> Result<()> {
    let head = format!("{} ({}), against {}", report.machine, stand(report), report.reference);
    let lines = Changed { changes: &report.changes, why }.lines(&head, shown);
    ui::line(&lines.join("\n"))
}
