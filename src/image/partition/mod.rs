//! Partition tables: which byte ranges of a disk are partitions, and what identifies them.

mod gpt;
mod mbr;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use super::ReadAt;
use super::field::le16;
use super::slice::Slice;
use crate::error::{Error, Result};

/// Bytes of a sector of an MBR. A GPT has sectors of 512 or of 4096 bytes.
pub const SECTOR: u64 = 512;
/// Bytes of boot code at the start of a master boot record, before the disk id.
pub const BOOT_CODE: usize = 440;

/// Which kind of table a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// GUID partition table (UEFI 2.10, section 5.3).
    Gpt,
    /// Master boot record, with extended partitions.
    Mbr,
    /// No table: the whole disk may be a filesystem.
    None,
}

impl Kind {
    /// The name in manifests: `gpt`, `mbr`, `none`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gpt => "gpt",
            Kind::Mbr => "mbr",
            Kind::None => "none",
        }
    }
}

/// A disk's partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its kind.
    pub kind: Kind,
    /// The disk's id in the spelling of `blkid` (`PTUUID`): a lower-case GUID, or 8 hex digits for
    /// MBR. Empty for [`Kind::None`].
    pub disk_id: String,
    /// Bytes 0 to 439 of the disk. Zeros for [`Kind::None`], where they are part of the filesystem.
    pub boot_code: [u8; BOOT_CODE],
    /// The bytes before the first partition that are not the table, in order: BIOS boot loaders are
    /// there. None for [`Kind::None`]. Without partitions they reach to the end of the usable space.
    pub gap: Vec<Range<u64>>,
    /// Where the extended boot records of an MBR are, in bytes. Each can hold code.
    pub records: Vec<u64>,
    /// The partitions in the order of the table. An MBR's extended partition is the container of
    /// its logical ones and does not stand here itself.
    pub partitions: Vec<Partition>,
    /// What a person should know, in sentences without a full stop.
    pub notes: Vec<String>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number as Linux counts: from 1; logical partitions of an MBR from 5.
    pub index: u32,
    /// Its type: a lower-case GUID, or two hex digits for MBR.
    pub type_id: String,
    /// Its own id in the spelling of `blkid` (`PARTUUID`).
    pub unique_id: String,
    /// GPT name; empty for MBR.
    pub name: String,
    /// GPT attribute bits; for MBR the status byte (0x80: active).
    pub attributes: u64,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes, never 0.
    pub length: u64,
}

impl Partition {
    /// The partition's bytes.
    ///
    /// # Errors
    /// The partition is not inside `disk`; never for a disk that its table was read from.
    pub fn reader(&self, disk: &Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(Slice::new(disk.clone(), self.start, self.length)?))
    }

    fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// Reads the partition table of a disk. [`Kind::None`] means that nothing looks like a table; the
/// caller decides whether the whole disk is a filesystem.
///
/// # Errors
/// Of kind `Undetermined`: there is a table and it is damaged, both copies of it are, partitions
/// overlap or lie outside the disk, or it uses sectors that are not of 512 bytes.
pub fn read(disk: &dyn ReadAt) -> Result<Table> {
    if disk.size() < SECTOR {
        return Ok(none());
    }
    let mut sector = [0; SECTOR as usize];
    disk.read_at(&mut sector, 0)?;
    let signed = le16(&sector, 510) == 0xaa55;
    let slots = mbr::slots(&sector);
    if signed && slots.iter().any(|slot| slot.kind == mbr::PROTECTIVE) {
        return gpt::read(disk, &sector);
    }
    if gpt::has_primary(disk)? {
        let e = Error::undetermined("the disk has a GPT without its protective MBR");
        return Err(if signed && slots.iter().any(|slot| slot.kind != 0) {
            e.cause(
                "sector 0 holds an MBR with other partitions, so systems disagree about the disk",
            )
        } else {
            e.cause("Linux and firmware ignore such a table")
        }
        .hint("Repair or erase one of the two with `sgdisk`."));
    }
    if signed && slots.iter().any(|slot| slot.kind != 0) {
        return mbr::read(disk, &sector);
    }
    Ok(none())
}

fn none() -> Table {
    Table {
        kind: Kind::None,
        disk_id: String::new(),
        boot_code: [0; BOOT_CODE],
        gap: vec![],
        records: vec![],
        partitions: vec![],
        notes: vec![],
    }
}

fn boot_code(sector: &[u8; SECTOR as usize]) -> [u8; BOOT_CODE] {
    let mut code = [0; BOOT_CODE];
    code.copy_from_slice(&sector[..BOOT_CODE]);
    code
}

/// What is not `table` from `start` to the first partition, or to `end` without one.
fn gap(start: u64, table: Range<u64>, end: u64, partitions: &[Partition]) -> Vec<Range<u64>> {
    let first = partitions.iter().map(|p| p.start).min().unwrap_or(end);
    let parts = [start..table.start.min(first), table.end.max(start)..first];
    parts.into_iter().filter(|part| part.start < part.end).collect()
}

/// Fails if two partitions share a byte.
fn check_overlaps(partitions: &[Partition]) -> Result<()> {
    let mut by_start: Vec<&Partition> = partitions.iter().collect();
    by_start.sort_by_key(|p| p.start);
    for pair in by_start.windows(2) {
        if pair[1].start < pair[0].end() {
            return Err(Error::undetermined(format!(
                "the partitions {} and {} overlap",
                pair[0].index, pair[1].index
            ))
            .cause(format!(
                "one ends before byte {}, the other starts at byte {}",
                pair[0].end(),
                pair[1].start
            )));
        }
    }
    Ok(())
}
