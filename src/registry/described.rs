//! Descriptions of the disks in the store, kept so that a disk is cut once. They can be made again from the disks.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use crate::chunks::local::{self, Local};
use crate::chunks::pack::{Whole, Work, pack};
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};
use crate::event::{Event, Events};
use crate::store::{BoxRef, Store};

/// Most disks that are cut to find out what of a new one is here: the newest ones of its name. Each takes seconds.
const CUT: usize = 1;
/// Most disks that a new one is compared with.
const COMPARED: usize = 8;

/// The folder of the descriptions.
#[derive(Debug, Clone)]
pub struct Described(PathBuf);

impl Described {
    /// In the folder for what can be made again.
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        Described(cache.join("chunks"))
    }

    fn path(&self, disk: FileDigest) -> PathBuf {
        self.0.join(disk.hex())
    }

    /// The description of a disk, if there is one.
    #[must_use]
    pub fn find(&self, disk: FileDigest) -> Option<Whole> {
        local::read(&self.path(disk), disk).ok()
    }

    /// Keeps one. That it cannot be kept only costs time later.
    pub fn keep(&self, whole: &Whole, events: &Events) {
        let write = || {
            fs::create_dir_all(&self.0)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&local::encode(whole)?)?;
            file.persist(self.path(whole.index.digest)).map_err(|e| e.error)?;
            Ok::<_, Error>(())
        };
        if let Err(e) = write() {
            events.warn(format!("the description of the disk cannot be kept: {}", e.what()));
        }
    }

    /// Removes those of disks that the store does not have any more.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn prune(&self, store: &Store) -> Result<()> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Ok(()) };
        let here: Vec<String> =
            store.list()?.iter().map(|image| image.disk_digest().hex()).collect();
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !here.iter().any(|hex| name.to_str() == Some(hex)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// What is here already of a new version of the box `name`: chunks of the disks in the store.
    ///
    /// # Errors
    /// The store is damaged, or `cancel` was cancelled.
    pub fn local(
        &self,
        store: &Store,
        name: &str,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Local> {
        let mut boxes = store.list()?;
        let written =
            |image: &BoxRef| fs::metadata(image.disk_path()).and_then(|m| m.modified()).ok();
        // Those of the same name first, and of them the one that came last.
        boxes.sort_by_key(|image| (image.config().name != name, std::cmp::Reverse(written(image))));
        boxes.dedup_by_key(|image| image.disk_digest());
        // What is not there as a file would have to be put together first.
        boxes.retain(|image| image.delta().is_none());
        let (mut local, mut cut) = (Local::default(), 0);
        for image in boxes.iter().take(COMPARED) {
            let whole = match self.find(image.disk_digest()) {
                Some(whole) => whole,
                None if image.config().name == name && cut < CUT => {
                    cut += 1;
                    let what = format!("reading {}", image.config().reference());
                    let whole =
                        cut_up(image, &what, Work::Name, events, cancel, &mut |_, _| Ok(()))?;
                    self.keep(&whole, events);
                    whole
                }
                None => continue,
            };
            // It may have become a delta since the store was read.
            match local.add(image.disk_path(), &whole) {
                Err(_) if !image.disk_path().exists() => {}
                added => added?,
            }
        }
        Ok(local)
    }
}

/// Cuts the disk of a box, with progress.
///
/// # Errors
/// It cannot be read, is damaged, or `cancel` was cancelled, or the error of `sink`.
pub(super) fn cut_up(
    image: &BoxRef,
    what: &str,
    work: Work,
    events: &Events,
    cancel: &CancellationToken,
    sink: &mut dyn FnMut(crate::chunks::pack::Packed, Vec<u8>) -> Result<()>,
) -> Result<Whole> {
    let total = Some(image.stored_size());
    let mut told = Instant::now();
    let mut tell = |done| {
        if cancel.is_cancelled() {
            return Err(Error::interrupted("interrupted"));
        }
        if told.elapsed() >= super::PROGRESS {
            told = Instant::now();
            events.emit(Event::Progress { what: what.to_owned(), done, total });
        }
        Ok(())
    };
    let whole = pack(image.disk_path(), work, &mut tell, sink)
        .context(|| format!("cannot read the disk of `{}`", image.config().reference()))?;
    if whole.index.digest == image.disk_digest() {
        return Ok(whole);
    }
    Err(Error::failed(format!(
        "the disk of `{}` in the store is damaged",
        image.config().reference()
    ))
    .detail(format!("its bytes have the digest {}", whole.index.digest))
    .hint("Remove the box with `devbox box remove`, then build or pull it again."))
}
