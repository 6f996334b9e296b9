//! One side of a comparison as a system: which tree is mounted where, whose files these are, what is in them.

use std::collections::HashMap;
use std::path::Path;

use super::os_path;
use super::view::{Origin, Seen, View};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::image::disk::Holder;
use crate::image::tree::{Node, NodeId, NodeKind};
use crate::parity::canonical::Leaf;
use crate::parity::content::{Content, Held};
use crate::parity::difference::Place;
use crate::parity::hashed::Hashed;
use crate::parity::layout;
use crate::parity::lookup::Files;
use crate::parity::packages::Packages;
use crate::parity::packages::files::Owners;
use crate::parity::spelling::spell;

/// A file tree and its place in the system.
#[derive(Debug)]
struct Mounted<'a> {
    holder: Option<Holder>,
    tree: &'a Hashed,
    /// Where it is mounted, without a leading `/`; `None` if nothing says that.
    at: Option<Vec<u8>>,
    /// The path of the system's root in it: a subvolume, or nothing.
    start: Vec<u8>,
}

/// One side.
#[derive(Debug)]
pub(in crate::parity) struct Side<'a> {
    trees: Vec<Mounted<'a>>,
    by_holder: HashMap<Option<Holder>, usize>,
    root: Option<usize>,
    origin: Origin<'a>,
    has_digests: bool,
    /// What is installed, if that can be told.
    pub(in crate::parity) packages: Option<Packages>,
    /// Who owns which file; nothing where contents cannot be read.
    pub(in crate::parity) owners: Owners,
}

/// A node of a side, with the filesystem that it is in.
#[derive(Debug, Clone, Copy)]
pub(in crate::parity) struct Found<'a> {
    tree: usize,
    id: NodeId,
    pub(in crate::parity) node: &'a Node,
}

impl<'a> Side<'a> {
    /// Looks at what was read, and reads the package manager's database.
    ///
    /// # Errors
    /// Damage.
    pub(in crate::parity) fn of(view: View<'a>) -> Result<Self> {
        let mut trees = trees(view.seen);
        let root = find_root(&trees);
        if let Some(root) = root {
            trees[root].at = Some(vec![]);
            trees[root].start = trees[root].tree.path(trees[root].tree.start);
        }
        let by_holder =
            trees.iter().enumerate().map(|(i, tree)| (tree.holder.clone(), i)).collect();
        let mut side = Side {
            trees,
            by_holder,
            root,
            origin: view.origin,
            has_digests: view.has_digests,
            packages: None,
            owners: Owners::default(),
        };
        side.packages = match (view.origin, view.seen) {
            (Origin::Manifest(packages), _) => packages.cloned(),
            (_, Seen::Packages(packages)) => Some(packages.clone()),
            // Without a database there is nothing to tell; that is no failure of a comparison.
            _ => side.files().and_then(|files| Packages::read(files).ok()),
        };
        if let Some(files) = side.files() {
            side.owners = Owners::read(files)?;
        }
        Ok(side)
    }

    /// The files of the root filesystem, if contents can be read.
    pub(in crate::parity) fn files(&self) -> Option<Files<'_>> {
        let at = &self.trees[self.root?];
        let fs = self.origin.filesystem(at.holder.as_ref())?;
        // A root in a subvolume has its paths elsewhere in the filesystem.
        at.start.is_empty().then_some(Files { fs, tree: at.tree })
    }

    /// The path in the system of a path in a filesystem; `None` if that is mounted nowhere known.
    pub(in crate::parity) fn in_system(
        &self,
        holder: Option<&Holder>,
        path: &[u8],
    ) -> Option<Vec<u8>> {
        let at = &self.trees[*self.by_holder.get(&holder.cloned())?];
        let below = if at.start.is_empty() {
            path
        } else {
            path.strip_prefix(at.start.as_slice())?.strip_prefix(b"/")?
        };
        match at.at.as_deref()? {
            [] => Some(below.to_vec()),
            folder => Some([folder, b"/", below].concat()),
        }
    }

    /// The node at a place.
    pub(in crate::parity) fn find(&self, place: &Place) -> Option<Found<'_>> {
        let Place::Path(holder, path) = place else { return None };
        let index = *self.by_holder.get(holder)?;
        let tree = self.trees[index].tree;
        let mut id = 0;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            id = tree.child(id, name)?;
        }
        Some(Found { tree: index, id, node: tree.node(id) })
    }

    /// The node at a path in the root filesystem, links followed.
    pub(in crate::parity) fn in_root(&self, path: &[u8]) -> Option<Found<'_>> {
        let index = self.root?;
        let tree = self.trees[index].tree;
        let id = tree.find(path)?;
        Some(Found { tree: index, id, node: tree.node(id) })
    }

    /// The node at a path in the root filesystem, no link followed.
    pub(in crate::parity) fn at(&self, path: &[u8]) -> Option<Found<'_>> {
        let index = self.root?;
        let tree = self.trees[index].tree;
        let mut id = tree.start;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            id = tree.child(id, name)?;
        }
        Some(Found { tree: index, id, node: tree.node(id) })
    }

    /// The tree of the root filesystem, and where the system starts in it.
    pub(in crate::parity) fn root_tree(&self) -> Option<(&'a Hashed, NodeId)> {
        let tree = self.trees[self.root?].tree;
        Some((tree, tree.start))
    }

    /// The names in a folder of the root filesystem.
    pub(in crate::parity) fn list(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let Some(index) = self.root else { return vec![] };
        let tree = self.trees[index].tree;
        let Some(id) = tree.find(path) else { return vec![] };
        tree.children(id).iter().map(|id| tree.node(*id).name.clone()).collect()
    }

    /// The digest of a file's contents.
    pub(in crate::parity) fn digest(&self, found: Found<'_>) -> Leaf {
        self.trees[found.tree].tree.leaf(found.id)
    }

    /// SHA-256 of a regular file; `None` if it cannot be told here.
    ///
    /// # Errors
    /// Damage.
    pub(in crate::parity) fn sha256(&self, found: Found<'_>) -> Result<Option<[u8; 32]>> {
        if self.has_digests {
            return Ok(match self.digest(found) {
                Leaf::File(digest) => Some(*digest.as_bytes()),
                _ => None,
            });
        }
        let mut hash = Sha256::new();
        let read = self.read(found, &mut |piece| {
            hash.update(piece);
            Ok(())
        })?;
        Ok(read.then(|| hash.finish()))
    }

    /// Passes the contents of a regular file on; `false` if they cannot be read here.
    ///
    /// # Errors
    /// Damage, or the sink's own error.
    pub(in crate::parity) fn read(
        &self,
        found: Found<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let holder = self.trees[found.tree].holder.as_ref();
        let Some(fs) = self.origin.filesystem(holder) else { return Ok(false) };
        if let NodeKind::File { size, .. } = found.node.kind
            && size > 0
        {
            fs.read_file(found.node, sink)?;
        }
        Ok(true)
    }

    /// The contents of a regular file of at most `limit` bytes; `None` if it is longer or none.
    ///
    /// # Errors
    /// Damage.
    pub(in crate::parity) fn contents(
        &self,
        found: Found<'_>,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        let NodeKind::File { size, .. } = found.node.kind else { return Ok(None) };
        if size > limit {
            return Ok(None);
        }
        let mut bytes = vec![];
        let whole = self.read(found, &mut |piece| {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(Error::undetermined("a file is longer than its size says"));
            }
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(whole.then_some(bytes))
    }

    /// The path, from the root, that the link `found` leads to, one step far; `path` is its own.
    pub(in crate::parity) fn target(&self, found: Found<'_>, path: &[u8]) -> Option<Vec<u8>> {
        let NodeKind::Symlink { target } = &found.node.kind else { return None };
        let mut parts: Vec<&[u8]> = vec![];
        let folder = path.rsplitn(2, |b| *b == b'/').nth(1).unwrap_or_default();
        let whole = if target.starts_with(b"/") {
            target.clone()
        } else {
            [folder, b"/", target.as_slice()].concat()
        };
        for part in whole.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        Some(parts.join(&b'/'))
    }
}

