//! The device under its chunks: tree blocks and contents by logical address, each checked, and read
//! from the second copy if the first one is damaged, as the kernel does.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::chunk::Chunks;
use super::fault::damaged;
use super::key::{self, Key, is_subvolume, kind};
use super::node::{self, Node};
use super::superblock::{Root, Superblock};
use super::walk::Cursor;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::cache::Cache;

/// Bytes of tree blocks that are kept.
const KEPT: usize = 8 << 20;

/// A filesystem's device with its superblock and its chunks.
pub(super) struct Volume {
    reader: Arc<dyn ReadAt>,
    pub(super) sb: Superblock,
    chunks: Chunks,
    nodes: Cache<u64, Node>,
    /// How often a second copy had to be read.
    second: AtomicU64,
}

/// What a block must be, said by whoever refers to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) address: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
    /// The tree that is walked.
    pub(super) owner: u64,
    /// Key of its first entry; a root has none to expect.
    pub(super) first: Option<Key>,
}

impl From<Root> for Expected {
    fn from(root: Root) -> Self {
        let Root { owner, address, level, generation } = root;
        Expected { address, level, generation, owner, first: None }
    }
}

impl Volume {
    /// Reads all chunks.
    ///
    /// # Errors
    /// Damage, a feature that is not read here, or the reader's.
    pub(super) fn open(reader: Arc<dyn ReadAt>, sb: Superblock) -> Result<Self> {
        let bootstrap = Chunks::bootstrap(&sb.system_chunks, sb.sector, &sb.device)?;
        let nodes = Cache::new(KEPT / sb.node as usize);
        let mut volume = Volume { reader, sb, chunks: bootstrap, nodes, second: AtomicU64::new(0) };
        let mut chunks = Chunks::default();
        let first = Key::new(key::CHUNK_OBJECT, kind::CHUNK, 0);
        let mut cursor = Cursor::seek(&volume, volume.sb.chunk_tree, first)?;
        while let Some((key, item)) = cursor.item()? {
            if (key.object, key.kind) != (key::CHUNK_OBJECT, kind::CHUNK) {
                break;
            }
            chunks.add(key, item, volume.sb.sector, &volume.sb.device)?;
            cursor.advance()?;
        }
        drop(cursor);
        volume.chunks = chunks;
        Ok(volume)
    }

    /// How many tree blocks and sectors were read from their second copy.
    pub(super) fn repairs(&self) -> u64 {
        self.second.load(Ordering::Relaxed)
    }

    /// A tree block, kept for the next one who asks.
    pub(super) fn node(&self, expected: &Expected) -> Result<Arc<Node>> {
        let node = self.nodes.get(expected.address, || self.load(expected).map(Arc::new))?;
        check(&node, expected)?;
        Ok(node)
    }

    /// A tree block that nobody asks for again.
    pub(super) fn node_once(&self, expected: &Expected) -> Result<Arc<Node>> {
        self.load(expected).map(Arc::new)
    }

    fn load(&self, expected: &Expected) -> Result<Node> {
        let place = self.chunks.find(expected.address)?;
        if place.length < u64::from(self.sb.node) {
            return Err(node::fault(expected.address, &"it reaches beyond its chunk"));
        }
        let mut first = None;
        for at in place.copies() {
            let mut bytes = vec![0; self.sb.node as usize];
            self.reader.read_at(&mut bytes, at)?;
            let node = Node::parse(bytes, expected.address, &self.sb);
            match node.and_then(|node| check(&node, expected).map(|()| node)) {
                Ok(node) => {
                    self.second.fetch_add(u64::from(first.is_some()), Ordering::Relaxed);
                    return Ok(node);
                }
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| node::fault(expected.address, &"it has no copy")))
    }

    /// Where `length` bytes from the logical address `address` on are; `None` where they have a second
    /// copy.
    ///
    /// # Errors
    /// Damage.
    pub(super) fn places(&self, address: u64, length: u64) -> Result<Option<Vec<Range<u64>>>> {
        let (mut done, mut places) = (0, vec![]);
        while done < length {
            // The extent was seen to end somewhere.
            let place = self.chunks.find(address + done)?;
            if place.second.is_some() || place.length == 0 {
                return Ok(None);
            }
            let here = place.length.min(length - done);
            places.push(place.first..place.first + here);
            done += here;
        }
        Ok(Some(places))
    }

    /// Fills `buf` with contents from the logical address `address` on. `sums` are the checksums of
    /// its sectors, if it has any; `buf` is a whole number of sectors then.
    ///
    /// # Errors
    /// Damage, or the reader's.
    pub(super) fn contents(&self, buf: &mut [u8], address: u64, sums: Option<&[u8]>) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = address
                .checked_add(done as u64)
                .ok_or_else(|| damaged(format_args!("address {address}"), "it ends nowhere"))?;
            let place = self.chunks.find(from)?;
            let length = usize::try_from(place.length).map_or(rest.len(), |l| l.min(rest.len()));
            self.reader.read_at(&mut rest[..length], place.first)?;
            done += length;
        }
        let Some(sums) = sums else { return Ok(()) };
        let (sector, sum) = (self.sb.sector as usize, self.sb.checksum.size());
        let sectors = buf.chunks_mut(sector).zip(sums.chunks(sum));
        for (from, (bytes, sum)) in (address..).step_by(sector).zip(sectors) {
            if !self.sb.checksum.holds(sum, bytes) {
                self.second_copy(from, bytes, sum)?;
            }
        }
        Ok(())
    }

    fn second_copy(&self, address: u64, bytes: &mut [u8], sum: &[u8]) -> Result<()> {
        if let Some(second) = self.chunks.find(address)?.second {
            self.reader.read_at(bytes, second)?;
            if self.sb.checksum.holds(sum, bytes) {
                self.second.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(damaged(
            format_args!("the contents at address {address}"),
            "their checksum does not hold",
        ))
    }
}

/// Whether a block is what was expected where it was found.
fn check(node: &Node, expected: &Expected) -> Result<()> {
    let bad = |why: &dyn std::fmt::Display| Err(node::fault(node.address, why));
    if node.level != expected.level {
        return bad(&format_args!("its level is {}, not {}", node.level, expected.level));
    }
    if node.generation != expected.generation {
        let (is, should) = (node.generation, expected.generation);
        return bad(&format_args!("its generation is {is}, not {should}"));
    }
    // Snapshots share blocks with the subvolume that they were made of.
    let shared = is_subvolume(expected.owner) && is_subvolume(node.owner);
    if node.owner != expected.owner && !shared {
        return bad(&format_args!("it belongs to tree {}, not {}", node.owner, expected.owner));
    }
    if let Some(first) = expected.first
        && (node.count == 0 || node.key(0)? != first)
    {
        return bad(&format_args!("it does not start with key {first}"));
    }
    Ok(())
}
