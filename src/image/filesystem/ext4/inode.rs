//! One inode: owner, mode, times, flags, where its contents are. Kernel documentation, "Inode Table".

use super::checksum::{crc32c, crc32c_without};
use super::fault::{checksum, damaged};
use super::feature;
use super::field::Fields;
use super::group::Group;
use super::superblock::Superblock;
use super::volume::Volume;
use crate::error::Result;
use crate::image::field::sum_holds;

/// Number of the root directory.
pub(super) const ROOT: u32 = 2;

/// Flag: chattr `i`.
pub(super) const IMMUTABLE: u32 = 0x10;
/// Flag: chattr `a`.
pub(super) const APPEND: u32 = 0x20;
/// Flag: encrypted.
const ENCRYPT: u32 = 0x800;
/// Flag: the directory has a hash tree.
pub(super) const INDEX: u32 = 0x1000;
/// Flag: contents are mapped by extents.
pub(super) const EXTENTS: u32 = 0x8_0000;
/// Flag: holds the value of an extended attribute.
pub(super) const EA_INODE: u32 = 0x20_0000;
/// Flag: contents stand in the inode.
pub(super) const INLINE_DATA: u32 = 0x1000_0000;
/// Flag: names compare without case.
const CASEFOLD: u32 = 0x4000_0000;

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

/// An inode, its checksum verified.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    /// Start value of checksums of what belongs to this inode.
    pub(super) seed: u32,
    pub(super) kind: Type,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    /// Access time; the hash of the value where the inode holds an attribute's value.
    pub(super) atime: u32,
    pub(super) links: u16,
    pub(super) flags: u32,
    /// Block pointers, extent root, device number, short target or inline data.
    pub(super) block: [u8; 60],
    /// Block of extended attributes, or 0.
    pub(super) xattr_block: u64,
    /// What stands behind the fixed fields: extended attributes.
    pub(super) extra: Vec<u8>,
}

/// Reads inode `number`.
///
/// # Errors
/// Damage, or a number outside the filesystem.
pub(super) fn read(volume: &Volume, groups: &[Group], number: u32) -> Result<Inode> {
    let sb = &volume.sb;
    let index = number.wrapping_sub(1);
    let group = groups
        .get((index / sb.inodes_per_group) as usize)
        .ok_or_else(|| damaged(name(number), format_args!("there are {} inodes", sb.inodes)))?;
    let mut raw = vec![0; usize::from(sb.inode_size)];
    volume.read(&mut raw, offset(sb, group, index % sb.inodes_per_group))?;
    parse(sb, number, &raw)
}

/// Byte offset of the `index`-th inode of `group`; descriptors are checked to lie inside the device.
pub(super) fn offset(sb: &Superblock, group: &Group, index: u32) -> u64 {
    group.inode_table * u64::from(sb.block_size) + u64::from(index) * u64::from(sb.inode_size)
}

/// `inode 12`, for messages.
pub(super) fn name(number: u32) -> String {
    format!("inode {number}")
}

/// Link count of a raw inode; 0 for one that has no name.
pub(super) fn links(raw: &[u8]) -> Result<u16> {
    raw.u16_at(0x1a)
}

