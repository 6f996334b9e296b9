//! Boxes on disk, as an OCI image layout (OCI Image Format Specification 1.1, `image-layout.md`).
//!
//! A box is a manifest in `index.json` under `name:version`, a config blob, and one layer: the disk
//! as an uncompressed qcow2, so that a machine's overlay uses the blob itself as its backing file.
//! Blobs are written once, 0444, and never opened for writing again. A disk that no machine uses may be kept as what it differs
//! by from another one, in `deltas/` ([`delta`]).
//!
//! What a crash leaves: a file in `tmp/` (the next command removes it), or a blob that nothing
//! names (`prune` removes it). `index.json` is replaced by rename under a kernel lock, so it always
//! names whole boxes.
//!
//! Names: a release version (`1.2.0`) is immutable, a version with a pre-release part (`1.2.0-dev`)
//! moves with every build; see [`Existing`].

mod accepted;
mod add;
mod blobs;
mod check;
mod config;
#[cfg_attr(
    not(feature = "images"),
    expect(dead_code, reason = "deltas are written and read by what needs `images`")
)]
mod delta;
mod gc;
pub(crate) mod layout;
pub(crate) mod lock;
mod partial;
mod signatures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};
use crate::host;

pub use accepted::{Accepted, Place};
pub use add::{Added, Existing, Outcome};
pub use blobs::{Finished, Staged};
pub use check::{Checked, Checks};
pub use config::{BoxConfig, UNSEALED};
pub use delta::Kept as KeptAsDelta;
#[cfg(feature = "images")]
pub(crate) use delta::{Folding, REMOVE, head as delta_head};
pub use gc::{Kept, Live, Pruned};
pub use lock::Guard;
pub use partial::Partial;
pub use signatures::MAX_SIGNATURE;

// `registry`, which speaks the same format, needs `images`.
#[cfg(feature = "images")]
pub(crate) use layout::{BOX, CONFIG, INDEX, MANIFEST, encode};
pub(crate) use layout::{Descriptor, Index};

use layout::Manifest;

/// The store of one user.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One box in the store.
#[derive(Debug, Clone)]
pub struct BoxRef {
    manifest: Descriptor,
    disk: Descriptor,
    disk_path: PathBuf,
    config: BoxConfig,
    kept: Option<delta::Kept>,
    /// Holds off that the disk is made a delta.
    _pin: Option<Arc<std::fs::File>>,
}

impl BoxRef {
    /// The digest of the manifest: the box's identity in the store, which machines keep.
    #[must_use]
    pub fn manifest_digest(&self) -> FileDigest {
        self.manifest.digest
    }

    /// The disk's blob, a qcow2 without backing file, mode 0444. It is there unless the box [is kept as a delta](Self::delta), and stays
    /// so for one that comes from `crate::delta::whole`.
    #[must_use]
    pub fn disk_path(&self) -> &Path {
        &self.disk_path
    }

    /// The digest of the disk's blob, which is also its file name.
    #[must_use]
    pub fn disk_digest(&self) -> FileDigest {
        self.disk.digest
    }

    /// Guest-visible size of the disk in bytes.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.config.disk_size
    }

    /// Size of the disk's blob in bytes.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        self.disk.size
    }

    /// How the disk is kept, if not as a blob.
    #[must_use]
    pub fn delta(&self) -> Option<KeptAsDelta> {
        self.kept
    }

    /// Bytes that the disk takes in the store.
    #[must_use]
    pub fn kept_size(&self) -> u64 {
        self.kept.map_or(self.disk.size, |kept| kept.size)
    }

    /// What the box says of itself.
    #[must_use]
    pub fn config(&self) -> &BoxConfig {
        &self.config
    }
}

