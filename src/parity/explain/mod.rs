//! Why two sides differ: causes before paths.
//!
//! [`attribute`] finds the [`cause`] of every difference, by the package managers' databases (checked against
//! the bytes), by what a path is for ([`rules`]) and by what changed of it; `evidence` shows how, without
//! secrets ([`redact`]); differences of one cause are a [`Group`], groups are sorted by rank.

mod accounts;
pub(super) mod attribute;
pub mod cause;
mod cpio;
mod evidence;
mod facts;
mod globs;
mod group;
mod hints;
pub(super) mod installed;
pub mod redact;
mod rules;
pub(super) mod side;
mod text;
pub mod view;

use std::path::Path;

use jiff::civil::Date;
use rayon::prelude::*;
use serde::Serialize;

use self::attribute::{Attribution, Sides};
pub use self::cause::{Cause, Severity};
use self::evidence::Inside;
use self::facts::Facts;
pub use self::group::Group;
pub(crate) use self::group::count;
use self::installed::Installed;
pub use self::installed::PackageChange;
use self::side::Side;
use self::view::{Seen, View};
use super::difference::{Difference, Kind, Place};
use super::policy::{Applied, Case, Judged, Policy};
use crate::error::Result;
use crate::image::Limits;

/// Most differences of which lines are shown.
const MAX_EVIDENCE: usize = 400;

/// A difference with its cause.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// It, without secrets in its values.
    #[serde(flatten)]
    pub difference: Difference,
    /// The group that it belongs to.
    pub group: Cause,
    /// Its path from the root of the system, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The package that the object belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// How it differs, in lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// How many differences there are, by what explains them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All.
    pub differences: usize,
    /// Packages that changed.
    pub packages: usize,
    /// Differences that the change of packages explains.
    pub by_packages: usize,
    /// Differences of instance state.
    pub state: usize,
    /// Differences that the policy declares.
    pub declared: usize,
    /// The rest.
    pub remain: usize,
}

/// Why two sides differ.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// By rank, then by id.
    pub groups: Vec<Group>,
    /// Every difference, in the order of the comparison.
    pub differences: Vec<Explained>,
    /// How many there are.
    pub counts: Counts,
    /// The policy, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Applied>,
    /// What could not be looked at.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// What is to be said of two sides that are equal: that they hold the same private host keys.
#[must_use]
pub fn of_equal(host_keys: [&[String]; 2], policy: Option<InForce<'_>>) -> Explanation {
    let policy = policy.map(|force| force.policy.of_equal(force.today));
    let about = group::About {
        installed: &Installed::default(),
        inside: None,
        shared_host_keys: &shared_host_keys(host_keys),
        facts: &Facts::default(),
        policy: policy.as_ref(),
    };
    let groups = group::groups(&[], &about);
    Explanation { groups, policy, ..Explanation::default() }
}

/// Holds the policy against both sides; what it declares is a cause of its own.
fn judged(
    question: &Question<'_>,
    sides: [&Side<'_>; 2],
    installed: &Installed,
    attributions: &mut [Attribution],
) -> Result<Option<Applied>> {
    let Some(InForce { policy, today, dev_is_second }) = question.policy else { return Ok(None) };
    let swapped;
    let (sides, installed) = if dev_is_second {
        swapped = installed.swapped();
        ([sides[1], sides[0]], &swapped)
    } else {
        (sides, installed)
    };
    let case = Case {
        sides,
        differences: question.differences,
        attributions,
        installed,
        today,
        dev_is_second,
    };
    let Judged { by, mut applied } = policy.judge(&case)?;
    if dev_is_second {
        applied.base.reverse();
    }
    for (attribution, _) in attributions.iter_mut().zip(by).filter(|(_, by)| by.is_some()) {
        attribution.cause = Cause::Declared;
        attribution.by_package = false;
    }
    Ok(Some(applied))
}

/// The paths of the keys that both sides hold; a key is a digest and a path.
fn shared_host_keys([a, b]: [&[String]; 2]) -> Vec<String> {
    let same = a.iter().filter(|key| b.contains(key));
    same.filter_map(|key| Some(key.split_once(' ')?.1.to_owned())).collect()
}

/// The private SSH host keys in the root filesystem: digest and path of each.
#[must_use]
pub fn host_keys(seen: Seen<'_>) -> Vec<String> {
    side::host_keys(seen)
}

/// What two sides are to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Of {
    /// Two images, or anything else that should be the same.
    #[default]
    Images,
    /// A machine, after the image that it was made of.
    Machine,
}

