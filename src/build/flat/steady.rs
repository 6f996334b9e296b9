//! Which clusters of a disk a seal will most likely leave as they are.

use std::collections::BTreeSet;
use std::ops::Range;

use super::layout::CLUSTER;
use crate::build::chain::Chain;
use crate::error::Result;
use crate::image::slice::joined;
use crate::image::tree::{Node, NodeKind, Tree};

/// Folders in which a seal removes or changes files (the seal's steps; PARITY's seal table).
const SEALED: &[&[u8]] = &[b"etc", b"var", b"root", b"home", b"tmp", b"run", b"srv"];
/// How far below the root they are looked for.
const DEPTH: u32 = 2;
/// Bytes of a filesystem's block, or less: what a seal writes beside a file is not in the same one.
const BLOCK: u64 = 4096;

/// The numbers of clusters that hold nothing but contents of files outside of [`SEALED`] folders, in order. It is a guess:
/// whoever uses it looks afterwards which ones were written to. Of a disk that cannot be read there are none.
pub(super) fn clusters(chain: &Chain) -> Vec<u64> {
    read(chain).unwrap_or_default()
}

fn read(chain: &Chain) -> Result<Vec<u64>> {
    let disk = chain.disk()?;
    let mut found: Vec<Range<u64>> = vec![];
    for at in disk.filesystems() {
        let tree = at.filesystem.tree()?;
        let mut seen = BTreeSet::new();
        for node in left(&tree) {
            let NodeKind::File { inode, .. } = node.kind else { continue };
            if !seen.insert(inode) {
                continue;
            }
            for stretch in at.filesystem.stretches(node)?.into_iter().flatten() {
                found.extend(at.reader.on_disk(stretch.place).into_iter().flatten());
            }
        }
    }
    Ok(whole(found))
}

/// What is not in a folder that is sealed: one at the root of the filesystem, or of a subvolume there.
fn left(tree: &Tree) -> Vec<&Node> {
    let (mut found, mut todo) = (vec![], vec![(0u32, 0u32)]);
    while let Some((id, depth)) = todo.pop() {
        let Some(node) = tree.nodes.get(id as usize) else { continue };
        if depth <= DEPTH && SEALED.contains(&&*node.name) {
            continue;
        }
        if let NodeKind::Directory { children } = &node.kind {
            todo.extend(children.iter().map(|child| (*child, depth + 1)));
        }
        found.push(node);
    }
    found
}

/// The clusters that ranges cover from end to end. The rest of a file's last block belongs to it.
fn whole(mut ranges: Vec<Range<u64>>) -> Vec<u64> {
    for range in &mut ranges {
        *range = range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK);
    }
    joined(ranges)
        .into_iter()
        .flat_map(|range| range.start.div_ceil(CLUSTER)..range.end / CLUSTER)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_counts_where_files_fill_it() {
        // The last block of the first file is not full, the second begins behind it; the third is alone in its cluster.
        let ranges = vec![
            2 * CLUSTER + 8192..3 * CLUSTER,
            0..CLUSTER + 100,
            CLUSTER + 4096..2 * CLUSTER + 8192,
            5 * CLUSTER..5 * CLUSTER + 4096,
        ];
        assert_eq!(whole(ranges), [0, 1, 2]);
    }
}