fn trees(seen: Seen<'_>) -> Vec<Mounted<'_>> {
    match seen {
        Seen::Tree(tree) => {
            vec![Mounted { holder: None, tree, at: Some(vec![]), start: vec![] }]
        }
        Seen::Content(content) => mounted(content),
        _ => vec![],
    }
}

/// Digest and path of each private SSH host key in the root filesystem (sshd(8), FILES).
pub(in crate::parity) fn host_keys(seen: Seen<'_>) -> Vec<String> {
    let trees = trees(seen);
    let Some(root) = find_root(&trees) else { return vec![] };
    let tree = trees[root].tree;
    let Some(folder) = tree.find(b"/etc/ssh") else { return vec![] };
    let mut keys = vec![];
    for id in tree.children(folder) {
        let name = &tree.node(*id).name;
        if name.starts_with(b"ssh_host_")
            && name.ends_with(b"_key")
            && let Leaf::File(digest) = tree.leaf(*id)
        {
            keys.push(format!("{digest} /etc/ssh/{}", spell(name)));
        }
    }
    keys
}

fn mounted(content: &Content) -> Vec<Mounted<'_>> {
    let mut trees = vec![];
    for (part, held) in content.disk.partitions.iter().zip(&content.held) {
        if let Held::Filesystem { tree, .. } = held {
            let holder = Holder::Partition(part.number);
            let esp = layout::is_esp(&part.type_id).then(|| b"boot/efi".to_vec());
            trees.push(Mounted {
                holder: Some(holder),
                tree,
                at: esp.or_else(|| boot(tree)),
                start: vec![],
            });
        }
    }
    for group in &content.groups {
        for (volume, held) in group.line.volumes.iter().zip(&group.held) {
            if let Held::Filesystem { tree, .. } = held {
                let (group, volume) = (group.line.name.clone(), volume.name.clone());
                let holder = Holder::Volume { group, volume };
                trees.push(Mounted { holder: Some(holder), tree, at: boot(tree), start: vec![] });
            }
        }
    }
    trees
}

/// A filesystem with a kernel or a boot loader in its root is mounted at `/boot`.
fn boot(tree: &Hashed) -> Option<Vec<u8>> {
    let has = |name: &[u8]| tree.child(0, name).is_some();
    let kernel = tree.children(0).iter().any(|id| {
        Path::new(os_path(&tree.node(*id).name)).to_string_lossy().starts_with("vmlinuz-")
    });
    (!tree.is_system() && (kernel || has(b"grub") || has(b"grub2"))).then(|| b"boot".to_vec())
}

/// The only tree that could be the root, or of several the only one that is a system.
fn find_root(trees: &[Mounted<'_>]) -> Option<usize> {
    let mut found: Vec<usize> =
        (0..trees.len()).filter(|i| trees[*i].tree.identity.kind != "vfat").collect();
    if found.len() > 1 {
        found.retain(|i| trees[*i].tree.is_system());
    }
    match found[..] {
        [only] => Some(only),
        _ => None,
    }
}
