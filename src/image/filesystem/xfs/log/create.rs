//! New inodes: chunks of empty ones. Linux, fs/xfs/libxfs/xfs_log_format.h `struct xfs_icreate_log`,
//! fs/xfs/libxfs/xfs_ialloc.c `xfs_ialloc_inode_init`.

use super::super::checksum;
use super::super::field::Fields as _;
use super::super::volume::BASIC;
use super::place::{Places, put};
use super::record::bad;
use super::replay::Cancelled;
use super::transaction::Item;
use crate::error::Result;

/// Where the checksum of an inode stands.
pub(super) const CRC_AT: usize = 100;
/// `di_next_unlinked` of an inode that is in no list.
const IN_NO_LIST: u32 = u32::MAX;
/// Most inodes of one chunk.
const CHUNK: u64 = 64;

/// Replays the creation of a chunk, unless its blocks were freed later.
pub(super) fn replay(places: &mut Places<'_>, item: &Item, cancelled: &Cancelled) -> Result<()> {
    let raw = item.description();
    let sb = &places.volume.sb;
    // The numbers are big-endian, unlike those of other items.
    let (ag, first, count) = (raw.u32_at(4)?, raw.u32_at(8)?, raw.u32_at(12)?);
    let (size, length) = (raw.u32_at(16)?, raw.u32_at(20)?);
    let generation = raw.u32_at(24)?;
    let inodes = u64::from(length) << sb.inodes_per_block_log;
    let fits = sb.features.v5()
        && ag < sb.ag_count
        && u64::from(first) + u64::from(length) <= u64::from(sb.ag_length(ag))
        && size == u32::from(sb.inode_size)
        && inodes == u64::from(count)
        // A block of 64 KiB holds up to 128.
        && (inodes <= CHUNK || length == 1);
    if !fits {
        return Err(bad(format_args!("it makes {count} inodes at block {first} of group {ag}")));
    }
    let start = places.volume.at(ag, u64::from(first)) / BASIC;
    let sectors = |blocks: u32| (blocks << (sb.block_log - 9)).max(1);
    let cluster = sb.cluster_blocks();
    let buffers = (0..length / cluster).map(|i| start + u64::from(sectors(i * cluster)));
    let sector_count = sectors(cluster);
    if buffers.into_iter().any(|at| cancelled.contains_key(&(at, sector_count))) {
        return Ok(());
    }
    let base = (u64::from(ag) << (sb.ag_log + sb.inodes_per_block_log))
        | u64::from(first) << sb.inodes_per_block_log;
    let mut new = vec![0; count as usize * usize::from(sb.inode_size)];
    for (number, inode) in (base..).zip(new.chunks_mut(usize::from(sb.inode_size))) {
        put(inode, 0, b"IN");
        put(inode, 4, &[3]);
        put(inode, 92, &generation.to_be_bytes());
        put(inode, 96, &IN_NO_LIST.to_be_bytes());
        put(inode, 152, &number.to_be_bytes());
        put(inode, 160, &sb.meta_uuid);
        let crc = checksum::compute(inode, CRC_AT);
        put(inode, CRC_AT, &crc.to_le_bytes());
    }
    let step = 64 << 10;
    for (i, part) in (0..).zip(new.chunks(step)) {
        let at = start + i * (step as u64 / BASIC);
        let old = places.read(at, (part.len() / BASIC as usize) as u32)?;
        places.write(at, &old, part)?;
    }
    Ok(())
}
