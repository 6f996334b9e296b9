//! The superblock: geometry, features, identity. Kernel documentation, "ext4 Data Structures and
//! Algorithms", section "Super Block".

use super::checksum::{START, crc32c};
use super::fault::{checksum, damaged, unsupported};
use super::feature::{self, Features};
use super::field::Fields;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::field::sum_holds;

/// Where the superblock stands, and its length, in bytes.
pub(super) const OFFSET: u64 = 1024;
const LENGTH: usize = 1024;
const MAGIC: u16 = 0xef53;
/// Flag of `s_state`: cleanly unmounted.
const STATE_VALID: u16 = 1;
/// Flag of `s_state`: the kernel found errors.
const STATE_ERROR: u16 = 2;
/// `s_creator_os` of GNU Hurd, which uses the operating system's fields in other ways.
const CREATOR_HURD: u32 = 1;

/// What the rest needs of the superblock, checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// Bytes in a block, a power of two from 1024 to 65536.
    pub(super) block_size: u32,
    /// Blocks in the filesystem.
    pub(super) blocks: u64,
    /// Inodes in the filesystem; they count from 1.
    pub(super) inodes: u32,
    pub(super) first_data_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    /// Number of block groups.
    pub(super) groups: u32,
    /// Bytes in an inode slot.
    pub(super) inode_size: u16,
    /// Bytes in a group descriptor.
    pub(super) descriptor_size: u16,
    /// First inode number that is not reserved.
    pub(super) first_inode: u32,
    pub(super) first_meta_bg: u32,
    pub(super) backup_groups: [u32; 2],
    pub(super) features: Features,
    pub(super) uuid: [u8; 16],
    /// Label without padding.
    pub(super) label: Vec<u8>,
    /// Start value of every metadata checksum.
    pub(super) seed: u32,
    /// Inode of the journal; 0 if there is none here.
    pub(super) journal_inode: u32,
    /// Whether the state says "cleanly unmounted".
    pub(super) clean: bool,
    /// Whether the kernel recorded errors.
    pub(super) errors: bool,
}

/// Whether `reader` holds an ext2, ext3 or ext4 superblock.
///
/// # Errors
/// The reader's.
pub(super) fn probe(reader: &dyn ReadAt) -> Result<bool> {
    if reader.size() < OFFSET + LENGTH as u64 {
        return Ok(false);
    }
    let mut magic = [0; 2];
    reader.read_at(&mut magic, OFFSET + 0x38)?;
    Ok(u16::from_le_bytes(magic) == MAGIC)
}

impl Superblock {
    /// Reads and checks the superblock through `read`, on a device of `size` bytes.
    ///
    /// # Errors
    /// Not an ext filesystem, an unread feature, damage, or a device shorter than the filesystem.
    pub(super) fn read(size: u64, read: impl Fn(&mut [u8], u64) -> Result<()>) -> Result<Self> {
        if size < OFFSET + LENGTH as u64 {
            return Err(damaged("the superblock", format_args!("the device has {size} bytes")));
        }
        let mut raw = vec![0; LENGTH];
        read(&mut raw, OFFSET)?;
        let sb = Self::parse(&raw)?;
        let needed = u128::from(sb.blocks) * u128::from(sb.block_size);
        if needed > u128::from(size) {
            return Err(damaged(
                "the size",
                format_args!("the filesystem has {needed} bytes, but its device only {size}"),
            )
            .hint("Check that the image was copied completely."));
        }
        Ok(sb)
    }

