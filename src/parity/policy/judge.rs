//! Holds every declaration against both sides.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::{Applied, Pinned, Policy, base};
use crate::error::Result;
use crate::image::tree::{Node, NodeKind};
use crate::parity::canonical::{self, Leaf};
use crate::parity::difference::{Difference, Kind, Place};
use crate::parity::explain::attribute::Attribution;
use crate::parity::explain::installed::Installed;
use crate::parity::explain::side::{Found, Side};
use crate::parity::spelling::spell;
use crate::spec::types::{DeltaMeta, DeltaOp, Stands};

/// dpkg's lists of all packages, which one package more or less changes.
const RECORDS: [&[u8]; 3] =
    [b"var/lib/dpkg/status", b"var/lib/dpkg/status-old", b"var/lib/dpkg/available"];
/// Largest of them that is read, in bytes.
const MAX_RECORDS: u64 = 64 << 20;
/// What a declaration can explain; not, say, an extended attribute beside it.
const EXPLAINED: [Kind; 10] = [
    Kind::Added,
    Kind::Removed,
    Kind::Content,
    Kind::Size,
    Kind::Type,
    Kind::Mode,
    Kind::Owner,
    Kind::Target,
    Kind::Mtime,
    Kind::Version,
];

/// The result.
#[derive(Debug)]
pub(in crate::parity) struct Judged {
    /// For each difference the declaration that explains it.
    pub(in crate::parity) by: Vec<Option<usize>>,
    /// For the report.
    pub(in crate::parity) applied: Applied,
}

/// All that declarations are held against.
pub(in crate::parity) struct Case<'a> {
    /// The developers' side first.
    pub(in crate::parity) sides: [&'a Side<'a>; 2],
    pub(in crate::parity) differences: &'a [Difference],
    pub(in crate::parity) attributions: &'a [Attribution],
    pub(in crate::parity) installed: &'a Installed,
    pub(in crate::parity) today: Date,
    /// Whether the sides stand the other way round in the attributions.
    pub(in crate::parity) dev_is_second: bool,
}

