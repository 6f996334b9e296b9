//! Removes boxes and what nothing names any more. What the index or a machine names stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fs_err as fs;

use super::layout::{self, Descriptor, Index, Manifest};
use super::{Store, blobs, delta};
use crate::crash;
use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// The boxes that machines use: manifest digest to the machines' names.
pub type Live = BTreeMap<FileDigest, Vec<String>>;

/// What `prune` removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs that nothing names, with their sizes in bytes.
    pub blobs: Vec<(FileDigest, u64)>,
    /// Files whose writer is dead, and templates, with their sizes in bytes.
    pub temporary: Vec<(PathBuf, u64)>,
    /// Boxes whose names mean other ones by now, and which are kept for machines.
    pub kept: Vec<Kept>,
}

/// A box that machines keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What it was called.
    pub reference: String,
    /// The digest of its manifest.
    pub manifest: FileDigest,
    /// The machines, with what they need it for.
    pub machines: Vec<String>,
}

impl Pruned {
    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|b| b.1).chain(self.temporary.iter().map(|t| t.1)).sum()
    }
}

impl Store {
    /// Removes the box `name:version` and what nothing else names; a damaged one too.
    ///
    /// # Errors
    /// There is no such box, or machines use it: they are named.
    pub fn remove(&self, name: &str, version: &str, live: &Live) -> Result<Pruned> {
        let _lock = self.lock()?;
        let reference = layout::reference(name, version);
        let mut index = Index::read(&self.root)?;
        let Some(entry) = index.take(&reference) else {
            return Err(Error::failed(format!("there is no box `{reference}` in the store"))
                .hint("Run `devbox box list` to see what is there."));
        };
        if let Some(machines) = live.get(&entry.digest) {
            let names = machines.iter().map(|m| format!("`{m}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::failed(format!("`{reference}` is in use by {names}"))
                .hint("Remove the machine first with `devbox destroy`, then remove the box."));
        }
        index.write(&self.root)?;
        crash::point("store.entry-removed");
        self.collect(&index, live, false)
    }

    /// Removes all blobs that neither the index nor a machine names, and dead temporary files.
    /// With `dry_run` it only says which.
    ///
    /// # Errors
    /// A manifest that the index or a machine names is damaged: what it names cannot be told, so
    /// nothing is removed.
    pub fn prune(&self, live: &Live, dry_run: bool) -> Result<Pruned> {
        let _lock = self.lock()?;
        let mut pruned = self.collect(&Index::read(&self.root)?, live, dry_run)?;
        pruned.temporary.extend(self.partials(dry_run)?);
        Ok(pruned)
    }

    fn collect(&self, index: &Index, live: &Live, dry_run: bool) -> Result<Pruned> {
        let mut keep = BTreeSet::new();
        for manifest in &index.manifests {
            self.mark(manifest, &mut keep)?;
        }
        for digest in live.keys() {
            // A machine whose box is gone for ever must not block the rest.
            if let Ok(meta) = fs::metadata(blobs::path(&self.root, *digest)) {
                self.mark(&Descriptor::new(layout::MANIFEST, *digest, meta.len()), &mut keep)?;
            }
        }
        let mut pruned =
            Pruned { blobs: vec![], temporary: self.sweep(dry_run)?, kept: self.kept(index, live) };
        pruned.temporary.extend(self.stray_signatures(&keep, dry_run)?);
        pruned.temporary.extend(delta::stray(&self.root, &keep, dry_run)?);
        for entry in fs::read_dir(self.root.join("blobs/sha256"))? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|n| format!("sha256:{n}").parse().ok());
            let Some(digest) = digest.filter(|d| !keep.contains(d)) else { continue };
            pruned.blobs.push((digest, entry.metadata()?.len()));
            if !dry_run {
                fs::remove_file(entry.path())?;
            }
        }
        pruned.blobs.sort_unstable();
        Ok(pruned)
    }

    /// What only machines keep.
    fn kept(&self, index: &Index, live: &Live) -> Vec<Kept> {
        let named = |digest| index.manifests.iter().any(|manifest| manifest.digest == digest);
        let unnamed = live.iter().filter(|(digest, _)| !named(**digest));
        // One that is gone is kept by nobody.
        let kept = unnamed.filter_map(|(digest, machines)| {
            let reference = self.get(*digest).ok()?.config.reference();
            Some(Kept { reference, manifest: *digest, machines: machines.clone() })
        });
        kept.collect()
    }

    fn mark(&self, manifest: &Descriptor, keep: &mut BTreeSet<FileDigest>) -> Result<()> {
        let parsed: Manifest =
            layout::parse(&blobs::read(&self.root, manifest)?).and_then(Manifest::checked)?;
        keep.insert(manifest.digest);
        keep.insert(parsed.config.digest);
        for layer in &parsed.layers {
            keep.insert(layer.digest);
            keep.extend(delta::find(&self.root, layer.digest)?.map(|kept| kept.base));
        }
        Ok(())
    }
}
