//! `devbox build --verify`: builds the box a second time, in another environment, and compares.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;

use crate::build::Built;
use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::exec::group;
use crate::host;
use crate::image::Limits;
use crate::machine::lock::Lock;
use crate::parity::Level;
use crate::parity::compare::Question;
use crate::parity::report::text::Shown;
use crate::parity::report::{Format, Report};
use crate::parity::subject::Reference;
use crate::store::{BoxRef, Store};
use crate::ui;

/// What the second build runs behind: another name of the host where that may be set, and another umask.
const ELSEWHERE: &str = "umask 077
if [ \"$(id -u)\" = 0 ] && unshare --uts true 2> /dev/null; then
    exec unshare --uts sh -c 'echo elsewhere > /proc/sys/kernel/hostname && exec \"$@\"' sh \"$@\"
fi
exec \"$@\"";

/// How the two builds compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verified {
    /// Every byte that a guest sees.
    Disk,
    /// Files, identities and boot code; the filesystems' blocks lie elsewhere.
    Content,
    /// They differ; what does was printed.
    No,
}

impl Verified {
    /// As in JSON; the level at which both match.
    pub(super) fn as_str(self) -> Option<&'static str> {
        match self {
            Verified::Disk => Some("disk"),
            Verified::Content => Some("content"),
            Verified::No => None,
        }
    }

    pub(super) fn exit_code(self) -> u8 {
        if self == Verified::No { exit::FAILED } else { exit::OK }
    }
}

/// A folder for one build, removed at the end; what a killed one left is removed at the start.
struct Elsewhere {
    dir: PathBuf,
    _lock: Lock,
}

impl Elsewhere {
    fn open(ctx: &Context) -> Result<Self> {
        let lock = ctx.paths.cache.join("verify.lock");
        let lock = Lock::acquire(&lock, "devbox build --verify")?;
        let dir = ctx.paths.cache.join("verify");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        host::private_dir(&dir)?;
        Ok(Elsewhere { dir, _lock: lock })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Builds the same spec with nothing of the first build, and compares the boxes. Prints what differs.
pub(super) fn verify(
    spec: &Path,
    built: &Built,
    unsandboxed: bool,
    locked: bool,
    ctx: &Context,
) -> Result<Verified> {
    ctx.events.phase(
        "Building it a second time: another clock, umask, time zone, number of processors, and host name",
    );
    let elsewhere = Elsewhere::open(ctx)?;
    let program = std::env::current_exe()
        .map_err(|e| Error::failed("cannot find devbox's own program").cause(e))?;
    let mut command = Command::new("sh");
    command.args(["-c", ELSEWHERE, "sh"]).arg(program).args(["build", "--vary"]);
    if unsandboxed {
        command.arg("--allow-unsandboxed");
    }
    if locked {
        command.arg("--locked");
    }
    command.arg(spec).env("DEVBOX_HOME", &elsewhere.dir).env("TZ", "Pacific/Kiritimati");
    command.stdin(Stdio::null());
    ctx.block_on(async |cancel| {
        let told = |line: &str| match line.strip_prefix("==> ") {
            Some(phase) => ctx.events.note(format!("second build: {phase}")),
            None => ctx.events.program("second build", line),
        };
        let run = group::run(command, told, &cancel);
        run.await.map_err(|e| e.context("the second build failed, and the first did not"))
    })?;
    let config = built.image.config();
    let store = Store::open(&elsewhere.dir.join("store"))?;
    let Some(second) = store.find(&config.name, &config.version)? else {
        return Err(Error::failed("the second build made no box"));
    };
    if second.config().bytes1 == config.bytes1 {
        ctx.events.note("verified: both builds have the same bytes (level disk)");
        return Ok(Verified::Disk);
    }
    if second.config().box1 == config.box1 {
        ctx.events.note("verified: both builds have the same content (level content)");
        return Ok(Verified::Content);
    }
    explain(&built.image, &second, ctx)?;
    Ok(Verified::No)
}

fn explain(first: &BoxRef, second: &BoxRef, ctx: &Context) -> Result<()> {
    let side = |image: &BoxRef, which: &str| Reference::Stored {
        name: format!("the {which} build"),
        path: image.disk_path().to_owned(),
    };
    let limits = Limits::default();
    let question = Question {
        level: Level::Content,
        limits: &limits,
        cache: None,
        recompute: false,
        policy: None,
    };
    let (comparison, explanation) =
        question.explain(&side(first, "first"), &side(second, "second"))?;
    for note in &comparison.notes {
        ctx.events.note(note);
    }
    let report = Report::new(comparison, explanation, false);
    let shown = Shown::parse(false, &[], None)?;
    ui::line(Format::Text.render(&report, &shown)?.trim_end())?;
    ctx.events.note("what differs comes from a step or a package that takes in more than the spec says: time, chance, the host, the network");
    Ok(())
}
