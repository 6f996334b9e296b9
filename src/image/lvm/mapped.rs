//! A logical volume as bytes: stretches of physical volumes, one after the other or in stripes.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::image::ReadAt;
use crate::image::slice::check_range;

/// A stretch of the volume.
pub(super) struct Stretch {
    /// Where it ends in the volume; it starts where the one before ends.
    pub(super) end: u64,
    /// Bytes in a stripe; with one area, all of the stretch.
    pub(super) stripe: u64,
    /// One a stripe: the physical volume, and where the stretch starts there.
    pub(super) areas: Vec<(Arc<dyn ReadAt>, u64)>,
}

/// The bytes of a volume.
pub(super) struct Mapped {
    /// In order, none empty.
    stretches: Vec<Stretch>,
}

/// Bytes of the volume that are adjacent on one physical volume.
struct Piece<'a> {
    reader: &'a dyn ReadAt,
    /// Where they are there.
    at: u64,
    length: u64,
}

impl Mapped {
    pub(super) fn new(stretches: Vec<Stretch>) -> Self {
        Mapped { stretches }
    }

    /// The piece that starts at `offset`, which is inside.
    fn piece(&self, offset: u64) -> Option<Piece<'_>> {
        let i = self.stretches.partition_point(|stretch| stretch.end <= offset);
        let stretch = self.stretches.get(i)?;
        let start = if i > 0 { self.stretches.get(i - 1)?.end } else { 0 };
        let inside = offset - start;
        let (number, within) = (inside / stretch.stripe, inside % stretch.stripe);
        // A segment has stripes, and no more than a text can name.
        let stripes = stretch.areas.len() as u64;
        let (reader, first) = stretch.areas.get((number % stripes) as usize)?;
        let at = first + number / stripes * stretch.stripe + within;
        let length = (stretch.stripe - within).min(stretch.end - offset);
        Some(Piece { reader: &**reader, at, length })
    }
}

impl ReadAt for Mapped {
    fn size(&self) -> u64 {
        self.stretches.last().map_or(0, |last| last.end)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size())?;
        let mut done = 0;
        while done < buf.len() {
            let Some(piece) = self.piece(offset + done as u64) else { break };
            let left = buf.len() - done;
            let length = usize::try_from(piece.length).map_or(left, |length| length.min(left));
            piece.reader.read_at(&mut buf[done..done + length], piece.at)?;
            done += length;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let mut at = offset;
        while at < self.size() {
            let Some(piece) = self.piece(at) else { break };
            let end = piece.at + piece.length;
            // Beyond the piece there may be data of anything else.
            if let Some(found) = piece.reader.next_data(piece.at)?.filter(|f| f.start < end) {
                let from = at + (found.start - piece.at);
                return Ok(Some(from..at + (found.end.min(end) - piece.at)));
            }
            at += piece.length;
        }
        Ok(None)
    }

    fn on_disk(&self, range: Range<u64>) -> Option<Vec<Range<u64>>> {
        let (mut at, mut places) = (range.start, vec![]);
        while at < range.end {
            let piece = self.piece(at)?;
            let length = piece.length.min(range.end - at);
            places.extend(piece.reader.on_disk(piece.at..piece.at + length)?);
            at += length;
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oracle::{Memory, Numbers};
    use crate::image::slice::Slice;

    /// A disk that knows it is one.
    struct Disk(Memory);

    impl ReadAt for Disk {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.0.read_at(buf, offset)
        }

        fn on_disk(&self, range: Range<u64>) -> Option<Vec<Range<u64>>> {
            Some(vec![range])
        }
    }

    #[test]
    fn bytes_stand_on_the_disk_where_the_volume_says() {
        let mut numbers = Numbers::new(3);
        let bytes: Vec<u8> = (0..40_000).map(|_| numbers.next() as u8).collect();
        let disk: Arc<dyn ReadAt> = Arc::new(Disk(Memory(bytes.clone())));
        let part = |start| -> Arc<dyn ReadAt> {
            Arc::new(Slice::new(disk.clone(), start, 15_000).expect("inside"))
        };
        let (a, b) = (part(1000), part(20_000));
        let volume = Mapped::new(vec![
            Stretch { end: 4096, stripe: 4096, areas: vec![(a.clone(), 512)] },
            Stretch { end: 12_288, stripe: 1024, areas: vec![(b.clone(), 0), (a, 6000)] },
            Stretch { end: 14_000, stripe: 1712, areas: vec![(b, 9000)] },
        ]);
        for _ in 0..500 {
            let start = numbers.below(14_000);
            let end = start + numbers.below(14_000 - start) + 1;
            let mut read = vec![0; (end - start) as usize];
            volume.read_at(&mut read, start).expect("it reads");
            let places = volume.on_disk(start..end).expect("it is known");
            let there = places.iter().map(|p| &bytes[p.start as usize..p.end as usize]);
            assert_eq!(there.collect::<Vec<_>>().concat(), read, "{start}..{end}");
        }
    }
}
