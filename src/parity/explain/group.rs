//! Differences of one cause, and what is said of them in a line.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::cause::{Cause, Severity};
use super::evidence::Inside;
use super::facts::Facts;
use super::installed::{Installed, PackageChange};
use super::{Explained, accounts, hints, rules};
use crate::parity::difference::{Change, Difference, Kind, Place};
use crate::parity::policy::Applied;

/// Differences of one cause.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Its stable id.
    pub id: Cause,
    /// 1 (most important) to 11.
    pub rank: u8,
    /// How much it weighs.
    pub severity: Severity,
    /// One or two words.
    pub title: &'static str,
    /// What the cause means, in a sentence.
    pub meaning: &'static str,
    /// What differs, in a line.
    pub summary: String,
    /// What to do next.
    pub hint: Option<String>,
    /// How many differences it has; none for a finding about things that are the same.
    pub count: usize,
    /// The packages that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PackageChange>,
    /// More that belongs to the whole group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// What is known besides the differences.
pub(super) struct About<'a> {
    pub(super) installed: &'a Installed,
    pub(super) inside: Option<&'a Inside>,
    /// The private host keys that both sides hold.
    pub(super) shared_host_keys: &'a [String],
    pub(super) facts: &'a Facts,
    pub(super) policy: Option<&'a Applied>,
}

/// The groups by rank.
pub(super) fn groups(all: &[Explained], about: &About<'_>) -> Vec<Group> {
    let mut by_cause: BTreeMap<Cause, Vec<&Explained>> = BTreeMap::new();
    for one in all {
        by_cause.entry(one.group).or_default().push(one);
    }
    if !about.packages(Cause::Packages).is_empty() {
        by_cause.entry(Cause::Packages).or_default();
    }
    if about.policy.is_some_and(|policy| !policy.holds()) {
        by_cause.entry(Cause::Policy).or_default();
    }
    if !about.shared_host_keys.is_empty() {
        by_cause.entry(Cause::SharedHostKeys).or_default();
    }
    let group = |(cause, members): (Cause, Vec<&Explained>)| about.group(cause, &Members(&members));
    by_cause.into_iter().map(group).collect()
}

impl About<'_> {
    /// The packages that belong to a cause.
    fn packages(&self, cause: Cause) -> Vec<PackageChange> {
        let is_kernel =
            |change: &PackageChange| rules::is_one_of(change.name.as_bytes(), rules::KERNELS);
        let changes = self.installed.changes.iter();
        match cause {
            Cause::Kernel => changes.filter(|change| is_kernel(change)).cloned().collect(),
            Cause::Packages => changes.filter(|change| !is_kernel(change)).cloned().collect(),
            _ => vec![],
        }
    }

    /// Every declaration that does not hold, and why.
    fn broken(&self) -> Vec<String> {
        let Some(policy) = self.policy else { return vec![] };
        let mut lines: Vec<_> = policy
            .declared
            .iter()
            .filter_map(|one| {
                let problem = one.problem.as_ref()?;
                Some(format!("{} of {} ({} only): {problem}", one.op, one.what, one.only))
            })
            .collect();
        if lines.is_empty() && !policy.holds() {
            lines.push(format!("what is left differs: {}", policy.base.join(" and ")));
        }
        lines
    }

    /// Every declaration that explains something, with its reason.
    fn declared(&self) -> Vec<String> {
        let all = self.policy.iter().flat_map(|policy| &policy.declared);
        all.filter(|one| one.problem.is_none())
            .map(|one| format!("{} of {} ({} only): {}", one.op, one.what, one.only, one.why))
            .collect()
    }

    fn group(&self, cause: Cause, members: &Members<'_>) -> Group {
        let about = cause.about();
        let packages = self.packages(cause);
        let details = match cause {
            Cause::Initramfs => self.inside.map(Inside::lines).unwrap_or_default(),
            Cause::SharedHostKeys => self.shared_host_keys.to_vec(),
            Cause::Policy => self.broken(),
            Cause::Declared => self.declared(),
            _ => vec![],
        };
        let summary = match cause {
            Cause::SharedHostKeys => self.shared_host_keys.join(", "),
            Cause::Policy | Cause::Declared => details.join("; "),
            Cause::Initramfs if let Some(inside) = self.inside => {
                let first = members.0.first().map(|one| one.name()).unwrap_or_default();
                format!("{first}: {}", inside.summary())
            }
            Cause::Kernel | Cause::Packages if !packages.is_empty() => {
                packages_summary(&packages, members.0.len())
            }
            Cause::CommandLine if let Some(words) = members.words() => words,
            Cause::Accounts if let Some(entries) = members.entries() => entries,
            // Who is let in is never hidden behind what else is wrong with the file.
            Cause::Accounts => members.summary(),
            _ => match members.entries() {
                Some(entries) => format!("{}; {entries}", members.summary()),
                None => members.summary(),
            },
        };
        Group {
            id: cause,
            rank: about.rank,
            severity: cause.severity(),
            title: about.title,
            meaning: about.meaning,
            summary,
            hint: hints::of(cause, self.facts),
            count: members.0.len(),
            packages,
            details,
        }
    }
}

