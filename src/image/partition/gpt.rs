//! GUID partition table.
//!
//! Source: UEFI 2.10, section 5.3 "GUID Partition Table (GPT) Disk Layout".

use super::{Kind, Partition, SECTOR, Table, boot_code, check_overlaps, gap, mbr};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::field::{le16, le32, le64, sum_holds};

const SIGNATURE: &[u8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// Bytes of the header that the specification defines (section 5.3.2).
const HEADER: usize = 92;
/// Bytes of an entry that the specification defines (section 5.3.3).
const ENTRY: usize = 128;
/// Sectors of disks that say so to their guest, as most NVMe disks can.
const SECTOR_4K: u64 = 4096;
/// Bounds that no tool reaches: `sgdisk` and `sfdisk` write 128 entries of 128 bytes.
const MAX_ENTRY: u64 = 4096;
const MAX_ENTRIES_BYTES: u64 = 1 << 20;

/// Whether the mark of a primary header stands where it belongs.
pub(super) fn has_primary(disk: &dyn ReadAt) -> Result<bool> {
    has_mark(disk, SECTOR)
}

fn has_mark(disk: &dyn ReadAt, at: u64) -> Result<bool> {
    let mut mark = [0; 8];
    if at < SECTOR || at.checked_add(SECTOR).is_none_or(|end| end > disk.size()) {
        return Ok(false);
    }
    disk.read_at(&mut mark, at)?;
    Ok(mark == SIGNATURE)
}

/// Bytes in a sector: the table does not say it, but its headers stand in the second and in the last
/// one. Where any stands for 512 bytes, that is what counts.
fn sector_size(disk: &dyn ReadAt) -> Result<u64> {
    for sector in [SECTOR, SECTOR_4K] {
        let last = (disk.size() / sector).saturating_sub(1) * sector;
        if has_mark(disk, sector)? || has_mark(disk, last)? {
            return Ok(sector);
        }
    }
    Ok(SECTOR)
}

/// One of the two headers with its entries, checked.
#[derive(Debug)]
struct Copy {
    /// Bytes in a sector.
    sector: u64,
    alternate: u64,
    first_usable: u64,
    last_usable: u64,
    disk_id: String,
    /// First sector of this copy's entries, and the one behind them.
    entries_start: u64,
    entries_end: u64,
    entry_size: usize,
    entries: Vec<u8>,
}

pub(super) fn read(disk: &dyn ReadAt, sector: &[u8; SECTOR as usize]) -> Result<Table> {
    let size = sector_size(disk)?;
    let last = disk.size() / size - 1;
    let mut notes = vec![];
    if size != SECTOR {
        notes.push(format!(
            "the GPT is for sectors of {size} bytes; a guest needs a disk with such sectors to see it"
        ));
    }
    let primary = Copy::read(disk, size, 1);
    let (copy, entries) = match primary {
        Ok(copy) => {
            notes.extend(backup_notes(disk, &copy, last));
            let entries = copy.entries_start..copy.entries_end;
            (copy, entries)
        }
        Err(why) => {
            let backup = Copy::read(disk, size, last).map_err(|backup| {
                Error::undetermined("both copies of the disk's GPT are damaged")
                    .cause(format!("the first: {why}"))
                    .cause(format!("the second, in the last sector: {backup}"))
                    .hint("Fetch or build the image again.")
            })?;
            notes
                .push(format!("the first copy of the GPT is damaged ({why}); the second was used"));
            // The first copy's entries stand in front of the usable space, wherever they end.
            let entries = 2..copy_end_before(&backup);
            (backup, entries)
        }
    };
    let others =
        mbr::slots(sector).iter().filter(|s| s.kind != 0 && s.kind != mbr::PROTECTIVE).count();
    if others > 0 {
        notes.push(format!(
            "the protective MBR names {others} further partitions (a hybrid MBR); the GPT is what was read"
        ));
    }
    let partitions = partitions(&copy)?;
    check_overlaps(&partitions)?;
    // Entries can stand anywhere (`sgdisk --move-main-table` leaves room for a board's first loader
    // in front of them), so everything behind the header's sector counts that is not one.
    let entries = entries.start * size..entries.end * size;
    let mut gap = gap(2 * size, entries, (copy.last_usable + 1) * size, &partitions);
    if size != SECTOR {
        // What the MBR and the header leave of their sectors.
        gap.splice(0..0, [SECTOR..size, size + SECTOR..2 * size]);
    }
    Ok(Table {
        kind: Kind::Gpt,
        disk_id: copy.disk_id,
        boot_code: boot_code(sector),
        gap,
        records: vec![],
        partitions,
        notes,
    })
}

/// Where the first copy's entries would end: the usual place, behind as many sectors as the second's.
fn copy_end_before(backup: &Copy) -> u64 {
    (2 + (backup.entries.len() as u64).div_ceil(backup.sector)).min(backup.first_usable)
}

/// What is to be said about the second copy when the first is good.
fn backup_notes(disk: &dyn ReadAt, primary: &Copy, last: u64) -> Vec<String> {
    let mut notes = vec![];
    if primary.alternate != last {
        notes.push(format!(
            "the second copy of the GPT is at sector {}, not in the last sector {last}; the disk was probably grown",
            primary.alternate
        ));
    }
    match Copy::read(disk, primary.sector, primary.alternate) {
        Err(why) => notes.push(format!("the second copy of the GPT is damaged ({why})")),
        Ok(backup) if backup.entries != primary.entries || backup.disk_id != primary.disk_id => {
            notes.push("the two copies of the GPT differ; the first was used".to_owned());
        }
        Ok(_) => {}
    }
    notes
}

impl Copy {
    /// Reads and checks the header at sector `lba` and its entries; an error is a reason in words.
    fn read(disk: &dyn ReadAt, size_of_sector: u64, lba: u64) -> Result<Self, String> {
        let sectors = disk.size() / size_of_sector;
        if lba == 0 || lba >= sectors {
            return Err(format!("sector {lba} is not on the disk"));
        }
        // The header is in the first 512 bytes of its sector, however big that is.
        let mut sector = [0; SECTOR as usize];
        disk.read_at(&mut sector, lba * size_of_sector).map_err(|e| e.to_string())?;
        if !sector.starts_with(SIGNATURE) {
            return Err("the mark `EFI PART` is missing".to_owned());
        }
        let revision = le32(&sector, 8);
        if revision != REVISION {
            return Err(format!("revision {revision:#x} is not known"));
        }
        let size = le32(&sector, 12) as usize;
        if !(HEADER..=SECTOR as usize).contains(&size) {
            return Err(format!("the header claims {size} bytes"));
        }
        let stored = le32(&sector, 16);
        let mut header = sector[..size].to_vec();
        header[16..20].fill(0);
        if !sum_holds(stored, crc32(&header)) {
            return Err("the checksum of the header does not match".to_owned());
        }
        if le64(&sector, 24) != lba {
            return Err(format!("the header says that it stands at sector {}", le64(&sector, 24)));
        }
        let (first_usable, last_usable) = (le64(&sector, 40), le64(&sector, 48));
        if first_usable > last_usable || last_usable >= sectors || first_usable < 2 {
            return Err(format!(
                "the usable sectors {first_usable} to {last_usable} are not on the disk of {sectors} sectors"
            ));
        }
        let (entries_lba, count, entry_size) =
            (le64(&sector, 72), u64::from(le32(&sector, 80)), u64::from(le32(&sector, 84)));
        if entry_size < ENTRY as u64 || entry_size > MAX_ENTRY || !entry_size.is_power_of_two() {
            return Err(format!("entries of {entry_size} bytes are not possible"));
        }
        let length = count * entry_size;
        if count == 0 || length > MAX_ENTRIES_BYTES {
            return Err(format!("{count} entries are not possible"));
        }
        let end =
            entries_lba.checked_add(length.div_ceil(size_of_sector)).filter(|end| *end <= sectors);
        let Some(entries_end) = end.filter(|_| entries_lba >= 2) else {
            return Err(format!("the entries at sector {entries_lba} are not on the disk"));
        };
        if entries_lba <= last_usable && first_usable < entries_end {
            return Err("the entries stand inside the usable space".to_owned());
        }
        let mut entries = vec![0; usize::try_from(length).map_err(|e| e.to_string())?];
        disk.read_at(&mut entries, entries_lba * size_of_sector).map_err(|e| e.to_string())?;
        if !sum_holds(le32(&sector, 88), crc32(&entries)) {
            return Err("the checksum of the entries does not match".to_owned());
        }
        Ok(Copy {
            sector: size_of_sector,
            alternate: le64(&sector, 32),
            first_usable,
            last_usable,
            disk_id: guid(&sector[56..72]),
            entries_start: entries_lba,
            entries_end,
            entry_size: usize::try_from(entry_size).map_err(|e| e.to_string())?,
            entries,
        })
    }
}

fn partitions(copy: &Copy) -> Result<Vec<Partition>> {
    let mut found = vec![];
    for (index, entry) in (1..).zip(copy.entries.chunks_exact(copy.entry_size)) {
        if entry[..16] == [0; 16] {
            continue;
        }
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        if first > last || first < copy.first_usable || last > copy.last_usable {
            return Err(Error::undetermined(format!(
                "partition {index} of the GPT is not inside the disk"
            ))
            .cause(format!(
                "it claims the sectors {first} to {last}; usable are {} to {}",
                copy.first_usable, copy.last_usable
            )));
        }
        found.push(Partition {
            index,
            type_id: guid(&entry[..16]),
            unique_id: guid(&entry[16..32]),
            name: name(&entry[56..128]).ok_or_else(|| {
                Error::undetermined(format!(
                    "the name of partition {index} of the GPT is not UTF-16"
                ))
            })?,
            attributes: le64(entry, 48),
            start: first * copy.sector,
            length: (last - first + 1) * copy.sector,
        });
    }
    Ok(found)
}

/// A UTF-16 name up to its first zero.
fn name(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| le16(pair, 0)).take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok()
}

/// A GUID's text: the first three fields are little-endian (UEFI 2.10, appendix A).
fn guid(b: &[u8]) -> String {
    let hex = crate::digest::hex;
    format!(
        "{:08x}-{:04x}-{:04x}-{}-{}",
        le32(b, 0),
        le16(b, 4),
        le16(b, 6),
        hex(&b[8..10]),
        hex(&b[10..16])
    )
}

/// CRC-32 as in Ethernet and zip (UEFI 2.10, section 5.3.1).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
