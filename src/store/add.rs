//! Puts a box into the store.

use super::blobs::{Finished, Staged};
use super::config::BoxConfig;
use super::layout::{self, Descriptor, Index, Manifest};
use super::{BoxRef, Store, blobs};
use crate::digest::{FileDigest, SpecDigest};
use crate::error::{Error, Result};

/// What to do when `name:version` is taken by another content.
///
/// A released version names one content for ever: an overlay, a cloud image and a colleague's box
/// that say `web:1.2.0` must mean the same. A developer who edits and builds all day should not
/// have to count versions up, so a version with a pre-release part (SemVer 2.0.0, section 9:
/// `1.2.0-dev`) moves to the newest build. A running machine keeps the box that it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse, unless the version has a pre-release part.
    Refuse,
    /// Move the name to the new box.
    Replace,
}

impl Existing {
    fn allows(self, version: &str) -> bool {
        self == Existing::Replace || version.contains('-')
    }
}

/// A box that is in the store now.
#[derive(Debug, Clone)]
pub struct Added {
    /// The box that the name means now.
    pub image: BoxRef,
    /// What became of the name.
    pub outcome: Outcome,
}

/// What became of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The name is new.
    New,
    /// The very same box was there.
    Same,
    /// A box of the same content (`box1`) was there; its disk has other free space or block
    /// places. The stored one stays.
    SameContent,
    /// The name meant another box before.
    Replaced,
    /// The name means another box, and goes on to: machines run on this one.
    Unnamed,
}

/// Who has a box before it is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Nobody.
    None,
    /// Machines, whose disks lie on it.
    Machines,
}

impl Store {
    /// Whether a box of this name may be built: asked before the work, not after it.
    ///
    /// # Errors
    /// `name:version` is there, was made from other inputs (`spec1`), and must not be replaced.
    pub fn may_add(
        &self,
        name: &str,
        version: &str,
        spec1: SpecDigest,
        existing: Existing,
    ) -> Result<()> {
        match self.find(name, version)? {
            Some(old) if old.config.spec1 != spec1 && !existing.allows(version) => {
                Err(taken(&old, "other inputs"))
            }
            _ => Ok(()),
        }
    }

    /// Adds the box with the disk in `disk`, under the name in `config`. Nobody sees any of it
    /// before all of it is on the disk.
    ///
    /// # Errors
    /// The name is taken by another content (see [`Existing`]), or the store cannot be written.
    pub fn add(&self, config: &BoxConfig, disk: Staged, existing: Existing) -> Result<Added> {
        self.add_finished(config, disk.finish()?, existing)
    }

    /// As [`Store::add`], with a disk that was hashed already.
    ///
    /// # Errors
    /// As [`Store::add`].
    pub fn add_finished(
        &self,
        config: &BoxConfig,
        disk: Finished,
        existing: Existing,
    ) -> Result<Added> {
        let (disk, blob) = disk.described(layout::DISK);
        self.add_described(config, Some(disk), blob, existing, Use::None)
    }

    /// As [`Store::add_finished`], for a box that machines run on already: it is in the store afterwards also where its name
    /// came to mean another box meanwhile, and then without a name (outcome [`Outcome::SameContent`] or
    /// [`Outcome::Unnamed`]).
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn add_in_use(
        &self,
        config: &BoxConfig,
        disk: Finished,
        existing: Existing,
    ) -> Result<Added> {
        let (disk, blob) = disk.described(layout::DISK);
        self.add_described(config, Some(disk), blob, existing, Use::Machines)
    }

    /// As [`Store::add`], with a disk whose blob is in the store already: that of another box, or one that a killed command
    /// did not come to name. `None` if there is none with this digest.
    ///
    /// # Errors
    /// As [`Store::add`]; it is damaged.
    pub fn add_present(
        &self,
        config: &BoxConfig,
        disk: FileDigest,
        existing: Existing,
    ) -> Result<Option<Added>> {
        self.add_present_for(config, disk, existing, Use::None)
    }

