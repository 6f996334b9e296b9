//! What of a machine's changes counts: `state` belongs to the one machine, `work` to its user, and
//! everything else is `drift`.

use serde::Serialize;

use super::state::{STATE, fits, leads_to};
use super::{Drift, Found, accounts};
use crate::error::Result;
use crate::image::disk::Holder;
use crate::image::tree::{Node, NodeKind};
use crate::parity::difference::{Change, Difference, Kind, Place};

/// Whose a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The machine is no longer what its spec says.
    Drift,
    /// What somebody works on: home folders, mounts, work folders.
    Work,
    /// What every machine has of its own.
    State,
}

impl Class {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Drift => "drift",
            Class::Work => "work",
            Class::State => "state",
        }
    }
}

/// What is known of a machine.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Its account.
    pub user: String,
    /// Absolute paths in the guest where folders and data disks are mounted, or work is kept.
    pub work: Vec<String>,
}

/// A difference and whose it is.
#[derive(Debug, Clone, Serialize)]
pub struct Classified {
    /// Whose.
    pub class: Class,
    /// Why it is not drift, in a word or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<&'static str>,
    /// Where.
    pub path: Place,
    /// How.
    pub changes: Vec<Change>,
}

impl std::fmt::Display for Classified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Difference { place: self.path.clone(), changes: self.changes.clone() }.fmt(f)
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changed.
    Clean,
    /// Nothing but state and work.
    StateOnly,
    /// So many places are drift.
    Drifted(usize),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Clean => f.write_str("clean"),
            Verdict::StateOnly => f.write_str("state-only"),
            Verdict::Drifted(count) => write!(f, "drifted({count})"),
        }
    }
}

/// The verdict of all changes.
#[must_use]
pub fn verdict(all: &[Classified]) -> Verdict {
    match all.iter().filter(|one| one.class == Class::Drift).count() {
        0 if all.is_empty() => Verdict::Clean,
        0 => Verdict::StateOnly,
        count => Verdict::Drifted(count),
    }
}

/// Whose each difference is; drift first, then work, then state.
///
/// # Errors
/// A file that must be read to tell cannot be.
pub fn classify(drift: &Drift, found: &Found, own: &Own) -> Result<Vec<Classified>> {
    let mut all = vec![];
    for difference in &found.differences {
        let (class, because) = class_of(drift, found, own, difference)?;
        let Difference { place, changes } = difference.clone();
        all.push(Classified { class, because, path: place, changes });
    }
    all.sort_by_key(|one| one.class);
    Ok(all)
}

type Answer = (Class, Option<&'static str>);

const DRIFT: Answer = (Class::Drift, None);

fn class_of(drift: &Drift, found: &Found, own: &Own, difference: &Difference) -> Result<Answer> {
    match &difference.place {
        Place::Path(holder, path) => {
            let holder = holder.clone().unwrap_or(Holder::Partition(0));
            match found.in_system(&holder, path) {
                Some(path) => of_path(drift, found, own, (&holder, path), &difference.changes),
                // The firmware's partition keeps a seed of systemd-boot's.
                None => Ok(state(path).filter(|_| path == b"loader/random-seed").unwrap_or(DRIFT)),
            }
        }
        Place::Partition(number) => {
            let contents = |change: &Change| change.kind == Kind::Content;
            let swap = difference.changes.iter().all(contents)
                && drift.is_swap(&Holder::Partition(*number))?;
            Ok(if swap { (Class::State, Some("swap")) } else { DRIFT })
        }
        _ => Ok(DRIFT),
    }
}

fn of_path(
    drift: &Drift,
    found: &Found,
    own: &Own,
    (at, path): (&Holder, &[u8]),
    changes: &[Change],
) -> Result<Answer> {
    if accounts::concerns(path) {
        let old = found.before(drift, at, path)?.unwrap_or_default();
        let new = found.after(drift, at, path)?.unwrap_or_default();
        let contents = [Kind::Added, Kind::Content, Kind::Size];
        let only = changes.iter().all(|change| contents.contains(&change.kind));
        let only = only && accounts::only_of(&own.user, path, &old, &new);
        return Ok(if only { (Class::State, Some("accounts")) } else { DRIFT });
    }
    if let Some(answer) = state(path) {
        // No machine makes itself a program that runs as somebody else.
        let rights = found.node(at, path).filter(|node| matches!(node.kind, NodeKind::File { .. }));
        return Ok(if rights.is_some_and(|node| node.mode & 0o6000 != 0) { DRIFT } else { answer });
    }
    if let Some(node) = found.node(at, path)
        && let Some(why) = of_first_start(path, node, changes)
    {
        return Ok((Class::State, Some(why)));
    }
    for (folder, why) in [("home", "home folder"), ("root", "home folder")] {
        if below(path, folder) {
            return Ok((Class::Work, Some(why)));
        }
    }
    let is_work = |folder: &String| {
        let folder = folder.trim_matches('/');
        !folder.is_empty() && (path == folder.as_bytes() || below(path, folder))
    };
    Ok(if own.work.iter().any(is_work) { (Class::Work, Some("mount")) } else { DRIFT })
}

/// Why a folder is as the first start of each machine leaves it, if it is.
fn of_first_start(path: &[u8], node: &Node, changes: &[Change]) -> Option<&'static str> {
    if !matches!(node.kind, NodeKind::Directory { .. }) {
        return None;
    }
    match changes {
        // Of what is in it each has its own answer.
        [Change { kind: Kind::Added, .. }] if node.mode & 0o7022 == 0 => leads_to(path),
        // cloud-init closes it to others when it lets the machine's account use sudo.
        [Change { kind: Kind::Mode, .. }] => {
            (path == b"etc/sudoers.d" && node.mode == 0o750).then_some("cloud-init")
        }
        _ => None,
    }
}

fn state(path: &[u8]) -> Option<Answer> {
    let found = STATE.iter().find(|(pattern, _)| fits(pattern, path));
    found.map(|(_, why)| (Class::State, Some(*why)))
}

/// Whether `path` is inside of `folder`.
fn below(path: &[u8], folder: &str) -> bool {
    path.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}
