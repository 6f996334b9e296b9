//! The file tree of one filesystem, the same shape whether it came from a disk or a directory.
//!
//! Names, targets and attribute values are bytes, never decoded.

use crate::error::Result;

/// The file tree of one filesystem: a flat list of nodes, the root first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// All nodes; `nodes[0]` is the root directory. A file with several names stands here once a name.
    pub nodes: Vec<Node>,
    /// The parts that can be mounted on their own, in any order; none where the type has no such
    /// thing.
    pub subvolumes: Vec<Subvolume>,
}

/// A part of a filesystem that can be mounted as if it were one (btrfs); a directory in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its root directory.
    pub node: NodeId,
    /// Whether nothing in it can be changed, as in a finished snapshot.
    pub read_only: bool,
    /// Whether it is the one that is mounted when nobody names one.
    pub default: bool,
}

/// Index into [`Tree::nodes`].
pub type NodeId = u32;

/// Most symbolic links on one way, as the kernel has it (path_resolution(7)).
const LINKS: u32 = 40;

impl Tree {
    /// The node at `path` from the root of the tree, no symbolic link followed: one on the way
    /// leads nowhere, one at the end is the answer.
    #[must_use]
    pub fn lookup(&self, path: &[u8]) -> Option<NodeId> {
        let mut way = vec![0];
        for name in path.split(|&b| b == b'/') {
            self.step(&mut way, name)?;
        }
        way.pop()
    }

    /// The node at `path` from the root of the tree, symbolic links followed; absolute targets and
    /// `..` stay inside the tree. `None` also after 40 links.
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        let mut way = vec![0];
        let mut links = 0;
        // Names still to go, the next one last.
        let mut names: Vec<&[u8]> = path.rsplit(|&b| b == b'/').collect();
        while let Some(name) = names.pop() {
            self.step(&mut way, name)?;
            let here = self.nodes.get(*way.last()? as usize)?;
            if let NodeKind::Symlink { target } = &here.kind {
                links += 1;
                if links > LINKS {
                    return None;
                }
                way.truncate(if target.starts_with(b"/") { 1 } else { way.len() - 1 });
                names.extend(target.rsplit(|&b| b == b'/'));
            }
        }
        way.pop()
    }

    /// Goes one component further; `way` holds the nodes from the root to here and is never empty.
    fn step(&self, way: &mut Vec<NodeId>, name: &[u8]) -> Option<()> {
        let NodeKind::Directory { children } = &self.nodes.get(*way.last()? as usize)?.kind else {
            // A trailing slash or dot after something else than a directory leads nowhere.
            return None;
        };
        match name {
            b"" | b"." => {}
            b".." => {
                if way.len() > 1 {
                    way.pop();
                }
            }
            _ => {
                let is_it = |id: &&NodeId| {
                    self.nodes.get(**id as usize).is_some_and(|node| node.name == name)
                };
                way.push(*children.iter().find(is_it)?);
            }
        }
        Some(())
    }
}

/// One name in the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// Last path component; empty for the root.
    pub name: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Numeric owner, as seen in the guest.
    pub uid: u32,
    /// Numeric group, as seen in the guest.
    pub gid: u32,
    /// Modification time in whole seconds since 1970 UTC.
    pub mtime: i64,
    /// Extended attributes by full key (`security.capability`), sorted by key bytes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Immutable flag (chattr `i`).
    pub immutable: bool,
    /// Append-only flag (chattr `a`).
    pub append_only: bool,
    /// What stands here.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Inode number, for reading in disk order and for hard links.
        inode: u64,
        /// Whether the inode has more than one name.
        shared: bool,
    },
    /// A directory with its children in any order.
    Directory {
        /// The children.
        children: Vec<NodeId>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as stored.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// What identifies a filesystem besides its files. Empty strings where the type has no such thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `ext4`, `ext3`, `ext2`, `xfs`, `vfat`, or `directory`.
    pub kind: &'static str,
    /// Volume label, bytes as stored without padding.
    pub label: Vec<u8>,
    /// UUID or volume serial, in the spelling of `blkid`.
    pub uuid: String,
}

/// Bytes of a file that are adjacent on what holds its filesystem. What no stretch covers is a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its first byte in the file.
    pub start: u64,
    /// Where it stands.
    pub place: std::ops::Range<u64>,
}

