//! One inode: owner, mode, times, flags, and its two forks. Linux, fs/xfs/libxfs/xfs_format.h
//! `struct xfs_dinode` and xfs_inode_buf.c `xfs_dinode_verify`.

use super::checksum;
use super::fault::{damaged, unsupported};
use super::field::Fields as _;
use super::superblock::Superblock;
use super::volume::Volume;
use crate::error::Result;

const MAGIC: u16 = 0x494e;
const CRC_AT: usize = 100;
/// Where the forks start: version 3, and the versions before.
const CORE_3: usize = 176;
const CORE_2: usize = 100;

/// `di_flags`.
const REALTIME: u16 = 0x1;
const IMMUTABLE: u16 = 0x8;
const APPEND: u16 = 0x10;
/// `di_flags2`.
const BIGTIME: u64 = 0x8;
const NREXT64: u64 = 0x10;
const METADATA: u64 = 0x20;

/// Seconds from the start of the large time format, 1901-12-13 20:45:52 UTC, to 1970.
const BIGTIME_EPOCH: i64 = 1 << 31;
const NANOSECONDS: u64 = 1_000_000_000;

/// File type bits of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Fifo,
    CharDevice,
    Directory,
    BlockDevice,
    File,
    Symlink,
    Socket,
}

/// Where the contents of a fork are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fork {
    /// There is none.
    Absent,
    /// A device number in the kernel's old form.
    Device(u32),
    /// The contents themselves, with what is left of their place.
    Local(Vec<u8>),
    /// Extents, 16 bytes each.
    Extents(Vec<u8>),
    /// The root of a tree of so many extents.
    Tree { root: Vec<u8>, extents: u64 },
}

/// An inode, its checksum verified.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) kind: Type,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) links: u32,
    pub(super) immutable: bool,
    pub(super) append_only: bool,
    pub(super) data: Fork,
    pub(super) attributes: Fork,
}

/// `inode 12`, for messages.
pub(super) fn name(number: u64) -> String {
    format!("inode {number}")
}

/// Reads inode `number`, which must be in use.
///
/// # Errors
/// Damage, or a number outside the filesystem.
pub(super) fn read(volume: &Volume, number: u64) -> Result<Inode> {
    let sb = &volume.sb;
    let within_log = sb.ag_log + sb.inodes_per_block_log;
    let within = number & ((1u64 << within_log) - 1);
    let block = (number >> within_log << sb.ag_log) | within >> sb.inodes_per_block_log;
    let outside = |_| damaged(name(number), "its number is outside the filesystem");
    let first = volume.offset(block, 1).map_err(outside)?;
    let in_block = within & ((1 << sb.inodes_per_block_log) - 1);
    let at = first + in_block * u64::from(sb.inode_size);
    let raw = volume.bytes(at, usize::from(sb.inode_size))?;
    parse(sb, number, &raw)?.ok_or_else(|| damaged(name(number), "it is not in use"))
}

/// Decodes and verifies a raw inode; `None` if it is free.
///
/// # Errors
/// Damage, or a feature of the inode that is not read here.
pub(super) fn parse(sb: &Superblock, number: u64, raw: &[u8]) -> Result<Option<Inode>> {
    let bad = |why: String| damaged(name(number), why);
    verify(sb, number, raw).map_err(bad)?;
    let mode = raw.u16_at(2)?;
    if mode == 0 {
        return Ok(None);
    }
    let kind = match mode >> 12 {
        1 => Type::Fifo,
        2 => Type::CharDevice,
        4 => Type::Directory,
        6 => Type::BlockDevice,
        8 => Type::File,
        10 => Type::Symlink,
        12 => Type::Socket,
        _ => return Err(bad(format!("its mode is {mode:#o}"))),
    };
    let flags = raw.u16_at(90)?;
    let flags2 = if sb.features.v5() { raw.u64_at(120)? } else { 0 };
    if flags & REALTIME != 0 && kind == Type::File {
        return Err(unsupported("realtime").detail(format!("on {}", name(number))));
    }
    if flags2 & METADATA != 0 {
        return Err(bad("it is marked as the filesystem's own".into()));
    }
    let size = raw.u64_at(56)?;
    if size > i64::MAX as u64 {
        return Err(bad(format!("its size is {size}")));
    }
    let (extents, attribute_extents) = if flags2 & NREXT64 != 0 {
        (raw.u64_at(24)?, raw.u32_at(76)?)
    } else {
        (u64::from(raw.u32_at(76)?), u32::from(raw.u16_at(80)?))
    };
    let core = if sb.features.v5() { CORE_3 } else { CORE_2 };
    let forks = raw.get(core..).unwrap_or_default();
    // Counted in units of 8 bytes; 0 is "no attributes".
    let split = usize::from(raw.u8_at(82)?) * 8;
    if split >= forks.len() {
        return Err(bad(format!("its attributes start at byte {split} of its forks")));
    }
    let (data, behind) = if split == 0 { (forks, &[][..]) } else { forks.split_at(split) };
    let is_special =
        matches!(kind, Type::Fifo | Type::CharDevice | Type::BlockDevice | Type::Socket);
    let data = match (raw.u8_at(5)?, kind) {
        (0, _) if is_special => Fork::Device(data.u32_at(0)?),
        (1, Type::Directory | Type::Symlink) if size <= data.len() as u64 => {
            Fork::Local(data[..size as usize].to_vec())
        }
        (2 | 3, _) if is_special => return Err(bad("it is no file, but has extents".into())),
        (format @ (2 | 3), _) => fork(format, extents, data).map_err(bad)?,
        (format, _) => return Err(bad(format!("its contents have the format {format}"))),
    };
    let attributes = match raw.u8_at(83)? {
        _ if split == 0 => Fork::Absent,
        1 => Fork::Local(behind.to_vec()),
        format @ (2 | 3) => fork(format, u64::from(attribute_extents), behind).map_err(bad)?,
        format => return Err(bad(format!("its attributes have the format {format}"))),
    };
    let version = raw.u8_at(4)?;
    Ok(Some(Inode {
        number,
        kind,
        mode: mode & 0o7777,
        uid: raw.u32_at(8)?,
        gid: raw.u32_at(12)?,
        size,
        mtime: seconds(raw.u64_at(40)?, flags2),
        links: if version == 1 { u32::from(raw.u16_at(6)?) } else { raw.u32_at(16)? },
        immutable: flags & IMMUTABLE != 0,
        append_only: flags & APPEND != 0,
        data,
        attributes,
    }))
}

