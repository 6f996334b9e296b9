//! Changed inodes. Linux, fs/xfs/libxfs/xfs_log_format.h `struct xfs_inode_log_format` and
//! `struct xfs_log_dinode`, fs/xfs/xfs_inode_item_recover.c.

use super::super::checksum;
use super::super::fault::unsupported;
use super::super::field::Fields as _;
use super::create::CRC_AT;
use super::place::{Places, put};
use super::record::bad;
use super::replay::Cancelled;
use super::transaction::{Item, le16, le32, le64};
use crate::error::{Error, Result};

const MAGIC: u16 = 0x494e;
/// Bytes of the description; of 32-bit systems.
const DESCRIPTION: usize = 56;
const DESCRIPTION_32: usize = 52;

/// What was logged besides the core: data, extents or tree root of the contents, device number, the
/// same of the attributes, changes of owners.
const DATA: u32 = 0x2;
const EXTENTS: u32 = 0x4;
const ROOT: u32 = 0x8;
const DEVICE: u32 = 0x10;
const ATTRIBUTES: u32 = 0x40;
const ATTRIBUTE_EXTENTS: u32 = 0x80;
const ATTRIBUTE_ROOT: u32 = 0x100;
const OWNERS: u32 = 0x200 | 0x400;

/// `di_flags2`.
const BIGTIME: u64 = 0x8;
const NREXT64: u64 = 0x10;
/// Bytes of the core: version 3, and the versions before.
const CORE_3: usize = 176;
const CORE_2: usize = 100;

/// Replays an inode, unless its blocks were freed later.
pub(super) fn replay(
    places: &mut Places<'_>,
    item: &Item,
    cancelled: &Cancelled,
    lsn: u64,
) -> Result<()> {
    let raw = item.description();
    // Without the padding that 64-bit systems put before the number.
    let tail = match raw.len() {
        DESCRIPTION => 40,
        DESCRIPTION_32 => 36,
        other => return Err(bad(format_args!("the description of an inode has {other} bytes"))),
    };
    let (fields, regions) = (le32(raw, 4), le16(raw, 2));
    let (at, count) = (le64(raw, tail), le32(raw, tail + 8));
    let within = le32(raw, tail + 12) as usize;
    let device = le32(raw, tail - 16);
    if cancelled.contains_key(&(at, count)) {
        return Ok(());
    }
    let sb = &places.volume.sb;
    let size = usize::from(sb.inode_size);
    let old = places.read(at, count)?;
    let mut new = old.clone();
    let inode = within.checked_add(size).and_then(|end| new.get_mut(within..end));
    let inode = inode.ok_or_else(|| bad("an inode lies outside of its buffer"))?;
    let v5 = sb.features.v5();
    let core = item.regions.get(1).map_or(&[][..], Vec::as_slice);
    if inode.u16_at(0)? != MAGIC || core.len() < if v5 { CORE_3 } else { CORE_2 - 4 } {
        return Err(bad("a changed inode is none"));
    }
    if le16(core, 0) != MAGIC || (v5 && core.u8_at(4)? != 3) {
        return Err(bad("a changed inode has no magic number"));
    }
    if v5 {
        let written = inode.u64_at(112)?;
        if written != 0 && written != u64::MAX && written > lsn {
            return owners(fields);
        }
    } else if is_older(le16(core, 30), inode.u16_at(30)?) {
        return Ok(());
    }
    self::core(inode, core, lsn)?;
    let (core, forks) = inode.split_at_mut(if v5 { CORE_3 } else { CORE_2 });
    if fields & DEVICE != 0 {
        put(forks, 0, &device.to_be_bytes());
    }
    let split = usize::from(core.u8_at(82)?) * 8;
    if split > forks.len() {
        return Err(bad("the attributes of a changed inode lie outside of it"));
    }
    let whole = forks.len();
    let (contents, attributes) = forks.split_at_mut(if split == 0 { whole } else { split });
    let mut logged = item.regions.iter().take(usize::from(regions)).skip(2);
    for (place, flags, root) in [
        (contents, DATA | EXTENTS | ROOT, ROOT),
        (attributes, ATTRIBUTES | ATTRIBUTE_EXTENTS | ATTRIBUTE_ROOT, ATTRIBUTE_ROOT),
    ] {
        if fields & flags == 0 {
            continue;
        }
        let Some(region) = logged.next() else { continue };
        if (fields & flags).count_ones() != 1 {
            return Err(bad("a fork of a changed inode has several formats"));
        }
        if fields & flags == root {
            self::root(place, region, v5)?;
        } else if region.len() <= place.len() {
            put(place, 0, region);
        } else {
            return Err(bad("a fork of a changed inode is too long"));
        }
    }
    owners(fields)?;
    if v5 {
        let inode = &mut new[within..within + size];
        let crc = checksum::compute(inode, CRC_AT);
        put(inode, CRC_AT, &crc.to_le_bytes());
    }
    places.write(at, &old, &new)
}

