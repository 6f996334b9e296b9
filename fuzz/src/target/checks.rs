//! What must hold of whatever a parser says, right or wrong input.

use crate::error::{Error, Kind, Result};
use crate::image::tree::{Filesystem, Node, NodeKind};
use crate::image::{Limits, ReadAt};

/// Small limits: a claim of terabytes has to be refused, not believed.
pub(super) fn limits() -> Limits {
    Limits {
        disk_size: 1 << 38,
        entries: 10_000,
        depth: 64,
        path: 1024,
        xattrs: 256 << 10,
        file_size: 16 << 20,
        contents: 16 << 20,
        ..Limits::default()
    }
}

/// Bytes of a disk that are read; a disk can have holes of terabytes.
const MOST_BYTES: u64 = 16 << 20;
/// Ranges of data that are asked for.
const MOST_RANGES: usize = 4096;
/// The longest piece that [`Filesystem::read_file`] may hand out.
const PIECE: usize = 1 << 20;
/// A message longer than this is no message.
const MESSAGE: usize = 16 << 10;

/// An error about an image: `undetermined`, short, and without what a terminal would obey.
pub(super) fn error(e: &Error) {
    assert_eq!(e.kind(), Kind::Undetermined, "{e}");
    message(&e.to_string());
}

/// What people read: short, and without what a terminal would obey.
pub(super) fn message(text: &str) {
    assert!(text.len() < MESSAGE, "{} bytes", text.len());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

/// The guest's bytes, as far as the limit.
pub(super) fn reader(reader: &dyn ReadAt) -> Result<()> {
    let (mut at, mut left) = (0, MOST_BYTES);
    let mut buf = vec![0; 64 << 10];
    for _ in 0..MOST_RANGES {
        let Some(range) = reader.next_data(at)? else { break };
        assert!(range.start >= at && range.start < range.end && range.end <= reader.size());
        at = range.start;
        while at < range.end && left > 0 {
            let len = (range.end - at).min(left).min(buf.len() as u64);
            reader.read_at(&mut buf[..len as usize], at)?;
            at += len;
            left -= len;
        }
        at = range.end;
        if left == 0 {
            break;
        }
    }
    if let Some(last) = reader.size().checked_sub(1) {
        reader.read_at(&mut buf[..1], last)?;
    }
    assert!(reader.read_at(&mut buf[..1], reader.size()).is_err());
    assert!(reader.read_at(&mut buf[..2], u64::MAX).is_err());
    assert_eq!(reader.next_data(reader.size())?, None);
    Ok(())
}

/// The tree, all files, and what may be emptied.
pub(super) fn filesystem(fs: &dyn Filesystem) -> Result<()> {
    match fs.spent() {
        Ok(ranges) => assert!(ranges.iter().all(|range| range.start < range.end)),
        Err(e) => error(&e),
    }
    let tree = fs.tree()?;
    assert!(tree.nodes.len() as u64 <= limits().entries);
    limits().check_tree(&tree)?;
    assert!(matches!(tree.nodes[0].kind, NodeKind::Directory { .. }));
    let mut parents = vec![0u32; tree.nodes.len()];
    let mut left = MOST_BYTES;
    for node in &tree.nodes {
        match &node.kind {
            NodeKind::Directory { children } => {
                children.iter().for_each(|child| parents[*child as usize] += 1);
            }
            NodeKind::File { size, .. } if *size <= left => {
                left -= size;
                file(fs, node, *size)?;
            }
            _ => {}
        }
    }
    assert_eq!(parents.first(), Some(&0), "the root has a parent");
    assert!(parents[1..].iter().all(|count| *count == 1), "a tree is a tree");
    Ok(())
}

fn file(fs: &dyn Filesystem, node: &Node, size: u64) -> Result<()> {
    let mut read = 0;
    fs.read_file(node, &mut |piece| {
        assert!(piece.len() <= PIECE);
        read += piece.len() as u64;
        assert!(read <= size, "more bytes than the file has");
        Ok(())
    })?;
    assert_eq!(read, size, "fewer bytes than the file has");
    Ok(())
}
