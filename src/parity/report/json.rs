//! The report for programs: one object with every difference, `schemas/parity-1.json`.

use super::Report;
use crate::error::{Error, Result};

/// The JSON schema of the object (draft 2020-12).
pub const SCHEMA: &str = include_str!("../../../schemas/parity-1.json");

/// The report as one object over several lines.
///
/// # Errors
/// None that is known: a failure of the writer.
pub fn render(report: &Report) -> Result<String> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|e| Error::failed("cannot write the report as JSON").cause(e))?;
    Ok(text + "\n")
}
