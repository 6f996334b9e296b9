//! Disks that are kept as what they differ by from another disk of the store: where such a file lies, what may take its place.
//!
//! A box has its disk as a blob, as a delta, or for the time between two steps of a change as both; then the blob is the one
//! that counts, and the delta is removed with what nothing names. The disk that a delta is made against is a blob for as
//! long as the delta is needed. What is in a delta knows `crate::delta`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::blobs::{self, Finished, Staged};
use super::layout::{self, Index};
use super::{BoxRef, Live, Store};
use crate::crash;
use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// What a delta begins with; the digest of the other disk and a line feed follow.
const MAGIC: &str = "devbox/delta/1\n";
/// What to do about a disk that is not whole.
pub(crate) const REMOVE: &str =
    "Remove the box with `devbox box remove`, then build or pull it again.";
/// Bytes of `sha256:`, 64 hex digits and a line feed.
const BASE: usize = 72;

/// A disk that is kept so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The disk that it is a difference from.
    pub base: FileDigest,
    /// Bytes that it takes.
    pub size: u64,
}

/// What becomes of a blob that a delta was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folding {
    /// The delta is in its place.
    Done,
    /// Somebody needs the disk, or the box is another one by now: nothing changed.
    InUse,
}

fn path(root: &Path, disk: FileDigest) -> PathBuf {
    root.join("deltas").join(disk.hex())
}

/// Reads what a delta begins with: the disk that it is a difference from.
///
/// # Errors
/// It is damaged; kind `Undetermined`.
pub(crate) fn head(file: &mut fs::File) -> Result<FileDigest> {
    let mut head = vec![0; MAGIC.len() + BASE];
    let damaged =
        |path: &Path| Error::undetermined(format!("`{}` is damaged", path.display())).hint(REMOVE);
    file.read_exact(&mut head).map_err(|e| damaged(file.path()).cause(e))?;
    let text = std::str::from_utf8(&head).ok().and_then(|text| text.strip_prefix(MAGIC));
    text.and_then(|text| text.strip_suffix('\n'))
        .and_then(|base| base.parse().ok())
        .ok_or_else(|| damaged(file.path()))
}

