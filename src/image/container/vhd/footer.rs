//! The footer: what kind of disk it is, and how big.
//!
//! Source: Virtual Hard Disk Image Format Specification, version 1.0, "Hard Disk Footer Format".

use std::ops::Range;

use crate::image::field::{be16, be32, be64, sum_holds};

/// The first eight bytes.
pub(in crate::image::container) const COOKIE: &[u8] = b"conectix";
/// Length in bytes.
pub(super) const LENGTH: usize = 512;
pub(super) const SECTOR: u64 = 512;

/// Programs that count the size that they write; the others count cylinders, heads and sectors. The
/// list is QEMU's (block/vpc.c), with Azure's mark, which newer versions of QEMU have too.
const COUNT_SIZE: &[&[u8; 4]] = &[b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0", b"wa\0\0"];
/// A geometry that holds no more: the disk is at least that big, so the size counts.
const FULL_GEOMETRY: u64 = 65535 * 16 * 255;

/// What kind of disk a footer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Plain bytes before the footer.
    Fixed,
    /// Blocks where a table says.
    Dynamic,
    /// The differences to another disk.
    Differencing,
}

/// A footer whose checksum holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    /// The field "current size", in bytes.
    pub(super) current_size: u64,
    /// Sectors that the geometry counts.
    geometry: u64,
    creator: [u8; 4],
    /// Where the header of a dynamic disk is.
    pub(super) header: u64,
    id: [u8; 16],
    /// Whether a machine with this disk was suspended.
    pub(super) suspended: bool,
}

impl Footer {
    /// Reads 512 bytes. The error is a sentence's end about the footer.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < LENGTH || !bytes.starts_with(COOKIE) {
            return Err("is not there".to_owned());
        }
        if !sum_holds(be32(bytes, 64), checksum(&bytes[..LENGTH], 64..68)) {
            return Err("is damaged: its checksum does not match".to_owned());
        }
        let version = be32(bytes, 12);
        if version >> 16 != 1 {
            return Err(format!("has the unknown version {}.{}", version >> 16, version & 0xffff));
        }
        let kind = match be32(bytes, 60) {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => return Err(format!("has the unknown disk type {other}")),
        };
        let array = |at: usize| std::array::from_fn(|n| bytes[at + n]);
        let creator = std::array::from_fn(|n| bytes[28 + n]);
        Ok(Footer {
            kind,
            current_size: be64(bytes, 48),
            geometry: u64::from(be16(bytes, 56)) * u64::from(bytes[58]) * u64::from(bytes[59]),
            creator,
            header: be64(bytes, 16),
            id: array(68),
            suspended: bytes[84] != 0,
        })
    }

    /// The disk's size in bytes, as QEMU sees it: Virtual PC shows its guests what the geometry
    /// counts, Hyper-V and others what the size says.
    pub(super) fn size(&self) -> u64 {
        if COUNT_SIZE.contains(&&self.creator) || self.geometry == FULL_GEOMETRY {
            self.current_size / SECTOR * SECTOR
        } else {
            self.geometry * SECTOR
        }
    }

    /// What to say if the two sizes differ.
    pub(super) fn size_note(&self) -> Option<String> {
        let (size, other) = (self.size(), self.current_size);
        (size != other).then(|| {
            format!(
                "its footer says {other} bytes, and a geometry of {} bytes; read as {size} bytes, as QEMU does for its creator `{}`",
                self.geometry * SECTOR,
                self.creator.escape_ascii()
            )
        })
    }
}

/// The ones' complement of the sum of all bytes but the checksum's own.
pub(super) fn checksum(bytes: &[u8], own: Range<usize>) -> u32 {
    let sum = bytes.iter().enumerate().filter(|(at, _)| !own.contains(at));
    !sum.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}
