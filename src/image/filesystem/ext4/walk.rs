//! Second pass: directory blocks in the order of the disk, then the tree from the root down.

use std::collections::HashSet;

use super::blockmap;
use super::content;
use super::directory::{self, Entry};
use super::fault::{damaged, fixed_limit, limit};
use super::field::Fields;
use super::inode::{APPEND, IMMUTABLE, INLINE_DATA, ROOT, Type};
use super::scan::{Inodes, Names, Used, XATTRS};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::limits::Limit;
use crate::image::tree::{Node, NodeId, NodeKind, Tree};

/// Largest read of directory blocks in bytes.
const CHUNK: u64 = 1 << 20;

/// Builds the tree of `inodes`.
///
/// # Errors
/// Damage, or a limit.
pub(super) fn tree(volume: &Volume, inodes: &Inodes, limits: &Limits) -> Result<Tree> {
    let mut names = Names::default();
    let entries = Listing::read(volume, inodes, limits)?.by_inode;
    let mut walk = Walk {
        volume,
        inodes,
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

/// The entries of all directories.
struct Listing<'a> {
    volume: &'a Volume,
    /// By index of the inode.
    by_inode: Vec<Vec<Entry>>,
    /// Most entries, `.` and `..` counted.
    most: u64,
    count: u64,
}

/// Directory blocks that are adjacent on the disk and in their directory.
struct Stretch {
    physical: u64,
    logical: u64,
    count: u64,
    /// Index of the directory's inode.
    owner: usize,
}

impl<'a> Listing<'a> {
    fn read(volume: &'a Volume, inodes: &Inodes, limits: &Limits) -> Result<Self> {
        let mut listing = Listing {
            volume,
            by_inode: inodes.all().iter().map(|_| Vec::new()).collect(),
            most: limits.entries.saturating_mul(3),
            count: 0,
        };
        let mut stretches = listing.stretches(inodes)?;
        stretches.sort_unstable_by_key(|s| s.physical);
        if let Some(two) =
            stretches.windows(2).find(|two| two[0].physical + two[0].count > two[1].physical)
        {
            let [a, b] = [&two[0], &two[1]].map(|s| inodes.all()[s.owner].inode.number);
            let why = format_args!("directory inodes {a} and {b} both use it");
            return Err(damaged(format_args!("block {}", two[1].physical), why));
        }
        for stretch in &stretches {
            listing.stretch(stretch, &inodes.all()[stretch.owner])?;
        }
        Ok(listing)
    }

    /// Where the blocks of all directories are. Inline directories are read at once.
    fn stretches(&mut self, inodes: &Inodes) -> Result<Vec<Stretch>> {
        let size = u64::from(self.volume.sb.block_size);
        let mut seen = HashSet::new();
        let mut stretches = Vec::new();
        for (owner, used) in inodes.all().iter().enumerate() {
            let inode = &used.inode;
            if inode.kind != Type::Directory {
                continue;
            }
            let bad = |why: &str| damaged(format_args!("directory inode {}", inode.number), why);
            if inode.has(INLINE_DATA) {
                self.by_inode[owner] = inline_entries(self.volume, used)?;
                self.bound(owner, 0)?;
                continue;
            }
            let runs = blockmap::runs(self.volume, inode, &mut seen)?;
            let mapped: u64 = runs.iter().map(|run| run.count).sum();
            if inode.size == 0 || inode.size % size != 0 || mapped != inode.size / size {
                return Err(bad("its size and its blocks disagree"));
            }
            for run in runs {
                let (physical, logical, count) = (run.physical, run.logical, run.count);
                stretches.push(Stretch { physical, logical, count, owner });
            }
        }
        Ok(stretches)
    }

    fn stretch(&mut self, stretch: &Stretch, used: &Used) -> Result<()> {
        let size = u64::from(self.volume.sb.block_size);
        let mut done = 0;
        while done < stretch.count {
            let count = (stretch.count - done).min(CHUNK / size);
            // At most 1 MiB.
            let mut buffer = vec![0; (count * size) as usize];
            self.volume.read(&mut buffer, self.volume.offset(stretch.physical + done, count)?)?;
            for (i, block) in (stretch.logical + done..).zip(buffer.chunks_exact(size as usize)) {
                let entries = &mut self.by_inode[stretch.owner];
                let before = entries.len();
                directory::block(self.volume, &used.inode, i, block, entries)?;
                self.bound(stretch.owner, before)?;
            }
            done += count;
        }
        Ok(())
    }

    fn bound(&mut self, owner: usize, before: usize) -> Result<()> {
        self.count += (self.by_inode[owner].len() - before) as u64;
        if self.count > self.most {
            Err(limit(Limit::Entries, "directory entries", self.most))
        } else {
            Ok(())
        }
    }
}

/// Entries of a directory that stands in its inode. `.` is implied, `..` is a bare number.
fn inline_entries(volume: &Volume, used: &Used) -> Result<Vec<Entry>> {
    let inode = &used.inode;
    let all = content::inline(inode, used.inline.as_deref())?;
    let kind = Some(Type::Directory);
    let mut entries = vec![
        Entry { name: b".".to_vec(), inode: inode.number, kind },
        Entry { name: b"..".to_vec(), inode: all.as_slice().u32_at(0)?, kind },
    ];
    let (own, rest) = all.split_at(all.len().min(inode.block.len()));
    directory::list(volume, inode, own.get(4..).unwrap_or_default(), &mut entries)?;
    directory::list(volume, inode, rest, &mut entries)?;
    Ok(entries)
}

struct Walk<'a> {
    volume: &'a Volume,
    inodes: &'a Inodes,
    limits: &'a Limits,
    /// Entries of directories by index of the inode, taken as they are used.
    entries: Vec<Vec<Entry>>,
    /// Directories that have a name.
    seen: HashSet<u32>,
    tree: Tree,
    /// Bytes of attributes so far; names share an inode's.
    xattrs: usize,
}

/// A directory whose children are still to be put into the tree.
struct Pending {
    node: NodeId,
    /// Index of the inode.
    index: usize,
    parent: u32,
    depth: u32,
    /// Bytes of its path.
    path: usize,
}

impl Walk<'_> {
    fn run(&mut self, names: &mut Names) -> Result<()> {
        let index = self.inodes.find(ROOT);
        let index = index
            .filter(|&i| self.inodes.all()[i].inode.kind == Type::Directory)
            .ok_or_else(|| damaged("the root directory", "inode 2 is no directory in use"))?;
        self.seen.insert(ROOT);
        self.push(Vec::new(), index)?;
        let mut pending = vec![Pending { node: 0, index, parent: ROOT, depth: 0, path: 0 }];
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

    fn bad_directory(&self, node: NodeId, number: u32, why: String) -> Error {
        let name = self.tree.nodes[node as usize].name.escape_ascii();
        damaged(format_args!("directory `{name}` (inode {number})"), why)
    }

    fn node(&self, name: Vec<u8>, used: &Used) -> Result<Node> {
        let inode = &used.inode;
        let kind = match inode.kind {
            Type::File => {
                NodeKind::File { size: inode.size, inode: inode.number.into(), shared: false }
            }
            Type::Directory => NodeKind::Directory { children: Vec::new() },
            Type::Symlink => NodeKind::Symlink {
                target: content::target(self.volume, inode, used.inline.as_deref())?,
            },
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
            immutable: inode.has(IMMUTABLE),
            append_only: inode.has(APPEND),
            kind,
        })
    }
}
