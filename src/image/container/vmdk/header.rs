//! The header of a sparse extent, and its copy at the end of a stream.
//!
//! Source: VMware, Virtual Disk Format 5.0, sections "Hosted Sparse Extents" and
//! "Stream-Optimized Compressed Sparse Extents".

use std::ops::Range;

use super::{bad, refused};
use crate::error::{Error, Result};
use crate::image::ReadAt as _;
use crate::image::container::source::Source;
use crate::image::field::{le16, le32, le64};

/// The first four bytes of a hosted sparse extent.
pub(in crate::image::container) const MAGIC: &[u8] = b"KDMV";
/// The first four bytes of an extent of ESX Server.
pub(in crate::image::container) const MAGIC_ESX: &[u8] = b"COWD";
/// The first eight bytes of a space-efficient extent (0x00000000cafebabe).
pub(in crate::image::container) const MAGIC_SE: &[u8] = b"\xbe\xba\xfe\xca\0\0\0\0";

pub(super) const SECTOR: u64 = 512;
/// Entries of one grain table; the specification knows no other number.
pub(super) const TABLE_ENTRIES: u32 = 512;
/// Grain sizes in sectors: the specification's smallest one, and 2 MiB, since a grain of a stream is
/// unpacked as a whole.
const GRAINS: Range<u64> = 8..4097;
/// The place of the grain directory if it stands in the footer alone.
const AT_END: u64 = u64::MAX;

const FLAG_LINE_ENDS: u32 = 1;
const FLAG_REDUNDANT: u32 = 1 << 1;
const FLAG_ZERO_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
const FLAGS: u32 =
    FLAG_LINE_ENDS | FLAG_REDUNDANT | FLAG_ZERO_GRAINS | FLAG_COMPRESSED | FLAG_MARKERS;
const DEFLATE: u16 = 1;

/// Types of the markers at the end of a stream.
const MARKER_END: u32 = 0;
const MARKER_FOOTER: u32 = 3;

/// What the header says, checked.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Guest-visible size in sectors.
    pub(super) capacity: u64,
    /// Size of a grain in sectors; a power of two.
    pub(super) grain: u64,
    /// Sector of the grain directory.
    pub(super) directory: u64,
    /// Sector of its copy.
    pub(super) copy: Option<u64>,
    /// The bytes of the file that hold the descriptor.
    pub(super) descriptor: Option<Range<u64>>,
    /// Whether grains are packed, behind a marker each.
    pub(super) packed: bool,
    /// Whether the entry 1 stands for zeros.
    pub(super) zero_grains: bool,
    /// Whether the program that wrote it did not close it.
    pub(super) unclean: bool,
}

impl Header {
    /// Reads the header, or the footer if the header says that it counts.
    pub(super) fn read(file: &Source) -> Result<Self> {
        let first = file.read_up_to(0, SECTOR as usize)?;
        if first.starts_with(MAGIC_ESX) {
            return Err(refused(file, "an extent of ESX Server (COWD)"));
        }
        if first.starts_with(MAGIC_SE) {
            return Err(refused(file, "a space-efficient extent (SESPARSE)"));
        }
        if !first.starts_with(MAGIC) || first.len() < SECTOR as usize {
            return Err(bad(file, "it does not begin with a VMDK header"));
        }
        let header = Header::parse(file, &first)?;
        if header.directory != AT_END {
            return header.check(file);
        }
        // A stream ends with: footer marker, footer, end-of-stream marker.
        let tail = file.size().checked_sub(3 * SECTOR).filter(|at| at.is_multiple_of(SECTOR));
        let tail = tail.ok_or_else(|| bad(file, "it ends before its footer"))?;
        let bytes = file.read_up_to(tail, 3 * SECTOR as usize)?;
        let (marker, rest) = bytes.split_at(SECTOR as usize);
        let (footer, end) = rest.split_at(SECTOR as usize);
        let is_marker = |at: &[u8], kind| le32(at, 8) == 0 && le32(at, 12) == kind;
        if !is_marker(marker, MARKER_FOOTER)
            || !footer.starts_with(MAGIC)
            || !is_marker(end, MARKER_END)
        {
            return Err(bad(file, "it has no footer where the stream ends"));
        }
        let footer = Header::parse(file, footer)?;
        let same = (header.capacity, header.grain, header.packed, header.zero_grains)
            == (footer.capacity, footer.grain, footer.packed, footer.zero_grains);
        if !same {
            return Err(bad(file, "its header and its footer disagree"));
        }
        if footer.directory == AT_END {
            return Err(bad(file, "its footer does not say where the grain directory is"));
        }
        Header { descriptor: header.descriptor, ..footer }.check(file)
    }

