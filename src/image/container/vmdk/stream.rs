//! A stream-optimised extent: every grain is packed for itself, behind a marker.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

use super::bad;
use super::header::{Header, SECTOR, TABLE_ENTRIES};
use super::memory::{GrainCache, Share};
use super::tables::{Table, Tables};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::field::{le32, le64};
use crate::image::slice::check_range;

/// A grain marker: the guest's sector and the packed length.
const MARKER: usize = 12;
/// Longest piece of the file that is read ahead for one read of the guest's bytes.
const AHEAD: u64 = 1 << 20;

/// An open stream-optimised extent.
pub(super) struct Stream {
    file: Source,
    header: Header,
    size: u64,
    tables: Tables,
    grains: GrainCache,
    extent: usize,
    /// Tools that no thread uses at the moment; one a thread at most.
    idle: Mutex<Vec<Unpacker>>,
}

impl Stream {
    /// `grains` is the cache of the extent's [`Share`].
    pub(super) fn open(
        file: Source,
        header: Header,
        share: &Share,
        grains: GrainCache,
    ) -> Result<Self> {
        let tables = Tables::open(&file, &header, share)?;
        Ok(Stream {
            size: header.size(&file)?,
            file,
            header,
            tables,
            grains,
            extent: share.extent,
            idle: Mutex::default(),
        })
    }

    /// Fills `buf` from grains of one table.
    fn read_in_table(
        &self,
        buf: &mut [u8],
        offset: u64,
        table: &Table,
        tool: &mut Unpacker,
    ) -> Result<()> {
        let bytes = self.header.grain_bytes();
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (grain, within) = (at / bytes, at % bytes);
            let left = bytes - within;
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let index = (grain % u64::from(TABLE_ENTRIES)) as usize;
            let wanted = (within + rest.len() as u64).div_ceil(bytes) as usize;
            let (now, later) = rest.split_at_mut(len);
            match table[index] {
                0 => now.fill(0),
                sector => {
                    let span = span(&table[index..], wanted, bytes);
                    let place = Packed { grain, at: u64::from(sector) * SECTOR, span };
                    self.read_in_grain(now, within, place, tool)?;
                }
            }
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    /// Fills `buf` from inside one grain.
    fn read_in_grain(
        &self,
        buf: &mut [u8],
        within: u64,
        place: Packed,
        tool: &mut Unpacker,
    ) -> Result<()> {
        let whole = self.header.grain_bytes() as usize;
        let left = self.size - place.grain * whole as u64;
        let known = self.grains.peek((self.extent, place.grain));
        // A whole grain is unpacked where it is wanted: no copy, and no place in the cache, since
        // nobody asks for it again.
        if known.is_none() && buf.len() == whole && left >= whole as u64 {
            return self.unpack(buf, place, tool);
        }
        let unpack = || {
            let mut data = vec![0; whole.min(usize::try_from(left).unwrap_or(whole))];
            self.unpack(&mut data, place, tool)?;
            Ok::<_, Error>(Arc::new(data))
        };
        let grain = match known {
            Some(grain) => grain,
            None => self.grains.get((self.extent, place.grain), unpack)?,
        };
        let from = usize::try_from(within).unwrap_or(usize::MAX);
        match grain.get(from..).and_then(|rest| rest.get(..buf.len())) {
            Some(part) => buf.copy_from_slice(part),
            None => return Err(bad(&self.file, format!("grain {} is too short", place.grain))),
        }
        Ok(())
    }

    /// Unpacks a grain, or as much of it as the disk has.
    fn unpack(&self, out: &mut [u8], place: Packed, tool: &mut Unpacker) -> Result<()> {
        let Packed { grain, at, span } = place;
        let wrong = |why: String| bad(&self.file, format!("grain {grain} {why}"));
        let marker = tool.bytes(&self.file, at, MARKER, span)?;
        let Some(marker) = marker else { return Err(wrong("is outside the file".to_owned())) };
        let (sector, length) = (le64(marker, 0), le32(marker, 8) as usize);
        if sector != grain * self.header.grain {
            return Err(wrong(format!("has the marker of sector {sector}")));
        }
        // Data that does not pack grows by some bytes only.
        if length == 0 || length as u64 > 2 * self.header.grain_bytes() {
            return Err(wrong(format!("has a packed length of {length} bytes")));
        }
        let packed = tool.bytes(&self.file, at, MARKER + length, span)?;
        if packed.is_none() {
            return Err(wrong("ends outside the file".to_owned()));
        }
        let full = self.header.grain_bytes() as usize;
        tool.inflate(at, MARKER..MARKER + length, out, full).map_err(|why| wrong(why.to_owned()))
    }

    fn tool(&self) -> Unpacker {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().unwrap_or_else(Unpacker::new)
    }

    fn put_back(&self, tool: Unpacker) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(tool);
    }
}

/// One packed grain.
#[derive(Clone, Copy)]
struct Packed {
    grain: u64,
    /// Its marker's place in the file.
    at: u64,
    /// How much of the file to read there, in the hope that the next wanted grains are in it.
    span: u64,
}

