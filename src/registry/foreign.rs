//! Disks that others put into registries and OCI image layouts: KubeVirt's containerDisks (an image with the disk in a layer) and
//! podman's machines (an artifact whose one layer is a compressed disk).
//!
//! Nothing is unpacked here: what comes out is the layer as it is, verified by the digest that its manifest names.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::address::{Address, Place, Which};
use super::manifest::{Blob, MAX_MANIFEST};
use super::remote::{Access, Options, Remote};
use crate::attest::json;
use crate::blocking::{blocking, exclusive};
use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Events};
use crate::host::{free_bytes, private_dir};
use crate::store::{BOX, INDEX, MANIFEST};

/// Types of manifests that are understood (OCI Image Format Specification 1.1; Docker's Image Manifest V2, Schema 2).
const LISTS: [&str; 2] = [INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];
const IMAGES: [&str; 2] = [MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];
/// Largest config of an image in bytes.
const MAX_CONFIG: u64 = 4 << 20;
/// Most layers of an image that are looked into.
const LAYERS: usize = 16;
/// Bytes that are fetched at a time.
const PIECE: u64 = 8 << 20;
/// Bytes that stay free on the disk.
const SPARE: u64 = 64 << 20;
/// The annotation of podman's machines that says for which program a disk is, and which one it is here.
const DISKTYPE: &str = "disktype";
const QEMU: &str = "qemu";
/// The annotation with the name of a layer's file.
const TITLE: &str = "org.opencontainers.image.title";

/// A disk of somebody else's that is there.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// Digest of the manifest that names it.
    pub manifest: FileDigest,
    /// The layers that may hold the disk; nearly always one.
    layers: Vec<Blob>,
    /// The architecture that its manifest or config names, by Debian's name.
    pub arch: Option<String>,
    /// What it is, for people.
    pub kind: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

impl Descriptor {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Config {
    architecture: Option<String>,
}

/// An open place with what is looked for there.
#[derive(Debug)]
pub struct Source {
    remote: Remote,
    shown: String,
}

impl Source {
    /// Opens the place of `address`.
    ///
    /// # Errors
    /// Kind `Trust`: what comes from there has to be signed, as boxes of devbox alone can be. As [`Remote::open`].
    pub async fn open(
        address: &Address,
        options: &Options,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        options.trust.refuse_foreign(&address.place, &address.to_string())?;
        let remote = Remote::open(&address.place, Access::Pull, options, events, cancel).await?;
        Ok(Source { remote, shown: address.to_string() })
    }

    /// Looks what is there for the architecture `arch`.
    ///
    /// # Errors
    /// There is nothing, nothing for this architecture, or something else than a disk.
    pub async fn look(&self, address: &Address, arch: &str) -> Result<Foreign> {
        let mut which = self.which(address)?;
        let accept = [&LISTS[..], &IMAGES[..]].concat().join(", ");
        let (mut said, mut kind) = (None, "a containerDisk");
        // A list, and what it names; no list of lists.
        for depth in 0..2 {
            let what = "read the manifest of the disk";
            let Some((bytes, digest)) = self.remote.document(what, &which, &accept).await? else {
                return Err(Error::failed(format!("there is nothing at `{}`", self.shown))
                    .hint("Check the address and the tag."));
            };
            let document: Document = self.parse(&bytes, "its manifest")?;
            if document.artifact_type.as_deref() == Some(BOX) {
                return Err(Error::usage(format!("`{}` is a box of devbox", self.shown))
                    .hint(format!("Pull it with `devbox box pull {}`.", self.shown)));
            }
            let is =
                |types: &[&str]| document.media_type.as_deref().is_none_or(|t| types.contains(&t));
            match (document.manifests, document.layers) {
                (Some(entries), None) if depth == 0 && is(&LISTS) => {
                    let (entry, of_podman) = self.choose(entries, arch)?;
                    if of_podman {
                        kind = "a disk of podman's machines";
                    }
                    said = entry.platform.as_ref().map(|at| debian(&at.architecture));
                    which = Which::Digest(self.blob(&entry)?.digest);
                }
                (None, Some(layers)) if is(&IMAGES) => {
                    if layers.is_empty() || layers.len() > LAYERS {
                        return Err(self.bad(format!("it has {} layers", layers.len())));
                    }
                    if layers.iter().any(|layer| layer.annotation(TITLE).is_some()) {
                        kind = "a disk of podman's machines";
                    }
                    let blobs =
                        layers.iter().map(|layer| self.blob(layer)).collect::<Result<_>>()?;
                    let arch = match said {
                        Some(said) => Some(said),
                        None => self.configured(document.config.as_ref()).await?,
                    };
                    return Ok(Foreign { manifest: digest, layers: blobs, arch, kind });
                }
                _ => return Err(self.bad("its manifest is neither a list nor one of an image")),
            }
        }
        Err(self.bad("its list names another list"))
    }

