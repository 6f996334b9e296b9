//! Contents of an inode: whole, or in pieces for a sink.

use std::collections::HashSet;

use super::blockmap::{self, Run};
use super::fault::damaged;
use super::field::Fields;
use super::inode::{self, INLINE_DATA, Inode};
use super::volume::Volume;
use crate::error::Result;
use crate::image::tree::Stretch;

/// Largest piece in bytes, as [`crate::image::tree::Filesystem::read_file`] promises.
const PIECE: u64 = 1 << 20;
/// Longest content that is held whole: the target of a link or an attribute's value.
const WHOLE: u64 = 1 << 20;

/// All contents of `inode` out of its blocks, at most 1 MiB.
///
/// # Errors
/// Damage, or longer contents.
pub(super) fn whole(volume: &Volume, inode: &Inode) -> Result<Vec<u8>> {
    if inode.size > WHOLE {
        return Err(damaged(inode::name(inode.number), format_args!("its size is {}", inode.size)));
    }
    let mut all = Vec::new();
    stream(volume, inode, &mut |piece| {
        all.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(all)
}

/// Passes the contents of `inode` out of its blocks to `sink` in pieces of at most 1 MiB.
///
/// # Errors
/// Damage, or the sink's.
pub(super) fn stream(
    volume: &Volume,
    inode: &Inode,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let runs = blockmap::runs(volume, inode, &mut HashSet::new())?;
    // At most 1 MiB, so it fits.
    let mut buffer = vec![0; inode.size.min(PIECE) as usize];
    let mut first = 0;
    let mut start = 0;
    while start < inode.size {
        let end = (start + PIECE).min(inode.size);
        let piece = &mut buffer[..(end - start) as usize];
        first = fill(volume, &runs, first, start, piece)?;
        sink(piece)?;
        start = end;
    }
    Ok(())
}

/// Where the contents of `inode` stand; `None` for what stands in the inode or in the journal.
///
/// # Errors
/// Damage.
pub(super) fn stretches(volume: &Volume, inode: &Inode) -> Result<Option<Vec<Stretch>>> {
    if inode.has(INLINE_DATA) {
        return Ok(None);
    }
    let size = u64::from(volume.sb.block_size);
    let mut stretches = vec![];
    for run in blockmap::runs(volume, inode, &mut HashSet::new())? {
        if volume.overlay.range(run.physical..run.physical + run.count).next().is_some() {
            return Ok(None);
        }
        let at = volume.offset(run.physical, run.count)?;
        stretches.push(Stretch { start: run.logical * size, place: at..at + run.count * size });
    }
    Ok(Some(stretches))
}

/// Fills `piece` with the contents from byte `start` on; returns the first run the next piece needs.
fn fill(
    volume: &Volume,
    runs: &[Run],
    first: usize,
    start: u64,
    piece: &mut [u8],
) -> Result<usize> {
    let size = u64::from(volume.sb.block_size);
    let end = start + piece.len() as u64;
    let mut done = start;
    let mut next = first;
    for run in &runs[first..] {
        let (from, to) = (run.logical * size, (run.logical + run.count) * size);
        if from >= end {
            break;
        }
        // All three lie between `start` and `end`, so their distance to `start` fits.
        let (a, b) = (from.max(start), to.min(end));
        piece[(done - start) as usize..(a - start) as usize].fill(0);
        let at = volume.offset(run.physical, run.count)? + (a - from);
        volume.read(&mut piece[(a - start) as usize..(b - start) as usize], at)?;
        done = b;
        if to > end {
            break;
        }
        next += 1;
    }
    piece[(done - start) as usize..].fill(0);
    Ok(next)
}

/// Contents that stand in the inode: 60 bytes in place of block pointers, the rest in `system.data`.
///
/// # Errors
/// The inode has no inline data, or less than its size.
pub(super) fn inline(inode: &Inode, rest: Option<&[u8]>) -> Result<Vec<u8>> {
    let bad = |why: &str| damaged(inode::name(inode.number), why);
    if !inode.has(INLINE_DATA) {
        return Err(bad("it has no inline data"));
    }
    // Even an empty rest has its attribute; it marks the inode.
    let rest = rest.ok_or_else(|| bad("its inline data has no `system.data`"))?;
    let mut all = [inode.block.as_slice(), rest].concat();
    let size = usize::try_from(inode.size).ok().filter(|&size| size <= all.len());
    all.truncate(size.ok_or_else(|| bad("its inline data is shorter than its size"))?);
    Ok(all)
}

/// Target of a symbolic link, `rest` being the value of `system.data`.
///
/// # Errors
/// Damage: empty, longer than 4095 bytes, or with NUL.
pub(super) fn target(volume: &Volume, inode: &Inode, rest: Option<&[u8]>) -> Result<Vec<u8>> {
    let bad = |why: &str| damaged(inode::name(inode.number), why);
    if inode.size == 0 || inode.size > 4095 {
        return Err(bad("the length of its target is not from 1 to 4095 bytes"));
    }
    let target = if inode.has(INLINE_DATA) {
        inline(inode, rest)?
    } else if inode.size < inode.block.len() as u64 {
        inode.block.bytes_at(0, inode.size as usize)?.to_vec()
    } else {
        whole(volume, inode)?
    };
    if target.contains(&0) {
        return Err(bad("its target contains NUL"));
    }
    Ok(target)
}