/// A fork whose contents are in blocks.
fn fork(format: u8, extents: u64, place: &[u8]) -> Result<Fork, String> {
    if format == 3 {
        return Ok(Fork::Tree { root: place.to_vec(), extents });
    }
    let length = usize::try_from(extents).ok().and_then(|count| count.checked_mul(16));
    match length.and_then(|length| place.get(..length)) {
        Some(records) => Ok(Fork::Extents(records.to_vec())),
        None => Err(format!("{extents} extents do not fit into it")),
    }
}

fn verify(sb: &Superblock, number: u64, raw: &[u8]) -> Result<(), String> {
    let text = |e: crate::error::Error| e.to_string();
    if raw.u16_at(0).map_err(text)? != MAGIC {
        return Err("it has no magic number".into());
    }
    let version = raw.u8_at(4).map_err(text)?;
    if !sb.features.v5() {
        return match version {
            1 | 2 => Ok(()),
            _ => Err(format!("its version is {version}")),
        };
    }
    checksum::verify(raw, CRC_AT)?;
    if version != 3 {
        return Err(format!("its version is {version}"));
    }
    let claimed = raw.u64_at(152).map_err(text)?;
    if claimed != number {
        return Err(format!("it says it is inode {claimed}"));
    }
    if raw.bytes_at(160, 16).map_err(text)? != sb.meta_uuid {
        return Err("it has the UUID of another filesystem".into());
    }
    Ok(())
}

/// Seconds since 1970 of a stored time: nanoseconds since 1901 in the large format, else seconds and
/// nanoseconds of 32 bits each.
fn seconds(stored: u64, flags2: u64) -> i64 {
    if flags2 & BIGTIME != 0 {
        // At most 2^64 / 10^9, so it fits.
        return (stored / NANOSECONDS) as i64 - BIGTIME_EPOCH;
    }
    i64::from((stored >> 32) as u32 as i32)
}

impl Inode {
    /// Major and minor number: 14 and 18 bits on disk, of which Linux takes 9 of the former
    /// (fs/xfs/xfs_linux.h `xfs_to_linux_dev_t`).
    ///
    /// # Errors
    /// It is no device.
    pub(super) fn device(&self) -> Result<(u32, u32)> {
        match self.data {
            Fork::Device(number) => Ok((number >> 18 & 0x1ff, number & 0x3_ffff)),
            _ => Err(damaged(name(self.number), "it has no device number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_formats() {
        assert_eq!(seconds(0, 0), 0);
        assert_eq!(seconds(u64::from(u32::MAX) << 32 | 5, 0), -1);
        assert_eq!(seconds(0x8000_0000 << 32, 0), i64::from(i32::MIN));
        assert_eq!(seconds(0, BIGTIME), i64::from(i32::MIN));
        assert_eq!(seconds((1 << 31) * NANOSECONDS + 999_999_999, BIGTIME), 0);
        // 2486-07-02 20:20:25 UTC, the last second of 64 bits.
        assert_eq!(seconds(u64::MAX, BIGTIME), 16_299_260_425);
    }
}
