//! `devbox snapshot`.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{Context, machine as shared};
use crate::error::{Result, exit};
use crate::machine::instance::Instance;
use crate::machine::record::Saved;
use crate::project::snapshot::{self, Then};
use crate::ui;

/// Save, restore, list and delete snapshots of a machine: of its disk, and of its memory if it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The machine, where the project has several
    #[arg(long, short, global = true, value_name = "MACHINE")]
    machine: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Save the machine as it is now
    Save {
        /// Letters, digits, `-`, `_` and `.`
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// Go back to a snapshot: what happened since is lost
    Restore {
        /// A name that `devbox snapshot list` shows
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// List the snapshots
    List {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a snapshot
    Delete {
        /// A name that `devbox snapshot list` shows
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// Save the machine under the next free name, for `pop`
    Push {
        #[command(flatten)]
        which: Which,
    },
    /// Go back to what was pushed last, and remove it
    Pop {
        #[command(flatten)]
        which: Which,
        /// Keep the snapshot
        #[arg(long)]
        no_delete: bool,
    },
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let of = |which: &Which| shared::one(ctx, which.machine.as_deref()).map(|(machine, _)| machine);
    match args.verb {
        Verb::Save { name, which } => save(ctx, &of(&which)?, &name, false)?,
        Verb::Restore { name, which } => restore(ctx, &of(&which)?, &name)?,
        Verb::List { which, json } => {
            let (instance, record) = shared::one(ctx, which.machine.as_deref())?;
            list(ctx, &instance, &record.snapshots, json)?;
        }
        Verb::Delete { name, which } => delete(ctx, &of(&which)?, &name)?,
        Verb::Push { which } => {
            let instance = of(&which)?;
            save(ctx, &instance, &snapshot::next_pushed(&instance)?, true)?;
        }
        Verb::Pop { which, no_delete } => {
            let instance = of(&which)?;
            let name = snapshot::newest_pushed(&instance)?;
            restore(ctx, &instance, &name)?;
            if !no_delete {
                delete(ctx, &instance, &name)?;
            }
        }
    }
    Ok(exit::OK)
}

fn save(ctx: &Context, instance: &Instance, name: &str, pushed: bool) -> Result<()> {
    ctx.block_on(async |cancel| snapshot::save(instance, name, pushed, ctx.work(&cancel)).await)
}

fn restore(ctx: &Context, instance: &Instance, name: &str) -> Result<()> {
    let then =
        ctx.block_on(async |cancel| snapshot::restore(instance, name, ctx.work(&cancel)).await)?;
    if then == Then::Stopped {
        ctx.events.note(format!(
            "the snapshot has no memory; start `{}` with `devbox up`",
            instance.name()
        ));
    }
    Ok(())
}

fn delete(ctx: &Context, instance: &Instance, name: &str) -> Result<()> {
    ctx.block_on(async |cancel| snapshot::delete(instance, name, ctx.work(&cancel)).await)
}

fn list(
    ctx: &Context,
    instance: &Instance,
    snapshots: &BTreeMap<String, Saved>,
    json: bool,
) -> Result<()> {
    // Oldest first; those of one second by name.
    let mut all: Vec<(&String, &Saved)> = snapshots.iter().collect();
    all.sort_by_key(|(name, saved)| (saved.made, *name));
    let time = |saved: &Saved| {
        let at = jiff::Timestamp::from_second(saved.made).unwrap_or_default();
        at.to_string()
    };
    if json {
        let all: Vec<Value> = all
            .iter()
            .map(|(name, saved)| {
                json!({
                    "name": name, "made": time(saved), "memory": saved.shape.is_some(),
                    "pushed": saved.pushed,
                })
            })
            .collect();
        let value = json!({"schema": 1, "machine": instance.name(), "snapshots": all});
        return ui::line(&format!("{value:#}"));
    }
    if all.is_empty() {
        ctx.events.note(format!("`{}` has no snapshots", instance.name()));
        return Ok(());
    }
    let width = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(4);
    ui::line(&format!("{:width$}  {:20}  SAVED", "NAME", "MADE"))?;
    for (name, saved) in all {
        let what = if saved.shape.is_some() { "disk and memory" } else { "disk" };
        ui::line(&format!("{name:width$}  {:20}  {what}", time(saved)))?;
    }
    Ok(())
}