impl Store {
    /// Opens the store at `root`, makes an empty one if there is none, and removes what a killed
    /// command left in `tmp/`.
    ///
    /// # Errors
    /// The folder cannot be made or is somebody else's, or it holds another kind of layout.
    pub fn open(root: &Path) -> Result<Store> {
        let store = Store { root: root.to_owned() };
        if !layout::is_present(root)? {
            host::private_dir(root)?;
            let _lock = store.lock()?;
            layout::create(root)?;
        }
        store.sweep_if_free()?;
        Ok(store)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All boxes, by name, then by version as text.
    ///
    /// # Errors
    /// The index or a manifest is damaged.
    pub fn list(&self) -> Result<Vec<BoxRef>> {
        let mut boxes = vec![];
        for entry in Index::read(&self.root)?.manifests {
            boxes.push(self.load(entry)?);
        }
        boxes.sort_by(|a: &BoxRef, b| {
            let key = |r: &BoxRef| (r.config.name.clone(), r.config.version.clone());
            key(a).cmp(&key(b))
        });
        Ok(boxes)
    }

    /// The box `name:version`.
    ///
    /// # Errors
    /// The index, or the box's manifest, is damaged.
    pub fn find(&self, name: &str, version: &str) -> Result<Option<BoxRef>> {
        let reference = layout::reference(name, version);
        match Index::read(&self.root)?.take(&reference) {
            Some(entry) => self.load(entry).map(Some),
            None => Ok(None),
        }
    }

    /// The box with this manifest, also when its name has moved on to another one since.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn get(&self, manifest: FileDigest) -> Result<BoxRef> {
        let path = blobs::path(&self.root, manifest);
        let size = std::fs::metadata(&path)
            .map_err(|e| {
                Error::failed(format!("the box `{manifest}` is not in the store"))
                    .cause(e)
                    .hint("Build it again with `devbox build`.")
            })?
            .len();
        self.load(Descriptor::new(layout::MANIFEST, manifest, size))
    }

    /// Whether a blob is here, once nobody is adding or removing one any more. Its bytes are not looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has(&self, blob: FileDigest) -> Result<bool> {
        let _wait = self.hold()?;
        Ok(blobs::path(&self.root, blob).try_exists()?)
    }

    /// The digest that the manifest of this box has here, in whatever order its parts come.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn manifest_of(config: &BoxConfig, disk: FileDigest, size: u64) -> Result<FileDigest> {
        let bytes = config.encode()?;
        let config = Descriptor::new(layout::CONFIG, FileDigest::of(&bytes), bytes.len() as u64);
        let manifest = Manifest::new(config, Descriptor::new(layout::DISK, disk, size));
        Ok(FileDigest::of(&layout::encode(&manifest)?))
    }

    /// Where the file of a disk with this digest is, or will be.
    #[must_use]
    pub fn disk_at(&self, disk: FileDigest) -> PathBuf {
        blobs::path(&self.root, disk)
    }

    /// Reads the disk's blob and compares its digest with the one that the manifest names.
    ///
    /// # Errors
    /// The blob was changed, is missing, or cannot be read.
    pub fn verify(&self, image: &BoxRef) -> Result<()> {
        match image.kept {
            None => blobs::verify(&self.root, &image.disk),
            #[cfg(feature = "images")]
            Some(_) => crate::delta::verify(self, image),
            #[cfg(not(feature = "images"))]
            Some(_) => {
                Err(Error::undetermined("this build cannot read disks that are kept as deltas"))
            }
        }
    }

    /// Holds off every removal while the guard lives: take it around "find a box, then record that
    /// a machine uses it".
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn hold(&self) -> Result<Guard> {
        lock::shared(&self.root)
    }

    fn lock(&self) -> Result<Guard> {
        lock::exclusive(&self.root)
    }

    fn load(&self, manifest: Descriptor) -> Result<BoxRef> {
        let damaged = || format!("the box `{}` in the store is damaged", manifest.digest);
        let parsed: Manifest = layout::parse(&blobs::read(&self.root, &manifest)?)
            .and_then(Manifest::checked)
            .context(damaged)?;
        let config =
            BoxConfig::parse(&blobs::read(&self.root, &parsed.config)?).context(damaged)?;
        let disk =
            parsed.layers.into_iter().next().ok_or_else(|| Error::undetermined(damaged()))?;
        let disk_path = blobs::path(&self.root, disk.digest);
        let kept = delta::find(&self.root, disk.digest)?;
        Ok(BoxRef { manifest, disk, disk_path, config, kept, _pin: None })
    }
}

#[cfg(test)]
mod tests;
