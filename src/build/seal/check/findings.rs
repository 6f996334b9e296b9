//! What the check of a seal found.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, Result};

/// Most findings that are kept; an image whose files all are wrong says so with fewer.
const KEPT: usize = 1000;
/// Most findings that an error shows; the rest is counted.
const SHOWN: usize = 12;

/// One thing that is not as a seal leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The step of the seal that would have removed it, by its name.
    pub step: &'static str,
    /// What it is, as a fragment of a sentence.
    pub what: String,
}

/// All that a check found.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    more: usize,
    /// Names of secrets of the steps that are in a file.
    pub(in crate::build::seal) secrets: BTreeSet<String>,
}

impl Findings {
    /// The findings, and how many there are besides.
    #[must_use]
    pub fn all(&self) -> (&[Finding], usize) {
        (&self.kept, self.more)
    }

    pub(super) fn add(&mut self, step: &'static str, what: impl Into<String>) {
        if self.kept.len() < KEPT {
            self.kept.push(Finding { step, what: what.into() });
        } else {
            self.more += 1;
        }
    }

    /// A secret of the steps is somewhere.
    pub(in crate::build::seal) fn secret(&mut self, name: &str, holder: &str) {
        self.secrets.insert(name.to_owned());
        self.add("secrets", format!("{holder} the secret `{name}`"));
    }

    /// The error that a build ends with.
    ///
    /// # Errors
    /// Anything was found.
    pub(super) fn verdict(self) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let told = |mut error: Error| {
            for finding in self.kept.iter().take(SHOWN) {
                error = error.detail(&finding.what);
            }
            match self.kept.len().saturating_sub(SHOWN) + self.more {
                0 => error,
                more => error.detail(format!("and {more} more")),
            }
        };
        if let Some(name) = self.secrets.first() {
            return Err(told(Error::failed(format!(
                "the image holds the secret `{name}` of its steps; it is not kept"
            )))
            .hint("Let the step take the secret from its environment without writing it to a file, or remove what it wrote."));
        }
        if self.kept.iter().any(|finding| finding.step == "agent") {
            return Err(told(Error::failed(
                "nobody could enter a machine of the image; it is not kept",
            ))
            .hint("Have a step install and enable `qemu-guest-agent`, or set `login = \"ssh\"`."));
        }
        Err(told(Error::failed(
            "the image is not sealed: reading it again found what the seal should have removed",
        ))
        .hint("Remove it in the last step of the spec; if the spec has nothing to do with it, this is a fault of devbox."))
    }
}
