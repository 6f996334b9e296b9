//! `devbox bundle`.

use std::path::PathBuf;

use crate::cli::{Context, machine as shared};
use crate::error::{Result, exit};
use crate::machine::Machine;
use crate::project::bundle::{self, About};
use crate::ui;

/// Put all that helps to find a fault of the dev box into one file, without keys and secrets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// The file to write; `devbox-MACHINE-TIME.tar.gz` in the current folder by default
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let project = shared::project(ctx)?;
    let (instance, record) = shared::one(ctx, args.machine.as_deref())?;
    let (name, files) = (instance.name(), instance.files());
    let trace = ctx.block_on(async |_| {
        let attached =
            Machine::attach(name, &record.uuid, files.dir(), files.runtime(), &ctx.events).await;
        Ok(match attached {
            Ok(Some(machine)) => bundle::of_running(&machine).await,
            _ => vec![],
        })
    })?;
    let file = args.output.unwrap_or_else(|| bundle::file_name(name));
    bundle::write(&instance, &About { failure: None, trace, spec: project.spec() }, &file)?;
    ui::line(&file.display().to_string())?;
    Ok(exit::OK)
}
