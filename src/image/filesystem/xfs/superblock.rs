//! The superblock: geometry, features, identity. Linux, fs/xfs/libxfs/xfs_format.h `struct xfs_dsb`
//! and xfs_sb.c `xfs_validate_sb_common`.

use super::checksum;
use super::fault::{damaged, unsupported};
use super::feature::Features;
use super::field::Fields as _;
use crate::error::Result;
use crate::image::ReadAt;

const MAGIC: u32 = 0x5846_5342;
/// Bytes of the structure; a sector of 512 to 32768 bytes holds it.
const LENGTH: usize = 512;
const CRC_AT: usize = 224;
/// Fewest blocks of an allocation group.
const MIN_AG_BLOCKS: u32 = 64;
/// Most bytes of a log.
const MAX_LOG: u64 = 1 << 31;

/// What the rest needs of the superblock, checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// log2 of the bytes in a block, 9 to 16.
    pub(super) block_log: u8,
    /// Bytes in a sector, 512 to 32768: the unit of the headers of an allocation group.
    pub(super) sector_size: u32,
    /// Blocks in the filesystem.
    pub(super) blocks: u64,
    /// Blocks in every allocation group but the last.
    pub(super) ag_blocks: u32,
    /// log2 of [`Superblock::ag_blocks`], rounded up.
    pub(super) ag_log: u8,
    /// Number of allocation groups.
    pub(super) ag_count: u32,
    /// Bytes in an inode, 256 to 2048.
    pub(super) inode_size: u16,
    /// log2 of the inodes in a block.
    pub(super) inodes_per_block_log: u8,
    /// log2 of the blocks in a directory block.
    pub(super) directory_log: u8,
    /// Inode of the root directory.
    pub(super) root: u64,
    /// Inodes of the filesystem's own: realtime bitmap and summary, quotas.
    pub(super) internal: [u64; 5],
    /// Blocks by whose multiples inode chunks are placed.
    pub(super) inode_align: u32,
    /// First block of the log.
    pub(super) log_start: u64,
    /// Blocks of the log.
    pub(super) log_blocks: u32,
    /// Whether records of the log may be longer than 32 KiB.
    pub(super) log_v2: bool,
    pub(super) features: Features,
    /// What people see.
    pub(super) uuid: [u8; 16],
    /// What is in all metadata.
    pub(super) meta_uuid: [u8; 16],
    /// Label without padding.
    pub(super) label: Vec<u8>,
}

/// Whether `reader` starts with an XFS superblock.
///
/// # Errors
/// The reader's.
pub(super) fn probe(reader: &dyn ReadAt) -> Result<bool> {
    if reader.size() < LENGTH as u64 {
        return Ok(false);
    }
    let mut magic = [0; 4];
    reader.read_at(&mut magic, 0)?;
    Ok(u32::from_be_bytes(magic) == MAGIC)
}

fn bad(why: impl std::fmt::Display) -> crate::error::Error {
    damaged("the superblock", why)
}

impl Superblock {
    /// Reads and checks the superblock through `read`, on a device of `size` bytes.
    ///
    /// # Errors
    /// Not XFS, an unread feature, damage, or a device shorter than the filesystem.
    pub(super) fn read(size: u64, read: impl Fn(&mut [u8], u64) -> Result<()>) -> Result<Self> {
        if size < LENGTH as u64 {
            return Err(bad(format_args!("the device has {size} bytes")));
        }
        let mut raw = vec![0; LENGTH];
        read(&mut raw, 0)?;
        if raw.u32_at(0)? != MAGIC {
            return Err(bad("it has no magic number"));
        }
        let sector_log = raw.u8_at(121)?;
        if !(9..=15).contains(&sector_log) || u32::from(raw.u16_at(102)?) != 1 << sector_log {
            return Err(bad(format_args!("its sectors have {} bytes", raw.u16_at(102)?)));
        }
        if size < 1 << sector_log {
            return Err(bad(format_args!("the device has {size} bytes")));
        }
        raw.resize(1 << sector_log, 0);
        read(&mut raw, 0)?;
        let sb = Self::parse(&raw)?;
        let needed = u128::from(sb.blocks) << sb.block_log;
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
        let features = Features {
            version: raw.u16_at(100)?,
            features2: raw.u32_at(200)?,
            ro_compat: raw.u32_at(212)?,
            incompat: raw.u32_at(216)?,
            log_incompat: raw.u32_at(220)?,
        };
        if features.v5() {
            checksum::verify(raw, CRC_AT).map_err(bad)?;
        }
        features.check()?;
        if raw.u8_at(126)? != 0 {
            return Err(bad("its `mkfs.xfs` did not come to its end"));
        }
        if raw.u64_at(16)? != 0 {
            return Err(unsupported("realtime subvolume"));
        }
        let uuid = raw.array_at(32)?;
        let label = raw.bytes_at(108, 12)?;
        let quotas: [u64; 3] = [raw.u64_at(160)?, raw.u64_at(168)?, raw.u64_at(232)?];
        let sb = Superblock {
            block_log: raw.u8_at(120)?,
            sector_size: u32::from(raw.u16_at(102)?),
            blocks: raw.u64_at(8)?,
            ag_blocks: raw.u32_at(84)?,
            ag_log: raw.u8_at(124)?,
            ag_count: raw.u32_at(88)?,
            inode_size: raw.u16_at(104)?,
            inodes_per_block_log: raw.u8_at(123)?,
            directory_log: raw.u8_at(192)?,
            root: raw.u64_at(56)?,
            internal: [raw.u64_at(64)?, raw.u64_at(72)?, quotas[0], quotas[1], quotas[2]],
            inode_align: raw.u32_at(180)?,
            log_start: raw.u64_at(48)?,
            log_blocks: raw.u32_at(96)?,
            log_v2: features.v5() || features.version & 0x400 != 0,
            features,
            uuid,
            meta_uuid: if features.meta_uuid() { raw.array_at(248)? } else { uuid },
            label: label.split(|&b| b == 0).next().unwrap_or_default().to_vec(),
        };
        sb.check(raw)?;
        Ok(sb)
    }