    /// The layers as files in `folder`, under their digests: those that are there are hashed again and used, and one that was cut
    /// off goes on.
    ///
    /// # Errors
    /// They cannot be fetched, have other bytes than named, or there is no space.
    pub async fn fetch(
        &self,
        foreign: &Foreign,
        folder: &Path,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Vec<(PathBuf, FileDigest)>> {
        private_dir(folder)?;
        let mut files = vec![];
        for blob in &foreign.layers {
            let path = folder.join(blob.digest.hex());
            let lock = folder.join(format!("{}.lock", blob.digest.hex()));
            let _lock = exclusive(
                &lock,
                "another devbox fetches the same disk; waiting for it",
                events,
                cancel,
            )
            .await?;
            self.fetch_one(blob, &path, events).await?;
            files.push((path, blob.digest));
        }
        Ok(files)
    }

    async fn fetch_one(&self, blob: &Blob, path: &Path, events: &Events) -> Result<()> {
        if path.try_exists()? && hashed(path).await? == (blob.digest, blob.size) {
            return Ok(());
        }
        let partial = path.with_extension("layer");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&partial)?;
        let mut at = file.metadata()?.len();
        if at > blob.size {
            file.set_len(0)?;
            at = 0;
        }
        while at < blob.size {
            // Others write there, too.
            check_space(path, blob.size - at)?;
            let what = format!("fetching {}", self.shown);
            events.emit(Event::Progress { what, done: at, total: Some(blob.size) });
            let end = at.saturating_add(PIECE).min(blob.size);
            let bytes = self.remote.part("fetch a part of the disk", blob, at..end).await?;
            if bytes.is_empty() {
                return Err(self.bad("a layer is shorter than its manifest says"));
            }
            file.write_all(&bytes)?;
            at += bytes.len() as u64;
        }
        file.sync_all()?;
        let (found, _) = hashed(&partial).await?;
        if found == blob.digest {
            return Ok(fs::rename(&partial, path)?);
        }
        fs::remove_file(&partial)?;
        Err(Error::undetermined(format!("`{}` arrived with other bytes", self.shown))
            .detail(format!("expected {}", blob.digest))
            .detail(format!("found    {found}"))
            .hint("Run the same command again; if that does not help, its place is damaged."))
    }

    /// Which one is meant: `latest` of a registry, the only one of a folder.
    fn which(&self, address: &Address) -> Result<Which> {
        let asked = address.which.clone();
        let Place::Folder(folder) = &address.place else {
            return Ok(asked.unwrap_or_else(|| Which::Tag("latest".to_owned())));
        };
        if let Some(Which::Digest(_)) = asked {
            return asked.ok_or_else(|| self.bad("no digest"));
        }
        // Other tools leave members out that those of devbox have.
        let path = folder.join("index.json");
        let mut bytes = vec![];
        fs::File::open(&path)?.take(MAX_MANIFEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(self.bad(format!("its index is larger than {MAX_MANIFEST} bytes")));
        }
        let index: Document = self.parse(&bytes, "its index")?;
        let entries = index.manifests.unwrap_or_default();
        let name = |entry: &Descriptor| {
            entry.annotation("org.opencontainers.image.ref.name").unwrap_or_default().to_owned()
        };
        let found: Vec<&Descriptor> = match &asked {
            Some(Which::Tag(tag)) => entries.iter().filter(|entry| name(entry) == *tag).collect(),
            _ => entries.iter().collect(),
        };
        match found.as_slice() {
            [one] => Ok(Which::Digest(self.blob(one)?.digest)),
            several => {
                let names: Vec<String> = entries.iter().map(name).collect();
                Err(Error::usage(format!(
                    "`{}` holds {} images that are meant",
                    self.shown,
                    several.len()
                ))
                .detail(format!("there are: {}", shown(&names.join(", "))))
                .hint("Name one by its tag or digest, as in `dir:FOLDER:TAG`."))
            }
        }
    }

