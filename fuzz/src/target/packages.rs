//! The databases of package managers, in a filesystem that holds nothing else.

use super::checks::{self, limits};
use crate::error::Result;
use crate::image::tree::{Filesystem, Identity, Node, NodeId, NodeKind, Tree};
use crate::parity::hashed::Hashed;
use crate::parity::lookup::Files;
use crate::parity::manifest::{Held, Manifest};
use crate::parity::packages::Packages;

/// The input is a list of names and contents, all ended by NUL; a name that ends with `@` is a
/// symbolic link.
pub fn packages(data: &[u8]) {
    let system = System::of(data);
    let tree = match Hashed::read(&system, &limits()) {
        Ok(tree) => tree,
        Err(e) => return checks::error(&e),
    };
    let packages = match Packages::read(Files { fs: &system, tree: &tree }) {
        Ok(packages) => packages,
        Err(e) => return checks::error(&e),
    };
    let preimage = packages.preimage();
    assert!(preimage.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
    let list = packages.list().to_vec();
    assert_eq!(preimage.split_inclusive(|byte| *byte == b'\n').count(), 1 + list.len());
    // The lines say all of it: whoever reads them has the same packages.
    let held = Held::Tree(Box::new(tree));
    let manifest = Manifest { notes: vec![], bytes: None, held, packages: Ok(packages) };
    let mut text = vec![];
    manifest.write(&mut text).expect("it can be written");
    let known = Manifest::read(&*text, &limits()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(known.packages.map(|packages| packages.list().to_vec()), Ok(list));
}

/// Files in memory; a file's inode number is its place in `contents`.
struct System {
    identity: Identity,
    tree: Tree,
    contents: Vec<Vec<u8>>,
}

impl System {
    fn of(data: &[u8]) -> Self {
        let identity = Identity { kind: "ext4", label: vec![], uuid: String::new() };
        let tree = Tree { nodes: vec![directory(b"")], subvolumes: vec![] };
        let mut system = System { identity, tree, contents: vec![] };
        let mut words = data.split(|byte| *byte == 0);
        while let (Some(name), Some(contents)) = (words.next(), words.next()) {
            system.add(name, contents);
        }
        system
    }

    /// Adds a file with the directories that it is in; nothing if one of the names is taken.
    fn add(&mut self, path: &[u8], contents: &[u8]) -> Option<()> {
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let last = names.next_back()?;
        let mut at = 0;
        for name in names {
            at = match self.child(at, name)? {
                Some(known) => known,
                None => self.push(at, directory(name)),
            };
        }
        let node = match last.strip_suffix(b"@") {
            Some(name) => node(name, NodeKind::Symlink { target: contents.to_vec() }),
            None => {
                let (size, inode) = (contents.len() as u64, self.contents.len() as u64);
                node(last, NodeKind::File { size, inode, shared: false })
            }
        };
        if self.child(at, &node.name)?.is_none() {
            self.push(at, node);
            self.contents.push(contents.to_vec());
        }
        Some(())
    }

    fn push(&mut self, parent: NodeId, node: Node) -> NodeId {
        let id = self.tree.nodes.len() as NodeId;
        self.tree.nodes.push(node);
        if let NodeKind::Directory { children } = &mut self.tree.nodes[parent as usize].kind {
            children.push(id);
        }
        id
    }

    /// The child of that name, if there is one; `None` if the parent is no directory.
    fn child(&self, parent: NodeId, name: &[u8]) -> Option<Option<NodeId>> {
        let NodeKind::Directory { children } = &self.tree.nodes[parent as usize].kind else {
            return None;
        };
        let same = |id: &&NodeId| self.tree.nodes[**id as usize].name == name;
        Some(children.iter().find(same).copied())
    }
}

fn directory(name: &[u8]) -> Node {
    node(name, NodeKind::Directory { children: vec![] })
}

fn node(name: &[u8], kind: NodeKind) -> Node {
    Node {
        name: name.to_vec(),
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

impl Filesystem for System {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tree(&self) -> Result<Tree> {
        Ok(self.tree.clone())
    }

    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match node.kind {
            NodeKind::File { inode, .. } => sink(&self.contents[inode as usize]),
            _ => Ok(()),
        }
    }
}