impl Policy {
    /// Finds which differences are declared, and what is wrong with the declarations.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(in crate::parity) fn judge(&self, case: &Case<'_>) -> Result<Judged> {
        let mut by = vec![None; case.differences.len()];
        let mut declared = vec![];
        for (index, pinned) in self.deltas.iter().enumerate() {
            let problem = match pinned.expired(case.today) {
                Some(expired) => Some(expired),
                None => pinned.wrong(case)?,
            };
            let mut count = 0;
            if problem.is_none() {
                for (i, slot) in by.iter_mut().enumerate() {
                    if slot.is_none() && self.covers(pinned, i, case)? {
                        *slot = Some(index);
                        count += 1;
                    }
                }
            }
            declared.push(pinned.told(count, problem));
        }
        let base = match case.sides.map(|side| base::of(self, side)) {
            [Some(x), Some(y)] => vec![x.to_string(), y.to_string()],
            _ => vec![],
        };
        Ok(Judged { by, applied: self.applied(base, declared) })
    }

    /// Whether a declaration that holds explains a difference.
    fn covers(&self, pinned: &Pinned, index: usize, case: &Case<'_>) -> Result<bool> {
        let difference = &case.differences[index];
        if difference.changes.iter().any(|change| !EXPLAINED.contains(&change.kind)) {
            return Ok(false);
        }
        if let (Place::Package(name, _), DeltaOp::Package(wanted, _)) =
            (&difference.place, &pinned.delta.op)
        {
            return Ok(name == wanted.as_bytes());
        }
        let Some(path) = &case.attributions[index].path else { return Ok(false) };
        let declared = pinned.delta.path.as_bytes();
        let declared = declared.strip_prefix(b"/").unwrap_or(declared);
        Ok(match &pinned.delta.op {
            DeltaOp::Subtree(..) => {
                path == declared
                    || path.strip_prefix(declared).is_some_and(|rest| rest.starts_with(b"/"))
            }
            DeltaOp::Package(name, _) => {
                let side = usize::from(!pinned.delta.only_dev);
                case.is_of_package(path, index, name.as_bytes(), side)
                    || (RECORDS.contains(&path.as_slice()) && self.only_declared(path, case)?)
            }
            _ => path == declared,
        })
    }

    /// Whether dpkg's list at `path` is the same on both sides without the declared packages.
    fn only_declared(&self, path: &[u8], case: &Case<'_>) -> Result<bool> {
        let names: Vec<&[u8]> = self
            .deltas
            .iter()
            .filter_map(|pinned| match &pinned.delta.op {
                DeltaOp::Package(name, _) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        let mut records = vec![];
        for side in case.sides {
            let Some(found) = side.at(path) else { return Ok(false) };
            let Some(text) = side.contents(found, MAX_RECORDS)? else { return Ok(false) };
            let text = String::from_utf8_lossy(&text).into_owned();
            let is_declared = |record: &str| {
                let first = record.lines().find_map(|line| line.strip_prefix("Package: "));
                first.is_some_and(|name| names.contains(&name.as_bytes()))
            };
            let all: BTreeSet<String> = text
                .split("\n\n")
                .map(str::trim)
                .filter(|record| !record.is_empty() && !is_declared(record))
                .map(str::to_owned)
                .collect();
            records.push(all);
        }
        Ok(records.first() == records.last())
    }
}

impl Case<'_> {
    /// Whether a path is a declared package's: in its list and as it brought it, or its own records.
    fn is_of_package(&self, path: &[u8], index: usize, name: &[u8], side: usize) -> bool {
        let records = [b"var/lib/dpkg/info/", name].concat();
        if let Some(rest) = path.strip_prefix(records.as_slice()) {
            return rest.starts_with(b".") || rest.starts_with(b":");
        }
        let here = self.sides[side];
        let Some(owned) = here.owners.of(path) else { return false };
        let its = |index: &u32| here.owners.package(*index).is_some_and(|(of, _)| of == name);
        // A file has to have its checksum; folders and links have none.
        let column = if self.dev_is_second { 1 - side } else { side };
        let as_packaged = self.attributions[index].as_packaged[column];
        let is_file = here.at(path).is_some_and(|f| matches!(f.node.kind, NodeKind::File { .. }));
        owned.by.iter().any(its)
            && (as_packaged == Some(true) || (!is_file && as_packaged.is_none()))
    }
}

impl Pinned {
    /// Why the declaration does not hold; `None` if both sides are as it says.
    fn wrong(&self, case: &Case<'_>) -> Result<Option<String>> {
        let here = usize::from(!self.delta.only_dev);
        let words = ["the dev side", "the cloud side"];
        let (side, other) = (case.sides[here], case.sides[1 - here]);
        let (this, that) = (words[here], words[1 - here]);
        let path = self.delta.path.as_bytes();
        let (found, beyond) = (side.at(path), other.at(path));
        let stale = |what: &str| Some(format!("declared in vain: {what}"));
        Ok(match &self.delta.op {
            DeltaOp::Package(name, version) => {
                return Ok(self.wrong_package(case, name, version, this));
            }
            DeltaOp::Remove(base) => match (found, beyond) {
                (Some(_), _) => stale(&format!("it is there on {this}")),
                (None, None) => stale("it is on neither side"),
                (None, Some(beyond)) => wrong_file(other, beyond, base, that),
            },
            DeltaOp::Add(stands, meta) => match (found, beyond) {
                (_, Some(_)) => stale(&format!("it is there on {that}, too")),
                (None, None) => stale(&format!("it is not there on {this}")),
                (Some(found), None) => wrong_node(side, found, stands, self.file, this)
                    .or_else(|| wrong_meta(found.node, meta, this)),
            },
            DeltaOp::Replace(file, meta, base) => match (found, beyond) {
                (Some(found), Some(beyond)) => {
                    wrong_node(side, found, &Stands::File(file.clone()), self.file, this)
                        .or_else(|| wrong_meta(found.node, meta, this))
                        .or_else(|| wrong_file(other, beyond, base, that))
                }
                (None, _) => stale(&format!("it is not there on {this}")),
                (_, None) => {
                    Some(format!("there is nothing to replace on {that}: use `op = \"add\"`"))
                }
            },
            DeltaOp::Meta(meta, base) => match (found, beyond) {
                (Some(found), Some(beyond)) => wrong_meta(found.node, meta, this)
                    .or_else(|| wrong_meta(beyond.node, base, that)),
                _ => stale("it is not on both sides"),
            },
            DeltaOp::Subtree(tree, meta) => match (found, beyond) {
                (_, Some(_)) => stale(&format!("it is there on {that}, too")),
                (None, None) => stale(&format!("it is not there on {this}")),
                (Some(found), None) => match side.digest(found) {
                    Leaf::Directory(digest) if digest.to_string() == *tree => {
                        wrong_meta(found.node, meta, this)
                    }
                    Leaf::Directory(digest) => Some(format!("{this} has {digest} there")),
                    _ => Some(format!("it is no folder on {this}")),
                },
            },
        })
    }

