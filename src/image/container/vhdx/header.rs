//! The mark at the start and the two headers, of which the newer one counts.
//!
//! Source: [MS-VHDX], sections 2.2.1 "File Type Identifier" and 2.2.2 "Headers".

use super::guid::Guid;
use super::{MIB, bad, refused};
use crate::error::Result;
use crate::image::ReadAt as _;
use crate::image::container::source::Source;
use crate::image::crc32c::{START, crc32c_without};
use crate::image::field::{le16, le32, le64, sum_holds};

/// The first eight bytes.
pub(in crate::image::container) const MAGIC: &[u8] = b"vhdxfile";
const PLACES: [u64; 2] = [64 << 10, 128 << 10];
const LENGTH: usize = 4096;

/// The log that may hold writes which are not in their places yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    pub(super) id: Guid,
    pub(super) at: u64,
    pub(super) length: u64,
}

/// The header that counts.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) log: Log,
    pub(super) notes: Vec<String>,
}

impl Header {
    pub(super) fn read(file: &Source) -> Result<Self> {
        if file.read_up_to(0, MAGIC.len())? != MAGIC {
            return Err(bad(file, "it does not begin with the VHDX mark"));
        }
        let mut found: Vec<Vec<u8>> = vec![];
        for at in PLACES {
            let bytes = file.read_up_to(at, LENGTH)?;
            if bytes.len() == LENGTH
                && bytes.starts_with(b"head")
                && sum_holds(le32(&bytes, 4), checksum(&bytes))
            {
                found.push(bytes);
            }
        }
        let mut notes = vec![];
        let newest = match found.as_slice() {
            [] => return Err(bad(file, "both of its headers are damaged")),
            [only] => {
                notes.push("one of its two headers is damaged; the other one was used".to_owned());
                only
            }
            [first, second, ..] => match le64(first, 8).cmp(&le64(second, 8)) {
                std::cmp::Ordering::Greater => first,
                std::cmp::Ordering::Less => second,
                std::cmp::Ordering::Equal if first == second => first,
                std::cmp::Ordering::Equal => {
                    return Err(bad(file, "its two headers differ, and none is newer"));
                }
            },
        };
        let version = le16(newest, 66);
        if version != 1 {
            return Err(refused(file, &format!("version {version}")));
        }
        let log = Log {
            id: Guid::at(newest, 48),
            at: le64(newest, 72),
            length: u64::from(le32(newest, 68)),
        };
        let log_version = le16(newest, 64);
        if !log.id.is_zero() && log_version != 0 {
            return Err(refused(file, &format!("log version {log_version}")));
        }
        let end = log.at.checked_add(log.length);
        let aligned = log.at.is_multiple_of(MIB) && log.length.is_multiple_of(MIB);
        if !aligned || (log.length > 0 && log.at < MIB) || end.is_none_or(|end| end > file.size()) {
            return Err(bad(file, "its log is outside the file"));
        }
        Ok(Header { log, notes })
    }
}

/// CRC-32C of a structure whose own checksum stands in bytes 4 to 7.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !crc32c_without(START, bytes, &[(4, 4)])
}
