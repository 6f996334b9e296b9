//! `devbox destroy`.

use std::io::IsTerminal as _;

use crate::cli::{Context, halt, machine as shared};
use crate::error::{Error, Result, exit};
use crate::ui;

/// Stop the dev box and delete its disk. The box in the store stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let Some(instance) = shared::folder(ctx)? else {
        ctx.events.note("this project has no machine");
        return Ok(exit::OK);
    };
    let name = instance.name().to_owned();
    if !args.force {
        if !std::io::stdin().is_terminal() {
            return Err(Error::usage(format!("`{name}` is not destroyed without being asked for"))
                .hint(
                    "Say it with `devbox destroy -f`: its disk and all that is on it are lost.",
                ));
        }
        if !ui::ask(&format!("Destroy `{name}` and all that is on its disk?"))? {
            return Err(Error::failed(format!("`{name}` was not destroyed")));
        }
    }
    let lock = instance.lock("devbox destroy")?;
    // A damaged record must not keep a machine from being removed.
    if let Ok(Some(record)) = instance.record() {
        halt::stop(ctx, &instance, &record, None)?;
    }
    instance.remove()?;
    drop(lock);
    ctx.events.note(format!("`{name}` was destroyed"));
    Ok(exit::OK)
}
