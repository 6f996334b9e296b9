//! Second pass: the tree from the root down.

use std::collections::HashSet;

use super::directory::Entry;
use super::fault::{damaged, fixed_limit, limit};
use super::inode::Type;
use super::scan::{Inodes, Names, Used, XATTRS};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::limits::Limit;
use crate::image::tree::{Node, NodeId, NodeKind, Tree};

/// Builds the tree of `inodes` below the directory `root`; `entries` are those of the directories, by
/// index of the inode.
///
/// # Errors
/// Damage, or a limit.
pub(super) fn tree(
    inodes: &Inodes,
    entries: Vec<Vec<Entry>>,
    root: u64,
    limits: &Limits,
) -> Result<Tree> {
    let mut names = Names::default();
    let mut walk = Walk {
        inodes,
        root,
        limits,
        entries,
        seen: HashSet::new(),
        tree: Tree::default(),
        xattrs: 0,
    };
    walk.run(&mut names)?;
    let mut tree = walk.tree;
    for node in &mut tree.nodes {
        if let NodeKind::File { inode, shared, .. } = &mut node.kind {
            *shared = names.shared(*inode);
        }
    }
    Ok(tree)
}

struct Walk<'a> {
    inodes: &'a Inodes,
    /// Inode of the root directory.
    root: u64,
    limits: &'a Limits,
    /// Entries of directories by index of the inode, taken as they are used.
    entries: Vec<Vec<Entry>>,
    /// Directories that have a name.
    seen: HashSet<u64>,
    tree: Tree,
    /// Bytes of attributes so far; names share an inode's.
    xattrs: usize,
}

/// A directory whose children are still to be put into the tree.
struct Pending {
    node: NodeId,
    /// Index of the inode.
    index: usize,
    parent: u64,
    depth: u32,
    /// Bytes of its path.
    path: usize,
}

impl Walk<'_> {
    fn run(&mut self, names: &mut Names) -> Result<()> {
        let root = self.root;
        let index = self.inodes.find(root);
        let index = index
            .filter(|&i| self.inodes.all()[i].inode.kind == Type::Directory)
            .ok_or_else(|| {
                damaged("the root directory", format_args!("inode {root} is no directory in use"))
            })?;
        self.seen.insert(root);
        self.push(Vec::new(), index)?;
        let mut pending = vec![Pending { node: 0, index, parent: root, depth: 0, path: 0 }];
        while let Some(directory) = pending.pop() {
            self.directory(&directory, &mut pending, names)?;
        }
        Ok(())
    }

    fn push(&mut self, name: Vec<u8>, index: usize) -> Result<NodeId> {
        let id = NodeId::try_from(self.tree.nodes.len())
            .ok()
            .filter(|&id| u64::from(id) < self.limits.entries)
            .ok_or_else(|| limit(Limit::Entries, "entries", self.limits.entries))?;
        let node = self.node(name, &self.inodes.all()[index])?;
        self.xattrs += node.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        if self.xattrs > XATTRS {
            return Err(fixed_limit("bytes of extended attributes", XATTRS));
        }
        self.tree.nodes.push(node);
        Ok(id)
    }

    fn directory(
        &mut self,
        at: &Pending,
        pending: &mut Vec<Pending>,
        names: &mut Names,
    ) -> Result<()> {
        let number = self.inodes.all()[at.index].inode.number;
        let mut entries = std::mem::take(&mut self.entries[at.index]);
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let bad = |why: String| self.bad_directory(at.node, number, why);
        if let Some(two) = entries.windows(2).find(|two| two[0].name == two[1].name) {
            return Err(bad(format!("it has the name `{}` twice", two[0].name.escape_ascii())));
        }
        for (name, target) in [(b".".as_slice(), number), (b"..", at.parent)] {
            let entry = entries.iter().find(|e| e.name == name);
            if entry.is_none_or(|e| e.inode != target) {
                let name = name.escape_ascii();
                return Err(bad(format!("its entry `{name}` does not lead to inode {target}")));
            }
        }
        let mut children = Vec::with_capacity(entries.len().saturating_sub(2));
        for entry in entries {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let bad = |walk: &Self, why: String| {
                let entry = entry.name.escape_ascii();
                walk.bad_directory(at.node, number, format!("its entry `{entry}` {why}"))
            };
            let index = self.inodes.find(entry.inode).ok_or_else(|| {
                bad(self, format!("leads to inode {}, which is not in use", entry.inode))
            })?;
            let inode = &self.inodes.all()[index].inode;
            if entry.kind.is_some_and(|kind| kind != inode.kind) {
                let why = format!("and inode {} have different file types", entry.inode);
                return Err(bad(self, why));
            }
            let path = at.path + 1 + entry.name.len();
            if path > self.limits.path {
                return Err(limit(Limit::Path, "bytes in a path", self.limits.path));
            }
            let is_directory = inode.kind == Type::Directory;
            if is_directory && !self.seen.insert(entry.inode) {
                return Err(bad(
                    self,
                    format!("is a second name of directory inode {}", entry.inode),
                ));
            }
            if !is_directory {
                names.add(inode)?;
            }
            let node = self.push(entry.name, index)?;
            children.push(node);
            if is_directory {
                let depth = at.depth + 1;
                if depth > self.limits.depth {
                    return Err(limit(Limit::Depth, "levels of directories", self.limits.depth));
                }
                pending.push(Pending { node, index, parent: number, depth, path });
            }
        }
        if let NodeKind::Directory { children: list } = &mut self.tree.nodes[at.node as usize].kind
        {
            *list = children;
        }
        Ok(())
    }

    fn bad_directory(&self, node: NodeId, number: u64, why: String) -> Error {
        let name = self.tree.nodes[node as usize].name.escape_ascii();
        damaged(format_args!("directory `{name}` (inode {number})"), why)
    }

    fn node(&self, name: Vec<u8>, used: &Used) -> Result<Node> {
        let inode = &used.inode;
        let kind = match inode.kind {
            Type::File => NodeKind::File { size: inode.size, inode: inode.number, shared: false },
            Type::Directory => NodeKind::Directory { children: Vec::new() },
            Type::Symlink => NodeKind::Symlink { target: used.target.clone() },
            Type::CharDevice => {
                let (major, minor) = inode.device()?;
                NodeKind::CharDevice { major, minor }
            }
            Type::BlockDevice => {
                let (major, minor) = inode.device()?;
                NodeKind::BlockDevice { major, minor }
            }
            Type::Fifo => NodeKind::Fifo,
            Type::Socket => NodeKind::Socket,
        };
        Ok(Node {
            name,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: used.xattrs.clone(),
            immutable: inode.immutable,
            append_only: inode.append_only,
            kind,
        })
    }
}
