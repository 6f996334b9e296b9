//! A file tree with the digest of every file and directory: `tree1`, `links1`, `fs1`.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::canonical::{self, Leaf};
use super::listed::Listed;
use crate::digest::{FileDigest, FsDigest, LinksDigest, Sha256, TimedTreeDigest, TreeDigest};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::tree::{Filesystem, Node, NodeId, NodeKind};

/// A checked tree whose nodes all have their digest.
#[derive(Debug)]
pub struct Hashed {
    listed: Listed,
    /// Each node's digest.
    leaves: Vec<Leaf>,
    /// Hard links: groups of paths, sorted.
    pub links: Vec<Vec<Vec<u8>>>,
}

impl std::ops::Deref for Hashed {
    type Target = Listed;

    fn deref(&self) -> &Listed {
        &self.listed
    }
}

impl Hashed {
    /// Reads all metadata and all contents of `fs`; contents a thread a core, in inode order, and
    /// each inode once.
    ///
    /// # Errors
    /// Whatever has no place in the digest, cannot be read or goes beyond `limits`; the message
    /// names the path.
    pub fn read(fs: &dyn Filesystem, limits: &Limits) -> Result<Self> {
        Self::of(Listed::read(fs, limits)?, fs, limits)
    }

    /// Reads the contents of the files of `listed`, which came from `fs`.
    ///
    /// # Errors
    /// As [`Hashed::read`].
    pub fn of(listed: Listed, fs: &dyn Filesystem, limits: &Limits) -> Result<Self> {
        Self::of_unless(listed, fs, limits, &|_| Ok(None))
    }

    /// As [`Hashed::read`], but for the contents of files that are `known`.
    ///
    /// # Errors
    /// As [`Hashed::read`].
    pub(super) fn read_unless(
        fs: &dyn Filesystem,
        limits: &Limits,
        known: Known<'_>,
    ) -> Result<Self> {
        Self::of_unless(Listed::read(fs, limits)?, fs, limits, known)
    }

    fn of_unless(
        listed: Listed,
        fs: &dyn Filesystem,
        limits: &Limits,
        known: Known<'_>,
    ) -> Result<Self> {
        let digests = hash_files(&listed, fs, limits, known)?;
        let nodes = listed.tree.nodes.iter();
        let leaves = nodes.map(|node| match node.kind {
            NodeKind::File { inode, .. } => {
                digests.get(&inode).map_or(Leaf::Nothing, |d| Leaf::File(*d))
            }
            _ => Leaf::Nothing,
        });
        let leaves = leaves.collect();
        Self::with_leaves(listed, leaves)
    }

    /// The tree `listed`, with what is in each of its files; other leaves are computed.
    ///
    /// # Errors
    /// An entry that has no place in the digest.
    pub(super) fn with_leaves(listed: Listed, leaves: Vec<Leaf>) -> Result<Self> {
        let mut hashed = Hashed { leaves, listed, links: vec![] };
        hashed.hash_directories()?;
        hashed.find_links();
        Ok(hashed)
    }

    pub(super) fn into_parts(self) -> (Listed, Vec<Leaf>) {
        (self.listed, self.leaves)
    }

    pub(super) fn listed_mut(&mut self) -> &mut Listed {
        &mut self.listed
    }

    /// The digest of the whole tree.
    #[must_use]
    pub fn tree1(&self) -> TreeDigest {
        match self.leaves.first() {
            Some(Leaf::Directory(digest)) => *digest,
            _ => TreeDigest::of(canonical::TREE),
        }
    }

    /// The digest of the whole tree with modification times.
    #[must_use]
    pub fn tree1t(&self) -> TimedTreeDigest {
        let mut below: HashMap<NodeId, TimedTreeDigest> = HashMap::new();
        let mut preimage = vec![];
        for id in self.directories().into_iter().rev() {
            preimage.clear();
            preimage.extend_from_slice(canonical::TIMED_TREE);
            for child in self.children(id) {
                let leaf = below.remove(child).map_or(self.leaf(*child), Leaf::TimedDirectory);
                // Every node has its line in `tree1`, so it has one here.
                let _ = canonical::timed_entry(self.node(*child), leaf, &mut preimage);
            }
            below.insert(id, TimedTreeDigest::of(&preimage));
        }
        below.remove(&0).unwrap_or_else(|| TimedTreeDigest::of(canonical::TIMED_TREE))
    }