    /// As [`Store::add_present`] and [`Store::add_in_use`].
    ///
    /// # Errors
    /// The store cannot be written; the disk is damaged.
    pub fn add_present_in_use(
        &self,
        config: &BoxConfig,
        disk: FileDigest,
        existing: Existing,
    ) -> Result<Option<Added>> {
        self.add_present_for(config, disk, existing, Use::Machines)
    }

    fn add_present_for(
        &self,
        config: &BoxConfig,
        disk: FileDigest,
        existing: Existing,
        used: Use,
    ) -> Result<Option<Added>> {
        let path = blobs::path(&self.root, disk);
        let Ok(meta) = std::fs::metadata(&path) else { return Ok(None) };
        let blob = Descriptor::new(layout::DISK, disk, meta.len());
        blobs::verify(&self.root, &blob)?;
        self.add_described(config, None, blob, existing, used).map(Some)
    }

    /// `disk`: none if its blob is there.
    fn add_described(
        &self,
        config: &BoxConfig,
        disk: Option<Staged>,
        disk_blob: Descriptor,
        existing: Existing,
        used: Use,
    ) -> Result<Added> {
        let (config_file, config_blob) =
            self.stage_bytes(&config.encode()?)?.seal(layout::CONFIG)?;
        let manifest = Manifest::new(config_blob.clone(), disk_blob.clone());
        let (manifest_file, manifest_blob) =
            self.stage_bytes(&layout::encode(&manifest)?)?.seal(layout::MANIFEST)?;

        let _lock = self.lock()?;
        let reference = config.reference();
        let mut index = Index::read(&self.root)?;
        let mut outcome = Outcome::New;
        if let Some(entry) = index.get(&reference) {
            let old = self.load(entry.clone())?;
            if old.manifest_digest() == manifest_blob.digest {
                discard(disk);
                return Ok(Added { image: old, outcome: Outcome::Same });
            }
            let same = old.config.box1 == config.box1 && old.config.spec1 == config.spec1;
            outcome = match (same, existing.allows(&config.version), used) {
                (true, _, Use::None) => {
                    discard(disk);
                    return Ok(Added { image: old, outcome: Outcome::SameContent });
                }
                (false, false, Use::None) => {
                    discard(disk);
                    return Err(taken(&old, "another content"));
                }
                (true, _, Use::Machines) => Outcome::SameContent,
                (false, false, Use::Machines) => Outcome::Unnamed,
                (false, true, _) => Outcome::Replaced,
            };
        }
        let files = [(config_file, &config_blob), (manifest_file, &manifest_blob)];
        let disk = disk.map(|disk| (disk, &disk_blob));
        if disk.is_none() && !blobs::path(&self.root, disk_blob.digest).try_exists()? {
            return Err(Error::failed(format!("the disk of `{reference}` was removed meanwhile"))
                .hint("Run the same command again."));
        }
        for (file, blob) in disk.into_iter().chain(files) {
            file.publish(&self.root, blob)?;
        }
        if !matches!(outcome, Outcome::SameContent | Outcome::Unnamed) {
            index.put(&reference, manifest_blob.clone());
            index.write(&self.root)?;
        }
        Ok(Added { image: self.load(manifest_blob)?, outcome })
    }
}

/// A disk that is not wanted; one that arrived piece by piece would stay.
fn discard(disk: Option<Staged>) {
    if let Some(disk) = disk {
        let _ = fs_err::remove_file(disk.path());
    }
}

fn taken(old: &BoxRef, with: &str) -> Error {
    let reference = old.config.reference();
    Error::failed(format!("`{reference}` is in the store with {with}"))
        .detail(format!("stored: {}, {}", old.config.box1, old.config.spec1))
        .hint(format!(
            "Raise `version` in the spec (`{}-dev` may be built again and again), or give `--replace` to move the name.",
            old.config.version
        ))
}
