//! `devbox build`.

use std::path::PathBuf;

use serde_json::json;

use crate::build::{self, Built, Options};
use crate::cli::Context;
use crate::error::{Result, exit};
use crate::exec::sandbox::Policy;
use crate::{spec, ui};

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
    let spec = spec::load(args.path.as_deref())?;
    let options = Options {
        output_dir: args.output_dir,
        outputs: true,
        rebuild: args.rebuild,
        replace: args.replace,
        sandbox: Policy::from_flag(args.allow_unsandboxed),
    };
    let built = ctx.block_on(|cancel| async move {
        build::run(&spec, &ctx.paths, &options, &ctx.events, &cancel).await
    })?;
    if args.json { print_json(&built) } else { print(&built) }?;
    Ok(exit::OK)
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

fn print_json(built: &Built) -> Result<()> {
    let config = built.image.config();
    let value = json!({
        "reference": config.reference(),
        "manifest": built.image.manifest_digest(),
        "config": config,
        "reused": built.reused,
        "outputs": built.outputs,
    });
    ui::line(&format!("{value:#}"))
}
