//! Why a machine is no longer what its spec says: the causes that [`explain`] finds, by the files of both
//! sides that it needs.

use super::classes::{Class, Classified};
use super::{Drift, Found};
use crate::error::Result;
use crate::parity::content::Content;
use crate::parity::difference::Difference;
use crate::parity::explain::view::{Origin, Seen, View};
use crate::parity::explain::{self, Explanation, Of, Question};

impl Found {
    /// The cause of each change that is drift, in their order in `changes`.
    ///
    /// # Errors
    /// A file that tells it cannot be read; the deadline of the limits passed.
    pub fn explain(&self, drift: &Drift, changes: &[Classified]) -> Result<Explanation> {
        let counts = changes.iter().filter(|change| change.class == Class::Drift);
        let differences: Vec<_> = counts
            .map(|one| Difference { place: one.path.clone(), changes: one.changes.clone() })
            .collect();
        if differences.is_empty() {
            return Ok(Explanation::default());
        }
        let view = |content, disk| View {
            seen: Seen::Content(content),
            origin: Origin::Disk(disk, None),
            // Its own keys are state.
            host_keys: &[],
            has_digests: false,
        };
        let sides: [(&Content, _); 2] = [(&self.base, &drift.base), (&self.now, &drift.now)];
        let question = Question {
            views: sides.map(|(content, disk)| view(content, disk)),
            names: ["the image", "the machine"],
            of: Of::Machine,
            differences: &differences,
            same_content: false,
            policy: None,
        };
        explain::explain(question, &drift.now.limits)
    }
}
