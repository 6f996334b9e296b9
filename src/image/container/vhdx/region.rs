//! The region table: where the block table and the metadata are.
//!
//! Source: [MS-VHDX], section 2.2.3 "Region Table".

use std::ops::Range;

use super::guid::Guid;
use super::header::{Log, checksum};
use super::{MIB, bad, refused};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::field::{le32, le64, sum_holds};

const PLACES: [u64; 2] = [192 << 10, 256 << 10];
const LENGTH: usize = 64 << 10;
const MAX_ENTRIES: u32 = 2047;
const REQUIRED: u32 = 1;

const BLOCK_TABLE: Guid =
    Guid::new(0x2dc2_7766, 0xf623, 0x4200, *b"\x9d\x64\x11\x5e\x9b\xfd\x4a\x08");
const METADATA: Guid = Guid::new(0x8b7c_a206, 0x4790, 0x4b9a, *b"\xb8\xfe\x57\x5f\x05\x0f\x88\x6e");

/// Byte ranges of the file; each begins and ends at a whole MiB and stands on no other one.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) block_table: Range<u64>,
    pub(super) metadata: Range<u64>,
    /// Everything that is no block: headers, log, regions.
    pub(super) taken: Vec<Range<u64>>,
}

impl Regions {
    /// Reads the table in `bytes`, which are those of `file` after the log was applied.
    pub(super) fn read(file: &Source, bytes: &dyn ReadAt, log: &Log) -> Result<Self> {
        let mut found: Vec<Vec<u8>> = vec![];
        for at in PLACES {
            let mut table = vec![0; LENGTH];
            if at + LENGTH as u64 > bytes.size() {
                continue;
            }
            bytes.read_at(&mut table, at)?;
            if table.starts_with(b"regi") && sum_holds(le32(&table, 4), checksum(&table)) {
                found.push(table);
            }
        }
        let table = match found.as_slice() {
            [] => return Err(bad(file, "both of its region tables are damaged")),
            [first, second, ..] if first != second => {
                return Err(bad(file, "its two region tables disagree"));
            }
            [first, ..] => first,
        };
        let count = le32(table, 8);
        if count > MAX_ENTRIES {
            return Err(bad(file, format!("its region table claims {count} entries")));
        }
        let (mut block_table, mut metadata) = (None, None);
        let mut taken = vec![0..MIB, log.at..log.at + log.length];
        taken.retain(|range| !range.is_empty());
        for entry in table[16..].chunks_exact(32).take(count as usize) {
            let guid = Guid::at(entry, 0);
            let (at, length) = (le64(entry, 16), u64::from(le32(entry, 24)));
            let end = at.checked_add(length).filter(|end| *end <= bytes.size());
            let aligned = at.is_multiple_of(MIB) && length.is_multiple_of(MIB) && length > 0;
            let Some(end) = end.filter(|_| aligned) else {
                return Err(bad(file, format!("its region {guid} is outside the file")));
            };
            let slot = match guid {
                BLOCK_TABLE => &mut block_table,
                METADATA => &mut metadata,
                _ if le32(entry, 28) & REQUIRED != 0 => {
                    return Err(refused(file, &format!("the region {guid}")));
                }
                _ => &mut None,
            };
            if slot.replace(at..end).is_some() {
                return Err(bad(file, format!("its region {guid} is there twice")));
            }
            taken.push(at..end);
        }
        taken.sort_unstable_by_key(|range| range.start);
        if taken.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err(bad(file, "two of its regions are the same bytes"));
        }
        let missing = |what: &str| bad(file, format!("it has no {what}"));
        Ok(Regions {
            block_table: block_table.ok_or_else(|| missing("block table"))?,
            metadata: metadata.ok_or_else(|| missing("metadata"))?,
            taken,
        })
    }
}
