//! A byte range of a disk as a thing of its own: a partition.

use std::ops::Range;
use std::sync::Arc;

use super::ReadAt;
use crate::error::{Error, Result};

/// `start..start + length` of another reader.
pub struct Slice {
    inner: Arc<dyn ReadAt>,
    start: u64,
    length: u64,
}

impl Slice {
    /// A view of `length` bytes from `start`.
    ///
    /// # Errors
    /// The range is not inside `inner`.
    pub fn new(inner: Arc<dyn ReadAt>, start: u64, length: u64) -> Result<Self> {
        match start.checked_add(length) {
            Some(end) if end <= inner.size() => Ok(Slice { inner, start, length }),
            _ => Err(Error::undetermined(format!(
                "the range of {length} bytes at byte {start} is not inside the disk of {} bytes",
                inner.size()
            ))),
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({}+{})", self.start, self.length)
    }
}

impl ReadAt for Slice {
    fn size(&self) -> u64 {
        self.length
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.length)?;
        self.inner.read_at(buf, self.start + offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        if offset >= self.length {
            return Ok(None);
        }
        let end = self.start + self.length;
        let Some(found) = self.inner.next_data(self.start + offset)? else { return Ok(None) };
        Ok((found.start < end).then(|| found.start - self.start..found.end.min(end) - self.start))
    }

    fn on_disk(&self, range: Range<u64>) -> Option<Vec<Range<u64>>> {
        let end = self.start.checked_add(range.end)?;
        self.inner.on_disk(self.start + range.start..end)
    }
}

/// Fails unless `len` bytes from `offset` lie inside `0..size`.
///
/// # Errors
/// They do not.
pub(crate) fn check_range(len: usize, offset: u64, size: u64) -> Result<()> {
    if offset.checked_add(len as u64).is_some_and(|end| end <= size) {
        return Ok(());
    }
    Err(Error::undetermined(format!(
        "{len} bytes at byte {offset} are outside the {size} bytes that can be read"
    )))
}

/// The same bytes as ranges in order and apart from each other.
pub(crate) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut all: Vec<Range<u64>> = vec![];
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

/// A whole disk that knows it is one, so that [`ReadAt::on_disk`] of what is on it has an answer.
pub struct Whole(pub Arc<dyn ReadAt>);

impl ReadAt for Whole {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.0.next_data(offset)
    }

    fn on_disk(&self, range: Range<u64>) -> Option<Vec<Range<u64>>> {
        Some(vec![range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::container::raw::Raw;

    #[test]
    fn a_slice_reads_its_own_range_and_nothing_else() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("d");
        let data: Vec<u8> = (0..=255).collect();
        std::fs::write(&path, &data).expect("write");
        let raw: Arc<dyn ReadAt> = Arc::new(Raw::open(&path).expect("open"));
        let slice = Slice::new(raw.clone(), 10, 20).expect("inside");
        let mut buf = [0; 20];
        slice.read_at(&mut buf, 0).expect("read");
        assert_eq!(buf[..], data[10..30]);
        assert!(slice.read_at(&mut buf, 1).is_err());
        assert!(slice.read_at(&mut buf[..1], u64::MAX).is_err());
        assert_eq!(slice.next_data(5).expect("map"), Some(5..20));
        assert_eq!(slice.next_data(20).expect("map"), None);
        assert!(Slice::new(raw.clone(), 250, 7).is_err());
        assert!(Slice::new(raw, u64::MAX, 2).is_err());
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(joined(vec![4..6, 0..2, 2..3, 5..8, 5..6]), [0..3, 4..8]);
    }
}