/// That a disk is kept as a delta, without its blob.
pub(super) fn find(root: &Path, disk: FileDigest) -> Result<Option<Kept>> {
    if blobs::path(root, disk).try_exists()? {
        return Ok(None);
    }
    match fs::File::open(path(root, disk)) {
        Ok(mut file) => {
            let size = file.metadata()?.len();
            Ok(Some(Kept { base: head(&mut file)?, size }))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The deltas of disks that are not in `keep`, or are blobs again, with the bytes that they take; removed unless `dry_run`.
/// The caller holds the exclusive lock.
pub(super) fn stray(
    root: &Path,
    keep: &BTreeSet<FileDigest>,
    dry_run: bool,
) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = vec![];
    for entry in layout::entries(&root.join("deltas"))? {
        let name = entry.file_name();
        let disk = name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
        let needed = |disk: FileDigest| {
            Ok::<_, Error>(keep.contains(&disk) && !blobs::path(root, disk).try_exists()?)
        };
        if disk.map(needed).transpose()? == Some(true) {
            continue;
        }
        found.push((entry.path(), entry.metadata()?.len()));
        if !dry_run {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(found)
}

impl Store {
    /// The delta of a disk, to be read behind its head, and the disk that it is a difference from; none if there is none.
    /// Both stay readable whatever becomes of their names.
    ///
    /// # Errors
    /// It is damaged, or the disk that it needs is gone.
    pub(crate) fn open_delta(&self, disk: FileDigest) -> Result<Option<(fs::File, fs::File)>> {
        let _hold = self.hold()?;
        if find(&self.root, disk)?.is_none() {
            return Ok(None);
        }
        let mut delta = fs::File::open(path(&self.root, disk))?;
        let base = head(&mut delta)?;
        let base = fs::File::open(blobs::path(&self.root, base)).map_err(|e| {
            Error::failed(format!(
                "the disk `{disk}` is kept as its difference from `{base}`, which is gone"
            ))
            .cause(e)
            .hint(REMOVE)
        })?;
        Ok(Some((delta, base)))
    }

    /// A file to write a delta into, which is a difference from the disk `base`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn stage_delta(&self, base: FileDigest) -> Result<Staged> {
        self.stage_bytes(format!("{MAGIC}{base}\n").as_bytes())
    }

    /// The box with its disk as a file, which nobody makes a delta of while what is returned lives; none if it is not one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn pin(&self, image: &BoxRef) -> Result<Option<BoxRef>> {
        use std::os::unix::fs::MetadataExt as _;
        loop {
            let file = match std::fs::File::open(&image.disk_path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            file.lock_shared().map_err(|e| Error::failed("cannot lock a disk").cause(e))?;
            // It may have been removed since it was opened.
            match std::fs::metadata(&image.disk_path) {
                Ok(meta) if meta.ino() == file.metadata()?.ino() => {
                    let pin = Some(Arc::new(file));
                    return Ok(Some(BoxRef { kept: None, _pin: pin, ..image.clone() }));
                }
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
    }

    /// Puts the delta in the place of the blob of the box's disk, or of another delta of it, unless somebody needs it:
    /// `live` says what machines use, and is asked when nobody can begin to use a box any more.
    ///
    /// # Errors
    /// Those of `live`; the store is damaged or cannot be written.
    pub(crate) fn fold(
        &self,
        image: &BoxRef,
        base: FileDigest,
        delta: Finished,
        live: &dyn Fn() -> Result<Live>,
    ) -> Result<Folding> {
        let _lock = self.lock()?;
        let disk = image.disk_digest();
        let live = live()?;
        let index = Index::read(&self.root)?;
        let named = index.get(&image.config.reference());
        let same = named.is_some_and(|entry| entry.digest == image.manifest_digest());
        if !same || self.disks_of(&live)?.contains(&disk) || self.bases()?.contains(&disk) {
            return Ok(Folding::InUse);
        }
        if !blobs::path(&self.root, base).try_exists()? {
            return Ok(Folding::InUse);
        }
        let blob = blobs::path(&self.root, disk);
        let file = match std::fs::File::open(&blob) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        // Whoever works with it holds it.
        if file.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            return Ok(Folding::InUse);
        }
        let folder = self.root.join("deltas");
        fs::create_dir_all(&folder)?;
        let path = path(&self.root, disk);
        delta.into_file().persist(&path).map_err(|e| {
            Error::failed(format!("cannot write `{}`", path.display())).cause(e.error)
        })?;
        layout::sync_dir(&folder)?;
        layout::sync_dir(&self.root)?;
        crash::point("store.delta-written");
        if file.is_some() {
            fs::remove_file(&blob)?;
        }
        Ok(Folding::Done)
    }

    /// Puts the disk in the place of its delta.
    ///
    /// # Errors
    /// The store cannot be written; `disk` is another one.
    pub(crate) fn unfold(&self, image: &BoxRef, disk: Finished) -> Result<()> {
        if disk.digest() != image.disk_digest() {
            return Err(Error::undetermined(format!(
                "what was kept of the disk of `{}` is damaged",
                image.config.reference()
            ))
            .detail(format!("it gives the digest {}", disk.digest()))
            .hint(REMOVE));
        }
        let _lock = self.lock()?;
        let (staged, blob) = disk.described(layout::DISK);
        staged.publish(&self.root, &blob)?;
        match fs::remove_file(path(&self.root, image.disk_digest())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// The disks of the boxes that machines use.
    ///
    /// # Errors
    /// One of them is damaged.
    pub(crate) fn disks_of(&self, live: &Live) -> Result<BTreeSet<FileDigest>> {
        let there = live.keys().filter(|manifest| blobs::path(&self.root, **manifest).exists());
        there.map(|manifest| Ok(self.get(*manifest)?.disk_digest())).collect()
    }

    /// The disks that deltas are differences from.
    fn bases(&self) -> Result<BTreeSet<FileDigest>> {
        let mut bases = BTreeSet::new();
        for image in self.list()? {
            bases.extend(image.kept.map(|kept| kept.base));
        }
        Ok(bases)
    }
}

impl Staged {
    /// The file, to be written to at its end.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn appending(&self) -> Result<impl Write + use<>> {
        Ok(fs::OpenOptions::new().append(true).open(self.path())?)
    }
}
