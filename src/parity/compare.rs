//! Two sides at one level: the verdict, and every difference.

use std::collections::BTreeSet;

use serde::Serialize;

use super::bytes::{CHUNK, Chunks};
use super::cache::{Answer, Cache};
use super::content::{Content, Held, Volumes};
use super::difference::{Change, Difference, Differences, Kind, Place, note};
use super::explain::{self, Explanation, InForce};
use super::model::{Model, Reading};
use super::policy::Applied;
use super::spelling::spell;
use super::subject::Reference;
use super::{Level, packages, root, systems, trees};
use crate::error::Result;
use crate::image::Limits;
use crate::image::disk::Holder;

/// The answer to a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The same at this level.
    Equal,
    /// One disk is the other one followed by zeros (level `disk` alone).
    Padded,
    /// Not the same, and as the policy declares.
    Equivalent,
    /// Not the same.
    Different,
}

/// One side of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// As the user named it.
    pub reference: String,
    /// `image`, `directory`, `manifest`, `box` or `host`.
    pub of: &'static str,
    /// The level's digests, as [`Model::digests`].
    pub digests: Vec<String>,
    /// Whether they come from the cache: nothing of this side was read.
    pub cached: bool,
}

/// A finished comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The level that was compared.
    pub level: Level,
    /// The answer.
    pub verdict: Verdict,
    /// The first side.
    pub a: Side,
    /// The second side.
    pub b: Side,
    /// Sorted by place; empty if and only if equal.
    #[serde(skip)]
    pub differences: Vec<Difference>,
    /// What a person should know about the sides.
    pub notes: Vec<String>,
}

/// Digests of one reference at one level, with notes; read, never remembered.
///
/// # Errors
/// As [`Question::digests`].
pub fn digests(
    of: &Reference,
    level: Level,
    limits: &Limits,
) -> Result<(Vec<String>, Vec<String>)> {
    let known =
        Question { level, limits, cache: None, recompute: true, policy: None }.digests(of)?;
    Ok((known.digests, known.notes))
}

/// Compares two references; both are read.
///
/// # Errors
/// As [`Question::compare`].
pub fn compare(a: &Reference, b: &Reference, level: Level, limits: &Limits) -> Result<Comparison> {
    Question { level, limits, cache: None, recompute: true, policy: None }.compare(a, b)
}

/// What is asked of one or two sides.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What counts as the same.
    pub level: Level,
    /// What an image may claim.
    pub limits: &'a Limits,
    /// Where digests are kept.
    pub cache: Option<&'a Cache>,
    /// Whether everything is read, whatever the cache knows; what is found is kept all the same.
    pub recompute: bool,
    /// What may differ.
    pub policy: Option<InForce<'a>>,
}

/// The answer for one side.
#[derive(Debug, Clone)]
pub struct Known {
    /// The level's digests, as [`Model::digests`].
    pub digests: Vec<String>,
    /// What a person should know about the side.
    pub notes: Vec<String>,
    /// Whether it comes from the cache.
    pub cached: bool,
    /// The private SSH host keys in it: digest and path of each.
    pub host_keys: Vec<String>,
}

/// A comparison, and what more can be asked about it.
struct Looked {
    comparison: Comparison,
    /// Of both sides, as [`Known::host_keys`].
    host_keys: [Vec<String>; 2],
    /// Both sides, unless the cache knew that they are equal.
    readings: Option<[Reading; 2]>,
}

/// Said of an answer that was not computed now.
const CACHED: &str = "from the cache, since the file is unchanged; `--recompute` reads it again";

