//! Old versions of boxes as what they differ by from the newest one.
//!
//! Versions of a box share most of their bytes. Where the filesystem can, copies of them are shared blocks; elsewhere (ext4) each
//! version would take its full size. So `devbox box prune` makes a [delta](fold) of what no machine uses, and whoever
//! needs the disk of a box asks for it [whole] first.
//!
//! A delta is, behind the head that `store` knows, one zstd frame: run by run a byte that says the kind ([`Kind`]), the number of
//! blocks of 4096 bytes, and for a copy the number of its first block in the other file, both 64 bits little-endian; for a run
//! of the disk's own blocks these. Its file is proven before the blob goes: read back, it gave the digest that is its name.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::chunks::BLOCK;
use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::event::{Event, Events};
use crate::host::free_bytes;
use crate::store::{BoxRef, Finished, Folding, Live, REMOVE, Store};

mod decode;
mod encode;
mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Task, plan};

use decode::Piece;
use encode::{Base, Encoder};

/// Bytes that are worked on at a time; whole blocks.
const PIECE: usize = 1 << 20;
/// Blocks of its own are few in a delta that is worth its time; more than level 3 saves little.
const LEVEL: i32 = 6;
/// Time between two lines that say how far the work is.
const PROGRESS: Duration = Duration::from_millis(200);
/// A delta has to be smaller than the disk by this factor, or the disk stays as it is.
const WORTH: u64 = 2;

/// What a run of blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// Zeros.
    Zeros = 0,
    /// Blocks of the other disk.
    Copy = 1,
    /// Blocks that follow.
    Own = 2,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Kind::Zeros, Kind::Copy, Kind::Own].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The box with its disk as a file. It stays one while what is returned lives.
