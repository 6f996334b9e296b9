//! What the verbs about this project's machine share: which one it is, and what to say when it is
//! not running.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::Context;
use crate::error::{Error, Result};
use crate::machine::instance::{Instance, Record, State};
use crate::spec;

/// The folder of the project that the current folder belongs to.
pub(super) fn project() -> Result<PathBuf> {
    let file = spec::find(None)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    Ok(dir.unwrap_or(Path::new(".")).to_owned())
}

/// The project's machine, if it has one.
pub(super) fn existing(ctx: &Context) -> Result<Option<(Instance, Record)>> {
    Instance::existing(&ctx.paths, &project()?)
}

/// The project's machine, also when its record is damaged.
pub(super) fn folder(ctx: &Context) -> Result<Option<Instance>> {
    Instance::folder(&ctx.paths, &project()?)
}

/// The project's machine if it runs; else what to do about it.
pub(super) fn running(ctx: &Context) -> Result<(Instance, Record)> {
    let Some((instance, record)) = existing(ctx)? else {
        return Err(Error::failed("this project has no machine")
            .hint("Make and start it with `devbox up`."));
    };
    let name = instance.name();
    match instance.state(&record) {
        State::Running(_) => Ok((instance, record)),
        State::Died => Err(Error::failed(format!("`{name}` is stopped: QEMU ended unexpectedly"))
            .detail(format!("serial log: {}", instance.files().serial_log().display()))
            .detail(format!("QEMU's log: {}", instance.files().qemu_log().display()))
            .hint("Start it again with `devbox up`.")),
        State::Stopped => {
            Err(Error::failed(format!("`{name}` is stopped")).hint("Start it with `devbox up`."))
        }
    }
}

/// A duration on the command line, as in the spec (`90s`, `10m`).
pub(super) fn duration(text: &str) -> std::result::Result<Duration, String> {
    spec::quantity::parse_duration(text)
        .map_err(|_| "expected a whole number with a unit: `90s`, `10m`, `2h`".to_owned())
}