impl Question<'_> {
    /// The digests of one side.
    ///
    /// # Errors
    /// What cannot be read (kind `Undetermined`), or a level that this kind of thing has not
    /// (`Usage`).
    pub fn digests(&self, of: &Reference) -> Result<Known> {
        match self.remembered(of) {
            Some(known) => Ok(known),
            None => Ok(known(&self.read(of)?)),
        }
    }

    /// Compares two sides. Only "equal" can come from the cache: what differs has to be read.
    ///
    /// # Errors
    /// As [`Question::digests`].
    pub fn compare(&self, a: &Reference, b: &Reference) -> Result<Comparison> {
        Ok(self.look(a, b)?.comparison)
    }

    /// Compares two sides, and finds the cause of each difference.
    ///
    /// # Errors
    /// As [`Question::digests`]; what explains a difference cannot be read.
    pub fn explain(&self, a: &Reference, b: &Reference) -> Result<(Comparison, Explanation)> {
        let Looked { mut comparison, host_keys, readings } = self.look(a, b)?;
        let different = comparison.verdict != Verdict::Equal;
        // Only where files are compared do declarations mean anything.
        let policy = self.policy.filter(|_| matches!(self.level, Level::Content | Level::Tree));
        let Some(readings) = readings.filter(|_| different) else {
            let explanation = explain::of_equal([&host_keys[0], &host_keys[1]], policy);
            // What is declared and not there is a difference from what was said.
            if explanation.policy.as_ref().is_some_and(|policy| !policy.holds()) {
                comparison.verdict = Verdict::Different;
            }
            return Ok((comparison, explanation));
        };
        let question = explain::Question {
            views: [readings[0].view(), readings[1].view()],
            names: [&comparison.a.reference, &comparison.b.reference],
            of: explain::Of::Images,
            differences: &comparison.differences,
            same_content: comparison.verdict == Verdict::Different && self.same_content(a, b),
            policy,
        };
        let explanation = explain::explain(question, self.limits)?;
        let all_declared = explanation.counts.declared == explanation.counts.differences;
        if all_declared && explanation.policy.as_ref().is_some_and(Applied::holds) {
            comparison.verdict = Verdict::Equivalent;
        }
        for watch in readings.iter().filter_map(|reading| reading.watch.as_ref()) {
            watch.check_unchanged()?;
        }
        comparison.notes.extend(explanation.notes.iter().cloned());
        Ok((comparison, explanation))
    }

    /// Whether disks that differ as bytes hold the same system; `false` where that cannot be told.
    fn same_content(&self, a: &Reference, b: &Reference) -> bool {
        if !matches!(self.level, Level::Disk | Level::File) {
            return false;
        }
        let above = Question { level: Level::Content, ..*self };
        matches!((above.digests(a), above.digests(b)), (Ok(x), Ok(y)) if x.digests == y.digests)
    }

    fn look(&self, a: &Reference, b: &Reference) -> Result<Looked> {
        a.check(self.level)?;
        b.check(self.level)?;
        let (left, right) = match (self.remembered(a), self.remembered(b)) {
            (Some(x), Some(y)) if x.digests == y.digests => return Ok(self.equal(a, x, b, y)),
            (Some(x), None) => {
                let right = self.read(b)?;
                if x.digests == right.digests {
                    return Ok(self.equal(a, x, b, known(&right)));
                }
                (self.read(a)?, right)
            }
            (None, Some(y)) => {
                let left = self.read(a)?;
                if left.digests == y.digests {
                    return Ok(self.equal(a, known(&left), b, y));
                }
                (left, self.read(b)?)
            }
            _ => (self.read(a)?, self.read(b)?),
        };
        let mut looked = self.equal(a, known(&left), b, known(&right));
        // The digests alone decide; the list explains.
        if left.digests != right.digests {
            let mut out = Differences::default();
            let padded = differences(&left.model, &right.model, &mut out);
            let comparison = &mut looked.comparison;
            comparison.verdict = if padded { Verdict::Padded } else { Verdict::Different };
            comparison.differences = out.sorted();
        }
        looked.readings = Some([left, right]);
        Ok(looked)
    }

    fn equal(&self, a: &Reference, x: Known, b: &Reference, y: Known) -> Looked {
        let host_keys = [x.host_keys.clone(), y.host_keys.clone()];
        let side = |of: &Reference, known: &Known| Side {
            reference: of.to_string(),
            of: of.kind(),
            digests: known.digests.clone(),
            cached: known.cached,
        };
        let (left, right) = (side(a, &x), side(b, &y));
        let said = |of: &Reference, note| format!("{of}: {note}");
        let notes = x.notes.into_iter().map(|note| said(a, note));
        let notes = notes.chain(y.notes.into_iter().map(|note| said(b, note))).collect();
        let (level, differences) = (self.level, vec![]);
        let verdict = Verdict::Equal;
        let comparison = Comparison { level, verdict, a: left, b: right, differences, notes };
        Looked { comparison, host_keys, readings: None }
    }

    /// What the cache knows.
    fn remembered(&self, of: &Reference) -> Option<Known> {
        let cache = self.cache.filter(|_| !self.recompute)?;
        let answer = cache.get(&cache.place(of.image()?, self.level, self.limits)?)?;
        let Answer { digests, mut notes, host_keys } = answer;
        notes.push(CACHED.to_owned());
        Some(Known { digests, notes, cached: true, host_keys })
    }

    /// Reads a side, and lets the cache know.
    fn read(&self, of: &Reference) -> Result<Reading> {
        let place = self.cache.zip(of.image());
        let place = place.and_then(|(cache, path)| cache.place(path, self.level, self.limits));
        let reading = Reading::of(of, self.level, self.limits)?;
        if let (Some(cache), Some(place), Some(watch)) = (self.cache, place, &reading.watch) {
            let Known { digests, notes, host_keys, .. } = known(&reading);
            cache.put(&place, watch, &Answer { digests, notes, host_keys });
        }
        Ok(reading)
    }
}

fn known(reading: &Reading) -> Known {
    let (digests, notes) = (reading.digests.clone(), reading.notes.clone());
    Known { digests, notes, cached: false, host_keys: reading.host_keys.clone() }
}

