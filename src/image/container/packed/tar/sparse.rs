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

/// Most pieces of one member, 16 bytes of memory each.
const PIECES: usize = 1_000_000;

/// A map as it stands in the archive.
pub(super) struct Map {
    /// Offsets and lengths in the member, in order.
    pieces: Vec<(u64, u64)>,
    /// Size of the member.
    size: u64,
}

/// The map of GNU tar's old format: in the header, and in blocks behind it (GNU tar manual, "Old GNU
/// Format"; `struct sparse_header` and `struct oldgnu_header` of its `tar.h`).
pub(super) fn old_gnu(
    header: &[u8; BLOCK],
    more: &mut dyn FnMut() -> Result<[u8; BLOCK], Fault>,
) -> Result<Map, Fault> {
    let bad = || Fault::from("the map of a sparse member is damaged".to_owned());
    let size = number(&header[483..495]).ok_or_else(bad)?;
    let mut pieces = vec![];
    let add = |entries: &[u8], pieces: &mut Vec<(u64, u64)>| {
        for entry in entries.chunks_exact(24) {
            // Unused entries are empty.
            if entry[0] == 0 {
                continue;
            }
            let offset = number(&entry[..12]).ok_or_else(bad)?;
            let length = number(&entry[12..]).ok_or_else(bad)?;
            if pieces.len() >= PIECES {
                return Err(Fault::from(format!("a sparse member has more than {PIECES} pieces")));
            }
            pieces.push((offset, length));
        }
        Ok(())
    };
    add(&header[386..482], &mut pieces)?;
    let mut extended = header[482] != 0;
    while extended {
        let block = more()?;
        add(&block[..504], &mut pieces)?;
        extended = block[504] != 0;
    }
    Ok(Map { pieces, size })
}

/// The map of GNU format 1.0, decimal numbers a line before the contents, padded to whole blocks;
/// also how many bytes it takes (GNU tar manual, "PAX Format, Version 1.0").
pub(super) fn pax(data: &dyn ReadAt, records: &Records) -> Result<(Map, u64), Fault> {
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
    if count > PIECES as u64 {
        return Err(format!("a sparse member has {count} pieces; the limit is {PIECES}").into());
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
