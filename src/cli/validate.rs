//! `devbox validate`.

use std::path::PathBuf;

use crate::cli::Context;
use crate::error::{Result, exit};
use crate::spec::personal;
use crate::spec::{self, Spec};
use crate::ui;

/// Check a devbox.toml: all problems at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file, or a folder that holds a devbox.toml; by default the one of this folder or the
    /// nearest above it.
    path: Option<PathBuf>,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let file = spec::find(args.path.as_deref())?;
    match spec::read(&file)? {
        Ok(found) => {
            // What `up` would refuse is no valid project.
            personal::apply(&mut found.clone(), &ctx.paths.settings, &[])?;
            if args.json {
                ui::line(&json(&serde_json::json!({
                    "file": file.display().to_string(),
                    "name": found.name,
                    "version": found.version,
                    "tested": found.tested,
                    "problems": [],
                })))?;
            } else {
                ui::line(&format!("`{}` is valid: {}", file.display(), summary(&found)))?;
                if !found.tested {
                    ui::line(
                        "`tested = false`: whoever wrote it could not build it; its comments say what was not tried",
                    )?;
                }
            }
            Ok(exit::OK)
        }
        Err(problems) => {
            if args.json {
                ui::line(&json(&problems.json()))?;
            } else {
                ui::problems(&problems);
            }
            Ok(exit::USAGE)
        }
    }
}

fn json(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// `hello 1.0.0, 2 steps, outputs qcow2 and raw`.
fn summary(spec: &Spec) -> String {
    let steps = match spec.steps.len() {
        0 => "no steps".to_owned(),
        1 => "1 step".to_owned(),
        n => format!("{n} steps"),
    };
    let outputs: Vec<&str> = spec.outputs.iter().map(|o| o.as_str()).collect();
    let outputs = match outputs.as_slice() {
        [] => "no outputs".to_owned(),
        some => format!("outputs {}", some.join(", ")),
    };
    format!("{} {}, {steps}, {outputs}", spec.name, spec.version)
}
