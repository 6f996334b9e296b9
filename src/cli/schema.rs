//! `devbox schema`.

use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::parity::report::json;
use crate::spec::schema::schema;
use crate::ui;

/// Print the JSON schema of devbox.toml, or of a report.
///
/// Editors that know TOML complete and check with it: put `#:schema <file>` on the first line of
/// devbox.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of what.
    #[arg(value_enum, default_value_t = Of::Spec)]
    of: Of,
}

/// What has a schema.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    /// The file devbox.toml.
    Spec,
    /// What `devbox parity --format json` prints.
    Parity,
}

pub(crate) fn run(args: Args, _ctx: &Context) -> Result<u8> {
    let text = match args.of {
        Of::Spec => serde_json::to_string_pretty(&schema())
            .map_err(|e| Error::failed("cannot write the schema").cause(e))?,
        Of::Parity => json::SCHEMA.trim_end().to_owned(),
    };
    ui::line(&text)?;
    Ok(exit::OK)
}
