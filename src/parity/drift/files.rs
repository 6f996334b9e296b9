//! Two trees of one filesystem, with digests where they can differ and stand-ins where they cannot.

use std::collections::HashMap;

use rayon::prelude::*;

use super::changed::Changed;
use crate::digest::FileDigest;
use crate::error::Result;
use crate::image::disk::Located;
use crate::image::tree::{NodeId, NodeKind};
use crate::image::{Limits, ReadAt};
use crate::parity::canonical::Leaf;
use crate::parity::difference::{Change, Difference, Kind, Place};
use crate::parity::hashed::{Hashed, hash_file};
use crate::parity::listed::Listed;

/// Both trees, ready to be compared.
pub(super) struct Pair {
    pub(super) base: Hashed,
    pub(super) now: Hashed,
    /// Sockets, which have no place in a tree with digests.
    pub(super) sockets: Vec<Difference>,
    /// How many files were read.
    pub(super) read: usize,
}

/// Both sides of one filesystem.
pub(super) struct Sides<'a> {
    pub(super) base: &'a Located<'a>,
    pub(super) now: &'a Located<'a>,
    pub(super) changed: &'a Changed,
    pub(super) limits: &'a Limits,
}

/// What is known of the contents of two files at one path before they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Same,
    /// Their sizes differ.
    Other,
    Unknown,
}

impl Sides<'_> {
    /// Reads all names and metadata, and the contents of the files that may differ.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn read(&self) -> Result<Pair> {
        let list = |at: &Located<'_>| Listed::read(&**at.filesystem, self.limits);
        let (base, now) = rayon::join(|| list(self.base), || list(self.now));
        let (mut base, mut now) = (base?, now?);
        let mut sockets = take_sockets(&mut base, self.base, Kind::Removed);
        for socket in take_sockets(&mut now, self.now, Kind::Added) {
            // On both sides, it is no change.
            match sockets.iter().position(|other| other.place == socket.place) {
                Some(at) => drop(sockets.swap_remove(at)),
                None => sockets.push(socket),
            }
        }
        let pairs = pairs(&base, &now);
        let known: Vec<Known> = pairs
            .par_iter()
            .map(|(old, new)| self.known(&base, *old, &now, *new))
            .collect::<Result<_>>()?;
        let unknown = || pairs.iter().zip(&known).filter(|(_, known)| **known == Known::Unknown);
        let (old, new) = rayon::join(
            || hash(&base, self.base, unknown().map(|((old, _), _)| *old), self.limits),
            || hash(&now, self.now, unknown().map(|((_, new), _)| *new), self.limits),
        );
        let (old, new) = (old?, new?);
        let mut left = stand_ins(&base, FileDigest::of(b"only the image has it"));
        let mut right = stand_ins(&now, FileDigest::of(b"only the machine has it"));
        for ((x, y), known) in pairs.iter().zip(&known) {
            let digest = |of: &HashMap<u64, FileDigest>, listed: &Listed, id: NodeId| {
                inode(listed, id)
                    .and_then(|inode| of.get(&inode))
                    .map_or(Leaf::Nothing, |d| Leaf::File(*d))
            };
            match known {
                Known::Same => right[*y as usize] = left[*x as usize],
                Known::Other => {}
                Known::Unknown => {
                    left[*x as usize] = digest(&old, &base, *x);
                    right[*y as usize] = digest(&new, &now, *y);
                }
            }
        }
        let read = old.len() + new.len();
        let (base, now) = (Hashed::with_leaves(base, left)?, Hashed::with_leaves(now, right)?);
        Ok(Pair { base, now, sockets, read })
    }

    /// Contents follow from the size, from the places on the disk and from the bytes there: where all
    /// three are the same, they are.
    fn known(&self, base: &Listed, old: NodeId, now: &Listed, new: NodeId) -> Result<Known> {
        let (old, new) = (base.node(old), now.node(new));
        match (&old.kind, &new.kind) {
            (NodeKind::File { size: a, .. }, NodeKind::File { size: b, .. }) if a != b => {
                return Ok(Known::Other);
            }
            (NodeKind::File { size: 0, .. }, _) => return Ok(Known::Same),
            _ => {}
        }
        let (fs, other) = (&self.base.filesystem, &self.now.filesystem);
        let (Some(old), Some(new)) = (fs.stretches(old)?, other.stretches(new)?) else {
            return Ok(Known::Unknown);
        };
        if old != new {
            return Ok(Known::Unknown);
        }
        let same = old.into_iter().all(|stretch| {
            unchanged(&**self.base.reader, &**self.now.reader, self.changed, stretch.place)
        });
        Ok(if same { Known::Same } else { Known::Unknown })
    }
}