/// Two files exchanged their trees, whose blocks name their owner.
fn owners(fields: u32) -> Result<(), Error> {
    match fields & OWNERS {
        0 => Ok(()),
        _ => Err(unsupported("an exchange of files' block maps in the log")),
    }
}

/// Whether the logged count of writes is before the one on disk; it starts again after 0xffff.
fn is_older(logged: u16, written: u16) -> bool {
    logged < written && !(written == u16::MAX && logged < u16::MAX >> 1)
}

/// Turns the fields of a core, which the log has little-endian.
fn core(inode: &mut [u8], from: &[u8], lsn: u64) -> Result<()> {
    let version = from.u8_at(4)?;
    let flags2 = if version == 3 { le64(from, 120) } else { 0 };
    let wide_counts = flags2 & NREXT64 != 0;
    let mut turn = |fields: &[(usize, usize)]| {
        for &(at, width) in fields {
            let mut bytes = from.get(at..at + width).unwrap_or_default().to_vec();
            bytes.reverse();
            put(inode, at, &bytes);
        }
    };
    turn(&[(0, 2), (2, 2), (4, 1), (5, 1), (8, 4), (12, 4), (16, 4), (20, 2), (22, 2)]);
    let time: &[(usize, usize)] = match flags2 & BIGTIME {
        0 => &[(32, 4), (36, 4), (40, 4), (44, 4), (48, 4), (52, 4)],
        _ => &[(32, 8), (40, 8), (48, 8)],
    };
    turn(time);
    turn(&[(56, 8), (64, 8), (72, 4), (76, 4), (80, 2), (82, 1), (83, 1), (84, 4), (88, 2)]);
    turn(&[(90, 2), (92, 4)]);
    if version != 3 {
        turn(&[(30, 2)]);
        put(inode, 6, &[0; 2]);
        put(inode, 24, &[0; 6]);
        return Ok(());
    }
    turn(&[(104, 8), (120, 8), (128, 4), (152, 8)]);
    turn(if flags2 & BIGTIME == 0 { &[(144, 4), (148, 4)] } else { &[(144, 8)] });
    put(inode, 6, &[0; 2]);
    put(inode, 24, &[0; 8]);
    if wide_counts {
        put(inode, 24, &le64(from, 24).to_be_bytes());
    }
    put(inode, 112, &lsn.to_be_bytes());
    put(inode, 132, &[0; 12]);
    put(inode, 160, from.bytes_at(160, 16)?);
    Ok(())
}

/// Makes the root of a tree in an inode of the root in memory, which has the header of a block
/// (`xfs_bmbt_to_bmdr`).
fn root(place: &mut [u8], from: &[u8], v5: bool) -> Result<()> {
    let header = if v5 { 72 } else { 24 };
    let outside = || bad("the root of a block map does not fit its inode");
    let count = usize::from(from.u16_at(6)?);
    let most_from = from.len().saturating_sub(header) / 16;
    let most = place.len().saturating_sub(4) / 16;
    if count > most || count > most_from {
        return Err(outside());
    }
    put(place, 0, from.bytes_at(4, 4)?);
    put(place, 4, from.bytes_at(header, count * 8)?);
    put(place, 4 + most * 8, from.bytes_at(header + most_from * 8, count * 8)?);
    Ok(())
}
