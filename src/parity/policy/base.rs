//! `base1`: the files of a root filesystem without what a policy declares, by that policy and one side alone.

use std::collections::HashSet;

use super::Policy;
use crate::digest::{BaseDigest, LinksDigest, TreeDigest};
use crate::image::tree::{NodeId, NodeKind};
use crate::parity::canonical::{self, Leaf};
use crate::parity::explain::side::Side;
use crate::parity::hashed::Hashed;
use crate::spec::types::DeltaOp;

/// dpkg's lists, which every package changes.
const RECORDS: [&[u8]; 3] =
    [b"/var/lib/dpkg/status", b"/var/lib/dpkg/status-old", b"/var/lib/dpkg/available"];

/// The digest of a side; `None` where there is no root filesystem.
///
/// The preimage is the line `devbox/base/1`, then the `tree1` and the `links1` of the tree from which the declared
/// paths are taken out; where a declaration is about mode and owner alone, the entry has mode 0 and owner 0:0.
pub(super) fn of(policy: &Policy, side: &Side<'_>) -> Option<BaseDigest> {
    let (tree, start) = side.root_tree()?;
    let mut cut =
        Cut { tree, gone: HashSet::new(), plain: HashSet::new(), touched: HashSet::new() };
    for pinned in &policy.deltas {
        let path = pinned.delta.path.as_bytes();
        match &pinned.delta.op {
            DeltaOp::Meta(..) => cut.mark(start, path, false),
            DeltaOp::Package(name, _) => {
                for path in side.owners.only_of(name.as_bytes()) {
                    cut.mark(start, path, true);
                }
                for name_of in side.list(b"/var/lib/dpkg/info") {
                    let rest = name_of.strip_prefix(name.as_bytes());
                    if rest.is_some_and(|rest| rest.starts_with(b".") || rest.starts_with(b":")) {
                        cut.mark(start, &[b"/var/lib/dpkg/info/", &name_of[..]].concat(), true);
                    }
                }
                RECORDS.iter().for_each(|path| cut.mark(start, path, true));
            }
            _ => cut.mark(start, path, true),
        }
    }
    let digest = cut.folder(start);
    let links: Vec<Vec<Vec<u8>>> = tree
        .links
        .iter()
        .map(|names| names.iter().filter(|name| !cut.is_gone(name)).cloned().collect::<Vec<_>>())
        .filter(|names| names.len() > 1)
        .collect();
    let links = LinksDigest::of(&canonical::links(&links));
    Some(BaseDigest::of(format!("devbox/base/1\n{digest}\n{links}\n").as_bytes()))
}

struct Cut<'a> {
    tree: &'a Hashed,
    gone: HashSet<NodeId>,
    /// Of these, mode and owner do not count.
    plain: HashSet<NodeId>,
    /// Folders above these.
    touched: HashSet<NodeId>,
}

impl Cut<'_> {
    /// Marks the node at a path, if it is there, and the folders above it.
    fn mark(&mut self, start: NodeId, path: &[u8], gone: bool) {
        let mut way = vec![start];
        let mut at = start;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let Some(next) = self.tree.child(at, name) else { return };
            at = next;
            way.push(at);
        }
        way.pop();
        if gone {
            self.gone.insert(at)
        } else {
            self.plain.insert(at)
        };
        self.touched.extend(way);
    }

    fn folder(&self, id: NodeId) -> TreeDigest {
        let mut preimage = canonical::TREE.to_vec();
        for child in self.tree.children(id).iter().filter(|child| !self.gone.contains(child)) {
            let mut node = self.tree.node(*child).clone();
            if self.plain.contains(child) {
                (node.mode, node.uid, node.gid) = (0, 0, 0);
            }
            let leaf = match node.kind {
                NodeKind::Directory { .. } if self.touched.contains(child) => {
                    Leaf::Directory(self.folder(*child))
                }
                _ => self.tree.leaf(*child),
            };
            // Every node has its line in `tree1`, so it has one here.
            let _ = canonical::entry(&node, leaf, &mut preimage);
        }
        TreeDigest::of(&preimage)
    }

    /// Whether a path from the root of the filesystem leads to or below what was taken out.
    fn is_gone(&self, path: &[u8]) -> bool {
        let mut at = 0;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let Some(next) = self.tree.child(at, name) else { return false };
            at = next;
            if self.gone.contains(&at) {
                return true;
            }
        }
        false
    }
}
