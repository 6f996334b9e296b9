//! The sectors that a replay changes, and what it stamps on them: sequence numbers and checksums.

use std::collections::BTreeMap;

use super::super::checksum;
use super::super::fault::fixed_limit;
use super::super::field::Fields as _;
use super::super::volume::{BASIC, Overlay, Volume};
use super::record::bad;
use crate::error::Result;

/// Most sectors that a replay may change.
const SECTORS: usize = 1 << 19;
/// Longest buffer in sectors: 64 KiB.
const LONGEST: u32 = 128;

/// Where version 5 has the sequence number, the checksum and the UUID of a structure.
pub(super) struct Marks {
    lsn: usize,
    crc: usize,
    uuid: usize,
}

/// The filesystem as it is in the middle of a replay.
pub(super) struct Places<'a> {
    pub(super) volume: &'a Volume,
    overlay: Overlay,
    /// Sequence number of the transactions that are replayed.
    lsn: u64,
    /// Buffers that they changed: they get its number once none of them is left, since it makes
    /// older changes stay away.
    changed: BTreeMap<(u64, u32), ()>,
}

impl<'a> Places<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        Places { volume, overlay: Overlay::new(), lsn: 0, changed: BTreeMap::new() }
    }

    /// A transaction with the sequence number `lsn` follows.
    pub(super) fn begin(&mut self, lsn: u64) -> Result<()> {
        if lsn != self.lsn {
            self.stamp()?;
            self.lsn = lsn;
        }
        Ok(())
    }

    /// The changed sectors.
    pub(super) fn finish(mut self) -> Result<Overlay> {
        self.stamp()?;
        Ok(self.overlay)
    }

    /// `count` sectors from disk address `at` on.
    pub(super) fn read(&self, at: u64, count: u32) -> Result<Vec<u8>> {
        let inside = count <= LONGEST && count > 0 && at.checked_add(u64::from(count)).is_some();
        if !inside || at > u64::MAX / BASIC - u64::from(count) {
            return Err(bad(format_args!("it changes {count} sectors at {at}")));
        }
        let mut all = self.volume.bytes(at * BASIC, count as usize * BASIC as usize)?;
        for (sector, new) in self.overlay.range(at..at + u64::from(count)) {
            let start = (sector - at) as usize * BASIC as usize;
            all[start..start + BASIC as usize].copy_from_slice(new);
        }
        Ok(all)
    }

    /// Takes what differs between `old`, which was read at `at`, and `new`.
    pub(super) fn write(&mut self, at: u64, old: &[u8], new: &[u8]) -> Result<()> {
        let (old, _) = old.as_chunks::<{ BASIC as usize }>();
        let (new, _) = new.as_chunks::<{ BASIC as usize }>();
        for (sector, (old, new)) in (at..).zip(old.iter().zip(new)) {
            if old != new {
                self.overlay.insert(sector, *new);
            }
        }
        if self.overlay.len() > SECTORS {
            return Err(fixed_limit("sectors changed by its log", SECTORS));
        }
        Ok(())
    }

    /// Remembers that a buffer gets a sequence number and a checksum.
    pub(super) fn changed(&mut self, at: u64, count: u32) {
        self.changed.insert((at, count), ());
    }

    fn stamp(&mut self) -> Result<()> {
        let v5 = self.volume.sb.features.v5();
        for ((at, count), ()) in std::mem::take(&mut self.changed) {
            let old = self.read(at, count)?;
            let Some(marks) = marks(&old).filter(|_| v5) else { continue };
            let mut new = old.clone();
            put(&mut new, marks.lsn, &self.lsn.to_be_bytes());
            let crc = checksum::compute(&new, marks.crc);
            put(&mut new, marks.crc, &crc.to_le_bytes());
            self.write(at, &old, &new)?;
        }
        Ok(())
    }

    /// Whether the buffer `old` was written after the transaction that is replayed.
    pub(super) fn is_newer(&self, old: &[u8]) -> Result<bool> {
        let Some(marks) = marks(old).filter(|_| self.volume.sb.features.v5()) else {
            return Ok(false);
        };
        if old.bytes_at(marks.uuid, 16)? != self.volume.sb.meta_uuid {
            return Ok(false);
        }
        let lsn = old.u64_at(marks.lsn)?;
        Ok(lsn != 0 && lsn != u64::MAX && lsn >= self.lsn)
    }
}

/// Puts `bytes` at `at`, inside of `buffer`.
pub(super) fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = buffer.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// Where a structure has its marks, by its magic number; `None` for what has none.
fn marks(buffer: &[u8]) -> Option<Marks> {
    let mark = |lsn, crc, uuid| Some(Marks { lsn, crc, uuid });
    match &buffer.array_at::<4>(0).ok()? {
        b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => mark(24, 52, 32),
        b"BMA3" => mark(32, 64, 40),
        b"XAGF" => mark(208, 216, 64),
        b"XAFL" => mark(24, 32, 8),
        b"XAGI" => mark(320, 312, 296),
        b"XFSB" => mark(240, 224, 32),
        b"XSLM" => mark(48, 12, 16),
        b"XDB3" | b"XDD3" | b"XDF3" => mark(16, 4, 24),
        _ => match buffer.u16_at(8).ok()? {
            0x3df1 | 0x3dff | 0x3ebe | 0x3bee => mark(24, 12, 32),
            _ => None,
        },
    }
}