    fn parse(raw: &[u8]) -> Result<Self> {
        let bad = |why: String| damaged("the superblock", why);
        if raw.u16_at(0x38)? != MAGIC {
            return Err(bad("it has no magic number".into()));
        }
        let features = Features {
            compat: raw.u32_at(0x5c)?,
            incompat: raw.u32_at(0x60)?,
            ro_compat: raw.u32_at(0x64)?,
        };
        let uuid: [u8; 16] = raw.array_at(0x68)?;
        let metadata_csum = features.ro_compat(feature::METADATA_CSUM);
        if metadata_csum {
            let (stored, computed) = (raw.u32_at(0x3fc)?, crc32c(START, raw.bytes_at(0, 0x3fc)?));
            if !sum_holds(stored, computed) {
                return Err(checksum("the superblock", stored, computed));
            }
        }
        features.check()?;
        if metadata_csum && raw.u8_at(0x175)? != 1 {
            return Err(unsupported(format_args!("checksum type {}", raw[0x175])));
        }
        if raw.u32_at(0x48)? == CREATOR_HURD {
            return Err(unsupported("creator hurd"));
        }
        let log_block_size = raw.u32_at(0x18)?;
        if log_block_size > 6 {
            return Err(bad(format!("its block size is 2^(10+{log_block_size})")));
        }
        let block_size = 1024 << log_block_size;
        let modern = raw.u32_at(0x4c)? >= 1;
        let inode_size = if modern { raw.u16_at(0x58)? } else { 128 };
        if inode_size < 128 || !inode_size.is_power_of_two() || u32::from(inode_size) > block_size {
            return Err(bad(format!("its inodes have {inode_size} bytes")));
        }
        let bit64 = features.incompat(feature::BIT64);
        let descriptor_size = if bit64 { raw.u16_at(0xfe)? } else { 32 };
        if bit64 && !((64..=1024).contains(&descriptor_size) && descriptor_size.is_power_of_two()) {
            return Err(bad(format!("its group descriptors have {descriptor_size} bytes")));
        }
        let high = if bit64 { raw.u32_at(0x150)? } else { 0 };
        let blocks = u64::from(raw.u32_at(4)?) | u64::from(high) << 32;
        let first_data_block = raw.u32_at(0x14)?;
        let blocks_per_group = raw.u32_at(0x20)?;
        let inodes_per_group = raw.u32_at(0x28)?;
        let bits = block_size * 8;
        let clusters = if features.ro_compat(feature::BIGALLOC) {
            raw.u32_at(0x24)?
        } else {
            blocks_per_group
        };
        if blocks_per_group == 0 || clusters == 0 || clusters > bits || blocks_per_group % 8 != 0 {
            return Err(bad(format!("its groups have {blocks_per_group} blocks")));
        }
        if inodes_per_group < block_size / u32::from(inode_size) || inodes_per_group > bits {
            return Err(bad(format!("its groups have {inodes_per_group} inodes")));
        }
        if first_data_block > 1 || blocks <= u64::from(first_data_block) {
            return Err(bad(format!("it has {blocks} blocks, the first at {first_data_block}")));
        }
        let groups = (blocks - u64::from(first_data_block)).div_ceil(blocks_per_group.into());
        let inodes = raw.u32_at(0)?;
        if groups * u64::from(inodes_per_group) != u64::from(inodes) {
            return Err(bad(format!(
                "it has {inodes} inodes, but {groups} groups of {inodes_per_group}"
            )));
        }
        let state = raw.u16_at(0x3a)?;
        let label = raw.bytes_at(0x78, 16)?;
        let seed = if features.incompat(feature::CSUM_SEED) {
            raw.u32_at(0x270)?
        } else {
            crc32c(START, &uuid)
        };
        Ok(Superblock {
            block_size,
            blocks,
            inodes,
            first_data_block,
            blocks_per_group,
            inodes_per_group,
            groups: u32::try_from(groups).map_err(|_| bad(format!("it has {groups} groups")))?,
            inode_size,
            descriptor_size,
            first_inode: if modern { raw.u32_at(0x54)? } else { 11 },
            first_meta_bg: raw.u32_at(0x104)?,
            backup_groups: [raw.u32_at(0x24c)?, raw.u32_at(0x250)?],
            features,
            uuid,
            label: label.split(|&b| b == 0).next().unwrap_or_default().to_vec(),
            seed,
            journal_inode: raw.u32_at(0xe0)?,
            clean: state & STATE_VALID != 0,
            errors: state & STATE_ERROR != 0,
        })
    }

    /// Whether all metadata has CRC-32C checksums.
    pub(super) fn metadata_csum(&self) -> bool {
        self.features.ro_compat(feature::METADATA_CSUM)
    }

    /// UUID in the spelling of `blkid`.
    pub(super) fn uuid_text(&self) -> String {
        let mut text = String::with_capacity(36);
        for (i, byte) in self.uuid.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}
