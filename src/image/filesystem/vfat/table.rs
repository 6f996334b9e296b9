//! The allocation table: which cluster follows which (section "FAT Data Structure").

use std::sync::{Arc, Mutex, PoisonError};

use super::boot::{Boot, Width};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::field::{le16, le32};

/// Largest table that is read: a FAT32 volume of 2 TiB with 32 KiB clusters has one of 256 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes of the table that are read at a time, 16 KiB entries of FAT32.
const WINDOW: u64 = 64 << 10;
/// Windows in memory. Chains go forward, and some threads follow one each.
const WINDOWS: usize = 32;
/// Bytes of two copies that are compared at a time.
const PIECE: u64 = 1 << 20;

/// The table. A part of it is in memory: a boot sector can claim one of any size.
pub(super) struct Fat {
    reader: Arc<dyn ReadAt>,
    /// First byte of the copy in use, and how many are.
    start: u64,
    used: u64,
    windows: Mutex<Vec<Option<Window>>>,
    width: Width,
    clusters: u32,
    dirty: bool,
}

struct Window {
    number: u64,
    bytes: Vec<u8>,
}

impl Fat {
    /// Compares the copies of the table.
    pub(super) fn read(reader: Arc<dyn ReadAt>, boot: &Boot) -> Result<Self> {
        let bits: u64 = match boot.width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        let used = ((u64::from(boot.clusters) + 2) * bits).div_ceil(8);
        if used > MAX_BYTES {
            return Err(Error::undetermined(format!(
                "the vfat filesystem has an allocation table of {used} bytes; the limit is {MAX_BYTES} bytes"
            )));
        }
        if boot.active.is_none() {
            compare(&*reader, boot, used)?;
        }
        let start = boot.fat_start + boot.active.unwrap_or(0) * boot.fat_length;
        let windows = Mutex::new((0..WINDOWS).map(|_| None).collect());
        let (width, clusters) = (boot.width, boot.clusters);
        let mut fat = Fat { reader, start, used, windows, width, clusters, dirty: false };
        // The clean-shutdown bit of entry 1 is cleared while a volume is in use. FAT12 has none.
        fat.dirty = match width {
            Width::Fat12 => false,
            Width::Fat16 => fat.entry(1)? & 0x8000 == 0,
            Width::Fat32 => fat.entry(1)? & 0x0800_0000 == 0,
        };
        Ok(fat)
    }

    fn entry(&self, cluster: u32) -> Result<u32> {
        let n = u64::from(cluster);
        Ok(match self.width {
            Width::Fat12 => {
                let at = n + n / 2;
                // The pair may stand across two windows.
                let pair = u32::from(self.byte(at)?) | u32::from(self.byte(at + 1)?) << 8;
                if n.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
            }
            Width::Fat16 => u32::from(le16(&self.bytes::<2>(n * 2)?, 0)),
            // The four upper bits are not part of the entry.
            Width::Fat32 => le32(&self.bytes::<4>(n * 4)?, 0) & 0x0fff_ffff,
        })
    }

    fn byte(&self, at: u64) -> Result<u8> {
        Ok(self.bytes::<1>(at)?[0])
    }

    /// `N` bytes at `at`, all in one window.
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let number = at / WINDOW;
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        // Below `WINDOWS`.
        let slot = &mut windows[(number % WINDOWS as u64) as usize];
        if slot.as_ref().is_none_or(|window| window.number != number) {
            let from = number * WINDOW;
            let length = self.used.saturating_sub(from).min(WINDOW);
            let mut bytes = slot.take().map(|window| window.bytes).unwrap_or_default();
            // At most `WINDOW`.
            bytes.resize(length as usize, 0);
            self.reader.read_at(&mut bytes, self.start + from)?;
            *slot = Some(Window { number, bytes });
        }
        let found = slot.as_ref().and_then(|window| {
            window.bytes.get((at % WINDOW) as usize..)?.first_chunk::<N>().copied()
        });
        found.ok_or_else(|| {
            Error::undetermined(format!("the vfat filesystem's allocation table has no byte {at}"))
        })
    }

    /// Whether the volume was in use.
    pub(super) fn dirty(&self) -> bool {
        self.dirty
    }

    /// The cluster after `cluster`; none at the end of its chain. An error is a reason in words.
    pub(super) fn next(&self, cluster: u32) -> Result<Option<u32>, String> {
        let exists = |n: u32| n >= 2 && n - 2 < self.clusters;
        if !exists(cluster) {
            return Err(format!("cluster {cluster} does not exist"));
        }
        let end = match self.width {
            Width::Fat12 => 0xff8,
            Width::Fat16 => 0xfff8,
            Width::Fat32 => 0x0fff_fff8,
        };
        match self.entry(cluster).map_err(|e| e.to_string())? {
            next if next >= end => Ok(None),
            next if exists(next) => Ok(Some(next)),
            next => {
                Err(format!("cluster {cluster} is followed by {next:#x}, which does not exist"))
            }
        }
    }
}

/// Fails unless all copies of the table say the same.
fn compare(reader: &dyn ReadAt, boot: &Boot, used: u64) -> Result<()> {
    let (mut first, mut other) = (vec![], vec![]);
    let mut at = 0;
    while at < used {
        // At most `PIECE`.
        let length = (used - at).min(PIECE) as usize;
        first.resize(length, 0);
        other.resize(length, 0);
        reader.read_at(&mut first, boot.fat_start + at)?;
        for n in 1..boot.fats {
            reader.read_at(&mut other, boot.fat_start + n * boot.fat_length + at)?;
            if other != first {
                return Err(Error::undetermined(
                    "the copies of the vfat filesystem's allocation table differ",
                )
                .hint("Repair it with `fsck.vfat` on a copy of the image."));
            }
        }
        at += length as u64;
    }
    Ok(())
}
