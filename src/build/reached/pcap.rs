//! The record of a guest's network that QEMU's `filter-dump` writes: a classic capture file (pcap-savefile(5)), read
//! while it grows. In it devbox leaves marks of its own, so that what was read up to a moment is known.

use std::io::Read;

/// Most bytes of a frame in the file; QEMU is told to write less.
const LONGEST: usize = 64 << 10;
/// The numbers at its beginning, for seconds with microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
/// Frames begin with an Ethernet header.
const ETHERNET: u32 = 1;
/// Both times of a mark; QEMU writes the time of its clock.
const MARK: u32 = u32::MAX;

/// One record of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A frame, perhaps cut short.
    Frame(&'a [u8]),
    /// A mark with its number.
    Mark(u32),
}

/// A mark as it is written into the file.
pub(crate) fn mark(number: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (at, value) in [MARK, MARK, 4, 4, number].into_iter().enumerate() {
        bytes[at * 4..at * 4 + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// Gives each record to `take` until the file ends, or until `take` says no.
///
/// # Errors
/// It is no such file: why.
pub(crate) fn read(
    mut file: impl Read,
    mut take: impl FnMut(Record<'_>) -> bool,
) -> Result<(), String> {
    let mut head = [0; 24];
    if !fill(&mut file, &mut head)? {
        return Ok(());
    }
    // The host that wrote it is the host that reads it.
    if word(&head, 0) != MAGIC || word(&head, 20) != ETHERNET {
        return Err("it does not begin as one".to_owned());
    }
    let mut frame = vec![];
    let mut head = [0; 16];
    while fill(&mut file, &mut head)? {
        let length = usize::try_from(word(&head, 8)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(format!("it has a frame of {length} bytes"));
        }
        frame.resize(length, 0);
        if !fill(&mut file, &mut frame)? {
            return Ok(());
        }
        let is_mark = (word(&head, 0), word(&head, 4), length) == (MARK, MARK, 4);
        let record = if is_mark { Record::Mark(word(&frame, 0)) } else { Record::Frame(&frame) };
        if !take(record) {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether so many bytes came; a record that is cut off by the end is none.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<bool, String> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[&[u8]]) -> Vec<u8> {
        let mut file = vec![];
        for value in [MAGIC, 0x0004_0002, 0, 0, 65_535, ETHERNET] {
            file.extend(value.to_ne_bytes());
        }
        records.iter().for_each(|record| file.extend_from_slice(record));
        file
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("short");
        let head = [1, 2, length, length].map(u32::to_ne_bytes).concat();
        [&head[..], bytes].concat()
    }

    fn all(file: &[u8]) -> Result<Vec<String>, String> {
        let mut found = vec![];
        read(file, |record| {
            found.push(format!("{record:?}"));
            true
        })
        .map(|()| found)
    }

    #[test]
    fn frames_and_marks_come_in_their_order_and_a_cut_off_end_is_no_record() {
        let whole = file(&[&frame(b"abc"), &mark(7), &frame(b"")]);
        let expected = ["Frame([97, 98, 99])", "Mark(7)", "Frame([])"];
        assert_eq!(all(&whole).expect("read"), expected);
        assert_eq!(all(&whole[..whole.len() - 1]).expect("read"), expected[..2]);
        assert_eq!(all(&[]).expect("read"), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        assert!(all(&[0; 24]).is_err());
        let huge = [1, 2, u32::MAX, 0].map(u32::to_ne_bytes).concat();
        assert!(all(&file(&[&huge])).is_err());
    }
}