/// The bytes of the file that the `wanted` grains from the first entry on probably take.
fn span(entries: &[u32], wanted: usize, grain: u64) -> u64 {
    let first = entries.first().copied().unwrap_or(0);
    let behind = entries.iter().skip(wanted).copied().find(|sector| *sector != 0);
    let length = behind.and_then(|end| end.checked_sub(first)).map(|n| u64::from(n) * SECTOR);
    length.unwrap_or(grain).clamp(SECTOR, AHEAD)
}

/// What one thread needs to unpack grains, kept for the next read.
struct Unpacker {
    inflate: Decompress,
    /// Bytes of the file from `start` on.
    packed: Vec<u8>,
    start: u64,
}

impl Unpacker {
    fn new() -> Self {
        Unpacker { inflate: Decompress::new(true), packed: vec![], start: 0 }
    }

    /// `length` bytes of the file from `at`, out of a piece of at least `span` bytes if it has to
    /// be read; none if the file ends before.
    fn bytes(&mut self, file: &Source, at: u64, length: usize, span: u64) -> Result<Option<&[u8]>> {
        let from = |start: u64| at.checked_sub(start).and_then(|from| usize::try_from(from).ok());
        let there = from(self.start).is_some_and(|from| {
            from.checked_add(length).is_some_and(|end| end <= self.packed.len())
        });
        if !there {
            let span = usize::try_from(span).unwrap_or(length).max(length);
            let left = usize::try_from(file.size().saturating_sub(at)).unwrap_or(usize::MAX);
            self.packed.resize(span.min(left), 0);
            // What fails to be read is not there for the next one either.
            self.start = u64::MAX;
            file.read_at(&mut self.packed, at)?;
            self.start = at;
        }
        let from = from(self.start).unwrap_or(usize::MAX);
        Ok(self.packed.get(from..).and_then(|rest| rest.get(..length)))
    }

    /// Unpacks `range` behind byte `at` of the file, which [`Self::bytes`] gave. A grain of `full`
    /// bytes may be cut at the end of the disk; the rest of it is not wanted.
    fn inflate(
        &mut self,
        at: u64,
        range: Range<usize>,
        out: &mut [u8],
        full: usize,
    ) -> Result<(), &'static str> {
        let from = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let packed = from
            .and_then(|from| self.packed.get(from + range.start..from + range.end))
            .ok_or("is not there")?;
        self.inflate.reset(true);
        let damaged = "cannot be unpacked: its zlib stream is damaged";
        let mut rest = vec![];
        let mut status =
            self.inflate.decompress(packed, out, FlushDecompress::Finish).map_err(|_| damaged)?;
        if status != Status::StreamEnd && out.len() < full {
            rest.resize(full - out.len(), 0);
            let done = usize::try_from(self.inflate.total_in()).unwrap_or(packed.len());
            let left = packed.get(done..).unwrap_or_default();
            status = self
                .inflate
                .decompress(left, &mut rest, FlushDecompress::Finish)
                .map_err(|_| damaged)?;
        }
        if status != Status::StreamEnd {
            return Err("cannot be unpacked: its zlib stream is longer than a grain, or cut short");
        }
        if self.inflate.total_out() < out.len() as u64 {
            return Err("cannot be unpacked: its zlib stream is too short");
        }
        Ok(())
    }
}

impl ReadAt for Stream {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)?;
        let bytes = self.header.grain_bytes();
        let per_table = bytes * u64::from(TABLE_ENTRIES);
        let mut tool = self.tool();
        let (mut at, mut rest) = (offset, buf);
        let mut done = Ok(());
        while !rest.is_empty() && done.is_ok() {
            let left = per_table - at % per_table;
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (now, later) = rest.split_at_mut(len);
            done = self.tables.of(&self.file, at / bytes).and_then(|table| match table {
                None => {
                    now.fill(0);
                    Ok(())
                }
                Some(table) => self.read_in_table(now, at, &table, &mut tool),
            });
            (at, rest) = (at + len as u64, later);
        }
        self.put_back(tool);
        done
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let bytes = self.header.grain_bytes();
        let entries = u64::from(TABLE_ENTRIES);
        let mut grain = offset / bytes;
        // Not beyond one table, so that the answer costs the same on every disk.
        while offset < self.size && grain < self.header.grains() {
            let end = ((grain / entries + 1) * entries).min(self.header.grains());
            if let Some(table) = self.tables.of(&self.file, grain)? {
                let is_data = |grain: &u64| table[(grain % entries) as usize] != 0;
                if let Some(first) = (grain..end).find(is_data) {
                    let stop = (first..end).find(|grain| !is_data(grain)).unwrap_or(end);
                    let start = (first * bytes).max(offset);
                    return Ok(Some(start..(stop * bytes).min(self.size)));
                }
            }
            grain = end;
        }
        Ok(None)
    }
}
