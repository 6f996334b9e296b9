//! A metadata area: a header, and behind it a ring of texts of which one counts.

use super::checksum::sum;
use super::{SECTOR, damaged};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::field::{le32, le64, sum_holds};

/// Bytes of the area's header; the ring follows (`MDA_HEADER_SIZE`).
const HEADER: u64 = SECTOR;
/// `FMTT_MAGIC`.
const MARK: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// `FMTT_VERSION`.
const VERSION: u32 = 1;
/// Flag of a text's place: the copy is not kept up to date (`RAW_LOCN_IGNORED`).
const IGNORED: u32 = 1;
/// Longest text in bytes that is believed; a group of a thousand volumes has some hundred KiB.
const TEXT: u64 = 4 << 20;

/// What one metadata area says.
#[derive(Debug, Clone)]
pub(super) enum Area {
    /// The volume is in no group, or this copy is switched off.
    Empty,
    /// The group's text.
    Text(Vec<u8>),
}

/// Reads the area of `size` bytes at `offset`.
pub(super) fn read(reader: &dyn ReadAt, offset: u64, size: u64) -> Result<Area> {
    let bad = |why: &str| damaged(format_args!("the metadata area at byte {offset}"), why);
    let end = offset.checked_add(size);
    if size < 2 * HEADER || end.is_none_or(|end| end > reader.size()) {
        return Err(bad("it is outside its partition"));
    }
    let mut header = [0; HEADER as usize];
    reader.read_at(&mut header, offset)?;
    if header[4..20] != *MARK || !sum_holds(le32(&header, 0), sum(&header[4..])) {
        return Err(bad("its header has a wrong mark or checksum"));
    }
    if le32(&header, 20) != VERSION || le64(&header, 24) != offset || le64(&header, 32) != size {
        return Err(bad("its header says another version or place"));
    }
    // The first place is the committed text; a second one is being written and does not count.
    let (at, length) = (le64(&header, 40), le64(&header, 48));
    let (stored, flags) = (le32(&header, 56), le32(&header, 60));
    if at == 0 || flags & IGNORED != 0 {
        return Ok(Area::Empty);
    }
    let ring = size - HEADER;
    if !(HEADER..size).contains(&at) || length > ring || length > TEXT {
        return Err(bad("its text is outside"));
    }
    // At most `TEXT` bytes.
    let mut text = vec![0; length as usize];
    let first = length.min(size - at);
    let (head, tail) = text.split_at_mut(first as usize);
    reader.read_at(head, offset + at)?;
    // What does not fit before the end goes on behind the header.
    reader.read_at(tail, offset + HEADER)?;
    if !sum_holds(stored, sum(&text)) {
        return Err(bad("its text has a wrong checksum"));
    }
    Ok(Area::Text(text))
}
