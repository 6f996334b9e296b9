//! Boot code inside filesystems: what `fs1` says in its line `boot`.

use std::ops::Range;

use super::bytes::trimmed_digest;
use crate::digest::FileDigest;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::field::{le16, le32};
use crate::image::partition::SECTOR;

/// Everything before an ext superblock (Linux, Documentation/filesystems/ext4, "Layout").
const BEFORE_EXT: Range<u64> = 0..1024;
/// What btrfs leaves to boot loaders before and behind its first superblock (btrfs documentation,
/// "Bootloaders").
const AROUND_BTRFS: [Range<u64>; 2] = [0..64 << 10, 68 << 10..1 << 20];

const ONE: usize = SECTOR as usize;

/// The digest of the boot code inside the filesystem of type `kind` that fills `reader`.
pub(super) fn of(reader: &dyn ReadAt, kind: &str) -> Result<FileDigest> {
    match kind {
        "vfat" => vfat(reader),
        // The superblock stands at byte 0, and nothing before or inside it is code.
        "xfs" => Ok(FileDigest::of(&[])),
        "btrfs" => around_btrfs(reader),
        _ => trimmed_digest(reader, std::slice::from_ref(&BEFORE_EXT)),
    }
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
    let len = code.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    Ok(FileDigest::of(&code[..len]))
}

/// Jump and code of the boot sector, and what else is in the reserved sectors: loaders that need
/// more than one sector go on there (Microsoft FAT specification 1.03, section 3).
fn vfat(reader: &dyn ReadAt) -> Result<FileDigest> {
    let first = sector(reader, 0)?;
    let parts = [0..3, parameters_end(&first)..ONE - 2];
    let code: Vec<u8> = parts.into_iter().flat_map(|part| first[part].to_vec()).collect();
    let size = u64::from(le16(&first, 11));
    let end = (u64::from(le16(&first, 14)) * size).min(reader.size()).max(SECTOR);
    let mut replaced = vec![];
    // The parameters of FAT32 alone name copies.
    if is_fat32(&first) {
        let (info, backup) = (u64::from(le16(&first, 48)), u64::from(le16(&first, 50)));
        let copies = [(info, false), (backup, true), (backup + info, false)];
        for (number, is_boot) in copies {
            let at = number * size;
            // 0 and ffff say that there is none.
            let there = (SECTOR..end).contains(&at) && end - at >= SECTOR;
            if !there || replaced.iter().any(|(other, _)| *other == at) {
                continue;
            }
            let one = sector(reader, at)?;
            let one = if is_boot { without_copy(one, &first) } else { without_counters(one) };
            replaced.push((at, one));
        }
    }
    let reserved = Reserved { code, rest: SECTOR..end, replaced, reader };
    let all = 0..reserved.size();
    trimmed_digest(&reserved, std::slice::from_ref(&all))
}

fn sector(reader: &dyn ReadAt, at: u64) -> Result<[u8; ONE]> {
    let mut sector = [0; ONE];
    reader.read_at(&mut sector, at)?;
    Ok(sector)
}

/// The 16-bit size of a FAT is 0 where there is a longer one.
fn is_fat32(first: &[u8; ONE]) -> bool {
    le16(first, 22) == 0
}

/// Where the parameters end and the code begins.
fn parameters_end(first: &[u8; ONE]) -> usize {
    if is_fat32(first) { 90 } else { 62 }
}

/// A sector of FSInfo without what changes with every file: zeros in place of the counters and of
/// the marks (section "FAT32 FSInfo Sector Structure"); whole if it is none.
fn without_counters(mut sector: [u8; ONE]) -> [u8; ONE] {
    let marks = (le32(&sector, 0), le32(&sector, 484), le32(&sector, 508));
    if marks == (0x4161_5252, 0x6141_7272, 0xaa55_0000) {
        for range in [0..4, 484..496, 508..512] {
            sector[range].fill(0);
        }
    }
    sector
}

/// Zeros in place of a copy of the boot sector, whatever its parameters; whole if it is none.
fn without_copy(sector: [u8; ONE], first: &[u8; ONE]) -> [u8; ONE] {
    let code = parameters_end(first)..ONE;
    let same = sector[..3] == first[..3] && sector[code.clone()] == first[code];
    if same { [0; ONE] } else { sector }
}

/// The code of the boot sector and the reserved bytes behind that sector, as one.
struct Reserved<'a> {
    code: Vec<u8>,
    rest: Range<u64>,
    /// Sectors of `rest` that count as something else.
    replaced: Vec<(u64, [u8; ONE])>,
    reader: &'a dyn ReadAt,
}