///
/// # Errors
/// The disk is neither there nor kept as a delta; that is damaged; the store cannot be written; `cancel` was cancelled.
pub async fn whole(
    store: &Store,
    image: BoxRef,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<BoxRef> {
    if let Some(image) = store.pin(&image)? {
        return Ok(image);
    }
    let (store, events, cancel) = (store.clone(), events.clone(), cancel.clone());
    blocking("putting a disk together", move || unfold(&store, &image, &events, &cancel)).await
}

/// As [`whole`], on this thread.
///
/// # Errors
/// As there.
pub fn unfold(
    store: &Store,
    image: &BoxRef,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<BoxRef> {
    if let Some(image) = store.pin(image)? {
        return Ok(image);
    }
    let (reference, size) = (image.config().reference(), image.stored_size());
    let missing =
        || Error::failed(format!("the disk of `{reference}` is not in the store")).hint(REMOVE);
    let Some((delta, base)) = store.open_delta(image.disk_digest())? else {
        // Somebody may have made it whole since.
        return store.pin(image)?.ok_or_else(missing);
    };
    let free = free_bytes(store.root())?;
    if size > free {
        return Err(Error::failed(format!("not enough free space for the disk of `{reference}`, which is kept as a difference from another one"))
            .cause(format!("{size} bytes are needed and {free} are free"))
            .hint("Free some space, or remove boxes with `devbox box remove` and `devbox box prune`."));
    }
    let begun = Instant::now();
    let staged = store.stage()?;
    let out = fs_err::OpenOptions::new().write(true).open(staged.path())?;
    out.set_len(size)?;
    let (mut at, told) = (0, Told::new(format!("putting {reference} together"), size, events));
    decode::read(delta, base.file(), size, &mut |piece| {
        told.at(at, cancel)?;
        match piece {
            Piece::Zeros(bytes) => at += bytes,
            Piece::Bytes(bytes) => {
                out.file().write_all_at(bytes, at).map_err(|e| {
                    Error::failed(format!("cannot write the disk of `{reference}`")).cause(e)
                })?;
                at += bytes.len() as u64;
            }
        }
        Ok(())
    })
    .map_err(|e| {
        let e = e.context(format!("cannot put `{reference}` together"));
        if e.kind() == ErrorKind::Undetermined { e.hint(REMOVE) } else { e }
    })?;
    drop(out);
    store.unfold(image, staged.finish()?)?;
    events.done(format!("{reference} is whole again"), begun.elapsed());
    store.pin(image)?.ok_or_else(missing)
}

/// Reads a box whose disk is kept as a delta.
///
/// # Errors
/// It is damaged, or what it is a difference from.
pub(crate) fn verify(store: &Store, image: &BoxRef) -> Result<()> {
    let Some((delta, base)) = store.open_delta(image.disk_digest())? else {
        return Err(Error::failed(format!(
            "the disk of `{}` is not in the store",
            image.config().reference()
        ))
        .hint(REMOVE));
    };
    proven(delta, base.file(), image, &CancellationToken::new())
}

/// Whether a delta gives the disk of the box.
fn proven(
    delta: impl std::io::Read,
    base: &File,
    image: &BoxRef,
    cancel: &CancellationToken,
) -> Result<()> {
    let (mut hash, zeros) = (Sha256::new(), vec![0; PIECE]);
    decode::read(delta, base, image.stored_size(), &mut |piece| {
        stopped(cancel)?;
        match piece {
            Piece::Bytes(bytes) => hash.update(bytes),
            Piece::Zeros(mut left) => {
                while left > 0 {
                    let some = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                    hash.update(&zeros[..some]);
                    left -= some as u64;
                }
            }
        }
        Ok(())
    })?;
    let digest = FileDigest::from_bytes(hash.finish());
    if digest == image.disk_digest() {
        return Ok(());
    }
    Err(Error::failed(format!("the disk of `{}` is damaged", image.config().reference()))
        .detail(format!("it gives the digest {digest}"))
        .hint(REMOVE))
}

/// What became of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// It is kept as so many bytes.
    To(u64),
    /// It has little in common with the other one.
    NotWorth,
    /// Somebody uses it.
    InUse,
}

/// Keeps the disk of `image` as its difference from that of `base`; what machines use is asked of `live` before anything goes.
///
/// # Errors
/// One of the two is damaged; the store cannot be written; the error of `live`; `cancel` was cancelled.
pub fn fold(
    store: &Store,
    image: &BoxRef,
    base: &BoxRef,
    live: &dyn Fn() -> Result<Live>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Folded> {
    let Some(base) = store.pin(base)? else { return Ok(Folded::InUse) };
    let other = fs_err::File::open(base.disk_path())?;
    let told =
        Told::new(format!("comparing {}", image.config().reference()), image.stored_size(), events);
    let Some(delta) = encoded(store, image, (&base, other.file()), &told, cancel)? else {
        return Ok(Folded::NotWorth);
    };
    let size = fs_err::metadata(delta.path())?.len();
    let mut reader = fs_err::File::open(delta.path())?;
    skip_head(&mut reader, base.disk_digest())?;
    proven(reader, other.file(), image, cancel)?;
    Ok(match store.fold(image, base.disk_digest(), delta, live)? {
        Folding::Done => Folded::To(size),
        Folding::InUse => Folded::InUse,
    })
}

/// The delta as a file; none if it is not worth it.
fn encoded(
    store: &Store,
    image: &BoxRef,
    (base, other): (&BoxRef, &File),
    told: &Told<'_>,
    cancel: &CancellationToken,
) -> Result<Option<Finished>> {
    let staged = store.stage_delta(base.disk_digest())?;
    let known = Base::read(other, &|| stopped(cancel))?;
    let zstd = zstd::Encoder::new(staged.appending()?, LEVEL)
        .map_err(|e| Error::failed("cannot compress a disk").cause(e))?;
    let mut encoder = Encoder::new(&known, zstd);
    let most = image.stored_size() / WORTH;
    let mut worth = true;
    match store.open_delta(image.disk_digest())? {
        // It is one already, of another disk.
        Some((delta, before)) => {
            decode::read(delta, before.file(), image.stored_size(), &mut |piece| {
                stopped(cancel)?;
                worth &= encoder.own() <= most;
                match piece {
                    _ if !worth => Ok(()),
                    Piece::Bytes(bytes) => encoder.push(bytes),
                    Piece::Zeros(bytes) => encoder.zeros(bytes.div_ceil(BLOCK as u64)),
                }
            })?;
        }
        None => {
            let file = fs_err::File::open(image.disk_path())?;
            pieces(file.file(), &mut |at, bytes| {
                told.at(at, cancel)?;
                worth &= encoder.own() <= most;
                match worth {
                    true => encoder.push(bytes),
                    false => Ok(()),
                }
            })?;
        }
    }
    let zstd = encoder.finish()?;
    let done = zstd.finish().map_err(|e| Error::failed("cannot write a delta").cause(e))?;
    drop(done);
    let worth = worth && fs_err::metadata(staged.path())?.len() <= most;
    worth.then(|| staged.finish()).transpose()
}

/// Reads what a delta that was just written begins with.
fn skip_head(file: &mut fs_err::File, base: FileDigest) -> Result<()> {
    match crate::store::delta_head(file)? == base {
        true => Ok(()),
        false => Err(Error::failed("a delta names another disk than it was made against")),
    }
}

/// Gives the file to `sink`, MiB by MiB, with where each piece stands.
fn pieces(file: &File, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let (mut at, mut bytes) = (0u64, vec![0; PIECE]);
    let size = file.metadata()?.len();
    while at < size {
        let piece = usize::try_from(size - at).map_or(PIECE, |left| left.min(PIECE));
        file.read_exact_at(&mut bytes[..piece], at)
            .map_err(|e| Error::failed("cannot read a disk of the store").cause(e))?;
        sink(at, &bytes[..piece])?;
        at += piece as u64;
    }
    Ok(())
}

fn stopped(cancel: &CancellationToken) -> Result<()> {
    match cancel.is_cancelled() {
        true => Err(Error::interrupted("interrupted")),
        false => Ok(()),
    }
}

/// Says how far it is, now and then.
struct Told<'a> {
    what: String,
    total: u64,
    events: &'a Events,
    last: std::cell::Cell<Instant>,
}

impl<'a> Told<'a> {
    fn new(what: String, total: u64, events: &'a Events) -> Self {
        Told { what, total, events, last: std::cell::Cell::new(Instant::now()) }
    }

    fn at(&self, done: u64, cancel: &CancellationToken) -> Result<()> {
        if self.last.get().elapsed() >= PROGRESS {
            self.last.set(Instant::now());
            let (what, total) = (self.what.clone(), Some(self.total));
            self.events.emit(Event::Progress { what, done, total });
        }
        stopped(cancel)
    }
}
