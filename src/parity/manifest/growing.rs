//! The tree of a manifest, entry by entry, and its hard links.

use super::NOT_CANONICAL;
use super::entry::Entry;
use super::lines::wrong;
use crate::error::Result;
use crate::image::tree::{Node, NodeId, NodeKind};
use crate::parity::canonical::Leaf as Below;
use crate::parity::listed::Listed;
use crate::parity::spelling;

/// A tree of which the first lines were read.
pub(super) struct Growing {
    pub(super) nodes: Vec<Node>,
    pub(super) leaves: Vec<Below>,
    /// The directories that the next entry can be in, from the root down, with the length of their
    /// paths.
    open: Vec<(NodeId, usize)>,
    /// The path of the innermost of them.
    path: Vec<u8>,
}

impl Growing {
    pub(super) fn new(root: Node) -> Self {
        Growing {
            nodes: vec![root],
            leaves: vec![Below::Nothing],
            open: vec![(0, 0)],
            path: vec![],
        }
    }

    pub(super) fn add(&mut self, entry: Entry, number: u64) -> Result<()> {
        let Entry { path, node, leaf } = entry;
        let end = path.len() - node.name.len();
        let folder = path.get(..end.saturating_sub(1)).unwrap_or_default();
        if end > 0 && folder.is_empty() {
            return Err(wrong(number, "a path begins with a name"));
        }
        while self.path != folder {
            self.open.pop();
            let Some((_, len)) = self.open.last() else {
                let why = "its directory is not the one above, or the lines are not sorted";
                return Err(wrong(number, why));
            };
            self.path.truncate(*len);
        }
        let (parent, _) = self.open.last().copied().unwrap_or_default();
        let id = NodeId::try_from(self.nodes.len()).map_err(|_| wrong(number, "too many"))?;
        let last = match &self.nodes[parent as usize].kind {
            NodeKind::Directory { children } => children.last().copied(),
            _ => None,
        };
        if last.is_some_and(|last| self.nodes[last as usize].name >= node.name) {
            return Err(wrong(number, "the lines are not sorted, or it is there twice"));
        }
        if let NodeKind::Directory { children } = &mut self.nodes[parent as usize].kind {
            children.push(id);
        }
        if matches!(node.kind, NodeKind::Directory { .. }) {
            self.open.push((id, path.len()));
            self.path = path;
        }
        self.nodes.push(node);
        self.leaves.push(leaf);
        Ok(())
    }
}

/// Makes the names of one `links1` line one file, and returns them.
pub(super) fn join(
    listed: &mut Listed,
    leaves: &[Below],
    line: &[u8],
) -> Result<Vec<Vec<u8>>, &'static str> {
    let paths = line.split(|b| *b == b' ').map(spelling::read);
    let paths: Vec<_> = paths.collect::<Option<_>>().ok_or(NOT_CANONICAL)?;
    let mut first: Option<NodeId> = None;
    if paths.len() < 2 {
        return Err("one name alone is no hard link");
    }
    for path in &paths {
        let mut at = 0;
        for name in path.split(|b| *b == b'/') {
            at = listed.child(at, name).ok_or("it names what is not there")?;
        }
        let one = *first.get_or_insert(at);
        let same = {
            let (a, b) = (listed.node(one), listed.node(at));
            let flags = |node: &Node| (node.append_only, node.immutable);
            (a.mode, a.uid, a.gid, a.mtime) == (b.mode, b.uid, b.gid, b.mtime)
                && (&a.xattrs, flags(a)) == (&b.xattrs, flags(b))
                && leaves.get(one as usize) == leaves.get(at as usize)
        };
        let NodeKind::File { inode, shared, .. } = &mut listed.tree.nodes[at as usize].kind else {
            return Err("it names what is no regular file");
        };
        if !same {
            return Err("names of one file differ");
        }
        if *shared {
            return Err("a name is there twice");
        }
        (*inode, *shared) = (u64::from(one), true);
    }
    Ok(paths)
}
