//! FAT12, FAT16 and FAT32 with long names.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03 (sections are named
//! where they are used). FAT has no owners and modes: directories are 0755 and files 0644 of 0:0,
//! without write bits where the read-only attribute is set; the hidden, system and archive
//! attributes are not read. Times are local times without a zone, taken as UTC.

mod boot;
mod directory;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use self::boot::Boot;
use self::directory::{Entry, Slots};
use self::table::Fat;
use crate::error::{Error, Result};
use crate::image::limits::Limit;
use crate::image::tree::{Filesystem, Identity, Node, NodeId, NodeKind, Tree};
use crate::image::{Limits, ReadAt};

/// Most bytes of one directory: 65,536 entries of 32 bytes (section "FAT Directory Structure").
const MAX_DIRECTORY: u64 = 65_536 * 32;
/// Most bytes of one piece of a file, as [`Filesystem::read_file`] promises.
const PIECE: u64 = 1 << 20;

/// Whether `reader` holds a FAT filesystem, by its boot sector.
///
/// # Errors
/// The reader's.
pub fn probe(reader: &dyn ReadAt) -> Result<bool> {
    boot::probe(reader)
}

/// An open FAT filesystem. Threads may share it.
pub struct Vfat {
    reader: Arc<dyn ReadAt>,
    boot: Boot,
    fat: Fat,
    identity: Identity,
    limits: Limits,
    notes: Vec<String>,
}

impl std::fmt::Debug for Vfat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfat").field("boot", &self.boot).field("identity", &self.identity).finish()
    }
}

impl Vfat {
    /// Opens the filesystem on `reader`, which must start with it.
    ///
    /// # Errors
    /// Kind `Undetermined`: damage, or the copies of the allocation table differ; or the reader's.
    pub fn open(reader: Arc<dyn ReadAt>, limits: &Limits) -> Result<Vfat> {
        let boot = Boot::read(&*reader)?;
        let fat = Fat::read(reader.clone(), &boot)?;
        let mut notes = vec![];
        if boot.dirty || fat.dirty() {
            notes.push("the vfat filesystem was not cleanly unmounted".to_owned());
        }
        let uuid = format!("{:04X}-{:04X}", boot.volume_id >> 16, boot.volume_id & 0xffff);
        let mut vfat = Vfat {
            identity: Identity { kind: "vfat", label: vec![], uuid },
            limits: *limits,
            reader,
            boot,
            fat,
            notes,
        };
        // The root directory's label wins over the boot sector's, as in blkid and in Linux.
        let root = vfat.root(&mut Used::default())?;
        vfat.identity.label = match Slots::new(&root).label() {
            Some(label) => label,
            None => vfat.boot.label.clone(),
        };
        Ok(vfat)
    }

    /// Facts about the state of the filesystem that are no difference in content, for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The root directory's bytes.
    fn root(&self, used: &mut Used) -> Result<Vec<u8>> {
        match self.boot.root {
            boot::Root::Range { start, length } => {
                let mut bytes = vec![0; length];
                self.reader.read_at(&mut bytes, start)?;
                Ok(bytes)
            }
            boot::Root::Cluster(first) => self.directory(first, "/", used),
        }
    }

    /// The bytes of a directory that starts at cluster `first`. Marks its clusters as used.
    fn directory(&self, first: u32, path: &str, used: &mut Used) -> Result<Vec<u8>> {
        let chain =
            self.chain(first, MAX_DIRECTORY.div_ceil(self.boot.cluster_size), path, used)?;
        let size = usize::try_from(self.boot.cluster_size).unwrap_or(0);
        let mut bytes = vec![0; chain.len() * size];
        for (cluster, part) in chain.iter().zip(bytes.chunks_mut(size.max(1))) {
            self.reader.read_at(part, self.boot.offset_of(*cluster))?;
        }
        Ok(bytes)
    }

    /// The clusters of a chain. Each cluster has one owner: a second use is a loop or a cross link.
    fn chain(&self, first: u32, max: u64, path: &str, used: &mut Used) -> Result<Vec<u32>> {
        let bad = |why: String| {
            Error::undetermined(format!("`{path}` of the vfat filesystem is damaged")).cause(why)
        };
        let mut chain = vec![];
        let mut next = Some(first);
        while let Some(cluster) = next {
            let following = self.fat.next(cluster).map_err(&bad)?;
            if !used.insert(cluster) {
                return Err(bad(format!(
                    "its chain comes to cluster {cluster}, which is in use already"
                )));
            }
            if chain.len() as u64 >= max {
                return Err(bad(format!("its chain has more than {max} clusters")));
            }
            next = following;
            chain.push(cluster);
        }
        Ok(chain)
    }

