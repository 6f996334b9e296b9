//! The tree of the whole filesystem as it looks from the top-level subvolume: subvolumes are
//! directories in it.

use super::fault::{damaged, fixed_limit, limit};
use super::inode::{self, Type};
use super::key::TOP_LEVEL;
use super::number;
use super::roots::{Roots, Subvolume};
use super::scan::{self, Name, Target, Totals, Used};
use super::volume::Volume;
use crate::error::Result;
use crate::image::Limits;
use crate::image::limits::Limit;
use crate::image::tree::{self, Node, NodeId, NodeKind, Tree};

/// Permissions of the empty directory that the kernel shows in place of a subvolume that a snapshot
/// does not hold (`new_simple_dir`).
const PLACEHOLDER: u16 = 0o755;

/// Reads all subvolumes that can be reached from the top-level one.
///
/// # Errors
/// Damage, a limit, or the reader's.
pub(super) fn tree(volume: &Volume, roots: &Roots, limits: &Limits) -> Result<Tree> {
    let mut all = Assembly {
        volume,
        roots,
        limits,
        tree: Tree::default(),
        totals: Totals::default(),
        pending: Vec::new(),
        seen: std::collections::HashSet::new(),
    };
    all.push(placeholder(Vec::new()))?;
    let top =
        roots.get(TOP_LEVEL).ok_or_else(|| damaged("the root tree", "it has no top level"))?;
    all.pending.push(Pending { number: TOP_LEVEL, subvolume: *top, node: 0, depth: 0, path: 0 });
    // One is read and let go before the next.
    while let Some(next) = all.pending.pop() {
        all.subvolume(&next)?;
    }
    Ok(all.tree)
}

fn placeholder(name: Vec<u8>) -> Node {
    Node {
        name,
        mode: PLACEHOLDER,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: Vec::new(),
        immutable: false,
        append_only: false,
        kind: NodeKind::Directory { children: Vec::new() },
    }
}

struct Assembly<'a> {
    volume: &'a Volume,
    roots: &'a Roots,
    limits: &'a Limits,
    tree: Tree,
    totals: Totals,
    /// Subvolumes whose node is there, and nothing below it yet.
    pending: Vec<Pending>,
    /// Subvolumes that have their place.
    seen: std::collections::HashSet<u64>,
}

/// A subvolume to be read.
struct Pending {
    number: u64,
    subvolume: Subvolume,
    node: NodeId,
    depth: u32,
    /// Bytes of its path.
    path: usize,
}

/// A directory whose children are still to be put into the tree.
struct Folder {
    node: NodeId,
    /// Index of the inode.
    index: usize,
    depth: u32,
    path: usize,
}

/// The inodes of one subvolume and which of them have names.
struct Inodes {
    number: u64,
    /// The subvolume's place among all.
    rank: u64,
    used: Vec<Used>,
    /// How many names each got.
    names: Vec<u32>,
}

impl Inodes {
    fn find(&self, number: u64) -> Option<usize> {
        self.used.binary_search_by_key(&number, |used| used.number).ok()
    }
}

