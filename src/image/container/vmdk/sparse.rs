//! A sparse extent whose grains stand in the file as they are.

use std::ops::Range;

use super::header::{Header, SECTOR, TABLE_ENTRIES};
use super::memory::Share;
use super::tables::Tables;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::mapped::{self, Mapped, Place};
use crate::image::container::source::Source;

/// An open sparse extent.
pub(super) struct Sparse {
    file: Source,
    header: Header,
    size: u64,
    tables: Tables,
}

impl Sparse {
    pub(super) fn open(file: Source, header: Header, share: &Share) -> Result<Self> {
        let tables = Tables::open(&file, &header, share)?;
        Ok(Sparse { size: header.size(&file)?, file, header, tables })
    }
}

impl Mapped for Sparse {
    fn bytes(&self) -> &dyn ReadAt {
        &self.file
    }

    fn guest_size(&self) -> u64 {
        self.size
    }

    fn run(&self, offset: u64, limit: u64) -> Result<(Place, u64)> {
        let bytes = self.header.grain_bytes();
        let grain = offset / bytes;
        let at = (grain % u64::from(TABLE_ENTRIES)) as usize;
        let end_of = |grains: usize| ((grain + grains as u64) * bytes).min(limit);
        let Some(table) = self.tables.of(&self.file, grain)? else {
            return Ok((Place::Zero, end_of(TABLE_ENTRIES as usize - at)));
        };
        let place = |sector: u32| match sector {
            0 => Place::Zero,
            sector => Place::At(u64::from(sector) * SECTOR),
        };
        let first = place(table[at]);
        let mut grains = 1;
        while let Some(next) = table.get(at + grains)
            && first.goes_on(grains as u64 * bytes, place(*next))
            && end_of(grains) < limit
        {
            grains += 1;
        }
        let found = match first {
            Place::Zero => Place::Zero,
            Place::At(start) => Place::At(start + offset % bytes),
        };
        Ok((found, end_of(grains)))
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        mapped::read(self, buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        mapped::next_data(self, offset)
    }
}
