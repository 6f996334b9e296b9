//! What a program that configures machines says it changed: the second time it should be nothing.

use super::Running;
use crate::error::Result;

impl Running<'_> {
    /// Says what a run did.
    pub(super) fn say(&self, changed: Option<u64>, program: &str) {
        match changed {
            Some(0) => self.events.note(format!("{program} found nothing to change")),
            Some(_) => self.events.note(format!("{program} made changes")),
            None => {}
        }
    }

    /// Fails if a second run changed anything.
    pub(super) fn converged(&self, changed: Option<u64>, program: &str) -> Result<()> {
        match changed {
            Some(0) => {
                self.events.note(format!("{program} changed nothing the second time"));
                Ok(())
            }
            Some(_) => Err(self
                .failed(format!("{program} changed something again when it ran a second time"))
                .hint(
                    "Make what its output calls changed idempotent, or remove `idempotent = true`.",
                )),
            None => Err(self.failed(format!("{program} did not say what it changed"))),
        }
    }
}