    fn wrong_package(
        &self,
        case: &Case<'_>,
        name: &str,
        version: &str,
        this: &str,
    ) -> Option<String> {
        let Some(change) = case.installed.of(name.as_bytes()) else {
            return Some("declared in vain: it is on both sides, or on neither".to_owned());
        };
        let change = case.installed.changes.get(change)?;
        let (here, beyond) = match self.delta.only_dev {
            true => (&change.old, &change.new),
            false => (&change.new, &change.old),
        };
        match (here.as_deref(), beyond) {
            (Some(found), None) if found == spell(version.as_bytes()) => None,
            (Some(found), None) => Some(format!("{this} has version {found}")),
            _ => Some(format!("it is not on {this} alone: {change}")),
        }
    }
}

/// Why what stands at a path is not what is declared.
fn wrong_node(
    side: &Side<'_>,
    found: Found<'_>,
    stands: &Stands,
    file: Option<(crate::digest::FileDigest, u64)>,
    word: &str,
) -> Option<String> {
    let same = match (&found.node.kind, stands) {
        (NodeKind::File { .. }, Stands::File(_)) => match (side.digest(found), file) {
            (Leaf::File(digest), Some((pinned, _))) => digest == pinned,
            _ => false,
        },
        (NodeKind::Symlink { target }, Stands::Link(wanted)) => target == wanted.as_bytes(),
        (NodeKind::Directory { .. }, Stands::Folder) => true,
        _ => return Some(format!("something else stands there on {word}")),
    };
    if !same {
        return Some(format!("{word} has other contents there"));
    }
    if !found.node.xattrs.is_empty() || !canonical::flags(found.node).is_empty() {
        return Some(format!("it has attributes on {word} that are not declared"));
    }
    None
}

fn wrong_file(side: &Side<'_>, found: Found<'_>, base: &str, word: &str) -> Option<String> {
    match side.digest(found) {
        Leaf::File(digest) if digest.hex() == base => None,
        Leaf::File(digest) => Some(format!("{word} has {digest} there, not `base`")),
        _ => Some(format!("it is no file on {word}")),
    }
}

fn wrong_meta(node: &Node, meta: &DeltaMeta, word: &str) -> Option<String> {
    // A link's mode means nothing.
    let is_link = matches!(node.kind, NodeKind::Symlink { .. });
    if !is_link && node.mode != meta.mode {
        return Some(format!("it has mode {:04o} on {word}, not {:04o}", node.mode, meta.mode));
    }
    if (node.uid, node.gid) != (meta.uid, meta.gid) {
        return Some(format!(
            "it belongs to {}:{} on {word}, not {}:{}",
            node.uid, node.gid, meta.uid, meta.gid
        ));
    }
    None
}
