//! The sealed disk as one qcow2 without backing file. Most of it is written and brought to the disk while the seal's guest
//! runs.
//!
//! What a seal leaves as it is (contents of programs and libraries, see [`steady`]) is written first, and there is room
//! between for all else, which follows once the guest is down: clusters stand in the file in the order of the disk. A
//! new version of a box moves what changed only if the rest stands in the same order in both files, and a step changes
//! which clusters can be written first. What was zeros before the seal stands behind all others.
//!
//! That the guest wrote to none of the early clusters is seen in its overlay. Where it did, the file is written once more
//! from the beginning: a guess that was wrong costs time, and nothing that was on the disk before the seal stays in the
//! file.

mod copies;
mod layout;
mod steady;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::chain::{self, Chain};
use super::seal::journals::Emptied;
use crate::chunks::is_zero;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::qcow2::Layers;
use crate::image::container::{self, Format};
use crate::image::slice::joined;
use copies::Copy;
use layout::{CLUSTER, Layout};

/// Clusters that are read and written at a time.
const AT_ONCE: u64 = 16;
/// A file of whose clusters more than one in so many would be empty is written anew.
const MOST_FREE: usize = 4;

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
        Early::write(&Emptied::new(chain.open()?), size, &clusters, copies, &stopped)
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
    out: Out,
}

impl Early {
    /// Writes these clusters of `disk`, but for those that are zeros, and leaves room for those between them. `disk` may be
    /// shorter than `size`.
    fn write(
        disk: &dyn ReadAt,
        size: u64,
        clusters: &[u64],
        copies: Vec<Copy>,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let layout = Layout::new(size);
        let mut out = Out::new(layout.data_place(), copies);
        let header = layout.header()?;
        out.copies.iter().try_for_each(|copy| copy.write(&header, 0))?;
        if !clusters.is_empty() {
            out.put_all(disk, Some(clusters), cancel)?;
            out.copies.iter().try_for_each(Copy::sync)?;
        }
        Ok(Early { layout, out })
    }

    /// Writes all else.
    fn complete(
        self,
        disk: &dyn ReadAt,
        changed: &[Range<u64>],
        cancel: &CancellationToken,
    ) -> Result<Written> {
        let Early { layout, mut out } = self;
        let touched = |range: &Range<u64>| {
            let clusters = range.start / CLUSTER..range.end.div_ceil(CLUSTER);
            out.places.range(clusters).next().is_some()
        };
        if changed.iter().any(touched) {
            return anew(disk, out.copies, cancel);
        }
        out.put_all(disk, None, cancel)?;
        // Rooms of clusters that became zeros stay empty: holes of the file, which count nothing.
        let free: BTreeSet<u64> = out.rooms.values().copied().collect();
        if free.len() > out.places.len() / MOST_FREE {
            return anew(disk, out.copies, cancel);
        }
        let (tables, length) = layout.tables(&out.places, &free, out.next);
        let mut copies = out.copies;
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

/// Writes `disk` from the beginning.
fn anew(disk: &dyn ReadAt, mut copies: Vec<Copy>, cancel: &CancellationToken) -> Result<Written> {
    copies.iter_mut().try_for_each(Copy::empty)?;
    Early::write(disk, disk.size(), &[], copies, cancel)?.complete(disk, &[], cancel)
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
struct Out {
    /// Where they stand in the file, by their numbers on the disk.
    places: BTreeMap<u64, u64>,
    /// The same of those that there is room for, and that are not written yet.
    rooms: BTreeMap<u64, u64>,
    /// Where the next one goes.
    next: u64,
    copies: Vec<Copy>,
}

impl Out {
    fn new(next: u64, copies: Vec<Copy>) -> Self {
        Out { places: BTreeMap::new(), rooms: BTreeMap::new(), next, copies }
    }

    /// Writes the clusters of `disk` that are not written yet, but for those that are zeros, in their order; of `only`
    /// some of them, if it is given, and then there is room for the others.
    fn put_all(
        &mut self,
        disk: &dyn ReadAt,
        only: Option<&[u64]>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let mut buf = vec![];
        let mut at = 0;
        while let Some(data) = disk.next_data(at)? {
            let mut number = (data.start / CLUSTER).max(at.div_ceil(CLUSTER));
            let end = data.end.div_ceil(CLUSTER);
            while number < end {
                // What is there already is passed over.
                if self.places.contains_key(&number) {
                    number += 1;
                    continue;
                }
                let mut count = 1;
                while count < AT_ONCE
                    && number + count < end
                    && !self.places.contains_key(&(number + count))
                {
                    count += 1;
                }
                if cancel.is_cancelled() {
                    return Err(Error::interrupted("interrupted while the disk was written"));
                }
                self.put(disk, number, count, only, &mut buf)?;
                number += count;
            }
            at = end * CLUSTER;
        }
        Ok(())
    }

    /// The same of `count` clusters from the one with the number `first` on. Behind the end of the disk there are zeros.
    fn put(
        &mut self,
        disk: &dyn ReadAt,
        first: u64,
        count: u64,
        only: Option<&[u64]>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let start = first * CLUSTER;
        let length = usize::try_from((count * CLUSTER).min(disk.size() - start)).unwrap_or(0);
        buf.clear();
        buf.resize((count * CLUSTER) as usize, 0);
        disk.read_at(&mut buf[..length], start)?;
        // Bytes of `buf` that go to one place, and that place.
        let mut pieces: Vec<(Range<usize>, u64)> = vec![];
        for (number, cluster) in (first..).zip(buf.chunks_exact(CLUSTER as usize)) {
            if is_zero(cluster) {
                continue;
            }
            let place = self.rooms.remove(&number).unwrap_or_else(|| {
                self.next += CLUSTER;
                self.next - CLUSTER
            });
            if only.is_some_and(|only| only.binary_search(&number).is_err()) {
                self.rooms.insert(number, place);
                continue;
            }
            self.places.insert(number, place);
            let from = (number - first) as usize * CLUSTER as usize;
            match pieces.last_mut() {
                Some((bytes, at)) if bytes.end == from && *at + bytes.len() as u64 == place => {
                    bytes.end += CLUSTER as usize;
                }
                _ => pieces.push((from..from + CLUSTER as usize, place)),
            }
        }
        for (bytes, place) in pieces {
            self.copies.iter().try_for_each(|copy| copy.write(&buf[bytes.clone()], place))?;
        }
        Ok(())
    }
}

/// A build's sealed disk: the files of its chain, the uppermost first, and its journals emptied.
#[derive(Clone)]
pub(super) struct Chained {
    /// Guest-visible bytes.
    pub(super) disk: Arc<dyn ReadAt>,
    /// Where they may be others than in the files below the uppermost: what it holds itself, and journals.
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
        let disk = Emptied::new(opened);
        let changed = joined([&layers.uppermost()?, disk.zeros()].concat());
        Ok(Chained { disk: Arc::new(disk), changed })
    }
}
