//! The boot sector: where everything is (section "Boot Sector and BPB").

use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::field::{le16, le32};

const SECTOR: usize = 512;
/// Largest sector and cluster that FAT has.
const MAX_SECTOR: u64 = 4096;

/// Width of an entry of the allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the root directory is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root {
    /// FAT12 and FAT16: a fixed range of bytes.
    Range { start: u64, length: usize },
    /// FAT32: a chain.
    Cluster(u32),
}

/// What the boot sector says, checked; all places in bytes from the filesystem's start.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) width: Width,
    pub(super) cluster_size: u64,
    /// Number of data clusters; they are numbered from 2.
    pub(super) clusters: u32,
    pub(super) fat_start: u64,
    pub(super) fat_length: u64,
    pub(super) fats: u64,
    /// The one table that counts, where mirroring is off.
    pub(super) active: Option<u64>,
    pub(super) root: Root,
    data_start: u64,
    pub(super) volume_id: u32,
    /// Without padding; empty if there is none.
    pub(super) label: Vec<u8>,
    pub(super) dirty: bool,
}

fn sector(reader: &dyn ReadAt) -> Result<Option<[u8; SECTOR]>> {
    let mut sector = [0; SECTOR];
    if reader.size() < SECTOR as u64 {
        return Ok(None);
    }
    reader.read_at(&mut sector, 0)?;
    Ok(Some(sector))
}

pub(super) fn probe(reader: &dyn ReadAt) -> Result<bool> {
    let Some(b) = sector(reader)? else { return Ok(false) };
    let (bytes, per_cluster) = (le16(&b, 11), b[13]);
    Ok(matches!(b[0], 0xeb | 0xe9)
        && le16(&b, 510) == 0xaa55
        && (SECTOR as u16..=MAX_SECTOR as u16).contains(&bytes)
        && bytes.is_power_of_two()
        && per_cluster.is_power_of_two()
        && le16(&b, 14) != 0
        && (1..=4).contains(&b[16])
        && (b[21] == 0xf0 || b[21] >= 0xf8)
        && (le16(&b, 22) != 0 || le32(&b, 36) != 0)
        && (le16(&b, 19) != 0 || le32(&b, 32) != 0))
}

impl Boot {
    pub(super) fn read(reader: &dyn ReadAt) -> Result<Self> {
        let bad = |why: String| Error::undetermined("the vfat filesystem is damaged").cause(why);
        let sector = if probe(reader)? { sector(reader)? } else { None };
        let Some(b) = sector else {
            return Err(bad("its boot sector is not one of FAT".to_owned()));
        };
        let bytes = u64::from(le16(&b, 11));
        let cluster_size = bytes * u64::from(b[13]);
        let reserved = u64::from(le16(&b, 14));
        let fats = u64::from(b[16]);
        let root_entries = u64::from(le16(&b, 17));
        let or =
            |short: u16, long: u32| if short != 0 { u64::from(short) } else { u64::from(long) };
        let total = or(le16(&b, 19), le32(&b, 32));
        let fat32 = le16(&b, 22) == 0;
        let fat_sectors = or(le16(&b, 22), le32(&b, 36));
        // All factors have at most 32 bits, so the products fit.
        let root_sectors = (root_entries * 32).div_ceil(bytes);
        let data_sector = reserved + fats * fat_sectors + root_sectors;
        if data_sector >= total || total * bytes > reader.size() {
            return Err(bad(format!(
                "it claims {total} sectors of {bytes} bytes, {data_sector} of them before its data; there are {} bytes",
                reader.size()
            )));
        }
        let clusters = (total - data_sector) / u64::from(b[13]);
        // The width follows from the number of clusters (section "FAT Type Determination"), except
        // that Linux and mkfs.vfat take a small FAT32 for what it says it is.
        let width = match (fat32, clusters) {
            (true, 1..0x0fff_fff5) => Width::Fat32,
            (false, 1..4085) => Width::Fat12,
            (false, 4085..65_525) => Width::Fat16,
            _ => return Err(bad(format!("it claims {clusters} clusters"))),
        };
        let bits = match width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        if (clusters + 2) * bits > fat_sectors * bytes * 8 {
            return Err(bad(format!("its allocation table is too small for {clusters} clusters")));
        }
        let extended = if fat32 { 64 } else { 36 };
        let signed = matches!(b[extended + 2], 0x28 | 0x29);
        let label = if b[extended + 2] == 0x29 { &b[extended + 7..extended + 18] } else { &[] };
        let flags = if fat32 { le16(&b, 40) } else { 0 };
        if fat32 && le16(&b, 42) != 0 {
            return Err(bad(format!("version {:#x} of FAT32 is not known", le16(&b, 42))));
        }
        let active = (flags & 0x80 != 0).then_some(u64::from(flags & 0xf));
        if active.is_some_and(|active| active >= fats) {
            return Err(bad("its active allocation table is not there".to_owned()));
        }
        let root_start = (reserved + fats * fat_sectors) * bytes;
        Ok(Boot {
            width,
            cluster_size,
            clusters: u32::try_from(clusters).map_err(|e| bad(e.to_string()))?,
            fat_start: reserved * bytes,
            fat_length: fat_sectors * bytes,
            fats,
            active,
            root: if fat32 {
                Root::Cluster(le32(&b, 44))
            } else {
                let length = usize::try_from(root_entries * 32).map_err(|e| bad(e.to_string()))?;
                Root::Range { start: root_start, length }
            },
            data_start: data_sector * bytes,
            volume_id: if signed { le32(&b, extended + 3) } else { 0 },
            label: if label == b"NO NAME    " { vec![] } else { label.trim_ascii_end().to_vec() },
            dirty: b[extended + 1] & 1 != 0,
        })
    }

    /// Where a cluster's bytes are. The allocation table hands out only clusters that exist.
    pub(super) fn offset_of(&self, cluster: u32) -> u64 {
        self.data_start + u64::from(cluster.saturating_sub(2)) * self.cluster_size
    }
}
