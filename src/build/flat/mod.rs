//! The sealed disk as one qcow2 without backing file. Most of it is written, brought to the disk and read back while the
//! seal's guest runs.
//!
//! What a seal leaves as it is (contents of programs and libraries, see [`steady`]) stands in front in the file; all else
//! follows once the guest is down. That the guest wrote to none of the early clusters is seen in its overlay. Where it
//! did, the file is written once more from the beginning: a guess that was wrong costs time, and nothing that was on
//! the disk before the seal stays in the file.

mod copies;
mod layout;
mod steady;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::chain::{self, Chain};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::qcow2::Layers;
use crate::image::container::{self, Format};
use copies::Copy;
use layout::{CLUSTER, Layout};

/// Clusters that are read and written at a time.
const AT_ONCE: u64 = 16;

/// A file whose early part is being written.
pub(super) struct Begun {
    early: JoinHandle<Result<Early>>,
    /// Who gives it up stops it.
    _stop: DropGuard,
}

/// A file that is written, on the disk, and read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) digest: FileDigest,
    /// Length in bytes.
    pub(super) length: u64,
}

/// Begins to write a disk of `size` bytes to all of `files`. It is the one of `chain` before the seal.
///
/// # Errors
/// The files cannot be made.
pub(super) fn begin(
    chain: &Chain,
    size: u64,
    files: Vec<PathBuf>,
    cancel: &CancellationToken,
) -> Result<Begun> {
    let copies = copies(files)?;
    let chain = chain.clone();
    let stop = cancel.child_token();
    let stopped = stop.clone();
    let early = tokio::task::spawn_blocking(move || {
        let clusters = steady::clusters(&chain);
        Early::write(&*chain.open()?.reader, size, &clusters, copies, &stopped)
    });
    Ok(Begun { early, _stop: stop.drop_guard() })
}

/// Writes the disk to all of `files`, which nothing was begun of.
///
/// # Errors
/// What cannot be read or written; Ctrl-C.
pub(super) fn write(
    disk: &dyn ReadAt,
    files: Vec<PathBuf>,
    cancel: &CancellationToken,
) -> Result<Written> {
    Early::write(disk, disk.size(), &[], copies(files)?, cancel)?.complete(disk, &[], cancel)
}

impl Begun {
    /// Writes the rest of `sealed`, whose uppermost file the seal's guest wrote.
    ///
    /// # Errors
    /// What cannot be read or written, now or in the early part; Ctrl-C.
    pub(super) async fn finish(
        self,
        sealed: Chained,
        cancel: CancellationToken,
    ) -> Result<Written> {
        let early = self.early.await;
        let early = early.map_err(|e| Error::failed("writing the disk was stopped").cause(e))??;
        let rest = move || early.complete(&*sealed.disk, &sealed.changed, &cancel);
        crate::blocking::blocking("writing the disk", rest).await
    }
}

fn copies(files: Vec<PathBuf>) -> Result<Vec<Copy>> {
    files.into_iter().map(Copy::new).collect()
}

/// The part of a file that is written early.
struct Early {
    layout: Layout,
    /// Where the early clusters stand in the file, by their numbers on the disk.
    places: BTreeMap<u64, u64>,
    copies: Vec<Copy>,
}

impl Early {
    /// Writes these clusters of `disk`, but for those that are zeros. `disk` may be shorter than `size`.
    fn write(
        disk: &dyn ReadAt,
        size: u64,
        clusters: &[u64],
        mut copies: Vec<Copy>,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let mut out = Out { places: BTreeMap::new(), next: CLUSTER, copies: &copies };
        let whole = disk.size() / CLUSTER;
        let mut rest = clusters.iter().copied().take_while(|number| *number < whole).peekable();
        let mut buf = vec![];
        while let Some(first) = rest.next() {
            let mut count = 1;
            while count < AT_ONCE && rest.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            out.put(disk, first, count, &mut buf, cancel)?;
        }
        let places = out.places;
        let layout = Layout::new(size, places.len() as u64);
        let header = layout.header()?;
        for copy in &copies {
            copy.write(&header, 0)?;
        }
        settle(&mut copies, layout.early_end(), cancel)?;
        Ok(Early { layout, places, copies })
    }

