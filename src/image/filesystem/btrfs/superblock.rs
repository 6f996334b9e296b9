//! The superblock: geometry, features, identity, and where the trees start.
//!
//! Only the primary copy counts, as for the kernel: the others are for repair tools. Kernel header
//! `uapi/linux/btrfs_tree.h` (`btrfs_super_block`), checks of `btrfs_validate_super`.

use super::checksum::{Checksum, MAX};
use super::fault::{checksum, damaged};
use super::feature;
use super::field::Fields as _;
use crate::error::Result;
use crate::image::ReadAt;

/// Where the primary superblock stands, in bytes.
pub(super) const OFFSET: u64 = 64 << 10;
/// Its length in bytes.
pub(super) const LENGTH: usize = 4096;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
/// Room for the array of system chunks.
const SYSTEM_CHUNKS: usize = 2048;
/// Levels that a tree can have.
pub(super) const LEVELS: u8 = 8;

/// Where a tree starts, and what its root block must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    /// Number of the tree.
    pub(super) owner: u64,
    /// Logical address of the root block.
    pub(super) address: u64,
    /// Level of the root block; leaves have level 0.
    pub(super) level: u8,
    /// Generation of the root block.
    pub(super) generation: u64,
}

/// What the rest needs of the superblock, checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// UUID that people see.
    pub(super) uuid: [u8; 16],
    /// UUID in the header of every tree block.
    pub(super) metadata_uuid: [u8; 16],
    /// Label without padding.
    pub(super) label: Vec<u8>,
    pub(super) generation: u64,
    pub(super) root_tree: Root,
    pub(super) chunk_tree: Root,
    /// Whether there is a log tree.
    pub(super) has_log: bool,
    /// The object in the root tree that names the default subvolume.
    pub(super) root_directory: u64,
    /// Bytes in a sector, the unit of contents and their checksums: a power of two, 4 to 64 KiB.
    pub(super) sector: u32,
    /// Bytes in a tree block: a power of two, 4 to 64 KiB.
    pub(super) node: u32,
    pub(super) compat_ro: u64,
    pub(super) checksum: Checksum,
    pub(super) device: Device,
    /// The chunks that the chunk tree itself lies in.
    pub(super) system_chunks: Vec<u8>,
    /// Whether the kernel recorded errors.
    pub(super) errors: bool,
}

/// The one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) id: u64,
    pub(super) uuid: [u8; 16],
    /// Bytes that the filesystem uses of it.
    pub(super) size: u64,
}

/// Whether `reader` holds a btrfs superblock, by its magic number.
///
/// # Errors
/// The reader's.
pub(super) fn probe(reader: &dyn ReadAt) -> Result<bool> {
    if reader.size() < OFFSET + LENGTH as u64 {
        return Ok(false);
    }
    let mut magic = [0; 8];
    reader.read_at(&mut magic, OFFSET + 64)?;
    Ok(&magic == MAGIC)
}

/// Reads and checks the primary superblock.
///
/// # Errors
/// Damage, a feature that is not read here, or the reader's.
pub(super) fn read(reader: &dyn ReadAt) -> Result<Superblock> {
    let mut raw = vec![0; LENGTH];
    reader.read_at(&mut raw, OFFSET)?;
    let sb = parse(&raw)?;
    if sb.device.size > reader.size() {
        let why = format_args!(
            "the filesystem has {} bytes, but there are only {}",
            sb.device.size,
            reader.size()
        );
        return Err(damaged("the device", why));
    }
    Ok(sb)
}

fn parse(raw: &[u8]) -> Result<Superblock> {
    let bad = |why: &dyn std::fmt::Display| damaged("the superblock", why);
    if raw.bytes_at(64, 8)? != MAGIC {
        return Err(bad(&"its magic number is missing"));
    }
    let kind = Checksum::of(raw.u16_at(196)?)?;
    if !kind.holds(raw, raw.get(MAX..).unwrap_or_default()) {
        return Err(checksum("the superblock"));
    }
    let flags = raw.u64_at(56)?;
    let incompat = raw.u64_at(188)?;
    feature::check(incompat, flags)?;
    let devices = raw.u64_at(136)?;
    if devices != 1 {
        return Err(feature::devices(devices));
    }
    if raw.u64_at(48)? != OFFSET {
        return Err(bad(&"it is not the primary copy"));
    }
    let (sector, node) = (raw.u32_at(144)?, raw.u32_at(148)?);
    let is_size = |size: u32| size.is_power_of_two() && (4096..=65536).contains(&size);
    if !is_size(sector) || !is_size(node) || node < sector {
        return Err(bad(&format_args!("sectors of {sector} and tree blocks of {node} bytes")));
    }
    if incompat & feature::MIXED_GROUPS != 0 && node != sector {
        return Err(bad(&"mixed block groups need tree blocks of one sector"));
    }
    let uuid = raw.array_at(32)?;
    let separate = incompat & feature::METADATA_UUID != 0;
    let metadata_uuid = if separate { raw.array_at(571)? } else { uuid };
    if raw.array_at(201 + 82)? != metadata_uuid {
        return Err(bad(&"its device belongs to another filesystem"));
    }
    let generation = raw.u64_at(72)?;
    let root = |owner, address, level, generation| -> Result<Root> {
        let root =
            Root { owner, address: raw.u64_at(address)?, level: raw.u8_at(level)?, generation };
        if root.level >= LEVELS || !root.address.is_multiple_of(u64::from(sector)) {
            return Err(bad(&format_args!("the root of tree {owner} is not a block")));
        }
        Ok(root)
    };
    let chunks = raw.u32_at(160)? as usize;
    if chunks > SYSTEM_CHUNKS {
        return Err(bad(&format_args!("{chunks} bytes of system chunks")));
    }
    let label = raw.bytes_at(299, 256)?;
    let end = label.iter().position(|b| *b == 0).unwrap_or(label.len());
    let device =
        Device { id: raw.u64_at(201)?, uuid: raw.array_at(201 + 66)?, size: raw.u64_at(209)? };
    Ok(Superblock {
        uuid,
        metadata_uuid,
        label: label.get(..end).unwrap_or_default().to_vec(),
        generation,
        root_tree: root(super::key::ROOT_TREE, 80, 198, generation)?,
        chunk_tree: root(super::key::CHUNK_TREE, 88, 199, raw.u64_at(164)?)?,
        has_log: raw.u64_at(96)? != 0,
        root_directory: raw.u64_at(128)?,
        sector,
        node,
        compat_ro: raw.u64_at(180)?,
        checksum: kind,
        device,
        system_chunks: raw.bytes_at(811, chunks)?.to_vec(),
        errors: flags & feature::FLAG_ERROR != 0,
    })
}
