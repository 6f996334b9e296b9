//! The block table: where each block of the disk is.
//!
//! Source: [MS-VHDX], section 2.5 "BAT".

use std::ops::Range;
use std::sync::Arc;

use super::metadata::Metadata;
use super::region::Regions;
use super::{MIB, bad, refused};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::cache::Cache;
use crate::image::container::mapped::{self, Mapped, Place};
use crate::image::container::source::Source;
use crate::image::field::le64;

/// Entries that are read at once later on.
const PAGE: u64 = 512;
/// Memory for pages: 4 MiB of them map 512 GiB at the smallest block size.
const PAGES: usize = 1024;
/// Bytes of the table that are read at once when it is checked.
const AT_ONCE: u64 = 1 << 20;
/// Largest file: a bit for each MiB of it is held while the table is checked, 16 MiB of memory.
const MAX_FILE: u64 = 128 << 40;
/// Sectors that one bitmap block describes (section 2.5).
const CHUNK_SECTORS: u64 = 1 << 23;

const OFFSET: u64 = !(MIB - 1);
const STATE: u64 = 7;

/// An open disk.
pub(super) struct Disk {
    /// For messages.
    file: Source,
    /// The file's bytes after the log was applied.
    bytes: Arc<dyn ReadAt>,
    metadata: Metadata,
    /// Where the table is.
    table: Range<u64>,
    /// Payload blocks between two entries for bitmaps.
    ratio: u64,
    pages: Cache<u64, [u64]>,
}

impl Disk {
    /// Checks the whole table.
    pub(super) fn open(
        file: Source,
        bytes: Arc<dyn ReadAt>,
        metadata: Metadata,
        regions: &Regions,
    ) -> Result<Self> {
        let ratio = CHUNK_SECTORS * metadata.sector / metadata.block;
        let disk = Disk {
            file,
            bytes,
            metadata,
            table: regions.block_table.clone(),
            ratio,
            pages: Cache::new(PAGES),
        };
        if disk.entries() * 8 > disk.table.end - disk.table.start {
            return Err(bad(&disk.file, "its block table is too short for the disk"));
        }
        disk.check(&regions.taken)?;
        Ok(disk)
    }

    fn blocks(&self) -> u64 {
        self.metadata.size.div_ceil(self.metadata.block)
    }

    /// Entries of the table that the disk needs; one for a bitmap after each chunk of blocks.
    fn entries(&self) -> u64 {
        let blocks = self.blocks();
        blocks + blocks.saturating_sub(1) / self.ratio
    }

    fn entry_of(&self, block: u64) -> u64 {
        block + block / self.ratio
    }

    /// The block of an entry; none for a bitmap's. A disk without a parent does not use bitmaps, and
    /// QEMU up to 8.0 could leave anything in their entries.
    fn block_of(&self, entry: u64) -> Option<u64> {
        let (chunk, within) = (entry / (self.ratio + 1), entry % (self.ratio + 1));
        (within < self.ratio).then(|| chunk * self.ratio + within)
    }

    /// The bytes of a block that belong to the disk.
    fn length(&self, block: u64) -> u64 {
        (self.metadata.size - block * self.metadata.block).min(self.metadata.block)
    }

    /// Where the bytes of `block` are.
    fn decode(&self, block: u64, entry: u64) -> Result<Place> {
        let wrong = |why: String| bad(&self.file, format!("its block {block} {why}"));
        // Unmapped is 3; it was 5 in a draft, which QEMU reads too.
        match entry & STATE {
            0..=3 | 5 => Ok(Place::Zero),
            6 if entry & !(OFFSET | STATE) != 0 => Err(wrong("has reserved bits set".to_owned())),
            6 => {
                let start = entry & OFFSET;
                let end = start.checked_add(self.length(block));
                if start == 0 || end.is_none_or(|end| end > self.bytes.size()) {
                    return Err(wrong(format!("at byte {start} is outside the file")));
                }
                Ok(Place::At(start))
            }
            7 => Err(wrong("is there in part, and the disk has no parent".to_owned())),
            state => Err(wrong(format!("has the unknown state {state}"))),
        }
    }