/// Decodes and verifies a raw inode.
///
/// # Errors
/// Damage, or a feature of the inode that is not read here.
pub(super) fn parse(sb: &Superblock, number: u32, raw: &[u8]) -> Result<Inode> {
    let extra_size = if raw.len() > 128 { usize::from(raw.u16_at(0x80)?) } else { 0 };
    if extra_size % 4 != 0 || 128 + extra_size > raw.len() {
        let why = format_args!("its extra part has {extra_size} bytes");
        return Err(damaged(name(number), why));
    }
    let seed = verify(sb, number, raw, extra_size)?;
    let mode = raw.u16_at(0)?;
    let kind = match mode >> 12 {
        1 => Type::Fifo,
        2 => Type::CharDevice,
        4 => Type::Directory,
        6 => Type::BlockDevice,
        8 => Type::File,
        10 => Type::Symlink,
        12 => Type::Socket,
        _ => return Err(damaged(name(number), format_args!("its mode is {mode:#o}"))),
    };
    let flags = raw.u32_at(0x20)?;
    for (flag, what) in [(ENCRYPT, "encrypt"), (CASEFOLD, "casefold")] {
        if flags & flag != 0 {
            return Err(super::fault::unsupported(what).detail(format!("on {}", name(number))));
        }
    }
    if flags & INLINE_DATA != 0 && !sb.features.incompat(feature::INLINE_DATA) {
        return Err(damaged(name(number), "it has inline data in a filesystem without"));
    }
    let wide_size =
        kind == Type::File || kind == Type::Directory && sb.features.incompat(feature::LARGEDIR);
    let size_high = if wide_size { raw.u32_at(0x6c)? } else { 0 };
    let size = u64::from(raw.u32_at(4)?) | u64::from(size_high) << 32;
    if size > u64::from(sb.block_size) << 32 {
        return Err(damaged(name(number), format_args!("its size is {size}")));
    }
    let xattr_high = if sb.features.incompat(feature::BIT64) { raw.u16_at(0x76)? } else { 0 };
    let halves = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    Ok(Inode {
        number,
        seed,
        kind,
        mode: mode & 0o7777,
        uid: halves(raw.u16_at(2)?, raw.u16_at(0x78)?),
        gid: halves(raw.u16_at(0x18)?, raw.u16_at(0x7a)?),
        size,
        mtime: seconds(raw.u32_at(0x10)?, if extra_size >= 12 { raw.u32_at(0x88)? } else { 0 }),
        atime: raw.u32_at(8)?,
        links: links(raw)?,
        flags,
        block: raw.array_at(0x28)?,
        xattr_block: u64::from(raw.u32_at(0x68)?) | u64::from(xattr_high) << 32,
        extra: raw.get(128 + extra_size..).unwrap_or_default().to_vec(),
    })
}

/// Verifies the checksum and returns the start value for what belongs to the inode.
fn verify(sb: &Superblock, number: u32, raw: &[u8], extra_size: usize) -> Result<u32> {
    if !sb.metadata_csum() {
        return Ok(0);
    }
    let seed = crc32c(crc32c(sb.seed, &number.to_le_bytes()), raw.bytes_at(0x64, 4)?);
    let has_high = extra_size >= 4;
    let holes: &[(usize, usize)] = if has_high { &[(0x7c, 2), (0x82, 2)] } else { &[(0x7c, 2)] };
    let high = if has_high { raw.u16_at(0x82)? } else { 0 };
    let stored = u32::from(raw.u16_at(0x7c)?) | u32::from(high) << 16;
    let mask = if has_high { !0 } else { 0xffff };
    let computed = crc32c_without(seed, raw, holes) & mask;
    if !sum_holds(stored, computed) {
        return Err(checksum(name(number), stored, computed));
    }
    Ok(seed)
}

/// Seconds since 1970: 32 signed bits, and two more above them in the extra field.
fn seconds(base: u32, extra: u32) -> i64 {
    i64::from(base as i32) + (i64::from(extra & 3) << 32)
}

impl Inode {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Major and minor number of a device: 16 bits in the first word, or 32 in the second.
    ///
    /// # Errors
    /// None on 60 bytes.
    pub(super) fn device(&self) -> Result<(u32, u32)> {
        let (old, new) = (self.block.u32_at(0)?, self.block.u32_at(4)?);
        if old != 0 {
            return Ok((old >> 8 & 0xff, old & 0xff));
        }
        Ok((new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00))
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_before_1970_and_after_2038_are_whole() {
        // Table in the kernel documentation, "Inode Timestamps".
        assert_eq!(seconds(0x8000_0000, 0), -0x8000_0000);
        assert_eq!(seconds(0xffff_ffff, 0), -1);
        assert_eq!(seconds(0x7fff_ffff, 0), 0x7fff_ffff);
        assert_eq!(seconds(0x8000_0000, 1), 0x8000_0000);
        assert_eq!(seconds(0xffff_ffff, 1), 0xffff_ffff);
        assert_eq!(seconds(0x7fff_ffff, 3 | 4), 0x3_7fff_ffff);
    }
}
