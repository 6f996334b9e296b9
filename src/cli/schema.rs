//! `devbox schema`.

use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::spec::schema::schema;
use crate::ui;

/// Print the JSON schema of devbox.toml.
///
/// Editors that know TOML complete and check with it: put `#:schema <file>` on the first line of
/// devbox.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, _ctx: &Context) -> Result<u8> {
    let text = serde_json::to_string_pretty(&schema())
        .map_err(|e| Error::failed("cannot write the schema").cause(e))?;
    ui::line(&text)?;
    Ok(exit::OK)
}