    /// Writes all else.
    fn complete(
        self,
        disk: &dyn ReadAt,
        changed: &[Range<u64>],
        cancel: &CancellationToken,
    ) -> Result<Written> {
        let touched = |range: &Range<u64>| {
            let clusters = range.start / CLUSTER..range.end.div_ceil(CLUSTER);
            self.places.range(clusters).next().is_some()
        };
        if changed.iter().any(touched) {
            let mut copies = self.copies;
            copies.iter_mut().try_for_each(Copy::empty)?;
            return Early::write(disk, disk.size(), &[], copies, cancel)?.complete(
                disk,
                &[],
                cancel,
            );
        }
        let Early { layout, places, mut copies } = self;
        let mut out = Out { places, next: layout.late_place(), copies: &copies };
        let mut buf = vec![];
        let mut at = 0;
        while let Some(data) = disk.next_data(at)? {
            let mut number = (data.start / CLUSTER).max(at.div_ceil(CLUSTER));
            let end = data.end.div_ceil(CLUSTER);
            while number < end {
                // What is there already is passed over.
                if out.places.contains_key(&number) {
                    number += 1;
                    continue;
                }
                let mut count = 1;
                while count < AT_ONCE
                    && number + count < end
                    && !out.places.contains_key(&(number + count))
                {
                    count += 1;
                }
                out.put(disk, number, count, &mut buf, cancel)?;
                number += count;
            }
            at = end * CLUSTER;
        }
        let (tables, length) = layout.tables(&out.places, out.next);
        for (place, bytes) in tables {
            copies.iter().try_for_each(|copy| copy.write(&bytes, place))?;
        }
        settle(&mut copies, length, cancel)?;
        let mut digests: Vec<_> = copies.into_iter().map(Copy::digest).collect();
        digests.dedup();
        match digests[..] {
            [digest] => Ok(Written { digest, length }),
            _ => Err(Error::failed("the sealed disk was written, and read back with other bytes")
                .hint("Check the host's disk, then build again.")),
        }
    }
}

/// All copies at once.
fn settle(copies: &mut [Copy], end: u64, cancel: &CancellationToken) -> Result<()> {
    std::thread::scope(|scope| {
        let all: Vec<_> =
            copies.iter_mut().map(|copy| scope.spawn(|| copy.settle(end, cancel))).collect();
        all.into_iter().try_for_each(|one| {
            one.join().map_err(|_| Error::failed("reading the disk back was stopped"))?
        })
    })
}

/// Where clusters go.
struct Out<'a> {
    /// Where they stand in the file, by their numbers on the disk.
    places: BTreeMap<u64, u64>,
    /// Where the next one goes.
    next: u64,
    copies: &'a [Copy],
}

impl Out<'_> {
    /// Writes `count` clusters of the disk from the one with the number `first` on, but for those that are zeros. Behind
    /// the end of the disk there are zeros.
    fn put(
        &mut self,
        disk: &dyn ReadAt,
        first: u64,
        count: u64,
        buf: &mut Vec<u8>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        if cancel.is_cancelled() {
            return Err(Error::interrupted("interrupted while the disk was written"));
        }
        let start = first * CLUSTER;
        let length = usize::try_from((count * CLUSTER).min(disk.size() - start)).unwrap_or(0);
        buf.clear();
        buf.resize((count * CLUSTER) as usize, 0);
        disk.read_at(&mut buf[..length], start)?;
        // Clusters that are not zeros close up.
        let mut kept = 0;
        for number in 0..count as usize {
            let from = number * CLUSTER as usize;
            let cluster = from..from + CLUSTER as usize;
            if buf[cluster.clone()].iter().all(|byte| *byte == 0) {
                continue;
            }
            self.places.insert(first + number as u64, self.next + kept as u64);
            buf.copy_within(cluster, kept);
            kept += CLUSTER as usize;
        }
        self.copies.iter().try_for_each(|copy| copy.write(&buf[..kept], self.next))?;
        self.next += kept as u64;
        Ok(())
    }
}

/// A build's disk: the files of its chain, the uppermost first.
#[derive(Clone)]
pub(super) struct Chained {
    /// Guest-visible bytes.
    pub(super) disk: Arc<dyn ReadAt>,
    /// What the uppermost file holds itself: data or zeros.
    pub(super) changed: Vec<Range<u64>>,
}

impl Chained {
    /// Opens the overlay, which lies on the files `below` alone, the lowest last.
    ///
    /// # Errors
    /// It lies on something else, or cannot be read.
    pub(super) fn open(overlay: &Path, below: &[&Path]) -> Result<Self> {
        let options = chain::options(below, Format::Qcow2);
        let layers = Layers::open(overlay, &options)?;
        let opened = container::open(overlay, &options)?;
        let below: Vec<_> =
            below.iter().map(|file| file.canonicalize()).collect::<Result<_, _>>()?;
        if !opened.others().eq(&below) {
            return Err(Error::failed(format!(
                "`{}` does not lie on the source's disk",
                overlay.display()
            ))
            .hint("Build again; something else has written into the build's folder."));
        }
        Ok(Chained { disk: opened.reader, changed: layers.uppermost()? })
    }
}
