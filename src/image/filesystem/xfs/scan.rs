//! First pass: all inodes in use in the order of the disk, with their attributes and targets.

use std::collections::HashMap;

use super::attribute::{Pairs, Reader};
use super::content;
use super::fault::{damaged, fixed_limit, limit};
use super::group::{self, Chunk};
use super::inode::{self, Fork, Inode, Type};
use super::volume::{Budget, Volume};
use crate::error::Result;
use crate::image::Limits;
use crate::image::limits::Limit;

/// Largest read of inodes in bytes.
const STRETCH: u64 = 1 << 20;
/// A gap of unused inodes above this many bytes is skipped, not read.
const GAP: u64 = 64 << 10;
/// Most bytes of attributes of one filesystem.
pub(super) const XATTRS: usize = 1 << 30;

/// An inode that may have a name.
pub(super) struct Used {
    /// Without its attributes, and without extents where it is no directory.
    pub(super) inode: Inode,
    pub(super) xattrs: Pairs,
    /// Of a symbolic link.
    pub(super) target: Vec<u8>,
}

/// All used inodes by ascending number.
pub(super) struct Inodes {
    used: Vec<Used>,
}

impl Inodes {
    /// The index of inode `number`, if it is in use.
    pub(super) fn find(&self, number: u64) -> Option<usize> {
        self.used.binary_search_by_key(&number, |u| u.inode.number).ok()
    }

    pub(super) fn all(&self) -> &[Used] {
        &self.used
    }
}

/// Reads all used inodes.
///
/// # Errors
/// Damage, an inode's unread feature, or a limit.
pub(super) fn scan(volume: &Volume, limits: &Limits, budget: &mut Budget) -> Result<Inodes> {
    let mut scan = Scan {
        reader: Reader { volume, limits },
        used: Vec::new(),
        elsewhere: Vec::new(),
        xattrs: 0,
        contents: 0,
        buffer: Vec::new(),
    };
    for ag in 0..volume.sb.ag_count {
        let mut stretch = Stretch::default();
        group::chunks(volume, ag, budget, &mut |chunk| scan.chunk(ag, chunk, &mut stretch))?;
        scan.stretch(ag, &mut stretch)?;
    }
    scan.elsewhere(budget)?;
    Ok(Inodes { used: scan.used })
}

/// Chunks of one group that are read together.
#[derive(Default)]
struct Stretch {
    chunks: Vec<Chunk>,
}

struct Scan<'a> {
    reader: Reader<'a>,
    used: Vec<Used>,
    /// Inodes whose attributes or targets stand in blocks: index, and the fork of attributes.
    elsewhere: Vec<(usize, Fork)>,
    /// Bytes of attributes so far.
    xattrs: usize,
    /// Bytes of files so far, holes included.
    contents: u64,
    buffer: Vec<u8>,
}

