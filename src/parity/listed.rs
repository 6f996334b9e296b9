//! A file tree whose shape is proven and whose metadata is canonical; nothing is hashed yet.

use std::collections::BTreeSet;

use super::{attributes, canonical, spelling};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::tree::{Filesystem, Identity, Node, NodeId, NodeKind, Tree};

/// A checked tree: one root, every node in one directory, good names, canonical attributes.
#[derive(Debug)]
pub struct Listed {
    /// Type, label, UUID.
    pub identity: Identity,
    /// The nodes; children sorted by name, attributes canonical, an unused `lost+found` taken out.
    pub tree: Tree,
    /// Each node's parent; the root is its own.
    parents: Vec<NodeId>,
    /// Where the system starts, see [`super::root`].
    pub(super) start: NodeId,
}

impl Listed {
    /// Reads all metadata of `fs`.
    ///
    /// # Errors
    /// Whatever has no place in the digest, cannot be read or goes beyond `limits`; the message
    /// names the path.
    pub fn read(fs: &dyn Filesystem, limits: &Limits) -> Result<Self> {
        let tree = fs.tree()?;
        limits.check_tree(&tree)?;
        Self::of(fs.identity().clone(), tree)
    }

    /// Checks a tree.
    ///
    /// # Errors
    /// As [`Listed::read`].
    pub fn of(identity: Identity, mut tree: Tree) -> Result<Self> {
        let parents = check(&mut tree)?;
        let mut listed = Listed { identity, tree, parents, start: 0 };
        listed.canonicalise()?;
        listed.find_start();
        Ok(listed)
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.tree.nodes[id as usize]
    }

    /// A directory's children, sorted by name; none for anything else.
    #[must_use]
    pub fn children(&self, id: NodeId) -> &[NodeId] {
        match &self.node(id).kind {
            NodeKind::Directory { children } => children,
            _ => &[],
        }
    }

    /// The path of a node from the root of the filesystem, without a leading `/`.
    #[must_use]
    pub fn path(&self, id: NodeId) -> Vec<u8> {
        path(&self.tree, &self.parents, id)
    }

    /// The child of that name, if it is there.
    #[must_use]
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let children = self.children(directory);
        let at = children.binary_search_by(|id| self.node(*id).name.as_slice().cmp(name)).ok()?;
        Some(children[at])
    }

    /// The directories, each before those in it.
    #[must_use]
    pub fn directories(&self) -> Vec<NodeId> {
        let mut order: Vec<NodeId> = vec![0];
        let mut at = 0;
        while let Some(id) = order.get(at).copied() {
            let below = self.children(id).iter().copied();
            order
                .extend(below.filter(|c| matches!(self.node(*c).kind, NodeKind::Directory { .. })));
            at += 1;
        }
        order
    }

    /// A node's absolute path as messages show it.
    #[must_use]
    pub fn show(&self, id: NodeId) -> String {
        format!("/{}", spelling::spell(&self.path(id)))
    }

    /// Takes the sockets out, which have no place in a digest, and returns them. A system that runs may
    /// have some outside of `/run`.
    pub fn take_sockets(&mut self) -> BTreeSet<NodeId> {
        let is_socket = |node: &Node| matches!(node.kind, NodeKind::Socket);
        let ids = (0..).zip(&self.tree.nodes).filter(|(_, node)| is_socket(node));
        let sockets: BTreeSet<NodeId> = ids.map(|(id, _)| id).collect();
        if !sockets.is_empty() {
            for node in &mut self.tree.nodes {
                if let NodeKind::Directory { children } = &mut node.kind {
                    children.retain(|child| !sockets.contains(child));
                }
            }
        }
        sockets
    }

    /// Attributes to their canonical form; an unused `lost+found` out.
    fn canonicalise(&mut self) -> Result<()> {
        for id in 0..self.tree.nodes.len() {
            let xattrs = std::mem::take(&mut self.tree.nodes[id].xattrs);
            self.tree.nodes[id].xattrs = attributes::canonical(xattrs)
                .map_err(|e| e.context(format!("cannot hash `{}`", self.show(id as NodeId))))?;
        }
        let unused = self.child(0, b"lost+found").filter(|id| {
            let node = self.node(*id);
            let plain = node.xattrs.is_empty() && canonical::flags(node).is_empty();
            let empty =
                matches!(&node.kind, NodeKind::Directory { children } if children.is_empty());
            empty && plain && (node.mode, node.uid, node.gid) == (0o700, 0, 0)
        });
        if let NodeKind::Directory { children } = &mut self.tree.nodes[0].kind {
            children.retain(|id| Some(*id) != unused);
        }
        Ok(())
    }
}

fn path(tree: &Tree, parents: &[NodeId], mut id: NodeId) -> Vec<u8> {
    let mut names = vec![];
    while id != 0 {
        names.push(tree.nodes[id as usize].name.as_slice());
        id = parents[id as usize];
    }
    names.reverse();
    names.join(&b'/')
}

/// Sorts all children and returns each node's parent.
///
/// Fails on anything that is not one tree of well-named nodes with a directory as its root.
fn check(tree: &mut Tree) -> Result<Vec<NodeId>> {
    let broken = |what: &str| Error::undetermined(format!("the file tree is damaged: {what}"));
    if !matches!(tree.nodes.first().map(|root| &root.kind), Some(NodeKind::Directory { .. })) {
        return Err(broken("the root is not a directory"));
    }
    let mut parents = vec![None; tree.nodes.len()];
    parents[0] = Some(0);
    for id in 0..tree.nodes.len() {
        let NodeKind::Directory { children } = &mut tree.nodes[id].kind else { continue };
        let mut children = std::mem::take(children);
        if children.iter().any(|child| *child as usize >= parents.len()) {
            return Err(broken("a directory names a node that is not there"));
        }
        children.sort_unstable_by(|a, b| {
            tree.nodes[*a as usize].name.cmp(&tree.nodes[*b as usize].name)
        });
        let name = |id: &NodeId| tree.nodes[*id as usize].name.as_slice();
        if let Some(pair) = children.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            let name = spelling::spell(name(&pair[0]));
            return Err(broken(&format!("a directory has two entries `{name}`")));
        }
        for child in &children {
            let name = name(child);
            if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
                return Err(broken(&format!("an entry has the name `{}`", spelling::spell(name))));
            }
            if parents[*child as usize].replace(id as NodeId).is_some() {
                let name = spelling::spell(name);
                return Err(broken(&format!("`{name}` hangs in two directories")));
            }
        }
        tree.nodes[id].kind = NodeKind::Directory { children };
    }
    // Every node has one parent; a node that hangs in no directory, or a ring of directories, is
    // never reached from the root.
    let mut reached = 1usize;
    let mut stack: Vec<NodeId> = vec![0];
    while let Some(id) = stack.pop() {
        if let NodeKind::Directory { children } = &tree.nodes[id as usize].kind {
            reached += children.len();
            stack.extend(children);
        }
    }
    match parents.into_iter().collect::<Option<Vec<_>>>() {
        Some(parents) if reached == tree.nodes.len() => Ok(parents),
        _ => Err(broken("some entries cannot be reached from the root")),
    }
}
