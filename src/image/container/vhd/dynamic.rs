//! A dynamic disk: a table says where each block is; each block begins with a bitmap of its sectors.
//!
//! Source: Virtual Hard Disk Image Format Specification, version 1.0, "Dynamic Disk Header Format",
//! "Block Allocation Table and Data Blocks".

use std::ops::Range;
use std::sync::Arc;

use super::footer::{Footer, LENGTH, SECTOR, checksum};
use super::{Opened, bad, cut_short, refused};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::cache::Cache;
use crate::image::container::mapped::{self, Mapped, Place};
use crate::image::container::source::Source;
use crate::image::field::{be32, be64, sum_holds};
use crate::image::slice::check_range;

const COOKIE: &[u8] = b"cxsparse";
const HEADER: usize = 1024;
/// Sizes of blocks in bytes. 2 MiB is usual, 512 KiB was once; QEMU reads any power of two.
const BLOCKS: std::ops::RangeInclusive<u32> = 4096..=256 << 20;
/// Largest table in entries: 16 MiB of memory, 8 TiB of disk at the usual block size.
const MAX_ENTRIES: u32 = 4 << 20;
/// The entry of a block that was never written.
const UNUSED: u32 = u32::MAX;
/// Memory for bitmaps in bytes.
const BITMAPS: usize = 8 << 20;

/// An open dynamic disk.
struct Dynamic {
    file: Source,
    size: u64,
    block: u64,
    /// Length of a block's bitmap in bytes; whole sectors.
    bitmap: u64,
    /// The sector of each block's bitmap.
    table: Vec<u32>,
    bitmaps: Cache<usize, Bitmap>,
}

/// Which sectors of a block were written.
enum Bitmap {
    All,
    /// One bit a sector, the first one the highest of its byte.
    Some(Vec<u8>),
}

