//! The templates part of `devbox box`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::boxes::size;
use crate::error::Result;
use crate::machine::template::{Template, Templates};
use crate::store::{BoxRef, Live, Store};
use crate::ui;

/// Prints all templates.
pub(super) fn list(ctx: &Context, json: bool) -> Result<()> {
    let all = Templates::new(&ctx.paths.templates).list()?;
    if json {
        let all: Vec<Value> = all.iter().map(describe).collect();
        let value = json!({"schema": 1, "templates": all});
        return ui::line(&format!("{value:#}"));
    }
    if all.is_empty() {
        ctx.events.note("there are no templates; the first `devbox up` of a box makes one");
        return Ok(());
    }
    let width = all.iter().map(|t| t.reference().len()).max().unwrap_or(0).max(3);
    ui::line(&format!("{:width$}  {:>9}  SHAPE", "BOX", "STORED"))?;
    for template in &all {
        let key = template.key();
        let shape = format!(
            "{} processors, {}, {}, disk {}, {}, user {}",
            key.fit.cpus,
            size(key.fit.memory),
            key.fit.firmware,
            size(key.disk),
            key.fit.accelerator,
            key.user
        );
        let why = template.impossible().map_or(String::new(), |why| format!("  (none: {why})"));
        let stored = size(template.stored_size());
        ui::line(&format!("{:width$}  {stored:>9}  {shape}{why}", template.reference()))?;
    }
    Ok(())
}

/// Removes templates that no new machine can start from, or all of them.
pub(super) fn prune(
    ctx: &Context,
    store: &Store,
    live: &Live,
    all: bool,
    dry_run: bool,
) -> Result<Vec<(PathBuf, u64)>> {
    let mut boxes: BTreeSet<String> =
        store.list()?.iter().map(|b: &BoxRef| b.manifest_digest().to_string()).collect();
    // A rollback starts warm, too.
    boxes.extend(live.keys().map(ToString::to_string));
    let wanted = |template: &Template| {
        !all && boxes.contains(&template.key().manifest) && template.key().fits_this_host()
    };
    Templates::new(&ctx.paths.templates).prune(dry_run, wanted)
}

fn describe(template: &Template) -> Value {
    json!({
        "box": template.reference(),
        "stored": template.stored_size(),
        "impossible": template.impossible(),
        "key": template.key(),
    })
}
