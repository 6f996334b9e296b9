//! Master boot record and extended boot records.
//!
//! Source: UEFI 2.10, section 5.2 "LBA 0 Format"; for extended records the layout that `fdisk` and
//! Linux (`block/partitions/msdos.c`) share: entry 1 relative to its own record, entry 2 relative to
//! the extended partition.

use super::{Kind, Partition, SECTOR, Table, boot_code, check_overlaps, gap};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::field::{le16, le32};

/// Type of the entry that protects a GPT.
pub(super) const PROTECTIVE: u8 = 0xee;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Most logical partitions; Linux stops at 255 partitions of a disk.
const MAX_LOGICAL: u32 = 250;

/// One of the four entries of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) status: u8,
    pub(super) kind: u8,
    pub(super) lba: u64,
    pub(super) sectors: u64,
}

pub(super) fn slots(sector: &[u8; SECTOR as usize]) -> [Slot; 4] {
    [446, 462, 478, 494].map(|at| Slot {
        status: sector[at],
        kind: sector[at + 4],
        lba: u64::from(le32(sector, at + 8)),
        sectors: u64::from(le32(sector, at + 12)),
    })
}

pub(super) fn read(disk: &dyn ReadAt, sector: &[u8; SECTOR as usize]) -> Result<Table> {
    let disk_id = format!("{:08x}", le32(sector, 440));
    let mut partitions = vec![];
    let mut extended = None;
    for (index, slot) in (1..).zip(slots(sector)) {
        // Without a type or without sectors there is no partition (Linux, block/partitions/msdos.c).
        if slot.kind == 0 || slot.sectors == 0 {
            continue;
        }
        let partition = partition(disk, index, slot, 0, &disk_id)?;
        if EXTENDED.contains(&slot.kind) {
            if extended.replace(partition).is_some() {
                return Err(Error::undetermined("the MBR has two extended partitions"));
            }
        } else {
            partitions.push(partition);
        }
    }
    // The extended partition takes part in the check against the primary ones.
    let mut primary = partitions.clone();
    primary.extend(extended.clone());
    check_overlaps(&primary)?;
    let gap = gap(SECTOR, 0..0, disk.size(), &primary);
    let mut records = vec![];
    if let Some(extended) = extended {
        records = read_logical(disk, &extended, &disk_id, &mut partitions)?;
    }
    check_overlaps(&partitions)?;
    Ok(Table {
        kind: Kind::Mbr,
        disk_id,
        boot_code: boot_code(sector),
        gap,
        records,
        partitions,
        notes: vec![],
    })
}

fn partition(
    disk: &dyn ReadAt,
    index: u32,
    slot: Slot,
    base: u64,
    disk_id: &str,
) -> Result<Partition> {
    // Neither sum nor product can overflow: LBAs have 32 bits.
    let start = (base + slot.lba) * SECTOR;
    let length = slot.sectors * SECTOR;
    if slot.lba == 0 || length == 0 || start + length > disk.size() {
        return Err(Error::undetermined(format!(
            "partition {index} of the MBR is not inside the disk"
        ))
        .cause(format!(
            "it claims {length} bytes at byte {start}; the disk has {} bytes",
            disk.size()
        )));
    }
    Ok(Partition {
        index,
        type_id: format!("{:02x}", slot.kind),
        unique_id: format!("{disk_id}-{index:02x}"),
        name: String::new(),
        attributes: u64::from(slot.status),
        start,
        length,
    })
}

/// Follows the chain of extended records and returns where they are. Each must lie behind the one
/// before, so it ends.
fn read_logical(
    disk: &dyn ReadAt,
    extended: &Partition,
    disk_id: &str,
    partitions: &mut Vec<Partition>,
) -> Result<Vec<u64>> {
    let mut records = vec![];
    let base = extended.start / SECTOR;
    let mut at = base;
    // A record of which the partition was deleted only leads on, and takes no number.
    let mut index = 5;
    for _ in 0..MAX_LOGICAL {
        let mut sector = [0; SECTOR as usize];
        disk.read_at(&mut sector, at * SECTOR)?;
        records.push(at * SECTOR);
        if le16(&sector, 510) != 0xaa55 {
            return Err(Error::undetermined(format!(
                "the extended boot record at sector {at} is damaged"
            ))
            .cause("its last two bytes are not 55 aa"));
        }
        let [own, next, ..] = slots(&sector);
        if own.kind != 0 && own.sectors != 0 {
            let logical = partition(disk, index, own, at, disk_id)?;
            if logical.start + logical.length > extended.start + extended.length {
                return Err(Error::undetermined(format!(
                    "partition {index} of the MBR is not inside the extended partition"
                )));
            }
            partitions.push(logical);
            index += 1;
        }
        if next.kind == 0 || next.sectors == 0 {
            return Ok(records);
        }
        let following = base + next.lba;
        if following <= at {
            return Err(Error::undetermined(format!(
                "the chain of extended boot records goes back from sector {at} to sector {following}"
            )));
        }
        if (following + 1) * SECTOR > extended.start + extended.length {
            return Err(Error::undetermined(format!(
                "the extended boot record at sector {following} is not inside the extended partition"
            )));
        }
        at = following;
    }
    Err(Error::undetermined(format!("the MBR has more than {MAX_LOGICAL} logical partitions")))
}
