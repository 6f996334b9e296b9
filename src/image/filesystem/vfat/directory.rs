//! Directory entries, short and long (sections "FAT Directory Structure" and "FAT Long Directory
//! Entries").

use crate::image::field::{le16, le32};

const SLOT: usize = 32;
const READ_ONLY: u8 = 0x01;
const VOLUME: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG: u8 = 0x0f;
const DELETED: u8 = 0xe5;
const LAST_LONG: u8 = 0x40;
/// Most slots of one long name: 20 of 13 characters hold the 255 that are possible.
const MAX_LONG: u8 = 20;

/// One file or directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) directory: bool,
    pub(super) read_only: bool,
    /// First cluster; 0 for an empty file.
    pub(super) first: u32,
    pub(super) size: u32,
    pub(super) mtime: i64,
}

impl Entry {
    /// Whether this is a directory's link to itself or to its parent.
    pub(super) fn is_dot(&self) -> bool {
        self.directory && (self.name == "." || self.name == "..")
    }
}

/// The entries of a directory's bytes; an error is a reason in words.
pub(super) struct Slots<'a> {
    slots: std::slice::ChunksExact<'a, u8>,
    long: LongName,
}

impl<'a> Slots<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Slots { slots: bytes.chunks_exact(SLOT), long: LongName::default() }
    }

    /// The volume's label, without padding.
    pub(super) fn label(self) -> Option<Vec<u8>> {
        self.slots
            .take_while(|slot| slot[0] != 0)
            .find(|slot| {
                slot[0] != DELETED
                    && slot[11] & 0x3f != LONG
                    && slot[11] & (VOLUME | DIRECTORY) == VOLUME
            })
            .map(|slot| {
                let mut label = slot[..11].to_vec();
                if label[0] == 0x05 {
                    label[0] = 0xe5;
                }
                label.trim_ascii_end().to_vec()
            })
    }
}

impl Iterator for Slots<'_> {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let slot = self.slots.next()?;
            match slot[0] {
                0 => return None,
                DELETED => self.long = LongName::default(),
                _ if slot[11] & 0x3f == LONG => self.long.add(slot),
                _ if slot[11] & VOLUME != 0 => self.long = LongName::default(),
                _ => {
                    let long = std::mem::take(&mut self.long);
                    return Some(entry(slot, &long));
                }
            }
        }
    }
}

fn entry(slot: &[u8], long: &LongName) -> Result<Entry, String> {
    let name = match long.finish(checksum(&slot[..11])) {
        Some(units) => {
            let name =
                String::from_utf16(&units).map_err(|_| "a long name is not UTF-16".to_owned())?;
            if !is_alias(&slot[..11], &name) {
                return Err(format!(
                    "`{}` has a second name, `{}`, which is not made from the first",
                    name.escape_debug(),
                    slot[..11].escape_ascii()
                ));
            }
            name
        }
        None => short_name(slot)?,
    };
    if name.is_empty() {
        return Err("an entry has no name".to_owned());
    }
    Ok(Entry {
        name,
        directory: slot[11] & DIRECTORY != 0,
        read_only: slot[11] & READ_ONLY != 0,
        first: u32::from(le16(slot, 20)) << 16 | u32::from(le16(slot, 26)),
        size: le32(slot, 28),
        mtime: seconds(le16(slot, 24), le16(slot, 22)),
    })
}

/// `NAME.EXT`, in lower case where byte 12 says so, as Windows NT and Linux show it.
fn short_name(slot: &[u8]) -> Result<String, String> {
    const LOWER_BASE: u8 = 0x08;
    const LOWER_EXTENSION: u8 = 0x10;
    let part = |bytes: &[u8], lower: bool| {
        let bytes = bytes.trim_ascii_end();
        if !bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
            let shown = bytes.escape_ascii();
            return Err(format!(
                "the name `{shown}` is in an unknown character set, and it has no long name"
            ));
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        Ok(if lower { text.to_ascii_lowercase() } else { text })
    };
    let base = part(&slot[..8], slot[12] & LOWER_BASE != 0)?;
    let extension = part(&slot[8..11], slot[12] & LOWER_EXTENSION != 0)?;
    Ok(if extension.is_empty() { base } else { format!("{base}.{extension}") })
}

/// Whether a short name is what systems make of the long one: the same letters, or something with `~`.
/// Every reader finds the file by both, firmware too, and digests know the long one alone: another
/// file could be `BOOTX64.EFI`. Letters beyond ASCII are in a character set that is not known.
fn is_alias(short: &[u8], long: &str) -> bool {
    let (base, extension) = (short[..8].trim_ascii_end(), short[8..].trim_ascii_end());
    // 05 stands for e5, which as the first byte means that the entry is deleted.
    if base.contains(&b'~') || !short.is_ascii() || short[0] == 0x05 {
        return true;
    }
    let dot: &[u8] = if extension.is_empty() { b"" } else { b"." };
    [base, dot, extension].concat().eq_ignore_ascii_case(long.as_bytes())
}

/// Ties a long name to its short one (section "Organization and Association of Short & Long").
fn checksum(short: &[u8]) -> u8 {
    short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b))
}

/// A long name in the making: its slots come last part first.
#[derive(Debug, Default)]
struct LongName {
    /// Parts, last one first.
    parts: Vec<[u16; 13]>,
    /// Number of the part that has to come next; 0 when all are here.
    expected: u8,
    checksum: u8,
    valid: bool,
}

impl LongName {
    fn add(&mut self, slot: &[u8]) {
        let number = slot[0] & !LAST_LONG;
        if slot[0] & LAST_LONG != 0 {
            *self = LongName {
                parts: vec![],
                expected: number,
                checksum: slot[13],
                valid: number <= MAX_LONG,
            };
        }
        if !self.valid || number == 0 || number != self.expected || slot[13] != self.checksum {
            *self = LongName::default();
            return;
        }
        let mut part = [0; 13];
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (unit, at) in part.iter_mut().zip(places) {
            *unit = le16(slot, at);
        }
        self.parts.push(part);
        self.expected -= 1;
    }

    /// The whole name, if it belongs to the short one. One that does not is what a system without
    /// long names left behind, and Linux passes over it too.
    fn finish(&self, checksum: u8) -> Option<Vec<u16>> {
        if !self.valid || self.expected != 0 || self.checksum != checksum {
            return None;
        }
        let units = self.parts.iter().rev().flatten().copied();
        Some(units.take_while(|unit| *unit != 0).collect())
    }
}

/// Seconds since 1970 of a date and a time (section "Date and Time Formats"), taken as UTC; 0 for
/// an impossible one.
fn seconds(date: u16, time: u16) -> i64 {
    let part = |value: u16, at: u16, bits: u16| {
        i8::try_from(value >> at & ((1 << bits) - 1)).unwrap_or(-1)
    };
    let year = i16::try_from(1980 + (date >> 9)).unwrap_or(-1);
    let (month, day) = (part(date, 5, 4), part(date, 0, 5));
    let (hour, minute, second) = (part(time, 11, 5), part(time, 5, 6), part(time, 0, 5) * 2);
    jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0)
        .and_then(|when| when.to_zoned(jiff::tz::TimeZone::UTC))
        .map_or(0, |when| when.timestamp().as_second())
}