    fn parse(file: &Source, bytes: &[u8]) -> Result<Self> {
        let version = le32(bytes, 4);
        // Version 3 added the tracking of changed blocks; its contents are read as those of 1.
        if !(1..=3).contains(&version) {
            return Err(refused(file, &format!("version {version}")));
        }
        let flags = le32(bytes, 8);
        if flags & !FLAGS != 0 {
            let bit = (flags & !FLAGS).trailing_zeros();
            return Err(refused(file, &format!("unknown flag bit {bit}")));
        }
        if flags & FLAG_LINE_ENDS != 0 && bytes[73..77] != *b"\n \r\n" {
            return Err(bad(file, "its line ends were changed, as by a transfer in text mode"));
        }
        let packed = match (flags & FLAG_COMPRESSED != 0, le16(bytes, 77)) {
            (false, 0) => false,
            (true, DEFLATE) => true,
            (true, method) if method > DEFLATE => {
                return Err(refused(file, &format!("compression method {method}")));
            }
            _ => return Err(bad(file, "its flags and its compression method disagree")),
        };
        if packed != (flags & FLAG_MARKERS != 0) {
            let what = if packed { "packed grains without markers" } else { "markers alone" };
            return Err(refused(file, what));
        }
        let grain = le64(bytes, 20);
        if !GRAINS.contains(&grain) || !grain.is_power_of_two() {
            return Err(refused(file, &format!("grains of {grain} sectors")));
        }
        let entries = le32(bytes, 44);
        if entries != TABLE_ENTRIES {
            return Err(refused(file, &format!("grain tables of {entries} entries")));
        }
        let descriptor = match (le64(bytes, 28), le64(bytes, 36)) {
            (0, _) | (_, 0) => None,
            (at, sectors) => {
                let range = at
                    .checked_mul(SECTOR)
                    .zip(at.checked_add(sectors).and_then(|end| end.checked_mul(SECTOR)));
                let (start, end) =
                    range.ok_or_else(|| bad(file, "its descriptor is outside the file"))?;
                Some(start..end)
            }
        };
        Ok(Header {
            capacity: le64(bytes, 12),
            grain,
            directory: le64(bytes, 56),
            copy: (flags & FLAG_REDUNDANT != 0).then(|| le64(bytes, 48)),
            descriptor,
            packed,
            zero_grains: flags & FLAG_ZERO_GRAINS != 0,
            unclean: bytes[72] != 0,
        })
    }

    /// Bounds that need the size of the file.
    fn check(self, file: &Source) -> Result<Self> {
        let inside = |sector: u64, length: u64| {
            let end = sector.checked_mul(SECTOR).and_then(|at| at.checked_add(length));
            sector != 0 && end.is_some_and(|end| end <= file.size())
        };
        let length = self.tables().saturating_mul(4);
        if !inside(self.directory, length) || self.copy.is_some_and(|copy| !inside(copy, length)) {
            return Err(bad(file, "its grain directory is outside the file"));
        }
        Ok(self)
    }

    /// Size of a grain in bytes.
    pub(super) fn grain_bytes(&self) -> u64 {
        self.grain * SECTOR
    }

    /// Grains of the disk; the last one may be cut by its end.
    pub(super) fn grains(&self) -> u64 {
        self.capacity.div_ceil(self.grain)
    }

    /// Grain tables that the disk needs.
    pub(super) fn tables(&self) -> u64 {
        self.grains().div_ceil(u64::from(TABLE_ENTRIES))
    }

    /// Guest-visible size in bytes.
    pub(super) fn size(&self, file: &Source) -> Result<u64, Error> {
        let size = self.capacity.checked_mul(SECTOR);
        size.ok_or_else(|| bad(file, "it claims a disk bigger than 64 bits can count"))
    }
}
