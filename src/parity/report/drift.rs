//! What a machine changed, on a terminal: the causes of what is drift, and how much else there is.

use serde::Serialize;

use super::text::{self, Shown};
use crate::parity::difference::{Change, Difference, Place};
use crate::parity::drift::classes::{Class, Classified, Verdict, verdict};
use crate::parity::explain::{Cause, Explanation, count};

/// Most lines for the causes.
const CAUSES: usize = 12;

/// All changes of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    /// Drift first.
    pub changes: &'a [Classified],
    /// Why what is drift differs.
    pub why: &'a Explanation,
}

/// A change with its class, and if it is drift with its cause.
#[derive(Debug, Serialize)]
pub struct One<'a> {
    class: Class,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
    path: &'a Place,
    changes: &'a [Change],
    /// The group that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Cause>,
    /// The package that the object belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<&'a str>,
    /// How it differs, in lines.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    details: &'a [String],
}

impl One<'_> {
    fn line(&self) -> String {
        Difference { place: self.path.clone(), changes: self.changes.to_vec() }.to_string()
    }
}

impl<'a> Changed<'a> {
    /// Every change, as programs read it.
    pub fn each(self) -> impl Iterator<Item = One<'a>> {
        let explained = self.why.differences.iter().map(Some).chain(std::iter::repeat(None));
        self.changes.iter().zip(explained).map(|(one, explained)| One {
            class: one.class,
            because: one.because,
            path: &one.path,
            changes: explained.map_or(&one.changes, |known| &known.difference.changes),
            group: explained.map(|known| known.group),
            package: explained.and_then(|known| known.package.as_deref()),
            details: explained.map_or(&[], |known| &known.details),
        })
    }

    /// The lines of the report; `head` says of which machine and against what.
    #[must_use]
    pub fn lines(self, head: &str, shown: &Shown) -> Vec<String> {
        let verdict = verdict(self.changes);
        let mut lines = vec![format!("{verdict}: {head}")];
        if !shown.groups.is_empty() || shown.path.is_some() {
            lines.extend(text::listed(self.why, shown));
            return lines;
        }
        let is_drift = matches!(verdict, Verdict::Drifted(_));
        if is_drift && !shown.all {
            lines.push(format!("  {}", text::told(&self.why.counts)));
            lines.extend(text::fitted(&self.why.groups, CAUSES, |more| {
                format!("- and {} (`--all`)", count(more, "more group"))
            }));
        }
        let of_all = self.each().collect::<Vec<_>>();
        for class in [Class::Drift, Class::Work, Class::State] {
            let of = of_all.iter().filter(|one| one.class == class);
            let number = of.clone().count();
            if number == 0 || (class == Class::Drift && !shown.all) {
                continue;
            }
            lines.push(format!("{}: {number}", class.as_str()));
            if shown.all {
                lines.extend(of.map(|one| format!("  {}", one.line())));
            }
        }
        if is_drift {
            if !shown.all {
                lines.push("`--group ID` lists a group, `--all` every change.".to_owned());
            }
            let hint =
                "start over with `devbox reset`, or take it into the spec with `devbox promote`";
            lines.push(format!("next: {hint}"));
        }
        lines
    }
}
