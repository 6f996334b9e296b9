//! `[[steps]]`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::keys;
use crate::spec::problem::shown;
use crate::spec::reader::{Collector, Reader};
use crate::spec::types::{Action, Script, Step};

/// Long enough for an installation in an emulated guest.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn steps(top: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Vec<Step> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut steps = vec![];
    for (i, kind, table) in top.variants(&keys::STEPS, c) {
        let name = table.text(&keys::STEP_NAME, c);
        if let Some(at) = &name
            && let Some(before) = names.insert(at.value.clone(), i)
        {
            let what = format!("steps[{before}] is named `{}` too", shown(&at.value));
            c.report(&at.path, at.span.clone(), what).hint = Some(
                "Give each step its own name, so that a message says which one it is.".to_owned(),
            );
        }
        let timeout = table.duration(&keys::STEP_TIMEOUT, c).unwrap_or(TIMEOUT);
        let action = match kind {
            "shell" => shell(&table, dir, c),
            _ => file(&table, dir, c),
        };
        let name = name.map_or_else(|| format!("step {}", i + 1), |at| at.value);
        if let Some(action) = action {
            steps.push(Step { name, action, timeout });
        }
    }
    steps
}

fn shell(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Action> {
    let inline = table.text(&keys::STEP_INLINE, c).map(|at| Script::Inline(at.value));
    let script = table.text(&keys::STEP_SCRIPT, c);
    let script = script.map(|at| Script::File(resolve(&at, dir, Expect::File, c)));
    let env = table.environment(&keys::STEP_ENV, c).unwrap_or_default();
    Some(Action::Shell { script: inline.or(script)?, env })
}

fn file(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Action> {
    let source = table.text(&keys::STEP_SOURCE, c);
    let source = source.map(|at| resolve(&at, dir, Expect::FileOrFolder, c));
    let target = table.text(&keys::STEP_TARGET, c).map(|at| at.value);
    let mode = table.text(&keys::STEP_MODE, c);
    let mode = mode.and_then(|at| u32::from_str_radix(&at.value, 8).ok());
    let owner = table.text(&keys::STEP_OWNER, c).map(|at| at.value);
    let owner = owner.unwrap_or_else(|| "root:root".to_owned());
    Some(Action::File { source: source?, target: target?, mode, owner })
}
