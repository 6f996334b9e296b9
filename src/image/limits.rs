//! Bounds for hostile input: what an image may claim before reading it ends.
//!
//! Filesystems check what costs memory while they read: entries and attributes. What a finished
//! tree shows is checked for all of them in one place, [`Limits::check_tree`]. A disk's size is
//! checked where its container is opened, and the time wherever bytes are read.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ReadAt;
use super::tree::{NodeKind, Tree};
use crate::error::{Error, Result};

/// Longest name in bytes that Linux knows (`NAME_MAX`, linux/limits.h); no option: no system could
/// use a longer one.
pub const NAME: usize = 255;

/// Longest target of a symbolic link in bytes: `PATH_MAX` of linux/limits.h without its NUL.
pub const TARGET: usize = 4095;

/// Bounds for hostile input; each is an error of kind `Undetermined` that names the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest guest-visible size of a disk in bytes.
    pub disk_size: u64,
    /// Most entries in one filesystem.
    pub entries: u64,
    /// Deepest path, in components.
    pub depth: u32,
    /// Longest path in bytes.
    pub path: usize,
    /// Longest value of one extended attribute in bytes.
    pub xattr: usize,
    /// Most bytes of extended attributes of one inode.
    pub xattrs: usize,
    /// Most bytes of one file, holes included.
    pub file_size: u64,
    /// Most bytes of file contents in one filesystem, holes included: a sparse file of 16 TiB costs
    /// its maker nothing and a reader hours.
    pub contents: u64,
    /// How many bytes other than zeros one byte of a compressed file may become.
    pub ratio: u64,
    /// When reading has to be done; none: whenever it is.
    pub deadline: Option<Deadline>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            disk_size: 64 << 40,
            entries: 5_000_000,
            depth: 1024,
            path: 4096,
            xattr: 64 << 10,
            xattrs: 1 << 20,
            file_size: 4 << 40,
            contents: 4 << 40,
            ratio: 200,
            deadline: None,
        }
    }
}

/// A point in time, and how much time there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Option<Instant>,
    allowed: Duration,
}

impl Deadline {
    /// `allowed` from now on.
    #[must_use]
    pub fn after(allowed: Duration) -> Self {
        // A time that the clock cannot hold never comes.
        Deadline { at: Instant::now().checked_add(allowed), allowed }
    }
}

