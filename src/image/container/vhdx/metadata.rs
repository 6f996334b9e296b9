//! The metadata that decide how the disk is read: its size, its sectors, its blocks, its parent.
//!
//! Source: [MS-VHDX], section 2.6 "Metadata Region".

use std::ops::Range;

use super::guid::Guid;
use super::{bad, refused};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::field::{le16, le32, le64};

const TABLE: usize = 64 << 10;
const MAX_ENTRIES: u16 = 2047;
const USER: u32 = 1;
const REQUIRED: u32 = 1 << 2;
const HAS_PARENT: u32 = 1 << 1;
const LEAVE_ALLOCATED: u32 = 1;

const FILE_PARAMETERS: Guid =
    Guid::new(0xcaa1_6737, 0xfa36, 0x4d43, *b"\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b");
const DISK_SIZE: Guid =
    Guid::new(0x2fa5_4224, 0xcd1b, 0x4876, *b"\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8");
const DISK_ID: Guid = Guid::new(0xbeca_12ab, 0xb2e6, 0x4523, *b"\x93\xef\xc3\x09\xe0\x00\xc7\x46");
const LOGICAL_SECTOR: Guid =
    Guid::new(0x8141_bf1d, 0xa96f, 0x4709, *b"\xba\x47\xf2\x33\xa8\xfa\xab\x5f");
const PHYSICAL_SECTOR: Guid =
    Guid::new(0xcda3_48c7, 0x445d, 0x4471, *b"\x9c\xc9\xe9\x88\x52\x51\xc5\x56");
const PARENT: Guid = Guid::new(0xa8d3_5f2d, 0xb30b, 0x454d, *b"\xab\xf7\xd3\xd8\x48\x34\xab\x0c");

/// Sizes of a payload block in bytes.
const BLOCKS: std::ops::RangeInclusive<u32> = 1 << 20..=256 << 20;
/// Largest disk of the format in bytes.
const MAX_SIZE: u64 = 64 << 40;

/// What the metadata say, checked.
#[derive(Debug)]
pub(super) struct Metadata {
    /// Guest-visible size in bytes.
    pub(super) size: u64,
    /// Size of a payload block in bytes; a power of two.
    pub(super) block: u64,
    /// Size of a sector that the guest sees: 512 or 4096 bytes.
    pub(super) sector: u64,
}

impl Metadata {
    pub(super) fn read(file: &Source, bytes: &dyn ReadAt, region: &Range<u64>) -> Result<Self> {
        let mut table = vec![0; TABLE];
        bytes.read_at(&mut table, region.start)?;
        if !table.starts_with(b"metadata") {
            return Err(bad(file, "its metadata table is not there"));
        }
        let count = le16(&table, 10);
        if count > MAX_ENTRIES {
            return Err(bad(file, format!("its metadata table claims {count} entries")));
        }
        let mut items = Items::default();
        for entry in table[32..].chunks_exact(32).take(usize::from(count)) {
            let guid = Guid::at(entry, 0);
            let flags = le32(entry, 24);
            let slot = match guid {
                FILE_PARAMETERS => &mut items.parameters,
                DISK_SIZE => &mut items.size,
                LOGICAL_SECTOR => &mut items.sector,
                PARENT => return Err(parent(file)),
                // They name the disk to the guest, and say how it is best written.
                DISK_ID | PHYSICAL_SECTOR => continue,
                _ if flags & REQUIRED != 0 => {
                    let whose = if flags & USER != 0 { "user metadata" } else { "metadata" };
                    return Err(refused(file, &format!("the {whose} {guid}")));
                }
                _ => continue,
            };
            let (at, length) = (u64::from(le32(entry, 16)), u64::from(le32(entry, 20)));
            let inside = at >= TABLE as u64 && at + length <= region.end - region.start;
            if !inside || length > 8 {
                return Err(bad(
                    file,
                    format!("its metadata {guid} are outside their region, or too long"),
                ));
            }
            let mut item = [0; 8];
            let (there, _) = item.split_at_mut(length as usize);
            bytes.read_at(there, region.start + at)?;
            if slot.replace((item, length)).is_some() {
                return Err(bad(file, format!("its metadata {guid} are there twice")));
            }
        }
        items.check(file)
    }
}

/// An item's bytes and how many there are.
type Item = Option<([u8; 8], u64)>;

#[derive(Default)]
struct Items {
    parameters: Item,
    size: Item,
    sector: Item,
}

impl Items {
    fn check(&self, file: &Source) -> Result<Metadata> {
        let item = |item: &Item, length: u64, what: &str| match item {
            Some((bytes, found)) if *found == length => Ok(*bytes),
            Some((_, found)) => Err(bad(file, format!("its {what} has {found} bytes"))),
            None => Err(bad(file, format!("its metadata have no {what}"))),
        };
        let parameters = item(&self.parameters, 8, "block size")?;
        let flags = le32(&parameters, 4);
        if flags & HAS_PARENT != 0 {
            return Err(parent(file));
        }
        if flags & !(HAS_PARENT | LEAVE_ALLOCATED) != 0 {
            let bit = (flags & !(HAS_PARENT | LEAVE_ALLOCATED)).trailing_zeros();
            return Err(refused(file, &format!("unknown parameter bit {bit}")));
        }
        let block = le32(&parameters, 0);
        if !block.is_power_of_two() || !BLOCKS.contains(&block) {
            return Err(bad(file, format!("it claims blocks of {block} bytes")));
        }
        let sector = u64::from(le32(&item(&self.sector, 4, "sector size")?, 0));
        if ![512, 4096].contains(&sector) {
            return Err(bad(file, format!("it claims sectors of {sector} bytes")));
        }
        let size = le64(&item(&self.size, 8, "disk size")?, 0);
        if size > MAX_SIZE || !size.is_multiple_of(sector) {
            return Err(bad(file, format!("it claims a disk of {size} bytes")));
        }
        Ok(Metadata { size, block: u64::from(block), sector })
    }
}

fn parent(file: &Source) -> crate::error::Error {
    refused(file, "a parent disk: it is a differencing disk")
}
