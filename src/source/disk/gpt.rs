//! The GUID partition table as bytes (UEFI 2.10, section 5): protective MBR, both headers, both
//! entry arrays. Pure: the caller writes them.

use super::layout::SECTOR;
use crate::source::seed::Uuid;

/// BIOS boot partition: where GRUB's core lies when the firmware is a BIOS.
pub const BIOS_BOOT: Uuid = Uuid::from_bytes([
    0x21, 0x68, 0x61, 0x48, 0x64, 0x49, 0x6e, 0x6f, 0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49,
]);
/// EFI system partition.
pub const EFI_SYSTEM: Uuid = Uuid::from_bytes([
    0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
]);
/// Linux root of an x86-64 system (UAPI group, discoverable partitions).
pub const ROOT_X86_64: Uuid = Uuid::from_bytes([
    0x4f, 0x68, 0xbc, 0xe3, 0xe8, 0xcd, 0x4d, 0xb1, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
]);
/// The same for 64-bit Arm.
pub const ROOT_ARM64: Uuid = Uuid::from_bytes([
    0xb9, 0x21, 0xb0, 0x45, 0x1d, 0xf0, 0x41, 0xc3, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae,
]);

/// Entries in the array; the least that the specification allows.
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const ARRAY_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR;
const HEADER_SIZE: u32 = 92;

/// One partition. Sectors of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What it holds.
    pub kind: Uuid,
    /// Its own id.
    pub id: Uuid,
    /// First sector.
    pub first: u64,
    /// Last sector, inclusive.
    pub last: u64,
    /// At most 36 characters of ASCII.
    pub name: &'static str,
}

/// The table's two halves and where they go.
#[derive(Debug)]
pub struct Table {
    /// For byte 0 of the disk: protective MBR, header, entries. The first 440 bytes are zero.
    pub head: Vec<u8>,
    /// For byte [`Table::tail_offset`]: entries, backup header.
    pub tail: Vec<u8>,
    /// Where [`Table::tail`] goes, in bytes.
    pub tail_offset: u64,
}

/// The table of a disk of `sectors` sectors.
#[must_use]
pub fn table(sectors: u64, disk: Uuid, partitions: &[Partition]) -> Table {
    let mut array = vec![0; (ENTRIES * ENTRY_SIZE) as usize];
    for (slot, partition) in array.chunks_exact_mut(ENTRY_SIZE as usize).zip(partitions) {
        slot.copy_from_slice(&entry(partition));
    }
    let array_crc = crc32(&array);
    let last = sectors - 1;
    let head_of = |own: u64, other: u64, entries: u64| {
        let first_usable = 2 + ARRAY_SECTORS;
        let mut h = Vec::with_capacity(SECTOR as usize);
        h.extend_from_slice(b"EFI PART");
        h.extend_from_slice(&[0, 0, 1, 0]);
        h.extend_from_slice(&HEADER_SIZE.to_le_bytes());
        h.extend_from_slice(&[0; 8]);
        h.extend_from_slice(&own.to_le_bytes());
        h.extend_from_slice(&other.to_le_bytes());
        h.extend_from_slice(&first_usable.to_le_bytes());
        h.extend_from_slice(&(last - ARRAY_SECTORS - 1).to_le_bytes());
        h.extend_from_slice(&disk.to_gpt());
        h.extend_from_slice(&entries.to_le_bytes());
        h.extend_from_slice(&ENTRIES.to_le_bytes());
        h.extend_from_slice(&ENTRY_SIZE.to_le_bytes());
        h.extend_from_slice(&array_crc.to_le_bytes());
        let crc = crc32(&h);
        h[16..20].copy_from_slice(&crc.to_le_bytes());
        h.resize(SECTOR as usize, 0);
        h
    };
    let mut head = protective_mbr(sectors);
    head.extend(head_of(1, last, 2));
    head.extend_from_slice(&array);
    let mut tail = array;
    tail.extend(head_of(last, 1, last - ARRAY_SECTORS));
    Table { head, tail, tail_offset: (last - ARRAY_SECTORS) * SECTOR }
}

fn entry(p: &Partition) -> [u8; ENTRY_SIZE as usize] {
    let mut e = [0; ENTRY_SIZE as usize];
    e[..16].copy_from_slice(&p.kind.to_gpt());
    e[16..32].copy_from_slice(&p.id.to_gpt());
    e[32..40].copy_from_slice(&p.first.to_le_bytes());
    e[40..48].copy_from_slice(&p.last.to_le_bytes());
    for (slot, unit) in e[56..].chunks_exact_mut(2).zip(p.name.encode_utf16()) {
        slot.copy_from_slice(&unit.to_le_bytes());
    }
    e
}

/// Section 5.2.3: one partition of type 0xee over the whole disk, as far as 32 bits reach.
fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut mbr = vec![0; SECTOR as usize];
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&length.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

/// The CRC-32 of IEEE 802.3, reflected, as GPT wants it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::seed::Seed;

    #[test]
    fn types_are_the_published_ones() {
        assert_eq!(BIOS_BOOT.to_string(), "21686148-6449-6e6f-744e-656564454649");
        assert_eq!(BIOS_BOOT.to_gpt(), *b"Hah!IdontNeedEFI");
        assert_eq!(EFI_SYSTEM.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(ROOT_ARM64.to_string(), "b921b045-1df0-41c3-af44-4c6f280d3fae");
        assert_eq!(ROOT_X86_64.to_string(), "4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
    }

    /// CRC-32's check value for the digits 1 to 9.
    #[test]
    fn crc32_is_the_published_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn both_headers_point_at_each_other_and_end_the_disk() {
        let seed = Seed::from_text("t");
        let t = table(4096, seed.uuid("disk"), &[]);
        assert_eq!(t.tail_offset + t.tail.len() as u64, 4096 * 512);
        let (first, backup) = (&t.head[512..1024], &t.tail[t.tail.len() - 512..]);
        assert_eq!(first[24..32], backup[32..40]);
        assert_eq!(first[32..40], backup[24..32]);
        assert_eq!(first[32..40], 4095u64.to_le_bytes());
    }
}