    /// Adds the entries of the directory `parent` and returns its subdirectories.
    fn add_children(
        &self,
        bytes: &[u8],
        parent: &Pending,
        tree: &mut Tree,
        used: &mut Used,
    ) -> Result<Vec<Pending>> {
        let mut deeper = vec![];
        let mut names = HashSet::new();
        let mut children = vec![];
        for entry in Slots::new(bytes) {
            let entry = entry.map_err(|why| {
                Error::undetermined(format!(
                    "the directory `{}` of the vfat filesystem is damaged",
                    parent.path
                ))
                .cause(why)
            })?;
            if parent.id != 0 && entry.is_dot() {
                continue;
            }
            let Entry { name, directory, read_only, first, size, mtime } = entry;
            let path = format!("{}/{name}", parent.path.trim_end_matches('/'));
            let bad = |why: String| {
                Error::undetermined(format!("`{path}` of the vfat filesystem is damaged"))
                    .cause(why)
            };
            if name == "." || name == ".." || name.contains(['/', '\0']) {
                return Err(bad("its name is not possible".to_owned()));
            }
            if !names.insert(name.to_lowercase()) {
                return Err(bad(
                    "its name differs from another one of the directory only in case".to_owned()
                ));
            }
            let id = NodeId::try_from(tree.nodes.len()).map_err(|e| bad(e.to_string()))?;
            // Here, before the memory is used; the finished tree is checked again.
            if u64::from(id) >= self.limits.entries {
                let what = "the vfat filesystem has more entries than it may";
                return Err(Limit::Entries.exceeded(what, self.limits.entries));
            }
            if path.len() > self.limits.path {
                let what = format!("the path `{path}` is too long");
                return Err(Limit::Path.exceeded(what, self.limits.path));
            }
            if parent.depth >= self.limits.depth {
                let what = format!("`{path}` lies too deep");
                return Err(Limit::Depth.exceeded(what, self.limits.depth));
            }
            let kind = if directory {
                deeper.push(Pending { id, first, path, depth: parent.depth + 1 });
                NodeKind::Directory { children: vec![] }
            } else {
                let need = u64::from(size).div_ceil(self.boot.cluster_size);
                if first != 0 || need != 0 {
                    let chain = self.chain(first, need, &path, used)?;
                    if (chain.len() as u64) < need {
                        return Err(bad(format!(
                            "{size} bytes need {need} clusters; its chain has {}",
                            chain.len()
                        )));
                    }
                }
                NodeKind::File { size: u64::from(size), inode: u64::from(first), shared: false }
            };
            children.push(id);
            tree.nodes.push(node(name.into_bytes(), directory, read_only, mtime, kind));
        }
        if let Some(Node { kind: NodeKind::Directory { children: list }, .. }) =
            tree.nodes.get_mut(parent.id as usize)
        {
            *list = children;
        }
        Ok(deeper)
    }
}

/// Which clusters have an owner, one bit each.
#[derive(Default)]
struct Used(Vec<u64>);

impl Used {
    /// Whether `cluster` had no owner until now.
    fn insert(&mut self, cluster: u32) -> bool {
        let (word, bit) = ((cluster / 64) as usize, 1 << (cluster % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let free = self.0[word] & bit == 0;
        self.0[word] |= bit;
        free
    }
}

/// A directory whose entries are still to be read.
struct Pending {
    id: NodeId,
    first: u32,
    path: String,
    depth: u32,
}

fn node(name: Vec<u8>, directory: bool, read_only: bool, mtime: i64, kind: NodeKind) -> Node {
    let mode = if directory { 0o755 } else { 0o644 };
    Node {
        name,
        mode: if read_only { mode & !0o222 } else { mode },
        uid: 0,
        gid: 0,
        mtime,
        xattrs: vec![],
        immutable: false,
        append_only: false,
        kind,
    }
}

impl Filesystem for Vfat {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tree(&self) -> Result<Tree> {
        let mut used = Used::default();
        let root = node(vec![], true, false, 0, NodeKind::Directory { children: vec![] });
        let mut tree = Tree { nodes: vec![root], ..Tree::default() };
        let top = Pending { id: 0, first: 0, path: "/".to_owned(), depth: 0 };
        let bytes = self.root(&mut used)?;
        let mut pending = self.add_children(&bytes, &top, &mut tree, &mut used)?;
        while let Some(directory) = pending.pop() {
            let bytes = self.directory(directory.first, &directory.path, &mut used)?;
            pending.extend(self.add_children(&bytes, &directory, &mut tree, &mut used)?);
        }
        Ok(tree)
    }

    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let NodeKind::File { size, inode, .. } = node.kind else { return Ok(()) };
        let bad = |why: String| {
            let name = String::from_utf8_lossy(&node.name).into_owned();
            Error::undetermined(format!("the file `{name}` of the vfat filesystem is damaged"))
                .cause(why)
        };
        let mut left = size;
        let mut cluster = u32::try_from(inode).map_err(|e| bad(e.to_string()))?;
        let mut buf = vec![];
        while left > 0 {
            // As many clusters that follow each other as fit into one piece.
            let start = cluster;
            let mut run = 1;
            let mut next = self.fat.next(cluster).map_err(&bad)?;
            while next == cluster.checked_add(1)
                && (run + 1) * self.boot.cluster_size <= PIECE
                && run * self.boot.cluster_size < left
            {
                cluster += 1;
                run += 1;
                next = self.fat.next(cluster).map_err(&bad)?;
            }
            let length = left.min(run * self.boot.cluster_size);
            buf.resize(usize::try_from(length).map_err(|e| bad(e.to_string()))?, 0);
            self.reader.read_at(&mut buf, self.boot.offset_of(start))?;
            sink(&buf)?;
            left -= length;
            match next {
                Some(following) => cluster = following,
                None if left == 0 => {}
                None => return Err(bad(format!("its chain ends {left} bytes too early"))),
            }
        }
        Ok(())
    }
}
