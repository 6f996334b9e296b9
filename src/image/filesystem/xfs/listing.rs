//! The entries of all directories, their blocks read in the order of the disk.

use super::directory::{self, Entry};
use super::extent::{self, Extent};
use super::fault::{damaged, limit};
use super::inode::{self, Fork, Inode, Type};
use super::scan::Inodes;
use super::volume::{Budget, Volume};
use crate::error::Result;
use crate::image::Limits;
use crate::image::limits::Limit;

/// Largest read of directory blocks in bytes.
const CHUNK: u64 = 1 << 20;
/// Most extents of one directory.
const EXTENTS: usize = 1 << 22;

/// Reads the entries of all directories of `inodes`, by index of the inode.
///
/// # Errors
/// Damage, or a limit.
pub(super) fn read(
    volume: &Volume,
    inodes: &Inodes,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Vec<Vec<Entry>>> {
    let mut listing = Listing {
        volume,
        inodes,
        by_inode: inodes.all().iter().map(|_| Vec::new()).collect(),
        // `.` and `..` count too.
        most: limits.entries.saturating_mul(3),
        count: 0,
    };
    let mut stretches = Vec::new();
    for (owner, used) in inodes.all().iter().enumerate() {
        let inode = &used.inode;
        match &inode.data {
            _ if inode.kind != Type::Directory => {}
            Fork::Local(list) => {
                let entries = directory::short(&volume.sb, inode.number, list)?;
                listing.add(owner, entries)?;
            }
            fork => {
                let extents = extent::all(volume, inode.number, fork, budget, EXTENTS)?;
                stretches.extend(of_directory(volume, inode, owner, &extents, budget)?);
            }
        }
    }
    stretches.sort_unstable_by_key(|s| s.parts.first().map(|part| part.0));
    for stretch in &stretches {
        listing.stretch(stretch)?;
    }
    Ok(listing.by_inode)
}

/// Directory blocks that follow each other in a directory and on the disk, or one that is in several
/// places.
struct Stretch {
    /// Byte offsets and bytes; one part where there are several directory blocks.
    parts: Vec<(u64, u64)>,
    /// Number of the first directory block.
    logical: u64,
    /// Index of the directory's inode.
    owner: usize,
    /// All of the directory is one block.
    only: bool,
}

/// Where the blocks of a directory are.
fn of_directory(
    volume: &Volume,
    inode: &Inode,
    owner: usize,
    extents: &[Extent],
    budget: &mut Budget,
) -> Result<Vec<Stretch>> {
    let bad = |why: &str| damaged(format_args!("directory {}", inode::name(inode.number)), why);
    let sb = &volume.sb;
    // Blocks in a directory block.
    let unit = 1u64 << sb.directory_log;
    let total: u64 = extents.iter().map(|extent| extent.count).sum();
    budget.take(total, format_args!("directory {}", inode::name(inode.number)))?;
    let only = total == unit && extents.first().is_some_and(|extent| extent.logical == 0);
    let mut stretches: Vec<Stretch> = Vec::new();
    // Where a directory block in several places has to go on.
    let mut open = None;
    let mut end = 0;
    for extent in extents {
        if extent.unwritten {
            return Err(bad("one of its blocks was never written"));
        }
        let (mut at, mut offset, mut left) = (extent.logical, extent.offset, extent.count);
        while left > 0 {
            let within = at % unit;
            if open.is_some_and(|open| open != at) || open.is_none() && within != 0 {
                return Err(bad("a part of one of its blocks is not there"));
            }
            let whole = if within == 0 && left >= unit { left - left % unit } else { 0 };
            let count = if whole > 0 { whole } else { left.min(unit - within) };
            let part = (offset, count << sb.block_log);
            match stretches.last_mut() {
                Some(last) if within > 0 => last.parts.push(part),
                _ => stretches.push(Stretch { parts: vec![part], logical: at / unit, owner, only }),
            }
            at += count;
            offset += part.1;
            left -= count;
            open = (at % unit != 0).then_some(at);
        }
        if directory::has_entries(sb, extent.logical / unit) {
            end = at;
        }
    }
    // Below the hash tree, so far from overflow.
    if open.is_some() || inode.size == 0 || end << sb.block_log != inode.size {
        return Err(bad("its size and its blocks disagree"));
    }
    Ok(stretches)
}

struct Listing<'a> {
    volume: &'a Volume,
    inodes: &'a Inodes,
    by_inode: Vec<Vec<Entry>>,
    /// Most entries.
    most: u64,
    count: u64,
}

impl Listing<'_> {
    fn stretch(&mut self, stretch: &Stretch) -> Result<()> {
        let size = self.volume.sb.directory_size();
        let number = self.inodes.all()[stretch.owner].inode.number;
        let Some(&(first, _)) = stretch.parts.first() else { return Ok(()) };
        let total: u64 = stretch.parts.iter().map(|part| part.1).sum();
        let whole = if stretch.parts.len() > 1 { total } else { CHUNK.max(size as u64) };
        let mut done = 0;
        while done < total {
            // At most 1 MiB.
            let mut buffer = vec![0; whole.min(total - done) as usize];
            let mut at = 0;
            for (offset, length) in &stretch.parts {
                let length = (*length as usize).min(buffer.len() - at);
                self.volume.read(&mut buffer[at..at + length], offset + done)?;
                at += length;
            }
            let logical = stretch.logical + done / size as u64;
            for (i, block) in (0..).zip(buffer.chunks_exact(size)) {
                let offset = first + done + i * size as u64;
                let mut entries = Vec::new();
                let place = (logical + i, stretch.only);
                directory::block(self.volume, number, place, block, offset, &mut entries)?;
                self.add(stretch.owner, entries)?;
            }
            done += buffer.len() as u64;
        }
        Ok(())
    }

    fn add(&mut self, owner: usize, entries: Vec<Entry>) -> Result<()> {
        self.count += entries.len() as u64;
        if self.count > self.most {
            return Err(limit(Limit::Entries, "directory entries", self.most));
        }
        self.by_inode[owner].extend(entries);
        Ok(())
    }
}