/// The packages by name, as many as fit a line.
fn packages_summary(packages: &[PackageChange], paths: usize) -> String {
    let of_paths =
        if paths == 0 { String::new() } else { format!(" ({})", count(paths, "difference")) };
    if let [only] = packages {
        return format!("{only}{of_paths}");
    }
    let names: Vec<_> = packages.iter().take(3).map(ToString::to_string).collect();
    let more = packages.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} changed{of_paths}: {}{more}", packages.len(), names.join(", "))
}

/// `1 path`, `2 paths`.
pub(crate) fn count(n: usize, what: &str) -> String {
    let digits: Vec<_> = n.to_string().bytes().rev().collect();
    let groups: Vec<String> = digits
        .chunks(3)
        .map(|three| three.iter().map(|digit| char::from(*digit)).collect())
        .collect();
    let number: String = groups.join(",").chars().rev().collect();
    if n == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// One group's differences.
struct Members<'a>(&'a [&'a Explained]);

impl Members<'_> {
    /// The words of the first boot entry whose command line differs.
    fn words(&self) -> Option<String> {
        let is_entry = |one: &&&Explained| matches!(one.difference.place, Place::BootEntry(_));
        let entries: Vec<_> = self.0.iter().filter(is_entry).collect();
        let first = entries.iter().find(|one| !one.details.is_empty())?;
        let of = match entries.len() {
            1 => String::new(),
            n => format!(" in {n} boot entries"),
        };
        Some(format!("{}{of}", first.details.join(" ")))
    }

    /// Which users and groups there are more or less, and who may read or write the files of them.
    fn entries(&self) -> Option<String> {
        let mut all: Vec<String> = vec![];
        let members = self
            .0
            .iter()
            .filter(|one| one.path.as_deref().is_some_and(|path| accounts::FILES.contains(&path)));
        for one in members {
            let of_rights = |change: &&Change| {
                matches!(change.kind, Kind::Mode | Kind::Owner | Kind::Xattr | Kind::Flags)
            };
            let changes: Vec<_> =
                one.difference.changes.iter().filter(of_rights).cloned().collect();
            if !changes.is_empty() && one.group == Cause::Accounts {
                let place = one.difference.place.clone();
                all.push(one.line_of(&Difference { place, changes }));
            }
            all.extend(
                one.details.iter().map(|line| line.split(" (").next().unwrap_or(line).to_owned()),
            );
        }
        let mut known = BTreeSet::new();
        all.retain(|line| known.insert(line.clone()));
        let more = all.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!all.is_empty()).then(|| format!("{}{more}", all[..all.len().min(3)].join(", ")))
    }

    /// What differs, in a line: a single difference with its changes, several by number and name.
    fn summary(&self) -> String {
        if let [only] = self.0 {
            return only.line();
        }
        // Those whose names say most come first: folders alone say little.
        let is_folder = |one: &&&Explained| {
            one.difference.changes.iter().any(|change| {
                let folder = Some("directory");
                change.old.as_deref() == folder || change.new.as_deref() == folder
            })
        };
        let mut named: Vec<_> = self.0.iter().filter(|one| !is_folder(one)).collect();
        if named.is_empty() {
            named = self.0.iter().collect();
        }
        let (mut names, mut len) = (vec![], 0);
        for one in named {
            let name = format!("{}{}", sign(&one.difference), one.name());
            len += name.len() + 2;
            if names.len() >= 3 || (len > 60 && !names.is_empty()) {
                break;
            }
            names.push(name);
        }
        let more = self.0.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    }
}

/// `+` for what the second side alone has, `-` for what the first alone has.
fn sign(difference: &Difference) -> &'static str {
    match difference.changes[..] {
        [Change { kind: Kind::Added, .. }] => "+",
        [Change { kind: Kind::Removed, .. }] => "-",
        _ => "",
    }
}
