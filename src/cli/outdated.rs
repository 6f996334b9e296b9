//! `devbox box outdated` and `devbox box update`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::{Context, lock, machine as shared};
use crate::error::{Error, Result, exit};
use crate::exec::sandbox::Policy;
use crate::lock::{Lock, SOURCE};
use crate::project::outdated::{self, Has};
use crate::spec::{self, Source};
use crate::ui;

/// Says what is older than what there is.
pub(super) fn outdated(json: bool, ctx: &Context) -> Result<u8> {
    let spec = spec::load(None)?;
    let all = look(&spec, ctx)?;
    let old = all.iter().any(|has| has.outdated);
    let code = if old { exit::FAILED } else { exit::OK };
    if json {
        let value = json!({"schema": 1, "outdated": old, "boxes": all});
        ui::line(&format!("{value:#}"))?;
        return Ok(code);
    }
    for has in all.iter().filter(|has| has.outdated) {
        ui::line(&has.text())?;
    }
    if all.is_empty() {
        ctx.events.note("devbox.toml names no place where a newer box could be: neither `registry`, nor a `box` source by range or channel");
    } else if !old {
        ui::line(&match &all[..] {
            [one] => format!("up to date: {}", one.text()),
            all => format!("all {} boxes are up to date", all.len()),
        })?;
    } else if matches!(spec.source, Source::Box(_)) {
        ctx.events.note("`devbox box update` goes to the newest that fits");
    } else {
        ctx.events.note(
            "take a devbox.toml that names the newest version, then run `devbox up --forward`",
        );
    }
    Ok(code)
}

fn look(spec: &spec::Spec, ctx: &Context) -> Result<Vec<Has>> {
    let project = shared::project(ctx)?;
    ctx.block_on(async |cancel| outdated::look(&project, spec, ctx.work(&cancel)).await)
}

/// Moves the lock to the newest box that fits, and pulls it.
pub(super) fn update(allow_unsandboxed: bool, ctx: &Context) -> Result<u8> {
    let spec = spec::load(None)?;
    let Source::Box(source) = &spec.source else {
        return Err(Error::usage("the source of this project is no box")
            .hint("Its box is another one when `version` in devbox.toml is; `devbox box outdated` says what there is at its `registry`."));
    };
    let locked = Lock::of(&spec)?.and_then(|lock| lock.pinned_box(source));
    let loose: BTreeSet<String> = match Lock::of(&spec)? {
        Some(_) => [SOURCE.to_owned()].into(),
        None => BTreeSet::new(),
    };
    let code = lock::write(&spec, loose, Policy::from_flag(allow_unsandboxed), ctx)?;
    let Some(pinned) = Lock::of(&spec)?.and_then(|lock| lock.pinned_box(source)) else {
        return Ok(code);
    };
    match locked {
        Some(old) if old == pinned => {
            ctx.events.note(format!("{} is the newest that fits {}", pinned.version, source.wish));
            return Ok(code);
        }
        Some(old) => ctx.events.note(format!(
            "the source was {} and is {}; `devbox lock` wrote that down, keep it in git",
            old.version, pinned.version
        )),
        None => ctx.events.note(format!("the source is {}", pinned.version)),
    }
    ctx.events.note(match spec.is_box() {
        Some(_) => "machines change over with `devbox up --forward` (their disks are lost, data disks stay), and back with `devbox rollback`",
        None => "raise `version` in devbox.toml, then build on it with `devbox build --locked`; machines change over with `devbox up --forward`",
    });
    Ok(code)
}
