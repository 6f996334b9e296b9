//! `devbox cache`: the layers that builds begin from.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use crate::build::layers::{self, Age, Kept};
use crate::cli::Context;
use crate::cli::boxes::size;
use crate::cli::machine;
use crate::error::{Error, Result, exit};
use crate::spec::quantity;
use crate::ui;

/// List and prune the cache of build steps.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the layers, the latest used first.
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove layers that were not used for long, and those beyond a size.
    Prune {
        /// Remove what no build has used for so long (`12h`, `168h`); 30 days by default
        #[arg(long, value_name = "TIME", value_parser = machine::duration)]
        unused: Option<Duration>,
        /// Keep so much in all (`5GiB`); 20 GiB by default
        #[arg(long, value_name = "SIZE", value_parser = bytes)]
        size: Option<u64>,
        /// Remove all
        #[arg(long, conflicts_with_all = ["unused", "size"])]
        all: bool,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A size on the command line, as in the spec.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    quantity::parse_size(text)
        .map_err(|_| "expected a whole number with a unit: `512MiB`, `5GiB`".to_owned())
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    match args.verb {
        Verb::List { json } => list(ctx, json)?,
        Verb::Prune { unused, size, all, dry_run, json } => {
            let default = Age::default();
            let age = match all {
                true => Age { unused: Duration::ZERO, bytes: 0 },
                false => Age {
                    unused: unused.unwrap_or(default.unused),
                    bytes: size.unwrap_or(default.bytes),
                },
            };
            prune(ctx, age, dry_run, json)?;
        }
    }
    Ok(exit::OK)
}

fn list(ctx: &Context, json: bool) -> Result<()> {
    let all = layers::list(&ctx.paths);
    if json {
        let layers: Vec<_> = all.iter().map(describe).collect();
        return ui::line(&format!("{:#}", json!({"schema": 1, "layers": layers})));
    }
    if all.is_empty() {
        ctx.events.note("the cache is empty; each step of a `devbox build` puts a layer into it");
        return Ok(());
    }
    let width = all.iter().map(|kept| kept.image.len()).max().unwrap_or(0).max(3);
    ui::line(&format!("LAYER         {:width$}  {:>9}  {:>9}  STEP", "BOX", "STORED", "UNUSED"))?;
    for kept in &all {
        ui::line(&format!(
            "{}  {:width$}  {:>9}  {:>9}  {}",
            kept.key.get(..12).unwrap_or(&kept.key),
            kept.image,
            size(kept.stored),
            unused(kept.used),
            kept.step
        ))?;
    }
    Ok(())
}

fn describe(kept: &Kept) -> serde_json::Value {
    let used = jiff::Timestamp::try_from(kept.used).map(|time| time.to_string()).ok();
    json!({
        "key": kept.key, "box": kept.image, "step": kept.step, "stored": kept.stored,
        "memory": kept.memory, "used": used,
    })
}

/// How long ago, in its largest unit.
fn unused(used: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(used).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

fn prune(ctx: &Context, age: Age, dry_run: bool, json: bool) -> Result<()> {
    let Some(pruned) = layers::prune(&ctx.paths, age, dry_run)? else {
        return Err(Error::failed("the cache of steps is in use")
            .hint("Wait until no `devbox build` runs, then run the same command again."));
    };
    let bytes: u64 = pruned.iter().map(|(_, bytes)| bytes).sum();
    if json {
        let file = |(path, bytes): &(PathBuf, u64)| json!({"path": path, "size": bytes});
        let files: Vec<_> = pruned.iter().map(file).collect();
        return ui::line(&format!("{:#}", json!({"schema": 1, "files": files, "bytes": bytes})));
    }
    let what = if dry_run { "would remove" } else { "removed" };
    ui::line(&format!("{what}: {} files, {}", pruned.len(), size(bytes)))
}
