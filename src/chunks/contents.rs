//! Which bytes of a disk's file are contents of files.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::image::container::{Options, qcow2};
use crate::image::disk::Disk;
use crate::image::slice::joined;
use crate::image::tree::NodeKind;

/// Ranges of the qcow2 at `path` that hold contents of regular files, in order and apart from each other. What cannot
/// be read has none: then the whole file is cut as one strand, which costs a later update a little, and no byte.
///
/// # Errors
/// The file cannot be opened.
pub(super) fn find(path: &Path) -> Result<Vec<Range<u64>>> {
    match read(path) {
        Err(e) if e.kind() == Kind::Undetermined => Ok(vec![]),
        found => found.map(joined),
    }
}

fn read(path: &Path) -> Result<Vec<Range<u64>>> {
    let options = Options::default();
    let disk = Disk::read(qcow2::placed(path, &options)?, &options.limits)?;
    let mut found = vec![];
    for at in disk.filesystems() {
        let tree = at.filesystem.tree()?;
        let mut seen = BTreeSet::new();
        for node in &tree.nodes {
            let NodeKind::File { inode, .. } = node.kind else { continue };
            if !seen.insert(inode) {
                continue;
            }
            let stretches = at.filesystem.stretches(node).map_err(unread)?;
            for stretch in stretches.into_iter().flatten() {
                found.extend(at.reader.on_disk(stretch.place).into_iter().flatten());
            }
        }
    }
    Ok(found)
}

/// A disk that another program can read is no failure of this one.
fn unread(e: Error) -> Error {
    e.with_kind(Kind::Undetermined)
}
