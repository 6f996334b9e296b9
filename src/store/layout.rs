//! The files of an OCI image layout and their JSON (OCI Image Format Specification 1.1:
//! `image-layout.md`, `image-index.md`, `manifest.md`, `descriptor.md`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::crash;
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};

/// Media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of `index.json`, and of lists of what belongs to a manifest.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `artifactType` of a box: what makes a manifest one of ours.
pub(crate) const BOX: &str = "application/vnd.devbox.image.v1";
/// Media type of [`super::BoxConfig`].
pub(crate) const CONFIG: &str = "application/vnd.devbox.config.v1+json";
/// Media type of the disk: one qcow2, uncompressed, without backing file.
pub(crate) const DISK: &str = "application/vnd.devbox.disk.v1.qcow2";
/// The annotation that names an entry of the index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The only version of the layout.
const LAYOUT_VERSION: &str = "1.0.0";
/// Largest JSON document that is read, in bytes; the registry's own customary limit for manifests.
pub(crate) const MAX_JSON: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: FileDigest,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: FileDigest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The entry of a box in the index.
    pub(crate) fn named(mut self, reference: &str) -> Self {
        self.artifact_type = Some(BOX.to_owned());
        self.annotations.insert(REF_NAME.to_owned(), reference.to_owned());
        self
    }

    pub(crate) fn reference(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// A box: its config and its disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    pub(crate) fn new(config: Descriptor, disk: Descriptor) -> Self {
        Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: BOX.to_owned(),
            config,
            layers: vec![disk],
        }
    }

    /// Refuses what this version did not write.
    pub(crate) fn checked(self) -> Result<Self> {
        let ours = self.schema_version == 2
            && self.artifact_type == BOX
            && self.config.media_type == CONFIG
            && self.layers.len() == 1
            && self.layers.iter().all(|l| l.media_type == DISK);
        if ours {
            Ok(self)
        } else {
            Err(Error::undetermined("the manifest is not one that this version of devbox writes"))
        }
    }
}

/// `index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u32,
    media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

impl Index {
    /// # Errors
    /// The file is missing or damaged.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join("index.json");
        let bytes = read_bounded(&path)?;
        parse(&bytes).context(|| format!("the store's index `{}` is damaged", path.display()))
    }

    /// Reads an index from outside.
    ///
    /// # Errors
    /// It is not one; kind `Undetermined`.
    #[cfg(feature = "images")]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        parse(bytes).context(|| "the index of the boxes cannot be read".to_owned())
    }

    /// Replaces the file; the caller holds the exclusive lock.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        replace(root, "index.json", &encode(self)?)
    }

    /// The names of all entries that have one.
    #[cfg(feature = "images")]
    pub(crate) fn references(&self) -> impl Iterator<Item = &str> {
        self.manifests.iter().filter_map(Descriptor::reference)
    }

    pub(crate) fn get(&self, reference: &str) -> Option<&Descriptor> {
        self.manifests.iter().find(|d| d.reference() == Some(reference))
    }

    /// Takes the entry out.
    pub(crate) fn take(&mut self, reference: &str) -> Option<Descriptor> {
        let at = self.manifests.iter().position(|d| d.reference() == Some(reference))?;
        Some(self.manifests.remove(at))
    }

    /// Puts the entry in, in the place of one with the same name. Sorted, so that the same boxes
    /// give the same file.
    pub(crate) fn put(&mut self, reference: &str, manifest: Descriptor) {
        self.insert(reference, manifest.named(reference));
    }

    /// As [`Index::put`], for an entry that is no box.
    #[cfg(feature = "images")]
    pub(crate) fn put_other(&mut self, reference: &str, mut entry: Descriptor) {
        entry.annotations.insert(REF_NAME.to_owned(), reference.to_owned());
        self.insert(reference, entry);
    }

    fn insert(&mut self, reference: &str, entry: Descriptor) {
        self.take(reference);
        self.manifests.push(entry);
        self.manifests.sort_by(|a, b| a.reference().cmp(&b.reference()));
    }
}

/// `name:version`, the name of a box in the index.
pub(crate) fn reference(name: &str, version: &str) -> String {
    format!("{name}:{version}")
}

/// Whether `root` is an image layout of the version that is known here.
pub(crate) fn is_present(root: &Path) -> Result<bool> {
    let path = root.join("oci-layout");
    if !path.try_exists()? {
        return Ok(false);
    }
    let wrong = || format!("`{}` is not a store of this version of devbox", root.display());
    let file: LayoutFile = parse(&read_bounded(&path)?).context(wrong)?;
    if file.image_layout_version != LAYOUT_VERSION {
        return Err(Error::failed(wrong())
            .detail(format!("its layout has version {}", file.image_layout_version))
            .hint("Set `DEVBOX_HOME` to another folder."));
    }
    Ok(true)
}

/// Makes an empty layout. `oci-layout` comes last: a killed creation is begun again.
pub(crate) fn create(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("blobs/sha256"))?;
    fs::create_dir_all(root.join("tmp"))?;
    if !root.join("index.json").try_exists()? {
        let index = Index { schema_version: 2, media_type: INDEX.to_owned(), manifests: vec![] };
        index.write(root)?;
    }
    let layout = LayoutFile { image_layout_version: LAYOUT_VERSION.to_owned() };
    replace(root, "oci-layout", &encode(&layout)?)
}

/// JSON with sorted keys and no white space: the same value gives the same bytes.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_value(value)
        .and_then(|mut value| {
            value.sort_all_objects();
            serde_json::to_vec(&value)
        })
        .map_err(|e| Error::failed("cannot write JSON").cause(e))
}

/// # Errors
/// Not this JSON; kind `Undetermined`.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::undetermined("unexpected JSON").cause(e))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > MAX_JSON {
        return Err(Error::undetermined(format!("`{}` has {size} bytes", path.display()))
            .detail(format!("the limit is {MAX_JSON} bytes")));
    }
    Ok(fs::read(path)?)
}

/// Writes `<root>/<name>` by rename, durably; the caller holds the exclusive lock, so nobody
/// sweeps the temporary file away.
pub(super) fn replace(root: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(root.join("tmp"))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    crash::point("store.index-written");
    let path = root.join(name);
    file.persist(&path)
        .map_err(|e| Error::failed(format!("cannot write `{}`", path.display())).cause(e.error))?;
    sync_dir(root)?;
    crash::point("store.index-replaced");
    Ok(())
}

/// What is in a folder of the store that is made when something is put into it; nothing where it was not.
pub(super) fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.collect::<std::io::Result<_>>()?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(e.into()),
    }
}

/// Makes a rename in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    Ok(fs::File::open(dir)?.sync_all()?)
}