    /// The digest of the hard links.
    #[must_use]
    pub fn links1(&self) -> LinksDigest {
        LinksDigest::of(&canonical::links(&self.links))
    }

    /// The digest of the filesystem; `boot` is its boot code.
    #[must_use]
    pub fn fs1(&self, boot: FileDigest) -> FsDigest {
        FsDigest::of(&self.fs1_preimage(boot))
    }

    /// The text that `fs1` hashes.
    #[must_use]
    pub fn fs1_preimage(&self, boot: FileDigest) -> Vec<u8> {
        canonical::filesystem(&canonical::Filesystem {
            kind: self.identity.kind,
            label: &self.identity.label,
            uuid: &self.identity.uuid,
            boot,
            root: self.node(0),
            subvolumes: &self.subvolumes(),
            tree: self.tree1(),
            links: self.links1(),
        })
    }

    /// The digest below or inside one node.
    #[must_use]
    pub fn leaf(&self, id: NodeId) -> Leaf {
        self.leaves[id as usize]
    }

    /// Directories from the leaves up.
    fn hash_directories(&mut self) -> Result<()> {
        let mut preimage = vec![];
        for id in self.directories().into_iter().rev() {
            preimage.clear();
            preimage.extend_from_slice(canonical::TREE);
            for child in self.children(id) {
                canonical::entry(self.node(*child), self.leaf(*child), &mut preimage).ok_or_else(
                    || {
                        Error::undetermined(format!(
                            "`{}` is a socket, which has no place in an image",
                            self.show(*child)
                        ))
                        .hint("Remove it, or stop the program that made it.")
                    },
                )?;
            }
            self.leaves[id as usize] = Leaf::Directory(TreeDigest::of(&preimage));
        }
        Ok(())
    }

    fn find_links(&mut self) {
        let mut groups: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for (id, node) in self.listed.tree.nodes.iter().enumerate() {
            if let NodeKind::File { inode, shared: true, .. } = node.kind {
                groups.entry(inode).or_default().push(self.path(id as NodeId));
            }
        }
        let mut links: Vec<_> = groups.into_values().filter(|paths| paths.len() > 1).collect();
        links.iter_mut().for_each(|paths| paths.sort_unstable());
        links.sort_unstable();
        self.links = links;
    }
}

/// The digest of a file's contents, if it need not be read.
type Known<'a> = &'a (dyn Fn(&Node) -> Result<Option<FileDigest>> + Sync);

/// The digests of all regular files, by inode.
fn hash_files(
    listed: &Listed,
    fs: &dyn Filesystem,
    limits: &Limits,
    known: Known<'_>,
) -> Result<HashMap<u64, FileDigest>> {
    let mut inodes = std::collections::HashSet::new();
    let mut todo = vec![];
    for (id, node) in listed.tree.nodes.iter().enumerate() {
        if let NodeKind::File { inode, .. } = node.kind
            && inodes.insert(inode)
        {
            todo.push((inode, id as NodeId));
        }
    }
    todo.sort_unstable();
    todo.par_iter()
        .with_max_len(1)
        .map(|(inode, id)| {
            let node = listed.node(*id);
            let digest = known(node)
                .and_then(|known| known.map_or_else(|| hash_file(fs, node, limits), Ok))
                .map_err(|e| e.context(format!("cannot read `{}`", listed.show(*id))))?;
            Ok((*inode, digest))
        })
        .collect()
}

pub(super) fn hash_file(fs: &dyn Filesystem, node: &Node, limits: &Limits) -> Result<FileDigest> {
    let NodeKind::File { size, .. } = node.kind else {
        return Err(Error::undetermined("not a regular file"));
    };
    let mut hash = Sha256::new();
    let mut len = 0u64;
    if size > 0 {
        fs.read_file(node, &mut |piece| {
            limits.check_time()?;
            len += piece.len() as u64;
            hash.update(piece);
            Ok(())
        })?;
    }
    if len != size {
        return Err(Error::undetermined(format!("its size is {size} bytes, but {len} were read")));
    }
    Ok(FileDigest::from_bytes(hash.finish()))
}

#[cfg(test)]
#[path = "hashed_tests.rs"]
pub(crate) mod tests;
