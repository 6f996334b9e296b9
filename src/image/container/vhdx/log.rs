//! The log: writes to the tables that may not be in their places yet. It is applied in memory.
//!
//! Source: [MS-VHDX], section 2.3 "Log" (2.3.2 "Log Replay").

use super::guid::Guid;
use super::header::{Log, checksum};
use super::replayed::{Replayed, Sector};
use super::{SECTOR, bad, refused};
use crate::error::Result;
use crate::image::ReadAt as _;
use crate::image::container::source::Source;
use crate::image::field::{le32, le64, sum_holds};

/// Longest log that is applied; it is held in memory. Hyper-V and QEMU make 1 MiB.
const MAX_LENGTH: u64 = 32 << 20;
/// How many times the log's own length is summed up in search of its entries: a hostile log can
/// claim a long entry at each of its sectors.
const EFFORT: u64 = 16;
/// Largest file that a log may ask for, as the block table.
const MAX_FILE: u64 = 128 << 40;
const HEADER: usize = 64;
const DESCRIPTOR: usize = 32;

/// Applies the log, if there is something in it; none if not.
pub(super) fn replay(file: &Source, log: &Log) -> Result<Option<Replayed>> {
    if log.id.is_zero() {
        return Ok(None);
    }
    if log.length == 0 {
        return Err(bad(file, "its header names a log that is not there"));
    }
    if log.length > MAX_LENGTH {
        return Err(refused(file, "a log of more than 32 MiB that has to be applied"));
    }
    let mut bytes = vec![0; usize::try_from(log.length).unwrap_or(0)];
    file.read_at(&mut bytes, log.at)?;
    let mut ring = Ring { bytes, id: log.id, effort: log.length * EFFORT };
    let Some(active) = ring.active().map_err(|why| bad(file, why))? else {
        return Err(bad(file, "its header says that the log is in use, and nothing is in it"));
    };
    let Some(newest) = active.last() else {
        return Err(bad(file, "its log is empty"));
    };
    if newest.flushed > file.size() {
        return Err(bad(
            file,
            format!(
                "its log was written when it had {} bytes; now {}",
                newest.flushed,
                file.size()
            ),
        ));
    }
    if newest.last > MAX_FILE {
        return Err(refused(file, "a file of more than 128 TiB"));
    }
    let mut replayed = Replayed::new(file.clone(), newest.last);
    for entry in &active {
        let bytes = ring.entry_bytes(entry.at, entry.length);
        for change in changes(&bytes, entry).unwrap_or_default() {
            let (at, length) = (change.at, change.length);
            if at.checked_add(length).is_none_or(|end| end > replayed.size()) {
                return Err(bad(file, format!("its log changes byte {at}, outside the file")));
            }
            match change.data {
                Some(data) => replayed.write(at, data),
                None => replayed.zero(at..at + length),
            }
        }
    }
    Ok(Some(replayed))
}

/// The log's area: entries follow each other around its end.
struct Ring {
    bytes: Vec<u8>,
    id: Guid,
    /// Bytes that may still be summed up.
    effort: u64,
}

/// One entry that is sound.
#[derive(Debug, Clone)]
struct Entry {
    /// Its place in the ring.
    at: u64,
    length: u64,
    /// The place of the oldest entry that has to be applied when this one is the newest.
    tail: u64,
    number: u64,
    descriptors: u64,
    /// The file's size when it was written, and the size that its structures need.
    flushed: u64,
    last: u64,
}

/// One write to the file.
struct Change {
    at: u64,
    length: u64,
    /// Zeros if absent.
    data: Option<Box<Sector>>,
}

impl Ring {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// `length` bytes from `at` on, around the end.
    fn entry_bytes(&self, at: u64, length: u64) -> Vec<u8> {
        let (at, length) = (at as usize, length as usize);
        let mut out: Vec<u8> = self.bytes.iter().skip(at).take(length).copied().collect();
        let rest = length.saturating_sub(out.len());
        out.extend(self.bytes.iter().take(rest));
        out
    }