/// Whether `range` of two parts of disks stands at one place of both, where nothing changed.
pub(super) fn unchanged(
    base: &dyn ReadAt,
    now: &dyn ReadAt,
    changed: &Changed,
    range: std::ops::Range<u64>,
) -> bool {
    let inside = range.end <= base.size() && range.end <= now.size();
    let places = if inside { base.on_disk(range.clone()) } else { None };
    places.is_some_and(|places| {
        !places.iter().any(|place| changed.touches(place)) && now.on_disk(range) == Some(places)
    })
}

/// Regular files at one path.
fn pairs(base: &Listed, now: &Listed) -> Vec<(NodeId, NodeId)> {
    let (mut found, mut todo) = (vec![], vec![(0, 0)]);
    while let Some((left, right)) = todo.pop() {
        for x in base.children(left) {
            let Some(y) = now.child(right, &base.node(*x).name) else { continue };
            match (&base.node(*x).kind, &now.node(y).kind) {
                (NodeKind::Directory { .. }, NodeKind::Directory { .. }) => todo.push((*x, y)),
                (NodeKind::File { .. }, NodeKind::File { .. }) => found.push((*x, y)),
                _ => {}
            }
        }
    }
    // In the order of the disk.
    found.sort_unstable_by_key(|(_, new)| inode(now, *new));
    found
}

fn inode(listed: &Listed, id: NodeId) -> Option<u64> {
    match listed.node(id).kind {
        NodeKind::File { inode, .. } => Some(inode),
        _ => None,
    }
}

/// The digests of these files, by inode.
fn hash(
    listed: &Listed,
    at: &Located<'_>,
    files: impl Iterator<Item = NodeId>,
    limits: &Limits,
) -> Result<HashMap<u64, FileDigest>> {
    let mut todo: Vec<(u64, NodeId)> =
        files.filter_map(|id| Some((inode(listed, id)?, id))).collect();
    todo.sort_unstable();
    todo.dedup_by_key(|(inode, _)| *inode);
    todo.par_iter()
        .with_max_len(1)
        .map(|(inode, id)| {
            let digest = hash_file(&**at.filesystem, listed.node(*id), limits)
                .map_err(|e| e.context(format!("cannot read `{}`", listed.show(*id))))?;
            Ok((*inode, digest))
        })
        .collect()
}

/// One digest for all files; other leaves are computed.
fn stand_ins(listed: &Listed, digest: FileDigest) -> Vec<Leaf> {
    let leaf = |node: &crate::image::tree::Node| match node.kind {
        NodeKind::File { .. } => Leaf::File(digest),
        _ => Leaf::Nothing,
    };
    listed.tree.nodes.iter().map(leaf).collect()
}

/// Takes the sockets out of a tree, as differences.
fn take_sockets(listed: &mut Listed, at: &Located<'_>, kind: Kind) -> Vec<Difference> {
    let sockets = listed.take_sockets();
    let word = Some("socket".to_owned());
    let (old, new) = if kind == Kind::Removed { (word, None) } else { (None, word) };
    let change = Change { kind, key: None, old, new };
    let difference = |id: &NodeId| Difference {
        place: Place::Path(Some(at.holder.clone()), listed.path(*id)),
        changes: vec![change.clone()],
    };
    sockets.iter().map(difference).collect()
}
