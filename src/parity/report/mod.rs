//! What a comparison found, for people and for programs; every form tells the same verdict, counts and groups.
//!
//! A form is a pure function from a [`Report`] to its text.

pub mod drift;
pub mod failed;
pub mod html;
pub mod json;
pub mod junit;
pub mod plain;
pub mod sarif;
pub mod text;

use serde::Serialize;

use self::text::Shown;
use crate::error::Result;

use super::compare::{Comparison, Verdict};
use super::explain::{Cause, Explanation, count};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal.
    Text,
    /// `devbox.parity/1`, with every difference.
    Json,
    /// Test results as JUnit writes them.
    Junit,
    /// Findings, SARIF 2.1.0.
    Sarif,
    /// One page for a browser.
    Html,
}

impl Format {
    /// The form that a file of this extension has.
    #[must_use]
    pub fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension {
            "txt" => Format::Text,
            "json" => Format::Json,
            "xml" => Format::Junit,
            "sarif" => Format::Sarif,
            "html" | "htm" => Format::Html,
            _ => return None,
        })
    }

    /// The report in this form; ends with a line feed. `shown` is what the text lists.
    ///
    /// # Errors
    /// None that is known: a failure of a writer.
    pub fn render(self, report: &Report, shown: &Shown) -> Result<String> {
        match self {
            Format::Text => Ok(text::lines(report, shown).join("\n") + "\n"),
            Format::Json => json::render(report),
            Format::Junit => Ok(junit::render(report)),
            Format::Sarif => sarif::render(report),
            Format::Html => html::render(report),
        }
    }
}

/// A finished comparison with its explanation.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Changes when a field changes its meaning.
    pub schema: &'static str,
    /// The version of devbox.
    #[serde(rename = "toolVersion")]
    pub tool_version: &'static str,
    /// Whether the verdict is what was asked for: exit code 0.
    pub accepted: bool,
    /// Level, verdict, both sides.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Groups, differences, counts.
    #[serde(flatten)]
    pub explanation: Explanation,
}

impl Report {
    /// Puts both together.
    #[must_use]
    pub fn new(comparison: Comparison, explanation: Explanation, allow_padding: bool) -> Self {
        let (schema, tool_version) = ("devbox.parity/1", env!("CARGO_PKG_VERSION"));
        let accepted = match comparison.verdict {
            Verdict::Equal | Verdict::Equivalent => true,
            Verdict::Padded => allow_padding,
            Verdict::Different => false,
        };
        Report { schema, tool_version, accepted, comparison, explanation }
    }

    /// The verdict's word.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.comparison.verdict {
            Verdict::Equal => "equal",
            Verdict::Equivalent => "equivalent",
            Verdict::Padded => "padded",
            Verdict::Different => "different",
        }
    }

    /// The verdict in a line: what, at which level, of whom.
    #[must_use]
    pub fn headline(&self) -> String {
        let level = self.comparison.level.as_str();
        match self.comparison.verdict {
            Verdict::Equal => {
                format!("equal at level {level}: {}", self.comparison.a.digests.join(" "))
            }
            Verdict::Padded => {
                format!("padded at level {level}: one disk is the other one and zeros")
            }
            Verdict::Equivalent => {
                let declared = self.explanation.counts.declared;
                format!("equivalent at level {level}: {}", count(declared, "declared difference"))
            }
            Verdict::Different => format!("different at level {level}"),
        }
    }
}

/// The class of a group: the first part of its id.
#[must_use]
pub fn class(group: Cause) -> &'static str {
    let id = group.about().id;
    id.split('.').next().unwrap_or(id)
}
