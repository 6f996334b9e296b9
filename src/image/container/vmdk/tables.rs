//! Grain directory and grain tables: where each grain of a sparse extent is.
//!
//! All tables are read once when the extent is opened and checked; after that they come through a
//! bounded cache, since those of a big disk do not fit into memory.

use std::sync::Arc;

use super::bad;
use super::header::{Header, SECTOR, TABLE_ENTRIES};
use super::memory::{Share, TableCache};
use crate::error::{Error, Result};
use crate::image::ReadAt as _;
use crate::image::container::source::Source;
use crate::image::field::le32;

/// Bytes of one table.
pub(super) const TABLE: usize = TABLE_ENTRIES as usize * 4;
/// Tables that are read at once, if they stand in a row: 512 KiB.
const AT_ONCE: usize = 256;
/// The entry that stands for a grain of zeros, where the header allows it.
const ZEROED: u32 = 1;

/// One grain table; an entry is the sector of a grain, or 0 for zeros.
pub(super) type Table = [u32; TABLE_ENTRIES as usize];

/// Where the grains of one extent are.
pub(super) struct Tables {
    /// The sector of each table; 0: none.
    directory: Vec<u32>,
    tables: TableCache,
    extent: usize,
    zero_grains: bool,
}

impl Tables {
    /// Reads and checks all tables.
    pub(super) fn open(file: &Source, header: &Header, share: &Share) -> Result<Self> {
        let directory = read_directory(file, header.directory, header.tables())?;
        let tables = Tables {
            directory,
            tables: share.tables.clone(),
            extent: share.extent,
            zero_grains: header.zero_grains,
        };
        tables.check_directory(file)?;
        let copy = match header.copy {
            Some(sector) => Some(read_directory(file, sector, header.tables())?),
            None => None,
        };
        tables.check_tables(file, header, copy.as_deref())?;
        Ok(tables)
    }

    /// The table of `grain`; none if all its grains are zeros.
    pub(super) fn of(&self, file: &Source, grain: u64) -> Result<Option<Arc<Table>>> {
        let at = usize::try_from(grain / u64::from(TABLE_ENTRIES)).ok();
        let Some((at, &sector)) = at.and_then(|at| Some((at, self.directory.get(at)?))) else {
            return Err(bad(file, "its grain directory is too short for the disk"));
        };
        if sector == 0 {
            return Ok(None);
        }
        let read = || {
            let mut bytes = [0; TABLE];
            file.read_at(&mut bytes, u64::from(sector) * SECTOR)?;
            Ok(self.decode(&bytes))
        };
        self.tables.get((self.extent, at), read).map(Some)
    }

    fn decode(&self, bytes: &[u8]) -> Arc<Table> {
        let mut table = [0; TABLE_ENTRIES as usize];
        for (entry, bytes) in table.iter_mut().zip(bytes.chunks_exact(4)) {
            *entry = match le32(bytes, 0) {
                ZEROED if self.zero_grains => 0,
                sector => sector,
            };
        }
        Arc::new(table)
    }

    /// Each table has its place inside the file, and none stands on another one: one table for many
    /// ranges would let a small file claim any amount of data.
    fn check_directory(&self, file: &Source) -> Result<()> {
        let sectors = TABLE as u64 / SECTOR;
        let mut used: Vec<u32> = self.directory.iter().copied().filter(|at| *at != 0).collect();
        used.sort_unstable();
        if used.last().is_some_and(|last| (u64::from(*last) + sectors) * SECTOR > file.size()) {
            return Err(bad(file, "its grain directory names a table outside the file"));
        }
        if used.windows(2).any(|pair| u64::from(pair[1] - pair[0]) < sectors) {
            return Err(bad(file, "two entries of its grain directory name the same table"));
        }
        Ok(())
    }

