//! What `disk1` takes from a disk besides the contents of its partitions.

use super::bytes::trimmed_digest;
use super::canonical::{Content, Disk as Line, Partition};
use crate::digest::FileDigest;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::disk::{Disk, Part};
use crate::image::partition::{BOOT_CODE, Kind, SECTOR};

/// The type of an EFI system partition: GPT (UEFI 2.10, table 5.7) and MBR (section 5.2.2).
const ESP: [&str; 2] = ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"];

/// Everything before an ext superblock (Linux, Documentation/filesystems/ext4, "Layout").
const BEFORE_EXT: std::ops::Range<u64> = 0..1024;
/// What btrfs leaves to boot loaders before and behind its first superblock (btrfs documentation,
/// "Bootloaders").
const AROUND_BTRFS: [std::ops::Range<u64>; 2] = [0..64 << 10, 68 << 10..1 << 20];

/// Whether firmware looks for a loader here.
pub(super) fn is_esp(part: &Part) -> bool {
    ESP.contains(&part.partition.type_id.as_str())
}

/// A partition's line in `disk1`.
pub(super) fn line(disk: &Disk, part: &Part, content: Content) -> Partition {
    let entry = &part.partition;
    // An MBR has no ids of its own for partitions: `blkid` makes them from the disk's.
    let id = if disk.table.kind == Kind::Gpt { entry.unique_id.clone() } else { String::new() };
    Partition {
        number: entry.index,
        type_id: entry.type_id.clone(),
        id,
        name: entry.name.clone().into_bytes(),
        attributes: entry.attributes,
        content,
    }
}

/// The digest of the boot code inside the filesystem of type `kind` that fills `reader`.
pub(super) fn boot_code(reader: &dyn ReadAt, kind: &str) -> Result<FileDigest> {
    match kind {
        "vfat" => {}
        // The superblock stands at byte 0, and nothing before or inside it is code.
        "xfs" => return Ok(FileDigest::of(&[])),
        "btrfs" => return around_btrfs(reader),
        _ => return trimmed_digest(reader, BEFORE_EXT),
    }
    // Microsoft FAT specification 1.03, section 3: the sector's signature is at byte 510, the code
    // behind the parameters, which are longer where the 16-bit size of a FAT is 0 (FAT32).
    let mut sector = [0; SECTOR as usize];
    reader.read_at(&mut sector, 0)?;
    let start = if sector[22..24] == [0, 0] { 90 } else { 62 };
    let code = [&sector[..3], &sector[start..510]].concat();
    Ok(FileDigest::of(trimmed(&code)))
}

fn around_btrfs(reader: &dyn ReadAt) -> Result<FileDigest> {
    let mut code = vec![];
    for range in AROUND_BTRFS {
        // Together less than 1 MiB; a device with that superblock is longer than the first.
        let end = range.end.min(reader.size());
        let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
        reader.read_at(&mut bytes, range.start)?;
        code.extend(bytes);
    }
    Ok(FileDigest::of(trimmed(&code)))
}

/// Without the zeros at the end.
fn trimmed(code: &[u8]) -> &[u8] {
    let len = code.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    &code[..len]
}

/// What `disk1` hashes.
pub(super) fn disk(disk: &Disk, partitions: Vec<Partition>) -> Result<Line> {
    let table = &disk.table;
    let code: &[u8] = if table.kind == Kind::None { &[] } else { &table.boot_code };
    Ok(Line {
        table: table.kind.as_str(),
        id: table.disk_id.clone(),
        boot440: FileDigest::of(code),
        gap: trimmed_digest(&*disk.container.reader, table.gap.clone())?,
        partitions,
    })
}

/// Whether a BIOS would run the disk's first sector.
pub(super) fn bios(disk: &Disk) -> Result<bool> {
    let reader = &disk.container.reader;
    if reader.size() < SECTOR {
        return Ok(false);
    }
    let mut sector = [0; SECTOR as usize];
    reader.read_at(&mut sector, 0)?;
    Ok(sector[..BOOT_CODE].iter().any(|b| *b != 0) && sector[510..] == [0x55, 0xaa])
}