impl Assembly<'_> {
    fn push(&mut self, node: Node) -> Result<NodeId> {
        let id = NodeId::try_from(self.tree.nodes.len())
            .ok()
            .filter(|&id| u64::from(id) < self.limits.entries)
            .ok_or_else(|| limit(Limit::Entries, "entries", self.limits.entries))?;
        self.tree.nodes.push(node);
        Ok(id)
    }

    fn subvolume(&mut self, at: &Pending) -> Result<()> {
        let name = format!("subvolume {}", at.number);
        if !self.seen.insert(at.number) {
            return Err(damaged(name, "it hangs in two places"));
        }
        let rank = self.roots.rank(at.number).ok_or_else(|| damaged(&name, "it is not there"))?;
        let used = scan::scan(self.volume, at.subvolume.root, self.limits, &mut self.totals)
            .map_err(|e| e.detail(format!("in {name}")))?;
        let mut inodes = Inodes { number: at.number, rank, names: vec![0; used.len()], used };
        let index = inodes
            .find(at.subvolume.directory)
            .filter(|&index| inodes.used[index].inode.kind == Type::Directory)
            .ok_or_else(|| damaged(&name, "its root directory is not there"))?;
        inodes.names[index] = 1;
        let own = std::mem::take(&mut self.tree.nodes[at.node as usize].name);
        self.tree.nodes[at.node as usize] = self.node(own, &inodes, index)?;
        self.tree.subvolumes.push(tree::Subvolume {
            node: at.node,
            read_only: at.subvolume.read_only,
            default: at.number == self.roots.default,
        });
        let first = self.tree.nodes.len();
        let mut folders = vec![Folder { node: at.node, index, depth: at.depth, path: at.path }];
        while let Some(folder) = folders.pop() {
            self.folder(&folder, &mut inodes, &mut folders)
                .map_err(|e| e.detail(format!("in {name}")))?;
        }
        // Nodes from `first` on are this subvolume's, and roots of others, which are no files.
        for node in self.tree.nodes.iter_mut().skip(first) {
            if let NodeKind::File { inode, shared, .. } = &mut node.kind {
                let (_, number) = number::split(*inode);
                *shared = inodes.find(number).is_some_and(|index| inodes.names[index] > 1);
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        at: &Folder,
        inodes: &mut Inodes,
        folders: &mut Vec<Folder>,
    ) -> Result<()> {
        let names = std::mem::take(&mut inodes.used[at.index].names);
        let directory = inodes.used[at.index].number;
        let depth = at.depth + 1;
        if !names.is_empty() && depth > self.limits.depth {
            return Err(limit(Limit::Depth, "directories in a path", self.limits.depth));
        }
        let mut children = Vec::with_capacity(names.len());
        for name in names {
            let path = at.path + 1 + name.name.len();
            if path > self.limits.path {
                return Err(limit(Limit::Path, "bytes in a path", self.limits.path));
            }
            let bad = |why: &str| {
                let entry = name.name.escape_ascii();
                damaged(
                    format_args!("directory {}", inode::name(directory)),
                    format_args!("its entry `{entry}` {why}"),
                )
            };
            let node = match name.target {
                Target::Subvolume(child) => {
                    if name.kind != Type::Directory as u8 {
                        return Err(bad("leads to a subvolume and is no directory"));
                    }
                    self.enter(inodes, directory, child, &name, (at.node, depth, path))?
                }
                Target::Inode(number) => {
                    let index = inodes.find(number).ok_or_else(|| bad("leads nowhere"))?;
                    let kind = inodes.used[index].inode.kind;
                    if name.kind != kind as u8 {
                        return Err(bad("and its inode have different file types"));
                    }
                    inodes.names[index] = inodes.names[index].saturating_add(1);
                    if kind == Type::Directory && inodes.names[index] > 1 {
                        return Err(bad("is a second name of a directory"));
                    }
                    let node = self.node(name.name.into_vec(), inodes, index)?;
                    let node = self.push(node)?;
                    if kind == Type::Directory {
                        folders.push(Folder { node, index, depth, path });
                    }
                    node
                }
            };
            children.push(node);
        }
        self.tree.nodes[at.node as usize].kind = NodeKind::Directory { children };
        Ok(())
    }

    /// The node of a subvolume's directory, or of the empty one in a snapshot.
    fn enter(
        &mut self,
        inodes: &Inodes,
        directory: u64,
        child: u64,
        name: &Name,
        (parent, depth, path): (NodeId, u32, usize),
    ) -> Result<NodeId> {
        let mut node = placeholder(name.name.to_vec());
        let parent = &self.tree.nodes[parent as usize];
        (node.uid, node.gid, node.mtime) = (parent.uid, parent.gid, parent.mtime);
        let node = self.push(node)?;
        let entered = self.roots.entered(inodes.number, child, directory, &name.name);
        if let Some(&subvolume) = entered {
            self.pending.push(Pending { number: child, subvolume, node, depth, path });
        }
        Ok(node)
    }

    fn node(&mut self, name: Vec<u8>, inodes: &Inodes, index: usize) -> Result<Node> {
        let used = &inodes.used[index];
        let inode = &used.inode;
        // The kernel's own form of device numbers (linux/kdev_t.h).
        let (major, minor) = (inode.device >> 20, inode.device & 0xf_ffff);
        let kind = match inode.kind {
            Type::File => NodeKind::File {
                size: inode.size,
                inode: number::join(inodes.rank, used.number)?,
                shared: false,
            },
            Type::Directory => NodeKind::Directory { children: Vec::new() },
            Type::Symlink => NodeKind::Symlink { target: used.target.clone() },
            Type::CharDevice => NodeKind::CharDevice { major, minor },
            Type::BlockDevice => NodeKind::BlockDevice { major, minor },
            Type::Fifo => NodeKind::Fifo,
            Type::Socket => NodeKind::Socket,
        };
        // Names share an inode's attributes, the tree does not.
        if inodes.names[index] > 1 {
            self.totals.xattrs += used.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
            if self.totals.xattrs > scan::XATTRS {
                return Err(fixed_limit("bytes of extended attributes", scan::XATTRS));
            }
        }
        Ok(Node {
            name,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: used.xattrs.clone(),
            immutable: inode.is_immutable(),
            append_only: inode.is_append_only(),
            kind,
        })
    }
}