pub(super) fn open(file: Source, footer: &Footer, most: u64) -> Result<Opened> {
    let size = footer.size();
    if size > most {
        return Err(super::super::too_large(&file, size, most));
    }
    let header = file.read_up_to(footer.header, HEADER)?;
    if header.len() < HEADER || !header.starts_with(COOKIE) {
        return Err(bad(&file, "the header of the dynamic disk is not there"));
    }
    if !sum_holds(be32(&header, 36), checksum(&header, 36..40)) {
        return Err(bad(&file, "the checksum of the dynamic disk's header does not match"));
    }
    let version = be32(&header, 24);
    if version >> 16 != 1 {
        return Err(refused(
            &file,
            &format!("header version {}.{}", version >> 16, version & 0xffff),
        ));
    }
    let block = be32(&header, 32);
    if !block.is_power_of_two() || !BLOCKS.contains(&block) {
        return Err(refused(&file, &format!("blocks of {block} bytes")));
    }
    let entries = be32(&header, 28);
    let needed = size.div_ceil(u64::from(block));
    if u64::from(entries) < needed {
        return Err(bad(
            &file,
            format!("its table has {entries} entries, and the disk {needed} blocks"),
        ));
    }
    if needed > u64::from(MAX_ENTRIES) {
        return Err(refused(&file, &format!("a table of more than {MAX_ENTRIES} entries")));
    }
    let at = be64(&header, 16);
    let length = needed * 4;
    if at.checked_add(length).is_none_or(|end| end > file.size()) {
        return Err(cut_short(&file, format!("its table at byte {at} is outside the file")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_at(&mut bytes, at)?;
    let table = bytes.chunks_exact(4).map(|entry| be32(entry, 0)).collect();
    let bitmap = u64::from(block).div_ceil(SECTOR * 8).next_multiple_of(SECTOR);
    let disk = Dynamic {
        size,
        block: u64::from(block),
        bitmap,
        table,
        bitmaps: Cache::new(BITMAPS / bitmap as usize),
        file,
    };
    let header = footer.header..footer.header + HEADER as u64;
    disk.check_table(&[0..LENGTH as u64, header, at..at + length])?;
    Ok(Opened { reader: Arc::new(disk), notes: footer.size_note().into_iter().collect() })
}

impl Dynamic {
    /// Every block is inside the file and alone in its place: shared bytes would let a small file
    /// claim any amount of data.
    fn check_table(&self, metadata: &[Range<u64>]) -> Result<()> {
        let mut used: Vec<Range<u64>> = metadata.to_vec();
        for (number, &sector) in self.table.iter().enumerate() {
            if sector == UNUSED {
                continue;
            }
            let start = u64::from(sector) * SECTOR;
            let end = start + self.bitmap + self.length(number);
            if end > self.file.size() {
                let why = format!("block {number} at sector {sector} is outside the file");
                return Err(cut_short(&self.file, why));
            }
            used.push(start..end);
        }
        used.sort_unstable_by_key(|range| range.start);
        match used.windows(2).find(|pair| pair[1].start < pair[0].end) {
            None => Ok(()),
            Some(pair) => {
                let why = format!("what stands at byte {} stands on something else", pair[1].start);
                Err(bad(&self.file, why))
            }
        }
    }

    /// The bytes of a block that belong to the disk.
    fn length(&self, number: usize) -> u64 {
        (self.size - number as u64 * self.block).min(self.block)
    }

    fn bitmap(&self, number: usize, sector: u32) -> Result<Arc<Bitmap>> {
        self.bitmaps.get(number, || {
            let mut bits = vec![0; self.bitmap as usize];
            self.file.read_at(&mut bits, u64::from(sector) * SECTOR)?;
            let sectors = self.length(number).div_ceil(SECTOR);
            let all = (0..sectors).all(|sector| is_set(&bits, sector));
            Ok(Arc::new(if all { Bitmap::All } else { Bitmap::Some(bits) }))
        })
    }

    /// A sector that was never written holds zeros. If it holds something else, readers disagree:
    /// QEMU shows it, others show zeros.
    fn check_bitmap(&self, offset: u64, data: &[u8]) -> Result<()> {
        let number = (offset / self.block) as usize;
        let Some(&sector) = self.table.get(number).filter(|sector| **sector != UNUSED) else {
            return Ok(());
        };
        let Bitmap::Some(bits) = &*self.bitmap(number, sector)? else { return Ok(()) };
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let left = (SECTOR - at % SECTOR) as usize;
            let (now, later) = rest.split_at(left.min(rest.len()));
            if !is_set(bits, at % self.block / SECTOR) && now.iter().any(|byte| *byte != 0) {
                return Err(bad(
                    &self.file,
                    format!(
                        "sector {} of the disk holds data, and its block's bitmap says that it was never written",
                        at / SECTOR
                    ),
                ));
            }
            (at, rest) = (at + now.len() as u64, later);
        }
        Ok(())
    }
}

fn is_set(bits: &[u8], sector: u64) -> bool {
    let byte = usize::try_from(sector / 8).ok().and_then(|at| bits.get(at)).copied().unwrap_or(0);
    byte & (0x80 >> (sector % 8)) != 0
}

impl Mapped for Dynamic {
    fn bytes(&self) -> &dyn ReadAt {
        &self.file
    }

    fn guest_size(&self) -> u64 {
        self.size
    }

    fn run(&self, offset: u64, limit: u64) -> Result<(Place, u64)> {
        let first = (offset / self.block) as usize;
        let end_of = |number: usize| ((number as u64 + 1) * self.block).min(limit);
        match self.table.get(first) {
            None => Err(bad(&self.file, "its table is too short for the disk")),
            Some(&UNUSED) => {
                let wanted = (limit - offset).div_ceil(self.block) as usize + 1;
                let rest = self.table.iter().skip(first).take(wanted);
                let unused = rest.take_while(|sector| **sector == UNUSED).count();
                Ok((Place::Zero, end_of(first + unused - 1)))
            }
            Some(&sector) => {
                let start = u64::from(sector) * SECTOR + self.bitmap;
                Ok((Place::At(start + offset % self.block), end_of(first)))
            }
        }
    }
}

impl ReadAt for Dynamic {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let left = self.block - at % self.block;
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (now, later) = rest.split_at_mut(len);
            mapped::read(self, now, at)?;
            self.check_bitmap(at, now)?;
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        mapped::next_data(self, offset)
    }
}
