//! `devbox box prune`: what nothing needs goes, and old versions become what they differ by from the newest one.

use serde_json::{Value, json};

use super::boxes::{live, size};
use super::{Context, templates};
use crate::chunks::boot::Records;
use crate::delta::{self, Folded, Task};
use crate::error::Result;
use crate::registry::Described;
use crate::store::{BoxRef, Pruned, Store};
use crate::ui;

/// How a disk is kept from now on.
struct Change {
    reference: String,
    /// The box whose disk it is a difference from; none if it is whole again.
    base: Option<String>,
    before: u64,
    /// Unknown before it was tried.
    after: Option<u64>,
}

/// Prunes the store, or says what that would do.
///
/// # Errors
/// A box or a machine's record is damaged, so what is needed cannot be told; Ctrl-C.
pub(super) fn run(
    store: &Store,
    all_templates: bool,
    dry_run: bool,
    json: bool,
    ctx: &Context,
) -> Result<()> {
    // First: a disk that others are differences from cannot go.
    let changes = changes(store, dry_run, ctx)?;
    let mut pruned = store.prune(&live(&ctx.paths)?, dry_run)?;
    let old = templates::prune(ctx, store, &live(&ctx.paths)?, all_templates, dry_run)?;
    pruned.temporary.extend(old);
    if !dry_run {
        Described::new(&ctx.paths.cache).prune(store)?;
        let disks: Vec<_> = store.list()?.iter().map(BoxRef::disk_digest).collect();
        Records::new(&ctx.paths.cache).prune(&disks);
    }
    let what = if dry_run { "would remove" } else { "removed" };
    if json {
        let mut value = removed(&pruned);
        value["disks"] = changes.iter().map(Change::describe).collect();
        return ui::line(&format!("{value:#}"));
    }
    changes.iter().try_for_each(|change| ui::line(&change.line(dry_run)))?;
    report(what, &pruned, false)
}

/// Does what is to be done with the disks, or only says it.
fn changes(store: &Store, dry_run: bool, ctx: &Context) -> Result<Vec<Change>> {
    let tasks = delta::plan(store, &live(&ctx.paths)?)?;
    if dry_run {
        return Ok(tasks.iter().map(Change::planned).collect());
    }
    let mut done = vec![];
    for task in tasks {
        let (store, paths, events) = (store.clone(), ctx.paths.clone(), ctx.events.clone());
        let change = ctx.block_on(async |cancel| {
            let work = move || run_task(&store, &task, &|| live(&paths), &events, &cancel);
            crate::blocking::blocking("comparing disks", work).await
        })?;
        done.extend(change);
    }
    Ok(done)
}

fn run_task(
    store: &Store,
    task: &Task,
    live: &dyn Fn() -> Result<crate::store::Live>,
    events: &crate::event::Events,
    cancel: &tokio_util::sync::CancellationToken,
) -> Result<Option<Change>> {
    let mut change = Change::planned(task);
    match task {
        Task::Fold(image, base) => match delta::fold(store, image, base, live, events, cancel)? {
            Folded::To(bytes) => change.after = Some(bytes),
            Folded::InUse => return Ok(None),
            // What it is a difference from may go.
            Folded::NotWorth if image.delta().is_some() => {
                delta::unfold(store, image, events, cancel)?;
                change.base = None;
                change.after = Some(image.stored_size());
            }
            Folded::NotWorth => return Ok(None),
        },
        Task::Unfold(image) => drop(delta::unfold(store, image, events, cancel)?),
    }
    Ok(Some(change))
}

impl Change {
    fn planned(task: &Task) -> Self {
        let (image, base) = match task {
            Task::Fold(image, base) => (image, Some(base.config().reference())),
            Task::Unfold(image) => (image, None),
        };
        let after = base.is_none().then(|| image.stored_size());
        Change { reference: image.config().reference(), base, before: image.kept_size(), after }
    }

    fn line(&self, dry_run: bool) -> String {
        let would = if dry_run { "would be" } else { "is" };
        let (reference, before) = (&self.reference, size(self.before));
        match (&self.base, self.after) {
            (Some(base), Some(after)) => format!(
                "{reference} {would} kept as what differs from {base}: {} instead of {before}",
                size(after)
            ),
            (Some(base), None) => {
                format!("{reference}, {before}, {would} kept as what differs from {base}")
            }
            (None, _) => format!("{reference} {would} whole again"),
        }
    }

    fn describe(&self) -> Value {
        json!({"reference": self.reference, "difference_from": self.base, "before": self.before, "after": self.after})
    }
}

/// Says what was removed, or would be.
///
/// # Errors
/// Nobody reads it.
pub(super) fn report(what: &str, pruned: &Pruned, json: bool) -> Result<()> {
    if json {
        return ui::line(&format!("{:#}", removed(pruned)));
    }
    let files = pruned.blobs.len() + pruned.temporary.len();
    ui::line(&format!("{what}: {files} files, {}", size(pruned.bytes())))?;
    for kept in &pruned.kept {
        let machines = kept.machines.join(", ");
        ui::line(&format!("kept for {machines}: {} {}", kept.reference, kept.manifest))?;
    }
    Ok(())
}

fn removed(pruned: &Pruned) -> Value {
    let blobs: Vec<Value> =
        pruned.blobs.iter().map(|(d, n)| json!({"digest": d, "size": n})).collect();
    let temporary: Vec<Value> =
        pruned.temporary.iter().map(|(p, n)| json!({"path": p, "size": n})).collect();
    let kept: Vec<Value> = pruned
        .kept
        .iter()
        .map(|k| json!({"reference": k.reference, "manifest": k.manifest, "machines": k.machines}))
        .collect();
    json!({"blobs": blobs, "temporary": temporary, "kept": kept, "bytes": pruned.bytes()})
}