/// What is explained.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Both sides as they were read.
    pub views: [View<'a>; 2],
    /// Their names.
    pub names: [&'a str; 2],
    /// What they are.
    pub of: Of,
    /// All differences.
    pub differences: &'a [Difference],
    /// Whether the content of disks that differ as bytes is equal, if somebody looked.
    pub same_content: bool,
    /// What may differ, and on which day that is asked; nothing but where files are compared.
    pub policy: Option<InForce<'a>>,
}

/// A policy and what it depends on.
#[derive(Debug, Clone, Copy)]
pub struct InForce<'a> {
    /// It.
    pub policy: &'a Policy,
    /// The day (UTC).
    pub today: Date,
    /// Whether the second side is the developers'.
    pub dev_is_second: bool,
}

/// Finds the cause of every difference.
///
/// # Errors
/// A file cannot be read; [`Limits::deadline`] passed.
pub fn explain(question: Question<'_>, limits: &Limits) -> Result<Explanation> {
    let [a, b] = question.views;
    let (a, b) = rayon::join(|| Side::of(a), || Side::of(b));
    let (a, b) = (a?, b?);
    let sides = [&a, &b];
    let installed = match (&a.packages, &b.packages) {
        (Some(x), Some(y)) => Installed::compare(x, y),
        _ => Installed::default(),
    };
    let types = partition_types(question.views);
    let attributed = Sides { sides, installed: &installed, partition_types: &types };
    let mut attributions = attributed.attribute(question.differences, limits)?;
    let policy = judged(&question, sides, &installed, &mut attributions)?;

    let mut notes = vec![];
    if attributed.knows_no_owner() {
        notes.push("which package a file belongs to cannot be told without the image: files below /usr are counted as the packages'".to_owned());
    }
    let evidence = evidence_of(question.differences, &attributions, sides, limits)?;
    let inside = initramfs(question.differences, &attributions, sides)?;
    let shared = shared_host_keys(question.views.map(|view| view.host_keys));
    let facts = Facts::of(&question, &attributions, sides, inside.as_ref());

    let mut counts = Counts {
        differences: question.differences.len(),
        packages: installed.changes.len(),
        ..Counts::default()
    };
    counts.by_packages = attributions.iter().filter(|a| a.by_package).count();
    counts.state = attributions.iter().filter(|a| a.cause == Cause::State && !a.by_package).count();
    counts.declared = attributions.iter().filter(|a| a.cause == Cause::Declared).count();
    counts.remain = counts.differences - counts.by_packages - counts.state - counts.declared;
    let each = question.differences.iter().zip(attributions).zip(evidence);
    let differences = each
        .map(|((difference, attribution), details)| Explained {
            path: names(difference, &attribution),
            difference: without_secrets(difference),
            group: attribution.cause,
            package: attribution.package,
            details,
        })
        .collect::<Vec<_>>();
    let about = group::About {
        installed: &installed,
        inside: inside.as_ref(),
        shared_host_keys: &shared,
        facts: &facts,
        policy: policy.as_ref(),
    };
    let groups = group::groups(&differences, &about);
    Ok(Explanation { groups, differences, counts, policy, notes })
}