    /// Every block is inside the file and alone in its place: shared bytes would let a small file
    /// claim any amount of data.
    fn check(&self, taken: &[Range<u64>]) -> Result<()> {
        if self.bytes.size() > MAX_FILE {
            return Err(refused(&self.file, "a file of more than 128 TiB"));
        }
        let mut used = Used::new(self.bytes.size());
        for range in taken {
            used.take(range);
        }
        let end = self.table.start + self.entries() * 8;
        let mut at = self.table.start;
        let mut piece = vec![];
        while let Some(data) = self.bytes.next_data(at)?.filter(|data| data.start < end) {
            // A hole is entries of zero: blocks that are not there.
            let start = data.start - (data.start - self.table.start) % 8;
            let stop = data.end.min(end).min(start + AT_ONCE).next_multiple_of(8);
            piece.resize(usize::try_from(stop - start).unwrap_or(0), 0);
            self.bytes.read_at(&mut piece, start)?;
            let first = (start - self.table.start) / 8;
            for (entry, bytes) in (first..).zip(piece.chunks_exact(8)) {
                let Some(block) = self.block_of(entry).filter(|block| *block < self.blocks())
                else {
                    continue;
                };
                if let Place::At(start) = self.decode(block, le64(bytes, 0))?
                    && !used.take(&(start..start + self.length(block)))
                {
                    let why = format!("its block {block} at byte {start} stands on something else");
                    return Err(bad(&self.file, why));
                }
            }
            at = stop;
        }
        Ok(())
    }

    fn page(&self, page: u64) -> Result<Arc<[u64]>> {
        self.pages.get(page, || {
            let start = self.table.start + page * PAGE * 8;
            let length = (self.table.end - start).min(PAGE * 8);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            self.bytes.read_at(&mut bytes, start)?;
            Ok(bytes.chunks_exact(8).map(|entry| le64(entry, 0)).collect())
        })
    }
}

/// Which MiB of the file something stands on.
struct Used(Vec<u64>);

impl Used {
    fn new(size: u64) -> Self {
        Used(vec![0; usize::try_from(size.div_ceil(MIB).div_ceil(64)).unwrap_or(0)])
    }

    /// Marks the MiB that a range touches; false if one of them was marked.
    fn take(&mut self, range: &Range<u64>) -> bool {
        let mut free = true;
        for mib in range.start / MIB..range.end.div_ceil(MIB) {
            let bit = 1 << (mib % 64);
            let word = usize::try_from(mib / 64).ok().and_then(|at| self.0.get_mut(at));
            free &= word.is_some_and(|word| std::mem::replace(word, *word | bit) & bit == 0);
        }
        free
    }
}

impl Mapped for Disk {
    fn bytes(&self) -> &dyn ReadAt {
        &*self.bytes
    }

    fn guest_size(&self) -> u64 {
        self.metadata.size
    }

    fn run(&self, offset: u64, limit: u64) -> Result<(Place, u64)> {
        let bytes = self.metadata.block;
        let block = offset / bytes;
        let page = self.entry_of(block) / PAGE;
        let entries = self.page(page)?;
        let place = |block: u64| {
            let entry = self.entry_of(block);
            let at = usize::try_from(entry % PAGE).ok().filter(|_| entry / PAGE == page);
            let entry = at.and_then(|at| entries.get(at)).copied();
            entry.map(|entry| self.decode(block, entry)).transpose()
        };
        let Some(first) = place(block)? else {
            return Err(bad(&self.file, "its block table is too short for the disk"));
        };
        let end_of = |blocks: u64| ((block + blocks) * bytes).min(limit);
        let mut blocks = 1;
        while end_of(blocks) < limit
            && let Some(next) = place(block + blocks)?
            && first.goes_on(blocks * bytes, next)
        {
            blocks += 1;
        }
        let found = match first {
            Place::Zero => Place::Zero,
            Place::At(start) => Place::At(start + offset % bytes),
        };
        Ok((found, end_of(blocks)))
    }
}

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.metadata.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        mapped::read(self, buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        mapped::next_data(self, offset)
    }
}