    /// Each grain is inside the file, all grains together fit into it, and the copies agree.
    fn check_tables(&self, file: &Source, header: &Header, copy: Option<&[u32]>) -> Result<()> {
        if let Some(copy) = copy
            && copy.iter().zip(&self.directory).any(|(a, b)| (*a == 0) != (*b == 0))
        {
            return Err(bad(file, "its grain directory and the redundant one disagree"));
        }
        let mut grains = Grains { file, header, found: 0 };
        let (mut bytes, mut other) = (vec![], vec![]);
        let mut at = 0;
        while at < self.directory.len() {
            if self.directory[at] == 0 {
                at += 1;
                continue;
            }
            let count = in_a_row(&self.directory[at..]);
            let count = copy.map_or(count, |copy| count.min(in_a_row(&copy[at..])));
            read_tables(file, self.directory[at], count, &mut bytes)?;
            if let Some(copy) = copy {
                read_tables(file, copy[at], count, &mut other)?;
                if bytes != other {
                    return Err(bad(file, "its grain tables and the redundant ones disagree"));
                }
            }
            for (next, bytes) in (at..).zip(bytes.chunks_exact(TABLE)) {
                let table = self.decode(bytes);
                grains.check(next as u64 * u64::from(TABLE_ENTRIES), &table)?;
                self.tables.get((self.extent, next), || Ok::<_, Error>(table))?;
            }
            at += count;
        }
        grains.check_sum()
    }
}

/// The directory at `sector`; its bounds are checked.
fn read_directory(file: &Source, sector: u64, entries: u64) -> Result<Vec<u32>> {
    let length = usize::try_from(entries * 4);
    let mut bytes = vec![0; length.map_err(|_| bad(file, "its grain directory is too big"))?];
    file.read_at(&mut bytes, sector * SECTOR)?;
    Ok(bytes.chunks_exact(4).map(|entry| le32(entry, 0)).collect())
}

/// How many tables from the first one on stand one behind the other; at least one.
fn in_a_row(directory: &[u32]) -> usize {
    let sectors = (TABLE as u64 / SECTOR) as u32;
    let next = |pair: &&[u32]| pair[0] != 0 && pair[0].checked_add(sectors) == Some(pair[1]);
    directory.windows(2).take(AT_ONCE - 1).take_while(next).count() + 1
}

fn read_tables(file: &Source, sector: u32, count: usize, bytes: &mut Vec<u8>) -> Result<()> {
    let at = u64::from(sector) * SECTOR;
    let length = count * TABLE;
    if sector == 0 || at + length as u64 > file.size() {
        return Err(bad(file, "its redundant grain directory names a table outside the file"));
    }
    bytes.resize(length, 0);
    file.read_at(bytes, at)
}

/// Counts grains while it checks them.
struct Grains<'a> {
    file: &'a Source,
    header: &'a Header,
    found: u64,
}

impl Grains<'_> {
    fn check(&mut self, first: u64, table: &Table) -> Result<()> {
        let grains = self.header.grains();
        for (grain, &sector) in (first..grains).zip(table) {
            if sector == 0 {
                continue;
            }
            self.found += 1;
            // A packed grain says its length itself; its marker is what has to be there.
            let left = self.header.capacity - grain * self.header.grain;
            let sectors = if self.header.packed { 1 } else { left.min(self.header.grain) };
            if sector == ZEROED || (u64::from(sector) + sectors) * SECTOR > self.file.size() {
                return Err(bad(
                    self.file,
                    format!("grain {grain} at sector {sector} is outside the file's data"),
                ));
            }
        }
        Ok(())
    }

    /// Grains that share their bytes would let a small file claim any amount of data.
    fn check_sum(&self) -> Result<()> {
        let each = if self.header.packed { SECTOR } else { self.header.grain_bytes() };
        let room = self.file.size().div_ceil(each);
        if self.found > room {
            let found = self.found;
            return Err(bad(
                self.file,
                format!("its tables name {found} grains, and the file has room for {room}"),
            ));
        }
        Ok(())
    }
}
