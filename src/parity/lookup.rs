//! Finds files in a tree as the guest would: links are followed inside the tree.

use super::listed::Listed;
use crate::error::{Error, Result};
use crate::image::boot;
use crate::image::tree::{Filesystem, Node, NodeId, NodeKind};

/// Most links followed for one path, as in Linux (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: u32 = 40;

impl Listed {
    /// The node at a path as the guest would find it; `None` if there is none.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        self.find_below(self.start, path)
    }

    /// The node at a path as a guest whose root is `root` would find it; `None` if there is none.
    #[must_use]
    pub fn find_below(&self, root: NodeId, path: &[u8]) -> Option<NodeId> {
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            path.rsplit(|b| *b == b'/')
                .filter(|part| !part.is_empty())
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut todo = parts(path);
        let mut at: Vec<NodeId> = vec![root];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    if at.len() > 1 {
                        at.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let id = self.named(*at.last()?, &name)?;
            let NodeKind::Symlink { target } = &self.node(id).kind else {
                at.push(id);
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if target.first() == Some(&b'/') {
                at.truncate(1);
            }
            todo.extend(parts(target));
        }
        at.last().copied()
    }

    /// vfat compares names without case.
    fn named(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        if self.identity.kind != "vfat" {
            return self.child(directory, name);
        }
        let same = |id: &&NodeId| self.node(**id).name.eq_ignore_ascii_case(name);
        self.children(directory).iter().find(same).copied()
    }
}

/// A filesystem with its tree, as a place to look for files.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// Reads contents.
    pub fs: &'a dyn Filesystem,
    /// Knows the names.
    pub tree: &'a Listed,
}

impl Files<'_> {
    /// The node at an absolute path; `None` if there is none.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<&Node> {
        self.tree.find(path).map(|id| self.tree.node(id))
    }

    /// The first `len` bytes of a regular file, fewer if it is shorter.
    ///
    /// # Errors
    /// Damage.
    pub fn head(&self, node: &Node, len: usize) -> Result<Vec<u8>> {
        let mut head = vec![];
        let result = self.fs.read_file(node, &mut |piece| {
            let missing = len - head.len();
            head.extend_from_slice(&piece[..piece.len().min(missing)]);
            // Ends the reading early; the error is dropped below.
            if head.len() == len { Err(Error::failed("enough")) } else { Ok(()) }
        });
        match result {
            Err(e) if head.len() < len => Err(e),
            _ => Ok(head),
        }
    }
}

impl boot::Files for Files<'_> {
    fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(node) = self.find(path) else { return Ok(None) };
        let NodeKind::File { size, .. } = node.kind else { return Ok(None) };
        if size > limit {
            let path = super::spelling::spell(path);
            return Err(Error::undetermined(format!(
                "`{path}` has {size} bytes; the limit is {limit} bytes"
            )));
        }
        let mut contents = vec![];
        self.fs.read_file(node, &mut |piece| {
            contents.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Some(contents))
    }

    fn size(&self, path: &[u8]) -> Result<Option<u64>> {
        Ok(match self.find(path).map(|node| &node.kind) {
            Some(NodeKind::File { size, .. }) => Some(*size),
            _ => None,
        })
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(id) = self.tree.find(path) else { return Ok(vec![]) };
        let names = self.tree.children(id).iter().map(|id| self.tree.node(*id).name.clone());
        Ok(names.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Limits;
    use crate::parity::hashed::tests::Memory;

    #[test]
    fn links_are_followed_inside_the_tree_and_never_for_ever() {
        let mut fs = Memory::new();
        let usr = fs.dir(0, b"usr", 0o755);
        let bin = fs.dir(usr, b"bin", 0o755);
        fs.file(bin, b"dash", 0o755, b"\x7fELF and more");
        fs.symlink(bin, b"sh", b"dash");
        fs.symlink(0, b"bin", b"usr/bin");
        fs.symlink(0, b"up", b"../../../usr/../bin/./sh");
        fs.symlink(0, b"abs", b"/bin/sh");
        fs.symlink(0, b"ring", b"ring2");
        fs.symlink(0, b"ring2", b"/ring");
        let tree = Listed::read(&fs, &Limits::default()).expect("list");
        let files = Files { fs: &fs, tree: &tree };
        for path in ["/bin/sh", "/up", "/abs", "//usr//bin/dash"] {
            let node = files.find(path.as_bytes()).expect(path);
            assert_eq!(node.name, b"dash", "{path}");
            assert_eq!(files.head(node, 4).expect("read"), b"\x7fELF");
        }
        for path in ["/ring", "/nowhere", "/bin/sh/x"] {
            assert!(files.find(path.as_bytes()).is_none(), "{path}");
        }
        let long = files.find(b"/bin/sh").expect("there");
        assert_eq!(files.head(long, 100).expect("read"), b"\x7fELF and more");
    }
}
