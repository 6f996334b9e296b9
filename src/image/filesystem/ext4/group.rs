//! Group descriptors: where the inode bitmap and the inode table of each group stand.

use super::checksum::{crc16, crc32c, crc32c_without};
use super::fault::{checksum, damaged};
use super::feature;
use super::field::Fields;
use super::superblock::{self, Superblock};
use super::volume::Volume;
use crate::error::Result;
use crate::image::field::sum_holds;

/// Flag: the group has no used inode, and its bitmap was never written.
const INODE_UNINIT: u16 = 1;
/// Where the checksum stands in a descriptor.
const CHECKSUM_AT: usize = 0x1e;

/// One block group, as far as a reader needs it.
#[derive(Debug, Clone)]
pub(super) struct Group {
    inode_bitmap: u64,
    inode_bitmap_checksum: u32,
    /// First block of the inode table.
    pub(super) inode_table: u64,
    flags: u16,
}

/// The descriptor of group `number`.
///
/// # Errors
/// Damage.
pub(super) fn read(volume: &Volume, number: u32) -> Result<Group> {
    let sb = &volume.sb;
    let per_block = sb.block_size / u32::from(sb.descriptor_size);
    let block = volume.block(descriptor_block(sb, number / per_block)?)?;
    parse(volume, number, &block)
}

/// All descriptors in order.
///
/// # Errors
/// Damage. Ends at the first bad one, so a claim of millions of groups costs nothing.
pub(super) fn read_all(volume: &Volume) -> Result<Vec<Group>> {
    let sb = &volume.sb;
    let per_block = sb.block_size / u32::from(sb.descriptor_size);
    let mut groups = Vec::new();
    let mut block = Vec::new();
    for number in 0..sb.groups {
        if number % per_block == 0 {
            block = volume.block(descriptor_block(sb, number / per_block)?)?;
        }
        groups.push(parse(volume, number, &block)?);
    }
    Ok(groups)
}

fn parse(volume: &Volume, number: u32, block: &[u8]) -> Result<Group> {
    let sb = &volume.sb;
    let per_block = sb.block_size / u32::from(sb.descriptor_size);
    let size = usize::from(sb.descriptor_size);
    let raw = block.bytes_at((number % per_block) as usize * size, size)?;
    let name = format!("the descriptor of group {number}");
    verify(sb, number, raw, &name)?;
    let wide = size >= 64;
    let pair = |low: usize, high: usize| -> Result<u64> {
        let high = if wide { raw.u32_at(high)? } else { 0 };
        Ok(u64::from(raw.u32_at(low)?) | u64::from(high) << 32)
    };
    let bitmap_high = if wide { raw.u16_at(0x3a)? } else { 0 };
    let group = Group {
        inode_bitmap: pair(4, 0x24)?,
        inode_bitmap_checksum: u32::from(raw.u16_at(0x1a)?) | u32::from(bitmap_high) << 16,
        inode_table: pair(8, 0x28)?,
        flags: raw.u16_at(0x12)?,
    };
    let table = (u64::from(sb.inodes_per_group) * u64::from(sb.inode_size))
        .div_ceil(u64::from(sb.block_size));
    if group.inode_table == 0 || group.inode_bitmap == 0 {
        return Err(damaged(name, "it has no inode table or no inode bitmap"));
    }
    volume.offset(group.inode_table, table)?;
    Ok(group)
}

fn verify(sb: &Superblock, number: u32, raw: &[u8], name: &str) -> Result<()> {
    let stored = raw.u16_at(CHECKSUM_AT)?;
    let computed = if sb.metadata_csum() {
        let seed = crc32c(sb.seed, &number.to_le_bytes());
        (crc32c_without(seed, raw, &[(CHECKSUM_AT, 2)]) & 0xffff) as u16
    } else if sb.features.ro_compat(feature::GDT_CSUM) {
        let mut crc = crc16(0xffff, &sb.uuid);
        crc = crc16(crc, &number.to_le_bytes());
        crc = crc16(crc, raw.bytes_at(0, CHECKSUM_AT)?);
        crc16(crc, raw.get(CHECKSUM_AT + 2..).unwrap_or_default())
    } else {
        return Ok(());
    };
    if sum_holds(stored, computed) {
        return Ok(());
    }
    Err(checksum(name, stored.into(), computed.into()))
}

impl Group {
    /// The bitmap of used inodes, one bit each from the lowest; `None` if none is used.
    ///
    /// # Errors
    /// Damage.
    pub(super) fn used_inodes(&self, volume: &Volume, number: u32) -> Result<Option<Vec<u8>>> {
        let sb = &volume.sb;
        let has_flags = sb.metadata_csum() || sb.features.ro_compat(feature::GDT_CSUM);
        if has_flags && self.flags & INODE_UNINIT != 0 {
            return Ok(None);
        }
        let mut bitmap = volume.block(self.inode_bitmap)?;
        bitmap.truncate(sb.inodes_per_group.div_ceil(8) as usize);
        if sb.metadata_csum() {
            let mask = if sb.descriptor_size >= 64 { !0 } else { 0xffff };
            let whole = (sb.inodes_per_group / 8) as usize;
            let computed = crc32c(sb.seed, bitmap.bytes_at(0, whole)?) & mask;
            if !sum_holds(self.inode_bitmap_checksum & mask, computed) {
                let name = format!("the inode bitmap of group {number}");
                return Err(checksum(name, self.inode_bitmap_checksum & mask, computed));
            }
        }
        Ok(Some(bitmap))
    }
}

/// Block number of the `nr`-th block of descriptors. Kernel, `descriptor_loc` in fs/ext4/super.c.
fn descriptor_block(sb: &Superblock, nr: u32) -> Result<u64> {
    let superblock = superblock::OFFSET / u64::from(sb.block_size);
    if !sb.features.incompat(feature::META_BG) || nr < sb.first_meta_bg {
        return Ok(superblock + 1 + u64::from(nr));
    }
    let per_block = sb.block_size / u32::from(sb.descriptor_size);
    let group = nr
        .checked_mul(per_block)
        .ok_or_else(|| damaged("the superblock", "it has too many groups"))?;
    let mut behind = u64::from(has_superblock(sb, group));
    // With blocks of 1 KiB the boot block takes block 0 of a filesystem that starts there.
    if sb.block_size == 1024 && nr == 0 && sb.first_data_block == 0 {
        behind += 1;
    }
    Ok(u64::from(sb.first_data_block) + u64::from(group) * u64::from(sb.blocks_per_group) + behind)
}

/// Whether `group` starts with a copy of the superblock. Kernel, `ext4_bg_has_super`.
fn has_superblock(sb: &Superblock, group: u32) -> bool {
    if group == 0 {
        return true;
    }
    if sb.features.compat(feature::SPARSE_SUPER2) {
        return sb.backup_groups.contains(&group);
    }
    if group == 1 || !sb.features.ro_compat(feature::SPARSE_SUPER) {
        return true;
    }
    [3u64, 5, 7].into_iter().any(|base| {
        let mut power = base;
        while power < u64::from(group) {
            power *= base;
        }
        power == u64::from(group)
    })
}