impl Scan<'_> {
    /// Puts `chunk` into the stretch, which is read first where it is too far away.
    fn chunk(&mut self, ag: u32, chunk: Chunk, stretch: &mut Stretch) -> Result<()> {
        if chunk.used == 0 {
            return Ok(());
        }
        let size = u64::from(self.reader.volume.sb.inode_size);
        if let (Some(first), Some(last)) = (stretch.chunks.first(), stretch.chunks.last()) {
            let gap = u64::from(chunk.first - last.first) - group::CHUNK;
            let length = u64::from(chunk.first - first.first) + group::CHUNK;
            if gap * size > GAP || length * size > STRETCH {
                self.stretch(ag, stretch)?;
            }
        }
        stretch.chunks.push(chunk);
        Ok(())
    }

    /// Reads the inodes of a stretch, from the first to the last one in use.
    fn stretch(&mut self, ag: u32, stretch: &mut Stretch) -> Result<()> {
        let volume = self.reader.volume;
        let sb = &volume.sb;
        let chunks = std::mem::take(&mut stretch.chunks);
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Ok(()) };
        let size = usize::from(sb.inode_size);
        let start = u64::from(first.first) + u64::from(first.used.trailing_zeros());
        let end = u64::from(last.first) + group::CHUNK - u64::from(last.used.leading_zeros());
        let mut buffer = std::mem::take(&mut self.buffer);
        // At most 1 MiB and a chunk.
        buffer.resize((end - start) as usize * size, 0);
        volume.read(&mut buffer, volume.at(ag, 0) + start * size as u64)?;
        let base = u64::from(ag) << (sb.ag_log + sb.inodes_per_block_log);
        for chunk in &chunks {
            for i in (0..group::CHUNK).filter(|i| chunk.used >> i & 1 == 1) {
                let number = u64::from(chunk.first) + i;
                let at = (number - start) as usize * size;
                self.inode(base | number, &buffer[at..at + size])?;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn inode(&mut self, number: u64, raw: &[u8]) -> Result<()> {
        let volume = self.reader.volume;
        let limits = self.reader.limits;
        let Some(mut inode) = inode::parse(&volume.sb, number, raw)? else { return Ok(()) };
        // Bitmaps and quotas: no names lead there. Without links: removed while it was open.
        if volume.sb.internal.contains(&number) || inode.links == 0 {
            return Ok(());
        }
        if self.used.len() as u64 >= limits.entries {
            return Err(limit(Limit::Entries, "files", limits.entries));
        }
        if inode.kind == Type::File {
            self.contents = self.contents.saturating_add(inode.size);
            if self.contents > limits.contents {
                return Err(limit(
                    Limit::Contents,
                    "bytes in its files, holes included",
                    limits.contents,
                ));
            }
            inode.data = Fork::Absent;
        }
        let xattrs = match &inode.attributes {
            Fork::Local(list) => self.reader.in_inode(number, list)?,
            _ => Pairs::new(),
        };
        self.count(&xattrs)?;
        let attributes = match std::mem::replace(&mut inode.attributes, Fork::Absent) {
            fork @ (Fork::Extents(_) | Fork::Tree { .. }) => fork,
            _ => Fork::Absent,
        };
        if attributes != Fork::Absent || inode.kind == Type::Symlink {
            self.elsewhere.push((self.used.len(), attributes));
        }
        self.used.push(Used { inode, xattrs, target: Vec::new() });
        Ok(())
    }

    /// What stands in blocks, inode by inode: the kernel puts it near its inode.
    fn elsewhere(&mut self, budget: &mut Budget) -> Result<()> {
        let volume = self.reader.volume;
        for (i, attributes) in std::mem::take(&mut self.elsewhere) {
            let inode = &self.used[i].inode;
            let mut xattrs = None;
            if !is_empty(&attributes) {
                xattrs = Some(self.reader.in_blocks(inode.number, &attributes, budget)?);
            }
            let used = &mut self.used[i];
            if used.inode.kind == Type::Symlink {
                used.target = content::target(volume, &used.inode, budget)?;
                used.inode.data = Fork::Absent;
            }
            if let Some(xattrs) = xattrs {
                self.count(&xattrs)?;
                self.used[i].xattrs = xattrs;
            }
        }
        Ok(())
    }

    fn count(&mut self, pairs: &Pairs) -> Result<()> {
        self.xattrs += pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        if self.xattrs > XATTRS {
            return Err(fixed_limit("bytes of extended attributes", XATTRS));
        }
        Ok(())
    }
}

/// Whether a fork of attributes holds nothing: all of them were removed, or the first one was not
/// yet written when the system stopped.
fn is_empty(fork: &Fork) -> bool {
    matches!(fork, Fork::Absent) || matches!(fork, Fork::Extents(records) if records.is_empty())
}

/// How many names each inode got, to compare with its link count.
#[derive(Default)]
pub(super) struct Names(HashMap<u64, u32>);

impl Names {
    /// Counts a name of `inode`.
    ///
    /// # Errors
    /// More names than links.
    pub(super) fn add(&mut self, inode: &Inode) -> Result<()> {
        let names = self.0.entry(inode.number).or_default();
        *names += 1;
        if *names > inode.links {
            let why = format_args!("it has more names than its link count of {}", inode.links);
            return Err(damaged(inode::name(inode.number), why));
        }
        Ok(())
    }

    /// Whether `inode` got more than one name.
    pub(super) fn shared(&self, inode: u64) -> bool {
        self.0.get(&inode).is_some_and(|&names| names > 1)
    }
}
