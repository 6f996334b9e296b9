//! Containers that put guest bytes at places of their file: reading in runs, and finding holes.

use std::ops::Range;

use crate::error::Result;
use crate::image::ReadAt;
use crate::image::slice::check_range;

/// Where a run of guest bytes stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: zeros.
    Zero,
    /// From this byte of the file on.
    At(u64),
}

impl Place {
    /// Whether bytes at `next` go on where `length` bytes at `self` end.
    pub(super) fn goes_on(self, length: u64, next: Place) -> bool {
        match (self, next) {
            (Place::Zero, Place::Zero) => true,
            (Place::At(here), Place::At(there)) => here.checked_add(length) == Some(there),
            _ => false,
        }
    }
}

/// How many runs one answer about data may join, so that it costs the same on every disk.
const JOINED: usize = 16;

/// A map from guest bytes to bytes of a file.
pub(super) trait Mapped: Send + Sync {
    /// The file.
    fn bytes(&self) -> &dyn ReadAt;

    /// Guest-visible size in bytes.
    fn guest_size(&self) -> u64;

    /// The place of guest byte `offset`, and where its run ends: after `offset`, at most at
    /// `limit`, which is inside the disk. What is named lies inside the file.
    fn run(&self, offset: u64, limit: u64) -> Result<(Place, u64)>;
}

/// [`ReadAt::read_at`], one read of the file a run.
pub(super) fn read(map: &impl Mapped, buf: &mut [u8], offset: u64) -> Result<()> {
    check_range(buf.len(), offset, map.guest_size())?;
    let limit = offset + buf.len() as u64;
    let (mut at, mut rest) = (offset, buf);
    while !rest.is_empty() {
        let (place, end) = map.run(at, limit)?;
        let len = usize::try_from(end - at).map_or(rest.len(), |len| len.min(rest.len()));
        let (now, later) = rest.split_at_mut(len);
        match place {
            Place::Zero => now.fill(0),
            Place::At(from) => map.bytes().read_at(now, from)?,
        }
        (at, rest) = (end, later);
    }
    Ok(())
}

/// [`ReadAt::next_data`]; holes of the file are holes of the disk.
pub(super) fn next_data(map: &impl Mapped, offset: u64) -> Result<Option<Range<u64>>> {
    let size = map.guest_size();
    let mut at = offset;
    let mut found: Option<Range<u64>> = None;
    let mut runs = 0;
    while at < size {
        let (place, end) = map.run(at, size)?;
        let data = data_of(map, place, at..end)?;
        match (&mut found, data) {
            (None, data) => found = data,
            (Some(known), Some(data)) if data.start == known.end => known.end = data.end,
            (Some(_), _) => break,
        }
        runs += 1;
        at = match &found {
            Some(known) if known.end < end || runs >= JOINED => break,
            _ => end,
        };
    }
    Ok(found)
}

/// The first data of one run.
fn data_of(map: &impl Mapped, place: Place, run: Range<u64>) -> Result<Option<Range<u64>>> {
    let Place::At(from) = place else { return Ok(None) };
    let length = run.end - run.start;
    let Some(data) = map.bytes().next_data(from)? else { return Ok(None) };
    let (start, end) = (data.start - from, (data.end - from).min(length));
    Ok((start < length).then(|| run.start + start..run.start + end))
}
