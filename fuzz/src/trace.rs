//! Which bytes of an image a parser looks at: those are worth changing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::image::ReadAt;

/// A reader that remembers what was read.
pub struct Traced {
    inner: Arc<dyn ReadAt>,
    /// Start and end of each range.
    read: Mutex<BTreeMap<u64, u64>>,
}

impl Traced {
    /// Watches `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ReadAt>) -> Self {
        Traced { inner, read: Mutex::default() }
    }

    /// What was read so far, in order, ranges that touch joined.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut joined: Vec<Range<u64>> = vec![];
        for (&start, &end) in &*self.read.lock().unwrap_or_else(PoisonError::into_inner) {
            match joined.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => joined.push(start..end),
            }
        }
        joined
    }
}

impl ReadAt for Traced {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read.entry(offset).or_insert(end);
        *known = end.max(*known);
        drop(read);
        self.inner.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.inner.next_data(offset)
    }
}