/// Adds what differs; returns whether one side is the other one padded.
fn differences(a: &Model, b: &Model, out: &mut Differences) -> bool {
    match (a, b) {
        (Model::File { size: old, .. }, Model::File { size: new, .. }) => {
            let mut changes = vec![Change::of(Kind::Content)];
            note(&mut changes, Kind::Size, *old, *new);
            out.push(Place::File, changes);
        }
        (Model::Disk(a), Model::Disk(b)) => return disks(a, b, out),
        (Model::Content(a), Model::Content(b)) => contents(a, b, out),
        (Model::Tree(a), Model::Tree(b)) => {
            trees::compare(a, b, trees::Scope::default(), out);
        }
        (Model::Times(a), Model::Times(b)) => {
            let scope = trees::Scope { times: true, ..trees::Scope::default() };
            trees::compare(a, b, scope, out);
        }
        (Model::Packages(a), Model::Packages(b)) => packages::compare(a, b, out),
        // Both were read at one level.
        _ => {}
    }
    false
}

/// Differences of two disks as ranges of whole chunks, both seen as if zeros followed them; returns
/// whether one is the other one padded.
fn disks(a: &Chunks, b: &Chunks, out: &mut Differences) -> bool {
    let mut changes = vec![];
    note(&mut changes, Kind::Size, a.size, b.size);
    out.push(Place::Disk, changes);
    let end = a.size.max(b.size);
    let mut same = true;
    let mut start = None;
    for i in 0..=a.chunks.len().max(b.chunks.len()) {
        let at = i as u64 * CHUNK;
        let differs = a.followed_by_zeros(i) != b.followed_by_zeros(i);
        same &= !differs;
        match (differs, start) {
            (true, None) => start = Some(at),
            (false, Some(first)) => {
                out.push(Place::Bytes(first, at.min(end)), vec![Change::of(Kind::Content)]);
                start = None;
            }
            _ => {}
        }
    }
    same && a.size != b.size
}

/// Differences of two systems, down to paths.
pub fn contents(a: &Content, b: &Content, out: &mut Differences) {
    systems::compare(&a.system, &b.system, out);
    systems::disks(&a.disk, &b.disk, out);
    let mut pairs = BTreeSet::new();
    for (i, part) in a.disk.partitions.iter().enumerate() {
        let Some(j) = b.disk.partitions.iter().position(|p| p.number == part.number) else {
            continue;
        };
        if part.content == b.disk.partitions[j].content {
            continue;
        }
        if let (Held::Group(x), Held::Group(y)) = (&a.held[i], &b.held[j]) {
            // All partitions of a group say the same of it; once is enough.
            if pairs.insert((*x, *y)) {
                volumes(&a.groups[*x], &b.groups[*y], out);
            }
            continue;
        }
        let mut changes = vec![];
        held(&a.held[i], &b.held[j], Holder::Partition(part.number), &mut changes, out);
        out.push(Place::Partition(part.number), changes);
    }
}

/// Differences of two volume groups, down to paths.
fn volumes(a: &Volumes, b: &Volumes, out: &mut Differences) {
    systems::groups(&a.line, &b.line, out);
    for (i, volume) in a.line.volumes.iter().enumerate() {
        let Some(j) = b.line.volumes.iter().position(|v| v.name == volume.name) else {
            continue;
        };
        if volume.content == b.line.volumes[j].content {
            continue;
        }
        let (group, name) = (a.line.name.clone(), volume.name.clone());
        let place = Place::Volume(group.clone(), name.clone());
        let holder = Holder::Volume { group, volume: name };
        let mut changes = vec![];
        held(&a.held[i], &b.held[j], holder, &mut changes, out);
        out.push(place, changes);
    }
}

/// Differences of what two partitions or two volumes hold; `changes` are of `holder` itself.
fn held(a: &Held, b: &Held, holder: Holder, changes: &mut Vec<Change>, out: &mut Differences) {
    match (a, b) {
        (Held::Filesystem { tree: x, boot: old }, Held::Filesystem { tree: y, boot: new }) => {
            note(changes, Kind::Type, x.identity.kind, y.identity.kind);
            note(changes, Kind::Id, &x.identity.uuid, &y.identity.uuid);
            let label = |label: &[u8]| spell(label);
            let (from, to) = (label(&x.identity.label), label(&y.identity.label));
            note(changes, Kind::Name, from, to);
            if old != new {
                changes.push(Change::of(Kind::BootCode));
            }
            let (from, to) = (x.subvolumes(), y.subvolumes());
            for one in from.iter().filter(|one| to.binary_search(one).is_err()) {
                changes.push(root::change(one, Kind::Removed));
            }
            for one in to.iter().filter(|one| from.binary_search(one).is_err()) {
                changes.push(root::change(one, Kind::Added));
            }
            let scope = trees::Scope { holder: Some(holder), root: true, times: false };
            trees::compare(x, y, scope, out);
        }
        (Held::Bytes, Held::Bytes) => changes.push(Change::of(Kind::Content)),
        (old, new) => {
            let word = |held: &Held| match held {
                Held::Filesystem { tree, .. } => tree.identity.kind,
                Held::Group(_) => "volume group",
                Held::Bytes => "no filesystem",
            };
            changes.push(Change::values(Kind::Type, word(old), word(new)));
        }
    }
}
