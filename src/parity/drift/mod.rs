//! What a machine changed on its disk since it was made of its sealed image.
//!
//! The layers above the image hold all that a guest wrote, so what they do not hold is as it was.
//! [`changed`] finds the blocks that really differ; [`files`] reads the metadata of both sides in full
//! and hashes only files whose size, whose places or whose blocks changed. What is found is the set
//! that [`super::compare`] finds when it hashes everything, on every filesystem that is read here.
//! [`classes`] says what of it counts, `causes` why that differs.

mod accounts;
mod causes;
pub mod changed;
pub mod classes;
mod files;
mod found;
mod state;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use self::changed::Changed;
use self::files::{Pair, Sides, unchanged};
pub use self::found::Found;
use super::bytes::Chunks;
use super::compare;
use super::content::{Content, Hashing};
use super::difference::Differences;
use super::hashed::Hashed;
use crate::digest::BytesDigest;
use crate::error::{Error, Result};
use crate::image::container::qcow2::Layers;
use crate::image::container::{self, Container, Options};
use crate::image::disk::{Disk, Holder, Located};
use crate::image::slice::Whole;
use crate::image::tree::Filesystem;
use crate::image::{Limits, ReadAt};

/// An image, and what a machine made of it.
#[derive(Debug)]
pub struct Drift {
    /// The image's side.
    pub base: Disk,
    /// The machine's side.
    pub now: Disk,
    changed: Changed,
}

impl Drift {
    /// Opens both sides: the image at `base`, and the layers above it.
    ///
    /// # Errors
    /// A side cannot be read, or `layers` do not stand on `base`.
    pub fn open(base: &Path, layers: &Layers, options: &Options) -> Result<Self> {
        let base = &base.canonicalize().map_err(|_| no_image(base))?;
        let held = layers.above(base)?;
        let below = container::open(base, options)?;
        Self::of(below, layers.container(), &held, &options.limits)
    }

    fn of(base: Container, now: Container, held: &[Range<u64>], limits: &Limits) -> Result<Self> {
        let changed = Changed::find(&*base.reader, &*now.reader, held)?;
        let whole = |mut container: Container| {
            container.reader = Arc::new(Whole(container.reader));
            Disk::read(container, limits)
        };
        let (base, now) = rayon::join(|| whole(base), || whole(now));
        Ok(Drift { base: base?, now: now?, changed })
    }

    /// All differences of what is on the disks.
    ///
    /// # Errors
    /// What cannot be read (kind `Undetermined`).
    pub fn find(&self) -> Result<Found> {
        let mut prepared = Prepared::default();
        let (mut sockets, mut read) = (vec![], 0);
        for base in self.base.filesystems() {
            let now = self.now.filesystems().find(|now| now.holder == base.holder);
            let Some(now) = now else { continue };
            let pair = self
                .pair(&base, &now)
                .map_err(|e| e.context(format!("cannot compare {} with the image", base.holder)))?;
            prepared.trees.0.insert(base.holder.clone(), pair.base);
            prepared.trees.1.insert(base.holder.clone(), pair.now);
            sockets.extend(pair.sockets);
            read += pair.read;
        }
        let holders = |disk: &Disk| -> HashMap<Holder, Arc<dyn ReadAt>> { plain(disk).collect() };
        let (old, new) = (holders(&self.base), holders(&self.now));
        for (holder, base) in old {
            let Some(now) = new.get(&holder).filter(|now| now.size() == base.size()) else {
                continue;
            };
            if unchanged(&*base, &**now, &self.changed, 0..base.size()) {
                prepared.same.push(holder);
            }
        }
        let Prepared { trees: (old, new), same } = prepared;
        let side = |trees| Side { trees: Mutex::new(trees), same: &same };
        let a = Content::read_by(&self.base, &side(old))?;
        let b = Content::read_by(&self.now, &side(new))?;
        let mut out = Differences(sockets);
        compare::contents(&a, &b, &mut out);
        let bytes = self.changed.bytes();
        Ok(Found { differences: out.sorted(), read, bytes, base: a, now: b })
    }

    /// Whether `holder` is swap space on both sides.
    ///
    /// # Errors
    /// What cannot be read.
    fn is_swap(&self, holder: &Holder) -> Result<bool> {
        for disk in [&self.base, &self.now] {
            let Some((_, reader)) = plain(disk).find(|(other, _)| other == holder) else {
                return Ok(false);
            };
            // At the end of the first page (mkswap(8)).
            let mut mark = [0; 10];
            if reader.size() < 4096 {
                return Ok(false);
            }
            reader.read_at(&mut mark, 4096 - 10)?;
            if mark != *b"SWAPSPACE2" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pair(&self, base: &Located<'_>, now: &Located<'_>) -> Result<Pair> {
        Sides { base, now, changed: &self.changed, limits: &self.now.limits }.read()
    }
}

/// Partitions and volumes without a filesystem that is read.
fn plain(disk: &Disk) -> impl Iterator<Item = (Holder, Arc<dyn ReadAt>)> {
    let parts = disk.parts.iter().filter(|part| part.filesystem.is_none() && part.group.is_none());
    let parts = parts.map(|part| (Holder::Partition(part.partition.index), part.reader.clone()));
    let volumes = disk.groups.iter().flat_map(|group| {
        let plain = group.volumes.iter().filter(|volume| volume.filesystem.is_none());
        plain.map(|volume| (group.holder(volume), volume.reader.clone()))
    });
    parts.chain(volumes)
}

/// What is known of both sides before they are compared.
#[derive(Default)]
struct Prepared {
    /// Of the image, and of the machine.
    trees: (HashMap<Holder, Hashed>, HashMap<Holder, Hashed>),
    /// What holds the same bytes on both.
    same: Vec<Holder>,
}

/// One side's digests: comparable with those of the other side alone.
struct Side<'a> {
    trees: Mutex<HashMap<Holder, Hashed>>,
    same: &'a [Holder],
}

impl Hashing for Side<'_> {
    fn tree(
        &self,
        holder: &Holder,
        _: &dyn ReadAt,
        fs: &dyn Filesystem,
        limits: &Limits,
    ) -> Result<Hashed> {
        let prepared = self.trees.lock().unwrap_or_else(PoisonError::into_inner).remove(holder);
        match prepared {
            Some(tree) => Ok(tree),
            // The other side has nothing there.
            None => Hashed::read(fs, limits),
        }
    }

    fn bytes(&self, holder: &Holder, reader: &dyn ReadAt) -> Result<BytesDigest> {
        if self.same.contains(holder) {
            return Ok(BytesDigest::of(b"as in the image"));
        }
        Ok(Chunks::read(reader)?.digest())
    }
}

/// A machine that cannot be compared: the sealed image is not there any more.
fn no_image(path: &Path) -> Error {
    Error::undetermined(format!("the sealed image `{}` is not there", path.display()))
        .hint("Build or fetch the box again, or start over with `devbox reset`.")
}
