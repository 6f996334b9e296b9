//! Contents of a file in pieces for a sink, and targets of symbolic links.

use super::extent::{self, Extent, Next};
use super::fault::damaged;
use super::field::Fields as _;
use super::inode::{self, Fork, Inode};
use super::volume::{Budget, Stamp, Volume};
use crate::error::Result;
use crate::image::tree::Stretch;

/// Largest piece in bytes, as [`crate::image::tree::Filesystem::read_file`] promises.
const PIECE: usize = 1 << 20;

/// What a hole holds.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Longest target of a symbolic link in bytes (`XFS_SYMLINK_MAXLEN`).
const TARGET: u64 = 1024;
const TARGET_MAGIC: u32 = 0x5853_4c4d;
/// Bytes before a part of a long target or of a long value of an attribute, in version 5.
pub(super) const REMOTE_HEADER: usize = 56;

/// Passes the contents of the regular file `inode` to `sink` in pieces of at most 1 MiB.
///
/// # Errors
/// Damage, or the sink's.
pub(super) fn stream(
    volume: &Volume,
    inode: &Inode,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let log = volume.sb.block_log;
    let size = inode.size;
    let mut done = 0;
    let mut buffer = Vec::new();
    let mut budget = Budget::new(volume);
    extent::each(volume, inode.number, &inode.data, &mut budget, &mut |extent| {
        // Blocks are allocated beyond the end of a file that may grow.
        if extent.logical >= size.div_ceil(1 << log) {
            return Ok(Next::Enough);
        }
        // Below the size in blocks, so both fit 64 bits.
        let start = extent.logical << log;
        let end = extent.logical.saturating_add(extent.count).saturating_mul(1 << log).min(size);
        zeros(start - done, sink)?;
        if extent.unwritten {
            zeros(end - start, sink)?;
        } else {
            read(volume, extent.offset, end - start, &mut buffer, sink)?;
        }
        done = end;
        Ok(Next::More)
    })?;
    zeros(size - done, sink)
}

/// Where the contents of the regular file `inode` stand; `None` for what the log holds.
///
/// # Errors
/// Damage.
pub(super) fn stretches(volume: &Volume, inode: &Inode) -> Result<Option<Vec<Stretch>>> {
    let log = volume.sb.block_log;
    let (mut stretches, mut in_log) = (vec![], false);
    let mut budget = Budget::new(volume);
    extent::each(volume, inode.number, &inode.data, &mut budget, &mut |extent| {
        if extent.logical >= inode.size.div_ceil(1 << log) {
            return Ok(Next::Enough);
        }
        if !extent.unwritten {
            // The extent was seen to be inside the filesystem.
            let place = extent.offset..extent.offset.saturating_add(extent.count << log);
            in_log |= volume.is_in_log(&place);
            stretches.push(Stretch { start: extent.logical << log, place });
        }
        Ok(Next::More)
    })?;
    Ok((!in_log).then_some(stretches))
}

fn zeros(mut count: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while count > 0 {
        let piece = count.min(PIECE as u64);
        sink(&ZEROS[..piece as usize])?;
        count -= piece;
    }
    Ok(())
}

fn read(
    volume: &Volume,
    mut offset: u64,
    mut count: u64,
    buffer: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    while count > 0 {
        let piece = count.min(PIECE as u64) as usize;
        if buffer.len() < piece {
            buffer.resize(piece, 0);
        }
        volume.read(&mut buffer[..piece], offset)?;
        sink(&buffer[..piece])?;
        offset += piece as u64;
        count -= piece as u64;
    }
    Ok(())
}

/// Target of the symbolic link `inode`.
///
/// # Errors
/// Damage: empty, longer than 1024 bytes, or with NUL.
pub(super) fn target(volume: &Volume, inode: &Inode, budget: &mut Budget) -> Result<Vec<u8>> {
    let bad = |why: &str| damaged(inode::name(inode.number), why);
    if inode.size == 0 || inode.size > TARGET {
        return Err(bad("the length of its target is not from 1 to 1024 bytes"));
    }
    let target = match &inode.data {
        Fork::Local(bytes) => bytes.clone(),
        fork => {
            let mut target = Vec::new();
            extent::each(volume, inode.number, fork, budget, &mut |extent| {
                part(volume, inode, extent, &mut target)
            })?;
            target
        }
    };
    if target.len() as u64 != inode.size {
        return Err(bad("its target is shorter than its size"));
    }
    if target.contains(&0) {
        return Err(bad("its target contains NUL"));
    }
    Ok(target)
}

/// Adds the part of a target that stands in `extent`, which in version 5 has one header.
fn part(volume: &Volume, inode: &Inode, extent: Extent, target: &mut Vec<u8>) -> Result<Next> {
    let bad = |why: String| damaged(format_args!("the target of inode {}", inode.number), why);
    // The size is at most 1024.
    let left = inode.size as usize - target.len();
    // 1024 bytes with headers fill at most three of the smallest blocks.
    if extent.count > 3 || extent.unwritten {
        return Err(bad(format!("it has an extent of {} blocks", extent.count)));
    }
    let block = volume.bytes(extent.offset, (extent.count as usize) << volume.sb.block_log)?;
    if !volume.sb.features.v5() {
        target.extend_from_slice(&block[..left.min(block.len())]);
    } else {
        volume.verify(&block, Stamp::REMOTE, extent.offset, Some(inode.number)).map_err(bad)?;
        let (offset, length) = (block.u32_at(4)? as usize, block.u32_at(8)? as usize);
        if block.u32_at(0)? != TARGET_MAGIC || offset != target.len() || length > left {
            return Err(bad("a part of it is out of place".into()));
        }
        target.extend_from_slice(block.bytes_at(REMOTE_HEADER, length)?);
    }
    Ok(if target.len() as u64 == inode.size { Next::Enough } else { Next::More })
}
