//! Where everything lies on the disk: a BIOS-boot partition, an EFI system partition, and the root
//! last, so that it can grow into a bigger disk.

use crate::error::{Error, Result};
use crate::source::disk::Loader;
use crate::source::disk::gpt::{BIOS_BOOT, EFI_SYSTEM, Partition, ROOT_ARM64, ROOT_X86_64};
use crate::source::seed::{Seed, Uuid};
use crate::spec::types::Arch;

/// Bytes in a sector. Every cloud and QEMU's default disk has 512.
pub const SECTOR: u64 = 512;
pub(crate) const MIB: u64 = 1 << 20;

/// GRUB's core for a BIOS is about 100 KiB; 1 MiB keeps the alignment.
const BIOS_MIB: u64 = 1;
/// The least that makes FAT32 with 512-byte clusters (65,525 of them are 32 MiB), and some room.
/// FAT32 is what the UEFI specification names for a fixed disk (2.10, section 13.3.1.1).
const ESP_MIB: u64 = 48;
/// Before the first partition and after the last one, for the two halves of the table.
const EDGE_MIB: u64 = 1;
/// Room for the smallest root that makes sense.
const SMALLEST_ROOT_MIB: u64 = 32;

/// What kind of disk to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Size of the whole disk in bytes, a whole number of MiB.
    pub size: u64,
    /// Seconds since 1970 UTC; every time on the disk is this one or earlier.
    pub epoch: i64,
    /// Where all ids come from.
    pub seed: Seed,
    /// Label of the root filesystem, at most 16 bytes.
    pub label: String,
    /// The architecture that it boots on.
    pub arch: Arch,
    /// Where the boot loader of UEFI comes from.
    pub loader: Loader,
}

/// The ids of a disk, which its own files name too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// UUID of the root filesystem.
    pub root: Uuid,
    /// Directory hash seed of the root filesystem.
    pub hash_seed: Uuid,
    /// Volume id of the EFI system partition.
    pub esp: u32,
}

impl Ids {
    /// The EFI system partition's volume id as `blkid` and `/etc/fstab` write it.
    #[must_use]
    pub fn esp_text(&self) -> String {
        format!("{:04X}-{:04X}", self.esp >> 16, self.esp & 0xffff)
    }
}

/// A run of bytes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Layout {
    /// The ids that a disk with this seed has, known before it is made.
    #[must_use]
    pub fn ids(&self) -> Ids {
        ids(&self.seed)
    }

    /// Fails unless the disk can be made at all.
    ///
    /// # Errors
    /// The size is not a whole number of MiB or too small; the label is too long.
    pub(crate) fn check(&self) -> Result<()> {
        let least = EDGE_MIB + BIOS_MIB + ESP_MIB + SMALLEST_ROOT_MIB + EDGE_MIB;
        if !self.size.is_multiple_of(MIB) {
            return Err(Error::usage(format!(
                "a disk of {} bytes is not a whole number of MiB",
                self.size
            )));
        }
        if self.size < least * MIB {
            return Err(Error::usage(format!(
                "a disk of {} MiB has no room for a system",
                self.size / MIB
            ))
            .hint(format!("Ask for {least} MiB at least.")));
        }
        if self.label.len() > 16 || !self.label.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::usage(format!(
                "`{}` cannot be the label of a filesystem: at most 16 visible ASCII characters",
                self.label
            )));
        }
        Ok(())
    }

    pub(crate) fn bios_boot(&self) -> Extent {
        Extent { offset: EDGE_MIB * MIB, size: BIOS_MIB * MIB }
    }

    pub(crate) fn esp(&self) -> Extent {
        let before = self.bios_boot();
        Extent { offset: before.offset + before.size, size: ESP_MIB * MIB }
    }

    pub(crate) fn root(&self) -> Extent {
        let before = self.esp();
        let offset = before.offset + before.size;
        Extent { offset, size: self.size - EDGE_MIB * MIB - offset }
    }

    /// Size of the whole disk whose root has `root` bytes, in bytes.
    pub(crate) fn disk_for_root(root: u64) -> u64 {
        (EDGE_MIB + BIOS_MIB + ESP_MIB + EDGE_MIB) * MIB + root.next_multiple_of(MIB)
    }

    pub(crate) fn partitions(&self) -> Vec<Partition> {
        let partition = |kind, role: &str, name, at: Extent| Partition {
            kind,
            id: self.seed.uuid(role),
            first: at.offset / SECTOR,
            last: (at.offset + at.size) / SECTOR - 1,
            name,
        };
        let root = match self.arch {
            Arch::Amd64 => ROOT_X86_64,
            Arch::Arm64 => ROOT_ARM64,
        };
        let bios = partition(BIOS_BOOT, "partition/bios", "bios", self.bios_boot());
        let mut all = if self.has_bios() { vec![bios] } else { vec![] };
        all.push(partition(EFI_SYSTEM, "partition/esp", "esp", self.esp()));
        all.push(partition(root, "partition/root", "root", self.root()));
        all
    }

    /// Whether there are machines of this architecture with a BIOS.
    pub(crate) fn has_bios(&self) -> bool {
        self.arch == Arch::Amd64
    }
}

/// The ids that every disk of this seed has.
#[must_use]
pub fn ids(seed: &Seed) -> Ids {
    Ids {
        root: seed.uuid("filesystem/root"),
        hash_seed: seed.uuid("filesystem/root/hash"),
        esp: seed.volume_id("filesystem/esp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mib: u64) -> Layout {
        Layout {
            size: mib * MIB,
            epoch: 0,
            seed: Seed::from_text("t"),
            label: "root".to_owned(),
            arch: Arch::Amd64,
            loader: Loader::Made,
        }
    }

    #[test]
    fn partitions_follow_each_other_and_the_root_is_last() {
        let partitions = layout(512).partitions();
        for pair in partitions.windows(2) {
            assert_eq!(pair[0].last + 1, pair[1].first);
        }
        assert_eq!(partitions[0].first, 2048);
        assert_eq!(partitions[2].last + 1, 511 * 2048);
        // No BIOS, no place for its loader; all else lies where it lies on amd64.
        let arm64 = Layout { arch: Arch::Arm64, ..layout(512) }.partitions();
        let places = |all: &[Partition]| all.iter().map(|p| (p.first, p.last)).collect::<Vec<_>>();
        assert_eq!(places(&arm64), places(&partitions[1..]));
        assert_eq!(arm64[1].kind, ROOT_ARM64);
    }

    #[test]
    fn impossible_disks_are_refused() {
        assert!(layout(83).check().is_ok());
        assert!(layout(82).check().is_err());
        assert!(Layout { size: 512 * MIB + 512, ..layout(1) }.check().is_err());
        assert!(Layout { label: "a label with spaces".to_owned(), ..layout(512) }.check().is_err());
    }

    #[test]
    fn the_disk_for_a_root_holds_that_root() {
        let root = 77 * MIB + 5;
        let size = Layout::disk_for_root(root);
        assert!(layout(size / MIB).root().size >= root);
        assert!(layout(size / MIB - 1).root().size < root);
    }
}