    /// The entries that have to be applied, oldest first: of all sequences of entries with
    /// consecutive numbers, the one with the highest (section 2.3.2, the steps in their order).
    fn active(&mut self) -> Result<Option<Vec<Entry>>, &'static str> {
        let mut candidate: Option<Vec<Entry>> = None;
        let mut tail = 0;
        loop {
            let sequence = self.sequence(tail)?;
            let next = match sequence.last() {
                Some(newest) => (newest.at + newest.length) % self.length(),
                None => (tail + SECTOR) % self.length(),
            };
            if let Some(active) = from_tail(sequence)
                && candidate.as_ref().and_then(|c| c.last()).map(|e| e.number)
                    < active.last().map(|e| e.number)
            {
                candidate = Some(active);
            }
            if next <= tail {
                return Ok(candidate);
            }
            tail = next;
        }
    }

    /// The sound entries that follow each other from `at` on.
    fn sequence(&mut self, at: u64) -> Result<Vec<Entry>, &'static str> {
        let mut found: Vec<Entry> = vec![];
        let (mut at, mut sum) = (at, 0);
        while let Some(entry) = self.entry(at)? {
            let follows =
                found.last().is_none_or(|e| e.number.checked_add(1) == Some(entry.number));
            sum += entry.length;
            if !follows || sum > self.length() {
                break;
            }
            at = (at + entry.length) % self.length();
            found.push(entry);
        }
        Ok(found)
    }

    /// The entry at `at`, if it is sound.
    fn entry(&mut self, at: u64) -> Result<Option<Entry>, &'static str> {
        let head = self.entry_bytes(at, HEADER as u64);
        let entry = Entry {
            at,
            length: u64::from(le32(&head, 8)),
            tail: u64::from(le32(&head, 12)),
            number: le64(&head, 16),
            descriptors: u64::from(le32(&head, 24)),
            flushed: le64(&head, 48),
            last: le64(&head, 56),
        };
        let sound = head.starts_with(b"loge")
            && Guid::at(&head, 32) == self.id
            && entry.number > 0
            && (SECTOR..=self.length()).contains(&entry.length)
            && entry.length.is_multiple_of(SECTOR)
            && entry.tail.is_multiple_of(SECTOR)
            && entry.tail < self.length();
        if !sound {
            return Ok(None);
        }
        self.effort = self
            .effort
            .checked_sub(entry.length)
            .ok_or("its log claims long entries at many places, as no program writes them")?;
        let bytes = self.entry_bytes(at, entry.length);
        let sound =
            sum_holds(le32(&bytes, 4), checksum(&bytes)) && changes(&bytes, &entry).is_some();
        Ok(sound.then_some(entry))
    }
}

/// The part of a sequence from the place that its newest entry names; none if that is not in it.
fn from_tail(sequence: Vec<Entry>) -> Option<Vec<Entry>> {
    let tail = sequence.last()?.tail;
    let first = sequence.iter().position(|entry| entry.at == tail)?;
    Some(sequence.into_iter().skip(first).collect())
}

/// The changes of an entry; none if it is not sound.
fn changes(bytes: &[u8], entry: &Entry) -> Option<Vec<Change>> {
    let count = usize::try_from(entry.descriptors).ok()?;
    let table = bytes.get(HEADER..HEADER.checked_add(count.checked_mul(DESCRIPTOR)?)?)?;
    let data_at = (HEADER + table.len()).next_multiple_of(SECTOR as usize);
    let mut sectors = bytes.get(data_at..)?.chunks_exact(SECTOR as usize);
    let mut found = vec![];
    for descriptor in table.chunks_exact(DESCRIPTOR) {
        let at = le64(descriptor, 16);
        if !at.is_multiple_of(SECTOR) || le64(descriptor, 24) != entry.number {
            return None;
        }
        if descriptor.starts_with(b"zero") {
            let length = le64(descriptor, 8);
            if !length.is_multiple_of(SECTOR) {
                return None;
            }
            found.push(Change { at, length, data: None });
        } else if descriptor.starts_with(b"desc") {
            let sector = sectors.next()?;
            let number = u64::from(le32(sector, 4)) << 32 | u64::from(le32(sector, 4092));
            if !sector.starts_with(b"data") || number != entry.number {
                return None;
            }
            // The marks stand where data belongs, which the descriptor has.
            let mut data: Box<Sector> = Box::new([0; SECTOR as usize]);
            data[..8].copy_from_slice(&descriptor[8..16]);
            data[8..4092].copy_from_slice(&sector[8..4092]);
            data[4092..].copy_from_slice(&descriptor[4..8]);
            found.push(Change { at, length: SECTOR, data: Some(data) });
        } else {
            return None;
        }
    }
    Some(found)
}