impl ReadAt for Reserved<'_> {
    fn size(&self) -> u64 {
        self.code.len() as u64 + (self.rest.end - self.rest.start)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let code = usize::try_from(offset).ok().and_then(|from| self.code.get(from..));
        let code = code.unwrap_or_default();
        let len = code.len().min(buf.len());
        let (head, tail) = buf.split_at_mut(len);
        head.copy_from_slice(&code[..len]);
        if tail.is_empty() {
            return Ok(());
        }
        let from = self.rest.start + (offset + len as u64 - self.code.len() as u64);
        self.reader.read_at(tail, from)?;
        for (at, sector) in &self.replaced {
            for (byte, place) in sector.iter().zip(*at..) {
                let index = place.checked_sub(from).and_then(|index| usize::try_from(index).ok());
                if let Some(target) = index.and_then(|index| tail.get_mut(index)) {
                    *target = *byte;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oracle::{Memory, tool};

    fn digest(bytes: &[u8]) -> FileDigest {
        of(&*Memory::shared(bytes.to_vec()), "vfat").expect("read")
    }

    /// A filesystem as `mkfs.vfat` makes it, and the digest of its boot code.
    fn made(options: &[&str]) -> Option<(Vec<u8>, FileDigest)> {
        let mkfs = tool("mkfs.vfat", "boot code of vfat")?;
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("fat");
        std::fs::File::create(&path).and_then(|file| file.set_len(64 << 20)).expect("create");
        let done = std::process::Command::new(mkfs).args(options).arg(&path).output();
        assert!(done.expect("run").status.success());
        let bytes = std::fs::read(&path).expect("read");
        let digest = digest(&bytes);
        Some((bytes, digest))
    }

    #[test]
    fn boot_code_of_fat32_goes_on_in_the_reserved_sectors() {
        let Some((bytes, plain)) = made(&["-F", "32"]) else { return };
        // As long as nobody puts a loader there, the boot sector alone counts.
        let alone = [&bytes[..3], &bytes[90..510]].concat();
        let len = alone.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        assert_eq!(plain, FileDigest::of(&alone[..len]));
        let reserved = usize::from(le16(&bytes, 14)) * ONE;
        let backup = usize::from(le16(&bytes, 50)) * ONE;
        assert!(reserved == 32 * ONE && backup == 6 * ONE, "{reserved} {backup}");
        let changed = |at: usize| {
            let mut other = bytes.clone();
            other[at] ^= 0x5a;
            digest(&other)
        };
        let covered = [
            // Boot sector, FSInfo, loaders of more than a sector, copies that are none any more.
            0,
            2,
            90,
            509,
            ONE,
            ONE + 4,
            ONE + 483,
            ONE + 496,
            ONE + 510,
            2 * ONE,
            12 * ONE + 7,
            backup,
            backup + 90,
            backup + 511,
            backup + ONE + 4,
            reserved - 1,
        ];
        for at in covered {
            assert_ne!(changed(at), plain, "{at}");
        }
        let not = [
            3,
            64,
            65,
            89,
            ONE + 488,
            ONE + 495,
            backup + 3,
            backup + 65,
            backup + ONE + 490,
            reserved,
        ];
        for at in not {
            assert_eq!(changed(at), plain, "{at}");
        }
        // What is said to be the copy of the boot sector, and is not, may be the loader.
        let mut other = bytes.clone();
        other[50] = 12;
        let (copy, moved) = (bytes[backup..backup + ONE].to_vec(), 12 * ONE);
        other[moved..moved + ONE].copy_from_slice(&copy);
        other[backup..backup + 2 * ONE].fill(0);
        assert_eq!(digest(&other), plain);
        other[moved + 100] ^= 1;
        assert_ne!(digest(&other), plain);
    }

    #[test]
    fn reserved_sectors_of_fat16_and_of_4096_bytes_count_too() {
        let Some((bytes, plain)) = made(&["-F", "16", "-R", "8"]) else { return };
        let last = 8 * ONE - 1;
        for (at, is_covered) in
            [(61, false), (62, true), (ONE, true), (last, true), (last + 1, false)]
        {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(digest(&other) != plain, is_covered, "{at}");
        }
        let Some((bytes, plain)) = made(&["-F", "32", "-S", "4096"]) else { return };
        for at in [512, 4095, 4096 + 512, 2 * 4096] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(digest(&other), plain, "{at}");
        }
    }
}