/// The lines of every difference that has some, the most important first until there are enough.
fn evidence_of(
    differences: &[Difference],
    attributions: &[Attribution],
    sides: [&Side<'_>; 2],
    limits: &Limits,
) -> Result<Vec<Vec<String>>> {
    let mut order: Vec<usize> = (0..differences.len())
        .filter(|i| attributions[*i].cause.about().rank <= 8 && !attributions[*i].by_package)
        .collect();
    order.sort_by_key(|i| attributions[*i].cause.about().rank);
    order.truncate(MAX_EVIDENCE);
    let found: Vec<(usize, Vec<String>)> = order
        .into_par_iter()
        .map(|i| {
            limits.check_time()?;
            Ok((i, evidence::of(&differences[i], &attributions[i], sides)?))
        })
        .collect::<Result<_>>()?;
    let mut all = vec![vec![]; differences.len()];
    for (i, lines) in found {
        all[i] = lines;
    }
    Ok(all)
}

/// The first initial RAM disk that differs, opened on both sides.
fn initramfs(
    differences: &[Difference],
    attributions: &[Attribution],
    sides: [&Side<'_>; 2],
) -> Result<Option<Inside>> {
    let mut only: [Option<&Place>; 2] = [None, None];
    for (difference, _) in
        differences.iter().zip(attributions).filter(|(_, a)| a.cause == Cause::Initramfs)
    {
        let Place::Path(_, path) = &difference.place else { continue };
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if !name.starts_with(b"initr") {
            continue;
        }
        let has = |kind: Kind| difference.changes.iter().any(|change| change.kind == kind);
        if has(Kind::Content) {
            return evidence::initramfs([Some(&difference.place), Some(&difference.place)], sides);
        }
        // Of another kernel: it has another name.
        if has(Kind::Removed) {
            only[0].get_or_insert(&difference.place);
        } else if has(Kind::Added) {
            only[1].get_or_insert(&difference.place);
        }
    }
    evidence::initramfs(only, sides)
}

fn partition_types(views: [View<'_>; 2]) -> Vec<(u32, String)> {
    views
        .into_iter()
        .filter_map(|view| match view.seen {
            Seen::Content(content) => Some(&content.disk.partitions),
            _ => None,
        })
        .flatten()
        .map(|partition| (partition.number, partition.type_id.clone()))
        .collect()
}

/// The path in the system, as people read it.
fn names(difference: &Difference, attribution: &Attribution) -> Option<String> {
    let path = attribution.path.as_ref()?;
    // Of another filesystem whose place is not known, the place says more.
    matches!(difference.place, Place::Path(..)).then(|| Place::Path(None, path.clone()).to_string())
}

impl Explanation {
    /// The differences of a group, in the order of the comparison.
    pub fn differences_of(&self, group: &Group) -> impl Iterator<Item = &Explained> {
        self.differences.iter().filter(move |one| one.group == group.id)
    }
}

impl Explained {
    /// Where it is: the path in the system, or what else the difference is about.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.clone().unwrap_or_else(|| self.difference.place.to_string())
    }

    /// One line: where, then each change with its values.
    #[must_use]
    pub fn line(&self) -> String {
        self.line_of(&self.difference)
    }

    /// The same of some of its changes.
    fn line_of(&self, difference: &Difference) -> String {
        let line = difference.to_string();
        match &self.path {
            // The place ends before the first change.
            Some(path) => {
                let place = difference.place.to_string();
                format!("{path}{}", line.strip_prefix(&place).unwrap_or(&line))
            }
            None => line,
        }
    }
}

/// A difference without what could be a secret in its values.
fn without_secrets(difference: &Difference) -> Difference {
    let mut difference = difference.clone();
    for change in &mut difference.changes {
        if matches!(change.kind, Kind::CommandLine | Kind::Target | Kind::Kernel) {
            for value in [&mut change.old, &mut change.new].into_iter().flatten() {
                *value = redact::line(value);
            }
        }
    }
    difference
}

/// A path in an image, for matching.
#[cfg(unix)]
pub(crate) fn os_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path))
}
