//! `devbox build`.

use std::path::PathBuf;

use serde_json::json;

use crate::build::{self, Built, Options, Pinned};
use crate::cli::Context;
use crate::cli::on_error::Wish;
use crate::cli::verify::{self, Verified};
use crate::error::{Result, exit};
use crate::exec::sandbox::Policy;
use crate::{spec, ui};

/// How far the clock of a build's guest goes ahead that is to show what depends on it: another day at every place,
/// and no archive or certificate that has ended.
const AHEAD: i64 = 26 * 3600;

/// Build the sealed image of a spec, put it into the store and write its outputs.
///
/// A box whose name, version and inputs are in the store already is not built again; only its
/// outputs are written. A released version means one content for ever: raise `version` for a new
/// one, or use a version such as 1.1.0-dev, which may be built again and again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The spec, or its folder; found from the current folder upwards if absent.
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Where the outputs go; `dist` beside the spec by default.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Build although the store has a box of the same inputs.
    #[arg(long)]
    rebuild: bool,
    /// Run all steps anew, and keep their layers in place of those in the cache.
    #[arg(long)]
    no_cache: bool,
    /// Run this step, by name or number, and those after it anew.
    #[arg(long, value_name = "STEP", conflicts_with = "no_cache")]
    from_step: Option<String>,
    /// Stop after this step, by name or number: its layer is kept for the next build, no box is made.
    #[arg(long, value_name = "STEP")]
    until_step: Option<String>,
    /// Run the installer of an `iso` source anew, although nothing changed since it ran.
    #[arg(long)]
    reinstall: bool,
    /// Show the screen of the machine in which the installer runs, by VNC on a free port of 127.0.0.1.
    #[arg(long)]
    vnc: bool,
    /// What to do when a step fails.
    #[arg(long, value_name = "WHAT", default_value = "cleanup")]
    on_error: Wish,
    /// Keep to `devbox.lock`: fail where an input, a package or a host that a step reaches is another one.
    ///
    /// Ends with 2 before anything is built if there is no lock, or if it does not fit the spec.
    #[arg(long, conflicts_with = "until_step")]
    locked: bool,
    /// Build it a second time, from nothing and in another environment, and say whether both match.
    ///
    /// Ends with 1 if they differ, and says in what. A box that is in the store already is not built anew for this:
    /// it is what the second build is compared with.
    #[arg(long, conflicts_with = "until_step")]
    verify: bool,
    /// Build as the second time: no outputs, another clock, one processor more.
    #[arg(long, hide = true)]
    vary: bool,
    /// Let a released version mean the new content from now on.
    #[arg(long)]
    replace: bool,
    /// Let `qemu-img` read disks with all your rights where this host cannot isolate it.
    #[arg(long)]
    allow_unsandboxed: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let mut spec = spec::load(args.path.as_deref())?;
    if args.vary {
        spec.machine.cpus += 1;
    }
    let lock = Pinned::of(&spec, args.locked, &ctx.events)?;
    let options = Options {
        lock,
        output_dir: args.output_dir,
        outputs: !args.vary,
        clock_ahead: if args.vary { AHEAD } else { 0 },
        rebuild: args.rebuild,
        replace: args.replace,
        no_cache: args.no_cache,
        from_step: args.from_step,
        reinstall: args.reinstall,
        vnc: args.vnc,
        on_error: args.on_error.on_error(&ctx.events),
        sandbox: Policy::from_flag(args.allow_unsandboxed),
    };
    if let Some(step) = args.until_step {
        ctx.block_on(async |cancel| {
            build::until(&step, &spec, &ctx.paths, &options, &ctx.events, &cancel).await
        })?;
        ctx.events.note(format!("stopped after step `{step}`; `devbox build` goes on from there"));
        return Ok(exit::OK);
    }
    let at = args.path.unwrap_or_else(|| spec.dir.clone());
    let built = ctx.block_on(|cancel| async move {
        build::run(&spec, &ctx.paths, &options, &ctx.events, &cancel).await
    })?;
    let verify = || verify::verify(&at, &built, args.allow_unsandboxed, args.locked, ctx);
    let verified = args.verify.then(verify).transpose()?;
    if args.json { print_json(&built, verified) } else { print(&built) }?;
    Ok(verified.map_or(exit::OK, Verified::exit_code))
}

fn print(built: &Built) -> Result<()> {
    let config = built.image.config();
    ui::line(&config.reference())?;
    ui::line(&config.box1.to_string())?;
    ui::line(&config.bytes1.to_string())?;
    for output in &built.outputs {
        ui::line(&output.path.display().to_string())?;
    }
    Ok(())
}

fn print_json(built: &Built, verified: Option<Verified>) -> Result<()> {
    let config = built.image.config();
    let mut value = json!({
        "reference": config.reference(),
        "manifest": built.image.manifest_digest(),
        "config": config,
        "reused": built.reused,
        "outputs": built.outputs,
        "about": built.about,
    });
    if let Some(verified) = verified {
        value["verified"] = json!({ "level": verified.as_str() });
    }
    ui::line(&format!("{value:#}"))
}