    /// The geometry has to agree with itself: everything else counts on it.
    fn check(&self, raw: &[u8]) -> Result<()> {
        let (block_log, inode_log) = (self.block_log, raw.u8_at(122)?);
        if !(9..=16).contains(&block_log) || raw.u32_at(4)? != 1 << block_log {
            return Err(bad(format_args!("its blocks have {} bytes", raw.u32_at(4)?)));
        }
        if !(8..=11).contains(&inode_log)
            || self.inode_size != 1 << inode_log
            || inode_log > block_log
            || self.inodes_per_block_log != block_log - inode_log
            || raw.u16_at(106)? != 1 << self.inodes_per_block_log
        {
            return Err(bad(format_args!("its inodes have {} bytes", self.inode_size)));
        }
        if self.features.v5() && (inode_log < 9 || block_log < 10) {
            return Err(bad("its blocks or inodes are too small for its version"));
        }
        if self.directory_log > 16 - block_log {
            return Err(bad(format_args!(
                "its directory blocks have 2^{} bytes",
                u32::from(self.directory_log) + u32::from(block_log)
            )));
        }
        let (count, length) = (u64::from(self.ag_count), u64::from(self.ag_blocks));
        let groups = format_args!("it has {} blocks, {count} groups of {length}", self.blocks);
        if self.ag_blocks < MIN_AG_BLOCKS
            || count == 0
            || self.blocks > count * length
            || self.blocks < (count - 1) * length + u64::from(MIN_AG_BLOCKS)
            || u32::from(self.ag_log) != (self.ag_blocks - 1).ilog2() + 1
        {
            return Err(bad(groups));
        }
        // Inode numbers and block numbers of a group have 32 bits.
        if u32::from(self.ag_log) + u32::from(self.inodes_per_block_log) > 32 {
            return Err(bad(groups));
        }
        // The headers of a group are four sectors.
        if u64::from(self.sector_size) * 4 > length << block_log {
            return Err(bad(format_args!("its sectors have {} bytes", self.sector_size)));
        }
        if self.log_start == 0 {
            return Err(unsupported("external log"));
        }
        if u64::from(self.log_blocks) << block_log > MAX_LOG || self.log_blocks == 0 {
            return Err(bad(format_args!("its log has {} blocks", self.log_blocks)));
        }
        Ok(())
    }

    /// Bytes in a block.
    pub(super) fn block_size(&self) -> usize {
        1 << self.block_log
    }

    /// Bytes in a directory block.
    pub(super) fn directory_size(&self) -> usize {
        1 << (self.block_log + self.directory_log)
    }

    /// Blocks in group `ag`, which must be there.
    pub(super) fn ag_length(&self, ag: u32) -> u32 {
        let rest = self.blocks - u64::from(ag) * u64::from(self.ag_blocks);
        // Not more than `ag_blocks`, so it fits.
        rest.min(u64::from(self.ag_blocks)) as u32
    }

    /// Blocks that the kernel reads and frees at once of an inode chunk (`xfs_ialloc_setup_geometry`):
    /// 8 KiB, or as many inodes as that are of 256 bytes where chunks are placed so; a block at least.
    pub(super) fn cluster_blocks(&self) -> u32 {
        let plain = 8192u32;
        let scaled = plain * (u32::from(self.inode_size) / 256);
        let fits = self.features.v5() && self.inode_align >= scaled >> self.block_log;
        ((if fits { scaled } else { plain }) >> self.block_log).max(1)
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
