//! One line a path, from the reader under test and from the kernel's mount, to compare.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::digest::{FileDigest, Sha256};
use crate::image::Limits;
use crate::image::directory::Directory;
use crate::image::tree::{Filesystem, Node, NodeKind, Tree};

/// Path to what stands there.
pub(super) type Listing = BTreeMap<String, String>;

/// All that a filesystem says.
pub(super) fn list(filesystem: &dyn Filesystem) -> Listing {
    let tree = filesystem.tree().unwrap();
    let mut paths = vec![(0u32, String::new())];
    let mut at = 0;
    while let Some((id, path)) = paths.get(at).cloned() {
        if let NodeKind::Directory { children } = &tree.nodes[id as usize].kind {
            for child in children {
                let name = tree.nodes[*child as usize].name.escape_ascii();
                paths.push((*child, format!("{path}/{name}")));
            }
        }
        at += 1;
    }
    assert_eq!(paths.len(), tree.nodes.len());
    let mut firsts: HashMap<u64, &str> = HashMap::new();
    for (id, path) in &paths {
        if let NodeKind::File { inode, .. } = tree.nodes[*id as usize].kind {
            let first = firsts.entry(inode).or_insert(path);
            *first = (*first).min(path);
        }
    }
    paths.iter().map(|(id, path)| (path.clone(), line(filesystem, &tree, *id, &firsts))).collect()
}

fn line(fs: &dyn Filesystem, tree: &Tree, id: u32, firsts: &HashMap<u64, &str>) -> String {
    let node = &tree.nodes[id as usize];
    let what = match &node.kind {
        NodeKind::File { size, inode, shared } => {
            format!("file {size} {} of {} {shared}", contents(fs, node), firsts[inode])
        }
        NodeKind::Directory { .. } => "directory".into(),
        other => format!("{other:?}"),
    };
    format!(
        "{what} {:04o} {}:{} @{} {:?} {} {}",
        node.mode, node.uid, node.gid, node.mtime, node.xattrs, node.immutable, node.append_only
    )
}

fn contents(fs: &dyn Filesystem, node: &Node) -> String {
    let mut hash = Sha256::new();
    fs.read_file(node, &mut |piece| {
        assert!(!piece.is_empty() && piece.len() <= 1 << 20);
        hash.update(piece);
        Ok(())
    })
    .unwrap();
    FileDigest::from_bytes(hash.finish()).to_string()
}

/// All that the kernel says of the filesystem mounted at `root`.
pub(super) fn kernel(root: &Path) -> Listing {
    list(&Directory::open(root, &Limits::default()).unwrap())
}

/// Fails with the first differences.
pub(super) fn assert_equal(read: &Listing, kernel: &Listing) {
    let mut differences = Vec::new();
    for path in read.keys().chain(kernel.keys()) {
        if read.get(path) != kernel.get(path) {
            let [read, kernel] = [read, kernel].map(|l| l.get(path).map(|line| cut(line)));
            differences.push(format!("{path}\n  read   {read:?}\n  kernel {kernel:?}"));
        }
    }
    differences.dedup();
    let count = differences.len();
    differences.truncate(5);
    assert!(count == 0, "{count} differences\n{}", differences.join("\n"));
    assert!(read.len() > 1, "nothing was compared");
}

fn cut(line: &str) -> &str {
    line.get(..600).unwrap_or(line)
}