    /// The entry of a list for `arch`, and whether the list is one of podman's machines.
    fn choose(&self, entries: Vec<Descriptor>, arch: &str) -> Result<(Descriptor, bool)> {
        let of_podman = entries.iter().any(|entry| entry.annotation(DISKTYPE).is_some());
        let fits = |entry: &&Descriptor| {
            let disktype = entry.annotation(DISKTYPE);
            let platform = entry.platform.as_ref();
            let arch = platform.is_none_or(|at| debian(&at.architecture) == arch);
            let linux = platform.is_none_or(|at| at.os == "linux" || at.os.is_empty());
            arch && linux && (!of_podman || disktype == Some(QEMU))
        };
        let found: Vec<&Descriptor> = entries.iter().filter(fits).collect();
        if let [one] = found.as_slice() {
            return Ok(((*one).clone(), of_podman));
        }
        let listed: Vec<String> = entries
            .iter()
            .map(|entry| {
                let at = entry.platform.as_ref().map(|at| format!("{}/{}", at.os, at.architecture));
                let disktype = entry.annotation(DISKTYPE).map(|of| format!(" ({of})"));
                at.unwrap_or_else(|| "?".to_owned()) + &disktype.unwrap_or_default()
            })
            .collect();
        let wanted = if of_podman { format!("{arch} ({QEMU})") } else { arch.to_owned() };
        let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
        Err(Error::failed(format!("`{}` has {} disks for {wanted}", self.shown, found.len()))
            .detail(format!("there are: {}", shown(&listed)))
            .hint("Say which architecture with `--arch`, or name the disk by its digest."))
    }

    async fn configured(&self, config: Option<&Descriptor>) -> Result<Option<String>> {
        let Some(config) = config.filter(|config| config.media_type.contains("image")) else {
            return Ok(None);
        };
        let blob = self.blob(config)?;
        let bytes = self.remote.blob("read the config of the image", &blob, MAX_CONFIG).await?;
        let config: Config = self.parse(&bytes, "its config")?;
        Ok(config.architecture.filter(|arch| !arch.is_empty()).map(|arch| debian(&arch)))
    }

    fn blob(&self, of: &Descriptor) -> Result<Blob> {
        let digest = of.digest.parse().map_err(|_| {
            let algorithm = of.digest.split(':').next().unwrap_or_default();
            match algorithm {
                "sha256" => self.bad("its manifest names a digest that is not one"),
                _ => self.bad(format!(
                    "its manifest names a blob by `{}` and not by `sha256`",
                    shown(algorithm)
                )),
            }
        })?;
        Ok(Blob { digest, size: of.size })
    }

    /// JSON in which no member is there twice.
    fn parse<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T> {
        json::parse(bytes)
            .and_then(serde_json::from_value)
            .map_err(|e| self.bad(format!("{what} cannot be read: {}", shown(&e.to_string()))))
    }

    fn bad(&self, why: impl Into<String>) -> Error {
        Error::new(Kind::Failed, format!("`{}` is no image with a disk", self.shown))
            .cause(why.into())
            .hint("Name a containerDisk of KubeVirt, a disk of podman's machines, or a file.")
    }
}

/// Whether `missing` bytes have room beside the file at `path`.
fn check_space(path: &Path, missing: u64) -> Result<()> {
    let (free, folder) = (free_bytes(path)?, path.parent().unwrap_or(path));
    if missing.saturating_add(SPARE) <= free {
        return Ok(());
    }
    Err(Error::failed(format!("not enough free space in `{}` for the disk", folder.display()))
        .cause(format!("{missing} bytes are needed and {free} are free"))
        .hint("Free some space there, or set `DEVBOX_HOME` to a folder on another disk."))
}

async fn hashed(path: &Path) -> Result<(FileDigest, u64)> {
    let path = path.to_owned();
    blocking("hashing the disk", move || {
        let (mut file, mut hasher) = (fs::File::open(&path)?, Sha256::new());
        let (mut piece, mut size) = (vec![0; 1 << 20], 0);
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok((FileDigest::from_bytes(hasher.finish()), size));
            }
            hasher.update(&piece[..n]);
            size += n as u64;
        }
    })
    .await
}

/// Debian's name of an architecture.
fn debian(name: &str) -> String {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .chars()
    .take(32)
    .collect()
}

/// So much of hostile text as a message needs.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}