/// A readable filesystem.
pub trait Filesystem: Send + Sync {
    /// Type, label, UUID.
    fn identity(&self) -> &Identity;

    /// Reads all metadata.
    ///
    /// # Errors
    /// Damage, an unknown feature, or a limit.
    fn tree(&self) -> Result<Tree>;

    /// Passes the contents of a regular file of [`Filesystem::tree`] to `sink`, in order, in pieces
    /// of at most 1 MiB; holes as zeros.
    ///
    /// # Errors
    /// Damage or a read error, or the sink's own error.
    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// Where the contents of a regular file of [`Filesystem::tree`] stand on what holds the
    /// filesystem: its contents follow from its size, these, and the bytes there. `None` if they do not,
    /// or not simply: then only reading tells.
    ///
    /// # Errors
    /// As [`Filesystem::read_file`].
    fn stretches(&self, _node: &Node) -> Result<Option<Vec<Stretch>>> {
        Ok(None)
    }

    /// Where old transactions of a journal stand that has nothing to replay: bytes that belong to the filesystem, and that
    /// nobody reads again. None if they are unknown.
    ///
    /// # Errors
    /// Damage, or a journal of another kind.
    fn spent(&self) -> Result<Vec<std::ops::Range<u64>>> {
        Ok(vec![])
    }

    /// What a person should know that showed only while reading, in sentences without a full stop.
    fn late_notes(&self) -> Vec<String> {
        vec![]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, kind: NodeKind) -> Node {
        Node {
            name: name.into(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: vec![],
            immutable: false,
            append_only: false,
            kind,
        }
    }

    fn directory(name: &str, children: &[NodeId]) -> Node {
        node(name, NodeKind::Directory { children: children.to_vec() })
    }

    fn link(name: &str, target: &str) -> Node {
        node(name, NodeKind::Symlink { target: target.into() })
    }

    /// `/boot/vmlinuz-1`, and links to it, past it and in circles.
    fn tree() -> Tree {
        let file = NodeKind::File { size: 1, inode: 1, shared: false };
        Tree {
            nodes: vec![
                directory("", &[1, 3, 4, 5, 6, 7]),
                directory("boot", &[2]),
                node("vmlinuz-1", file),
                link("vmlinuz", "boot/vmlinuz-1"),
                link("absolute", "/boot/../../boot/vmlinuz-1"),
                link("circle", "circle"),
                link("folder", "boot"),
                link("dangling", "boot/absent"),
            ],
            ..Tree::default()
        }
    }

    #[test]
    fn lookup_follows_no_link() {
        let tree = tree();
        assert_eq!(tree.lookup(b"/boot/vmlinuz-1"), Some(2));
        assert_eq!(tree.lookup(b"boot//./vmlinuz-1"), Some(2));
        assert_eq!(tree.lookup(b"/"), Some(0));
        assert_eq!(tree.lookup(b"/../boot"), Some(1));
        assert_eq!(tree.lookup(b"/vmlinuz"), Some(3));
        assert_eq!(tree.lookup(b"/folder/vmlinuz-1"), None);
        assert_eq!(tree.lookup(b"/boot/vmlinuz-1/"), None);
        assert_eq!(tree.lookup(b"/absent"), None);
    }

    #[test]
    fn resolve_follows_links_and_stays_inside() {
        let tree = tree();
        assert_eq!(tree.resolve(b"/vmlinuz"), Some(2));
        assert_eq!(tree.resolve(b"/absolute"), Some(2));
        assert_eq!(tree.resolve(b"/folder/vmlinuz-1"), Some(2));
        assert_eq!(tree.resolve(b"/folder/../vmlinuz"), Some(2));
        assert_eq!(tree.resolve(b"/dangling"), None);
        assert_eq!(tree.resolve(b"/vmlinuz/"), None);
    }

    #[test]
    fn links_in_circles_end() {
        assert_eq!(tree().resolve(b"/circle"), None);
    }

    #[test]
    fn an_empty_tree_has_nothing() {
        assert_eq!(Tree::default().resolve(b"/"), None);
        assert_eq!(Tree::default().lookup(b"/boot"), None);
    }
}