/// One of the bounds that a user can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::disk_size`].
    DiskSize,
    /// [`Limits::entries`].
    Entries,
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::path`].
    Path,
    /// [`Limits::xattr`].
    Xattr,
    /// [`Limits::xattrs`].
    Xattrs,
    /// [`Limits::file_size`].
    FileSize,
    /// [`Limits::contents`].
    Contents,
    /// [`Limits::ratio`].
    Ratio,
    /// [`Limits::deadline`].
    Time,
}

impl Limit {
    /// The option on the command line.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Limit::DiskSize => "--max-disk-size",
            Limit::Entries => "--max-entries",
            Limit::Depth => "--max-depth",
            Limit::Path => "--max-path",
            Limit::Xattr => "--max-xattr",
            Limit::Xattrs => "--max-xattrs",
            Limit::FileSize => "--max-file-size",
            Limit::Contents => "--max-contents",
            Limit::Ratio => "--max-ratio",
            Limit::Time => "--timeout",
        }
    }

    /// The error of this limit, which was `most`; `what` says what goes beyond it.
    pub fn exceeded(self, what: impl Display, most: impl Display) -> Error {
        Error::undetermined(format!("{what}; the limit is {most}")).hint(self.hint())
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> String {
        format!(
            "If you trust where the image comes from, raise the limit with `{}` of `devbox digest`, `devbox parity` and `devbox box import`.",
            self.option()
        )
    }
}

impl Limits {
    /// Fails once the deadline has passed.
    ///
    /// # Errors
    /// Kind `Undetermined`.
    pub fn check_time(&self) -> Result<()> {
        match self.deadline {
            Some(Deadline { at: Some(at), allowed }) if Instant::now() >= at => {
                Err(Limit::Time.exceeded("reading took too long", format!("{allowed:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks all that a whole tree shows, whatever filesystem it came from: entries, names,
    /// targets, depths, paths, attributes and sizes. A file with several names counts once.
    ///
    /// Ends on any tree; that it is one is checked elsewhere.
    ///
    /// # Errors
    /// Kind `Undetermined`: the limit that it goes beyond.
    pub fn check_tree(&self, tree: &Tree) -> Result<()> {
        if tree.nodes.len() as u64 > self.entries {
            let what = format!("it has {} entries", tree.nodes.len());
            return Err(Limit::Entries.exceeded(what, self.entries));
        }
        let mut inodes = HashSet::new();
        let mut contents = 0u64;
        // Nodes with their depth and the length of their path.
        let mut todo = vec![(0u32, 0u32, 0usize)];
        let mut seen = 0usize;
        while let Some((id, depth, path)) = todo.pop() {
            let Some(node) = tree.nodes.get(id as usize) else { continue };
            seen += 1;
            if seen > tree.nodes.len() {
                break;
            }
            let named = |what: &str| {
                let name = String::from_utf8_lossy(&node.name);
                let name: String = name.escape_debug().take(80).collect();
                format!("`{name}` {what}")
            };
            if node.name.len() > NAME {
                return Err(Error::undetermined(named("is too long a name"))
                    .cause(format!("it has {} bytes; Linux has {NAME} at most", node.name.len())));
            }
            if depth > self.depth {
                let what = named(&format!("lies {depth} directories deep"));
                return Err(Limit::Depth.exceeded(what, self.depth));
            }
            if path > self.path {
                let what = named(&format!("has a path of {path} bytes"));
                return Err(Limit::Path.exceeded(what, self.path));
            }
            self.check_xattrs(&node.xattrs, &named)?;
            match &node.kind {
                NodeKind::File { size, inode, .. } => {
                    if *size > self.file_size {
                        let what = named(&format!("has {size} bytes"));
                        return Err(Limit::FileSize.exceeded(what, self.file_size));
                    }
                    if inodes.insert(*inode) {
                        contents = contents.saturating_add(*size);
                    }
                }
                NodeKind::Symlink { target } if target.len() > TARGET => {
                    return Err(Error::undetermined(named("has too long a target")).cause(
                        format!("it has {} bytes; Linux has {TARGET} at most", target.len()),
                    ));
                }
                NodeKind::Directory { children } => {
                    let below = children.iter().map(|child| {
                        let name = tree.nodes.get(*child as usize).map_or(0, |n| n.name.len());
                        // The root's own name is empty and has no `/` behind it.
                        let parent = if path == 0 { 0 } else { path + 1 };
                        (*child, depth.saturating_add(1), parent.saturating_add(name))
                    });
                    todo.extend(below);
                }
                _ => {}
            }
        }
        if contents > self.contents {
            let what = format!("its files have {contents} bytes, holes included");
            return Err(Limit::Contents.exceeded(what, self.contents));
        }
        Ok(())
    }

    fn check_xattrs(
        &self,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        named: &dyn Fn(&str) -> String,
    ) -> Result<()> {
        let longest = xattrs.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        if longest > self.xattr {
            let what = named(&format!("has an extended attribute of {longest} bytes"));
            return Err(Limit::Xattr.exceeded(what, self.xattr));
        }
        let all = xattrs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if all > self.xattrs {
            let what = named(&format!("has extended attributes of {all} bytes"));
            return Err(Limit::Xattrs.exceeded(what, self.xattrs));
        }
        Ok(())
    }

    /// `reader`, which fails once the deadline has passed.
    pub(crate) fn timed(&self, reader: Arc<dyn ReadAt>) -> Arc<dyn ReadAt> {
        match self.deadline {
            Some(_) => Arc::new(Timed { reader, limits: *self }),
            None => reader,
        }
    }
}

/// A reader with a deadline.
struct Timed {
    reader: Arc<dyn ReadAt>,
    limits: Limits,
}

impl ReadAt for Timed {
    fn size(&self) -> u64 {
        self.reader.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.limits.check_time()?;
        self.reader.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.limits.check_time()?;
        self.reader.next_data(offset)
    }

    fn on_disk(&self, range: Range<u64>) -> Option<Vec<Range<u64>>> {
        self.reader.on_disk(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::image::oracle::Memory;
    use crate::image::tree::Node;

    fn node(name: &str, kind: NodeKind) -> Node {
        Node {
            name: name.into(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: vec![],
            immutable: false,
            append_only: false,
            kind,
        }
    }

    /// `/a/bc`, a file of 100 bytes with the second name `/d`, and a link.
    fn tree() -> Tree {
        let file = |name| node(name, NodeKind::File { size: 100, inode: 7, shared: true });
        Tree {
            nodes: vec![
                node("", NodeKind::Directory { children: vec![1, 3, 4] }),
                node("a", NodeKind::Directory { children: vec![2] }),
                file("bc"),
                file("d"),
                node("link", NodeKind::Symlink { target: b"a/bc".to_vec() }),
            ],
            ..Tree::default()
        }
    }

    #[test]
    fn a_tree_at_its_limits_passes_and_one_beyond_does_not() {
        let just = Limits {
            entries: 5,
            depth: 2,
            path: 4,
            file_size: 100,
            contents: 100,
            xattr: 3,
            xattrs: 10,
            ..Limits::default()
        };
        let mut tree = tree();
        tree.nodes[2].xattrs = vec![(b"user.ab".to_vec(), vec![0; 3])];
        just.check_tree(&tree).expect("all within");
        let beyond = [
            (Limits { entries: 4, ..just }, "`--max-entries`"),
            (Limits { depth: 1, ..just }, "`--max-depth`"),
            (Limits { path: 3, ..just }, "`--max-path`"),
            (Limits { file_size: 99, ..just }, "`--max-file-size`"),
            (Limits { contents: 99, ..just }, "`--max-contents`"),
            (Limits { xattr: 2, ..just }, "`--max-xattr`"),
            (Limits { xattrs: 9, ..just }, "`--max-xattrs`"),
        ];
        for (limits, option) in beyond {
            let e = limits.check_tree(&tree).expect_err(option);
            assert_eq!(e.kind(), Kind::Undetermined);
            assert!(e.hints()[0].contains(option), "{e}");
        }
        tree.nodes[4].kind = NodeKind::Symlink { target: vec![b'x'; 4096] };
        assert!(just.check_tree(&tree).expect_err("target").what().contains("too long a target"));
        let long = Limits::default();
        tree.nodes[4].name = vec![b'x'; 256];
        assert!(long.check_tree(&tree).expect_err("name").what().contains("too long a name"));
    }

    #[test]
    fn a_ring_of_directories_ends() {
        let mut tree = tree();
        tree.nodes[1].kind = NodeKind::Directory { children: vec![0, 2, 1, 99] };
        let _ = Limits { depth: u32::MAX, path: usize::MAX, ..Limits::default() }.check_tree(&tree);
    }

    #[test]
    fn a_passed_deadline_ends_every_read() {
        let late = Limits { deadline: Some(Deadline::after(Duration::ZERO)), ..Limits::default() };
        let reader = late.timed(Memory::shared(vec![1; 10]));
        let e = reader.read_at(&mut [0], 0).expect_err("too late");
        assert!(e.to_string().contains("`--timeout`") && e.kind() == Kind::Undetermined, "{e}");
        assert!(reader.next_data(0).is_err());
        let hour = Some(Deadline::after(Duration::from_secs(3600)));
        let reader = Limits { deadline: hour, ..late }.timed(Memory::shared(vec![1; 10]));
        reader.read_at(&mut [0], 0).expect("in time");
        let never = Some(Deadline::after(Duration::MAX));
        Limits { deadline: never, ..late }.check_time().expect("in time");
    }
}
