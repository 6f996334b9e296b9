//! The digests of a disk before a guest wrote to it. Afterwards only what it wrote to is read again.

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::Chunks;
use super::content::{Content, Hashing};
use super::drift::changed::Changed;
use super::hashed::Hashed;
use crate::digest::{BytesDigest, FileDigest};
use crate::error::Result;
use crate::image::disk::{Disk, Holder};
use crate::image::tree::{Filesystem, Node, NodeKind};
use crate::image::{Limits, ReadAt};
use crate::parity::canonical::Leaf;

/// What a disk held.
#[derive(Debug)]
pub struct Before {
    chunks: Chunks,
    /// The files of each filesystem, by inode.
    files: HashMap<Holder, HashMap<u64, Was>>,
}

/// A file's contents.
#[derive(Debug)]
struct Was {
    size: u64,
    places: Vec<Place>,
    digest: FileDigest,
}

/// Bytes of a file that were adjacent in its filesystem.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The first byte in the file.
    start: u64,
    /// Where they stood on the disk.
    on_disk: Vec<Range<u64>>,
}

impl Before {
    /// Reads the whole disk, whose container has to know its places ([`crate::image::slice::Whole`]).
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(disk: &Disk) -> Result<Self> {
        let chunks = Chunks::read(&*disk.container.reader)?;
        let mut files = HashMap::new();
        for at in disk.filesystems() {
            let (reader, fs) = (&**at.reader, &**at.filesystem);
            let tree = Hashed::read(fs, &disk.limits)?;
            let mut known = HashMap::new();
            for (id, node) in (0..).zip(&tree.tree.nodes) {
                let (NodeKind::File { inode, size, .. }, Leaf::File(digest)) =
                    (&node.kind, tree.leaf(id))
                else {
                    continue;
                };
                if !known.contains_key(inode)
                    && let Some(places) = places(reader, fs, node)?
                {
                    known.insert(*inode, Was { size: *size, places, digest });
                }
            }
            files.insert(at.holder, known);
        }
        Ok(Before { chunks, files })
    }

    /// The disk after a guest wrote to it, in these ranges alone.
    #[must_use]
    pub fn after(self, changed: Vec<Range<u64>>) -> After {
        After { before: self, changed: Changed::of(changed) }
    }
}

/// What was known of a disk before, and where it may be another now.
#[derive(Debug)]
pub struct After {
    before: Before,
    changed: Changed,
}

impl After {
    /// `bytes1` of the disk as it is now.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn bytes(&self, now: &dyn ReadAt) -> Result<BytesDigest> {
        Ok(self.before.chunks.read_again(now, self.changed.ranges())?.digest())
    }

    /// As [`Content::read`], of the disk as it is now. All metadata is read, and the contents of the files whose size,
    /// whose places or whose blocks are others. Its container has to know its places.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn content(&self, now: &Disk) -> Result<Content> {
        Content::read_by(now, self)
    }
}

impl Hashing for After {
    fn tree(
        &self,
        holder: &Holder,
        reader: &dyn ReadAt,
        fs: &dyn Filesystem,
        limits: &Limits,
    ) -> Result<Hashed> {
        let Some(files) = self.before.files.get(holder) else { return Hashed::read(fs, limits) };
        let known = |node: &Node| {
            let NodeKind::File { inode, size, .. } = &node.kind else { return Ok(None) };
            let Some(was) = files.get(inode).filter(|was| was.size == *size) else {
                return Ok(None);
            };
            let written =
                |place: &Place| place.on_disk.iter().any(|range| self.changed.touches(range));
            let same = !was.places.iter().any(written)
                && places(reader, fs, node)?.is_some_and(|places| places == was.places);
            Ok(same.then_some(was.digest))
        };
        Hashed::read_unless(fs, limits, &known)
    }

    fn bytes(&self, _: &Holder, reader: &dyn ReadAt) -> Result<BytesDigest> {
        Ok(Chunks::read(reader)?.digest())
    }
}

/// Where a file stands; `None` if its contents do not follow from that.
fn places(reader: &dyn ReadAt, fs: &dyn Filesystem, node: &Node) -> Result<Option<Vec<Place>>> {
    let Some(stretches) = fs.stretches(node)? else { return Ok(None) };
    let place = |stretch: crate::image::tree::Stretch| {
        let inside = stretch.place.end <= reader.size();
        let on_disk = inside.then(|| reader.on_disk(stretch.place)).flatten()?;
        Some(Place { start: stretch.start, on_disk })
    };
    Ok(stretches.into_iter().map(place).collect())
}
