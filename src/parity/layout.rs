//! What `disk1` takes from a disk besides the contents of its partitions.

use super::bytes::trimmed_digest;
use super::canonical::{Content, Disk as Line, Partition};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::image::disk::{Disk, Part};
use crate::image::partition::{BOOT_CODE, Kind, SECTOR};

/// The type of an EFI system partition: GPT (UEFI 2.10, table 5.7) and MBR (section 5.2.2).
const ESP: [&str; 2] = ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"];

/// Whether firmware looks for a loader in partitions of this type.
pub(super) fn is_esp(type_id: &str) -> bool {
    ESP.contains(&type_id)
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

/// What `disk1` hashes.
pub(super) fn disk(disk: &Disk, partitions: Vec<Partition>) -> Result<Line> {
    let table = &disk.table;
    no_code_in_records(disk)?;
    let code: &[u8] = if table.kind == Kind::None { &[] } else { &table.boot_code };
    Ok(Line {
        table: table.kind.as_str(),
        id: table.disk_id.clone(),
        boot440: FileDigest::of(code),
        gap: trimmed_digest(&*disk.container.reader, &table.gap)?,
        partitions,
    })
}

/// Fails if an extended boot record of an MBR holds code, which a loader can be told to run: no digest
/// covers it.
fn no_code_in_records(disk: &Disk) -> Result<()> {
    let reader = &disk.container.reader;
    for at in &disk.table.records {
        let mut code = [0; BOOT_CODE];
        reader.read_at(&mut code, *at)?;
        if code.iter().any(|b| *b != 0) {
            let what = format!("the extended boot record at byte {at} holds code");
            return Err(Error::undetermined(what)
                .cause("level `content` has no place for it")
                .hint("Erase the code if nothing boots from it, or compare at `--level disk`."));
        }
    }
    Ok(())
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
