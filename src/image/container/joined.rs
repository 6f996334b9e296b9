//! Several readers one behind the other, and zeros.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::slice::check_range;

/// So many zero bytes.
pub(super) struct Zeros(pub(super) u64);

impl ReadAt for Zeros {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.0)?;
        buf.fill(0);
        Ok(())
    }

    fn next_data(&self, _: u64) -> Result<Option<Range<u64>>> {
        Ok(None)
    }
}

/// Readers that follow each other.
pub(super) struct Joined {
    /// Where each part ends, ascending, and the part; none is empty.
    parts: Vec<(u64, Arc<dyn ReadAt>)>,
}

impl Joined {
    /// # Errors
    /// The sizes add up to more than 64 bits hold.
    pub(super) fn new(parts: Vec<Arc<dyn ReadAt>>) -> Result<Self> {
        let mut end = 0u64;
        let mut placed = vec![];
        for part in parts {
            if part.size() == 0 {
                continue;
            }
            end = end.checked_add(part.size()).ok_or_else(|| {
                Error::undetermined("the parts of the disk are together bigger than any disk")
            })?;
            placed.push((end, part));
        }
        Ok(Joined { parts: placed })
    }

    /// The parts from the one that holds `offset` on, each with its first byte's place.
    fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Arc<dyn ReadAt>)> {
        let first = self.parts.partition_point(|(end, _)| *end <= offset);
        self.parts.iter().skip(first).map(|(end, part)| (end - part.size(), part))
    }
}

impl ReadAt for Joined {
    fn size(&self) -> u64 {
        self.parts.last().map_or(0, |(end, _)| *end)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size())?;
        let (mut at, mut rest) = (offset, buf);
        for (start, part) in self.from(offset) {
            let left = part.size() - (at - start);
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (now, later) = rest.split_at_mut(len);
            part.read_at(now, at - start)?;
            (at, rest) = (at + len as u64, later);
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        for (start, part) in self.from(offset) {
            if let Some(found) = part.next_data(offset.saturating_sub(start))? {
                return Ok(Some(start + found.start..start + found.end));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oracle::{Memory, contents, data_ranges};

    #[test]
    fn parts_follow_each_other_and_zeros_are_holes() {
        let part = |byte: u8, len: usize| Memory::shared(vec![byte; len]);
        let parts = vec![part(1, 3), Arc::new(Zeros(4)), part(9, 0), part(2, 5)];
        let joined = Joined::new(parts).expect("small");
        let all = contents(&joined);
        assert_eq!(all, [1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2, 2]);
        for from in 0..all.len() {
            for to in from..=all.len() {
                let mut buf = vec![7; to - from];
                joined.read_at(&mut buf, from as u64).expect("inside");
                assert_eq!(buf, all[from..to]);
            }
        }
        assert_eq!(data_ranges(&joined), [0..3, 7..12]);
        assert_eq!(joined.next_data(12).expect("map"), None);
        assert!(joined.read_at(&mut [0; 2], 11).is_err());
        let huge: Vec<Arc<dyn ReadAt>> = vec![Arc::new(Zeros(u64::MAX)), Arc::new(Zeros(1))];
        assert!(Joined::new(huge).is_err());
    }
}
