//! What a person wants to see of a difference: the lines, the fields, the words; never a secret.

use std::collections::BTreeMap;

use super::attribute::Attribution;
use super::cause::Cause;
use super::cpio::{self, Member};
use super::side::Side;
use super::{accounts, installed, redact, text};
use crate::error::Result;
use crate::image::tree::NodeKind;
use crate::parity::difference::{Difference, Kind, Place};
use crate::parity::spelling::spell;

/// Largest initial RAM disk that is opened, in bytes.
const MAX_INITRAMFS: u64 = 512 << 20;
/// Most members of an initial RAM disk that are named.
const MAX_MEMBERS: usize = 20;

/// The lines that show how an object differs; none where its changes say all.
///
/// # Errors
/// A file cannot be read.
pub(super) fn of(
    difference: &Difference,
    attribution: &Attribution,
    sides: [&Side<'_>; 2],
) -> Result<Vec<String>> {
    let mut lines = vec![];
    if let Place::BootEntry(_) = difference.place {
        for change in difference.changes.iter().filter(|c| c.kind == Kind::CommandLine) {
            let of = |value: &Option<String>| {
                value.as_deref().unwrap_or_default().trim_matches('`').to_owned()
            };
            lines.push(text::words(&of(&change.old), &of(&change.new)));
        }
    }
    let Some(in_system) = &attribution.path else { return Ok(lines) };
    match attribution.as_packaged {
        [Some(true), Some(false)] => {
            lines.push("as packaged on the first side, changed on the second".to_owned())
        }
        [Some(false), Some(true)] => {
            lines.push("changed on the first side, as packaged on the second".to_owned())
        }
        [Some(false), Some(false)] => lines.push("as packaged on neither side".to_owned()),
        [Some(false), None] | [None, Some(false)] => lines.push("not as packaged".to_owned()),
        _ => {}
    }
    let of_text = attribution.cause.about().rank <= 7
        && !attribution.by_package
        && !matches!(attribution.cause, Cause::Initramfs | Cause::Kernel);
    let of_content = [Kind::Content, Kind::Added, Kind::Removed];
    if of_text && difference.changes.iter().any(|change| of_content.contains(&change.kind)) {
        lines.extend(texts(difference, in_system, sides)?);
    }
    Ok(lines)
}

/// The difference of two texts.
fn texts(difference: &Difference, path: &[u8], sides: [&Side<'_>; 2]) -> Result<Vec<String>> {
    let mut texts = [String::new(), String::new()];
    for (text, side) in texts.iter_mut().zip(sides) {
        let Some(found) = side.find(&difference.place) else { continue };
        if let NodeKind::Symlink { target } = &found.node.kind
            && let [change] = &difference.changes[..]
            && matches!(change.kind, Kind::Added | Kind::Removed)
        {
            return Ok(vec![format!("-> {}", spell(target))]);
        }
        let NodeKind::File { .. } = found.node.kind else { return Ok(vec![]) };
        let Some(bytes) = side.contents(found, text::MAX_TEXT)? else { return Ok(vec![]) };
        let Ok(read) = String::from_utf8(bytes) else { return Ok(vec![]) };
        if read.contains('\0') {
            return Ok(vec![]);
        }
        *text = read;
    }
    if let Some(lines) = accounts::differences(path, &texts[0], &texts[1]) {
        return Ok(lines);
    }
    if redact::is_secret(path) {
        return Ok(vec!["what is in it is not shown".to_owned()]);
    }
    Ok(text::differences(&texts[0], &texts[1]))
}

/// What two sides' initial RAM disks differ in.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) changed: Vec<String>,
    /// Members of which nothing but the time differs.
    pub(super) times: usize,
    /// Why one cannot be opened.
    pub(super) unread: Option<String>,
}

impl Inside {
    /// Whether the members are the same but for their times and order.
    pub(super) fn is_same(&self) -> bool {
        self.unread.is_none()
            && self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
    }

    /// In a line.
    pub(super) fn summary(&self) -> String {
        if let Some(why) = &self.unread {
            return why.clone();
        }
        if self.is_same() {
            return match self.times {
                0 => "the same files inside, in another order or compression".to_owned(),
                n => format!("the same files inside, {n} with another time"),
            };
        }
        let (added, removed, changed) = (self.added.len(), self.removed.len(), self.changed.len());
        format!("files inside: {added} added, {removed} removed, {changed} changed")
    }

    /// The members by name.
    pub(super) fn lines(&self) -> Vec<String> {
        let all = self.added.iter().map(|name| format!("+{name}"));
        let all = all.chain(self.removed.iter().map(|name| format!("-{name}")));
        let all: Vec<_> = all.chain(self.changed.iter().map(|name| format!("~{name}"))).collect();
        let mut lines: Vec<_> = all.iter().take(MAX_MEMBERS).cloned().collect();
        if all.len() > MAX_MEMBERS {
            lines.push(format!("and {} more files", all.len() - MAX_MEMBERS));
        }
        lines
    }
}

/// Opens the initial RAM disk of both sides: those of one name, or the only one of each.
///
/// # Errors
/// A file cannot be read.
pub(super) fn initramfs(
    paths: [Option<&Place>; 2],
    sides: [&Side<'_>; 2],
) -> Result<Option<Inside>> {
    let mut members: Vec<BTreeMap<Vec<u8>, Member>> = vec![];
    for (place, side) in paths.into_iter().zip(sides) {
        let Some(found) = place.and_then(|place| side.find(place)) else { return Ok(None) };
        let NodeKind::File { size, .. } = found.node.kind else { return Ok(None) };
        if size > MAX_INITRAMFS {
            return Ok(None);
        }
        let Some(bytes) = side.contents(found, MAX_INITRAMFS)? else { return Ok(None) };
        match cpio::members(&bytes) {
            Ok(found) => {
                members.push(found.into_iter().map(|(name, m)| (plain(&name), m)).collect())
            }
            Err(why) => return Ok(Some(Inside { unread: Some(why), ..Inside::default() })),
        }
    }
    let [a, b] = &members[..] else { return Ok(None) };
    let mut inside = Inside::default();
    for (name, new) in b {
        match a.get(name) {
            None => inside.added.push(spell(name)),
            Some(old) if Member { mtime: new.mtime, ..old.clone() } != *new => {
                inside.changed.push(spell(name));
            }
            Some(old) if old.mtime != new.mtime => inside.times += 1,
            Some(_) => {}
        }
    }
    inside.removed =
        a.keys().filter(|name| !b.contains_key(*name)).map(|name| spell(name)).collect();
    Ok(Some(inside))
}

/// A name in which a kernel's version is no version.
fn plain(name: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(name);
    let parts: Vec<_> = text.split('/').map(installed::without_version).collect();
    parts.join("/").into_bytes()
}
