//! Sparse members: a map of where the stored bytes belong; the rest is zeros.

use std::ops::Range;
use std::sync::Arc;

use super::BLOCK;
use super::Fault;
use super::header::number;
use super::pax::{Records, decimal};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::slice::check_range;

/// Most pieces of all members of an archive together, 24 bytes of memory each.
pub(super) const PIECES: usize = 1_000_000;

/// A map as it stands in the archive.
pub(super) struct Map {
    /// Offsets and lengths in the member, in order.
    pieces: Vec<(u64, u64)>,
    /// Size of the member.
    size: u64,
}

impl Map {
    /// How many pieces it has.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }
}

/// The map of GNU tar's old format: in the header, and in blocks behind it (GNU tar manual, "Old GNU
/// Format"; `struct sparse_header` and `struct oldgnu_header` of its `tar.h`).
///
/// `left` is how many pieces there may be.
pub(super) fn old_gnu(
    header: &[u8; BLOCK],
    left: usize,
    more: &mut dyn FnMut() -> Result<[u8; BLOCK], Fault>,
) -> Result<Map, Fault> {
    let bad = || Fault::from("the map of a sparse member is damaged".to_owned());
    let size = number(&header[483..495]).ok_or_else(bad)?;
    let mut pieces = vec![];
    let mut ended = false;
    let mut add = |entries: &[u8], extended: bool| {
        for entry in entries.chunks_exact(24) {
            // Unused entries are empty, and the last ones: behind the first of them GNU tar looks no
            // further.
            if entry[0] == 0 {
                ended = true;
                continue;
            }
            let offset = number(&entry[..12]).ok_or_else(bad)?;
            let length = number(&entry[12..]).ok_or_else(bad)?;
            if ended {
                return Err(bad());
            }
            if pieces.len() >= left {
                return Err(too_many());
            }
            pieces.push((offset, length));
        }
        if ended && extended { Err(bad()) } else { Ok(extended) }
    };
    let mut extended = add(&header[386..482], header[482] != 0)?;
    while extended {
        let block = more()?;
        extended = add(&block[..504], block[504] != 0)?;
    }
    Ok(Map { pieces, size })
}

fn too_many() -> Fault {
    Fault::from(format!("its sparse members have more than {PIECES} pieces"))
}

/// The map of GNU format 1.0, decimal numbers a line before the contents, padded to whole blocks;
/// also how many bytes it takes (GNU tar manual, "PAX Format, Version 1.0").
///
/// `left` is how many pieces there may be.
pub(super) fn pax(data: &dyn ReadAt, records: &Records, left: usize) -> Result<(Map, u64), Fault> {
    let bad = || Fault::from("the map of a sparse member is damaged".to_owned());
    let size = records.sparse_size.ok_or_else(bad)?;
    let mut at = 0u64;
    let mut block = [0u8; BLOCK];
    let mut used = BLOCK;
    let mut next = || -> Result<u64, Fault> {
        // 20 digits hold every number of 64 bits.
        let mut line = Vec::with_capacity(20);
        loop {
            if used == BLOCK {
                if at.saturating_add(BLOCK as u64) > data.size() {
                    return Err(bad());
                }
                data.read_at(&mut block, at)?;
                at += BLOCK as u64;
                used = 0;
            }
            let byte = block[used];
            used += 1;
            match byte {
                b'\n' => return decimal(&line).ok_or_else(bad),
                _ if line.len() < 20 => line.push(byte),
                _ => return Err(bad()),
            }
        }
    };
    let count = next()?;
    if count > left as u64 {
        return Err(too_many());
    }
    let mut pieces = vec![];
    for _ in 0..count {
        pieces.push((next()?, next()?));
    }
    Ok((Map { pieces, size }, at))
}

/// One piece of a sparse member that is stored.
struct Piece {
    /// Where it is in the member.
    range: Range<u64>,
    /// Where its bytes begin in what is stored.
    stored: u64,
}

/// A sparse member as the file that it was.
pub(super) struct Sparse {
    data: Arc<dyn ReadAt>,
    /// In order, apart from each other, none empty.
    pieces: Vec<Piece>,
    size: u64,
}

impl Sparse {
    /// `data` without its first `skip` bytes, in the places of `map`.
    pub(super) fn new(data: Arc<dyn ReadAt>, map: Map, skip: u64) -> Result<Self, String> {
        let mut pieces = vec![];
        let (mut end, mut stored) = (0u64, skip);
        for (offset, length) in map.pieces {
            let stop = offset.checked_add(length).filter(|stop| *stop <= map.size);
            let Some(stop) = stop.filter(|_| offset >= end) else {
                return Err("has a map whose pieces overlap or lie outside of it".to_owned());
            };
            end = stop;
            // The last entry often is an empty one at the end.
            if length > 0 {
                pieces.push(Piece { range: offset..stop, stored });
            }
            stored = stored.checked_add(length).ok_or("has an impossible map")?;
        }
        if stored != data.size() {
            return Err(format!("stores {} bytes, but its map speaks of {stored}", data.size()));
        }
        Ok(Sparse { data, pieces, size: map.size })
    }

    /// The first piece that ends behind `offset`.
    fn first(&self, offset: u64) -> usize {
        self.pieces.partition_point(|piece| piece.range.end <= offset)
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for piece in self.pieces.iter().skip(self.first(offset)) {
            let (from, to) = (piece.range.start.max(offset), piece.range.end.min(end));
            if from >= to {
                break;
            }
            let within = |at: u64| usize::try_from(at - offset).unwrap_or(buf.len());
            let (start, stop) = (within(from), within(to));
            self.data.read_at(&mut buf[start..stop], piece.stored + (from - piece.range.start))?;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let found = self.pieces.get(self.first(offset));
        Ok(found.map(|piece| piece.range.start.max(offset)..piece.range.end))
    }
}
