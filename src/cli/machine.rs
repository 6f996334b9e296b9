//! What the verbs about machines share: which ones they are, and what to say when one is not running.

use std::time::Duration;

use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::machine::instance::{Instance, State};
use crate::machine::pause::is_paused;
use crate::machine::record::Record;
use crate::project::{Member, Project, Run, select};
use crate::spec::personal::{self, Override};
use crate::spec::{self, Spec};

/// What verbs have that do long work.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EventArgs {
    /// Print what is done as JSON, one event a line, to standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// What verbs have that start machines.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SettingArgs {
    /// Give the machine something else than the spec says: `machine.memory=4GiB`, `machines.web.cpus=4`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl SettingArgs {
    /// The spec of the current folder with this person's settings, and what they change.
    pub(super) fn spec(&self, ctx: &Context) -> Result<(Spec, Vec<Override>)> {
        let mut spec = spec::load(None)?;
        let overrides = personal::apply(&mut spec, &ctx.paths.settings, &self.set)?;
        Ok((spec, overrides))
    }
}

/// The project of the current folder.
pub(super) fn project(ctx: &Context) -> Result<Project> {
    Project::here(&ctx.paths)
}

/// The machines that exist among those that are named, or all that exist.
pub(super) fn existing<'a>(project: &'a Project, patterns: &[String]) -> Result<Vec<&'a Member>> {
    let all: Vec<&Member> = project.members().iter().collect();
    let chosen = select::members(&all, patterns)?;
    Ok(chosen.into_iter().filter(|member| member.instance.exists()).collect())
}

/// The machines of the spec that are named, or all of them: those that can come up.
pub(super) fn wanted<'a>(
    project: &Project,
    spec: &'a Spec,
    patterns: &[String],
) -> Result<Vec<&'a str>> {
    let gone = |member: &&Member| {
        member.in_spec == Some(false) && patterns.iter().any(|name| name == member.name())
    };
    if let Some(member) = project.existing().find(gone) {
        let name = member.name();
        return Err(Error::usage(format!("`{name}` is not in the spec any more")).hint(format!(
            "Write `[machines.{name}]` into it again, or remove the machine with `devbox destroy {name}`."
        )));
    }
    let all: Vec<&str> = spec.machines.iter().map(|machine| machine.name.as_str()).collect();
    select::names_of(&all, patterns)
}

/// Does `work` on the machines that exist among those that are named; where there is none, says `nothing`.
pub(super) fn each(
    ctx: &Context,
    patterns: &[String],
    nothing: &str,
    work: impl AsyncFnOnce(&[&Member], Run<'_>) -> Result<()>,
) -> Result<u8> {
    let project = project(ctx)?;
    let members = existing(&project, patterns)?;
    if members.is_empty() {
        ctx.events.note(nothing);
        return Ok(exit::OK);
    }
    ctx.block_on(async |cancel| work(&members, ctx.work(&cancel).of(&project)).await)?;
    Ok(exit::OK)
}

/// The one machine that a verb is about; it exists.
pub(super) fn one(ctx: &Context, name: Option<&str>) -> Result<(Instance, Record)> {
    let project = project(ctx)?;
    let absent = |what: String, hint: String| Err(Error::failed(what).hint(hint));
    let Some(member) = select::one(project.members(), name)? else {
        return absent(
            "this project has no machine".to_owned(),
            "Make and start it with `devbox up`.".to_owned(),
        );
    };
    match member.instance.record()? {
        Some(record) => Ok((member.instance.clone(), record)),
        None => absent(
            format!("`{}` is not made yet", member.name()),
            format!("Make and start it with `devbox up {}`.", member.name()),
        ),
    }
}

/// The one machine that a verb is about, if it runs; else what to do about it.
pub(super) fn running(ctx: &Context, name: Option<&str>) -> Result<(Instance, Record)> {
    let (instance, record) = one(ctx, name)?;
    let name = instance.name();
    match instance.state(&record) {
        State::Running(_) if is_paused(&instance.files().watch_socket()) => Err(suspended(name)),
        State::Running(_) => Ok((instance, record)),
        _ if record.suspended.is_some() => Err(suspended(name)),
        State::Died => Err(Error::failed(format!("`{name}` is stopped: QEMU ended unexpectedly"))
            .detail(format!("serial log: {}", instance.files().serial_log().display()))
            .detail(format!("QEMU's log: {}", instance.files().qemu_log().display()))
            .hint("Start it again with `devbox up`.")),
        State::Stopped => {
            Err(Error::failed(format!("`{name}` is stopped")).hint("Start it with `devbox up`."))
        }
    }
}

fn suspended(name: &str) -> Error {
    Error::failed(format!("`{name}` is suspended")).hint("Let it go on with `devbox resume`.")
}

/// A duration on the command line, as in the spec (`90s`, `10m`).
pub(super) fn duration(text: &str) -> std::result::Result<Duration, String> {
    spec::quantity::parse_duration(text)
        .map_err(|_| "expected a whole number with a unit: `90s`, `10m`, `2h`".to_owned())
}
