//! What a layer holds in one moment, copied, so that whoever writes to it may go on.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Place, Qcow2, open_alone};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::limits::Limits;
use crate::image::slice::check_range;

/// A copy of a layer: its tables and the data of its own, nothing of what is below it.
pub struct Capture {
    path: PathBuf,
    size: u64,
    /// Where each piece of the file begins, in order, and its bytes.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Capture({}, {} bytes)", self.path.display(), self.held())
    }
}

impl Capture {
    /// Copies the layer at `path`, to which nobody writes meanwhile.
    ///
    /// # Errors
    /// The layer is damaged, cannot be read, or its data has more than `most` bytes.
    pub fn of(path: &Path, limits: &Limits, most: u64) -> Result<Self> {
        let source = Source::open(path)?;
        let layer = open_alone(source.clone(), limits)?;
        let places = layer.places()?;
        let bytes: u64 = places.iter().map(|place| place.end - place.start).sum();
        if bytes > most {
            let mib = |bytes: u64| bytes >> 20;
            return Err(Error::undetermined(format!(
                "`{}` holds {} MiB, too much to copy in a moment",
                path.display(),
                mib(bytes)
            ))
            .cause(format!("at most {} MiB are copied while the machine stands still", mib(most)))
            .hint("Stop the machine with `devbox halt`, and ask again."));
        }
        let mut pieces = Vec::with_capacity(places.len());
        for place in places {
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length];
            source.read_at(&mut bytes, place.start)?;
            pieces.push((place.start, bytes));
        }
        Ok(Capture { path: path.to_path_buf(), size: source.size(), pieces })
    }

    /// How many bytes were copied.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    pub(super) fn into_source(self) -> Source {
        let path = self.path.clone();
        Source::captured(&path, Arc::new(self))
    }
}

impl ReadAt for Capture {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let next = self.pieces.partition_point(|(start, _)| *start <= at);
            let inside = next.checked_sub(1).and_then(|i| {
                let (start, bytes) = &self.pieces[i];
                bytes.get(usize::try_from(at - start).ok()?..).filter(|here| !here.is_empty())
            });
            // What no table names is read as part of a larger piece at most.
            let gap = self.pieces.get(next).map_or(self.size, |(start, _)| *start) - at;
            let gap = usize::try_from(gap).unwrap_or(usize::MAX);
            let length = rest.len().min(inside.map_or(gap, <[u8]>::len));
            let (now, later) = rest.split_at_mut(length);
            match inside {
                Some(here) => now.copy_from_slice(&here[..length]),
                None => now.fill(0),
            }
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }
}

impl Qcow2 {
    /// The ranges of the file that reading needs: header, tables, data; in order, none twice.
    fn places(&self) -> Result<Vec<Range<u64>>> {
        let (cluster, end) = (self.cluster_size(), self.file.size());
        let l1 = self.header.l1_offset;
        let mut places = vec![0..cluster, l1..l1 + self.header.l1_entries as u64 * 8];
        places.extend(self.l1.iter().filter(|at| **at != 0).map(|at| *at..*at + cluster));
        let mut at = 0;
        while at < self.size() {
            let (place, next) = self.run(at, self.size())?;
            match place {
                Place::Data(host) => places.push(host..host.saturating_add(next - at)),
                Place::Compressed { host, len } => {
                    places.push(host..host.saturating_add(len as u64));
                }
                Place::Unallocated | Place::Zero => {}
            }
            at = next;
        }
        for place in &mut places {
            *place = place.start.min(end)..place.end.min(end);
        }
        Ok(crate::image::slice::joined(places))
    }
}
