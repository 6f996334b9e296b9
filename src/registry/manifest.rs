//! A box in a registry: its manifest (OCI Image Format Specification 1.1, `manifest.md`).
//!
//! The config is the store's own. The layers are the index of the disk, the tables of its packs, and the packs in
//! the order of the index. The same box gives the same bytes: nothing here depends on who pushes, when, or what is there already.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::store::{BOX, CONFIG, MANIFEST};

/// Media type of the index of a disk.
const INDEX: &str = "application/vnd.devbox.disk.v1.index";
/// Media type of the tables of its packs.
const TABLES: &str = "application/vnd.devbox.disk.v1.tables";
/// Media type of a pack.
const PACK: &str = "application/vnd.devbox.disk.v1.pack";
/// Media type of the disk as one blob, as the store has it.
const DISK: &str = "application/vnd.devbox.disk.v1.qcow2";
/// The annotation that names the SHA-256 of the whole disk.
const DISK_DIGEST: &str = "vnd.devbox.disk.digest";
/// Common annotations (`annotations.md`), for other tools.
const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";
/// Largest manifest in bytes, as registries have it.
pub(super) const MAX_MANIFEST: u64 = 4 << 20;

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: FileDigest,
    /// Its size in bytes.
    pub size: u64,
}

impl Blob {
    /// The blob with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Blob { digest: FileDigest::of(bytes), size: bytes.len() as u64 }
    }
}

/// A box in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// What the box says of itself.
    pub config: Blob,
    /// The index of its disk.
    pub index: Blob,
    /// The tables of its packs.
    pub tables: Blob,
    /// The packs, in the order of the index.
    pub packs: Vec<Blob>,
    /// SHA-256 of the disk's file.
    pub disk: FileDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Shipped {
    /// The manifest of the box `name:version`.
    ///
    /// # Errors
    /// It is larger than registries take.
    pub fn encode(&self, name: &str, version: &str) -> Result<Vec<u8>> {
        let one = |media_type: &str, blob: &Blob| Descriptor {
            media_type: media_type.to_owned(),
            digest: blob.digest.to_string(),
            size: blob.size,
        };
        let mut layers = vec![one(INDEX, &self.index), one(TABLES, &self.tables)];
        layers.extend(self.packs.iter().map(|pack| one(PACK, pack)));
        let annotations =
            [(DISK_DIGEST, self.disk.to_string()), (TITLE, name.into()), (VERSION, version.into())];
        let text = Text {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(BOX.to_owned()),
            config: one(CONFIG, &self.config),
            layers,
            annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        };
        let bytes = crate::store::encode(&text)?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::failed(format!(
                "the disk has {} packs, which are more than a manifest can name",
                self.packs.len()
            )));
        }
        Ok(bytes)
    }

    /// Reads a manifest from outside; `at` says where it is from.
    ///
    /// # Errors
    /// It is not one of a box, or of another version of devbox, or names what is not a SHA-256; kind `Undetermined`.
    pub fn parse(bytes: &[u8], at: &str) -> Result<Self> {
        let other = |why: String| {
            Error::undetermined(format!("`{at}` is not a box that this version of devbox reads"))
                .cause(why)
        };
        let text: Text = serde_json::from_slice(bytes)
            .map_err(|e| other(format!("its manifest is not one of an image: {e}")))?;
        if text.artifact_type.as_deref() != Some(BOX) || text.config.media_type != CONFIG {
            return Err(other(
                "it is something else than a box, such as a container image".to_owned(),
            ));
        }
        if text.schema_version != 2 || text.media_type.as_deref() != Some(MANIFEST) {
            return Err(other("its manifest is of another version".to_owned()));
        }
        let blob = |descriptor: &Descriptor| {
            let digest = descriptor.digest.parse().map_err(|_| {
                let algorithm = descriptor.digest.split(':').next().unwrap_or_default();
                match algorithm {
                    "sha256" => other("its manifest names a digest that is not one".to_owned()),
                    _ => other(format!(
                        "its manifest names a blob by `{algorithm}` and not by `sha256`"
                    )),
                }
            })?;
            Ok::<_, Error>(Blob { digest, size: descriptor.size })
        };
        let (index, tables, packs) = match &text.layers[..] {
            [index, tables, packs @ ..]
                if index.media_type == INDEX
                    && tables.media_type == TABLES
                    && packs.iter().all(|pack| pack.media_type == PACK) =>
            {
                (index, tables, packs)
            }
            [disk] if disk.media_type == DISK => {
                return Err(other("its disk is one blob, as in a store".to_owned())
                    .hint("Copy the folder to `store` below `DEVBOX_HOME`, or push it from there with `devbox box push`."));
            }
            _ => return Err(other("its layers are none of a disk".to_owned())),
        };
        let disk = text.annotations.get(DISK_DIGEST).and_then(|disk| disk.parse().ok());
        Ok(Shipped {
            config: blob(&text.config)?,
            index: blob(index)?,
            tables: blob(tables)?,
            packs: packs.iter().map(blob).collect::<Result<_>>()?,
            disk: disk
                .ok_or_else(|| other("it does not name the digest of its disk".to_owned()))?,
        })
    }

    /// Whether `other` is the same box, whatever it was packed with.
    #[must_use]
    pub fn is_same(&self, other: &Shipped) -> bool {
        self.config == other.config && self.disk == other.disk
    }

    /// Bytes of all blobs.
    #[must_use]
    pub fn size(&self) -> u64 {
        let blobs = [&self.config, &self.index, &self.tables].into_iter().chain(&self.packs);
        blobs.fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Shipped {
        let blob = |name: &str| Blob::of(name.as_bytes());
        Shipped {
            config: blob("config"),
            index: blob("index"),
            tables: blob("tables"),
            packs: vec![blob("one"), blob("two")],
            disk: FileDigest::of(b"disk"),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let bytes = shipped().encode("web", "1.0.0").expect("encodes");
        assert_eq!(Shipped::parse(&bytes, "x").expect("parses"), shipped());
        let text = String::from_utf8(bytes).expect("text");
        assert!(
            text.starts_with(r#"{"annotations":{"org.opencontainers.image.title":"web","#),
            "{text}"
        );
        assert!(text.ends_with(r#""schemaVersion":2}"#), "{text}");
    }

    #[test]
    fn what_is_no_box_says_what_it_is() {
        let good =
            String::from_utf8(shipped().encode("web", "1.0.0").expect("encodes")).expect("text");
        let digest = shipped().packs[1].digest.to_string();
        for (from, to, why) in [
            (BOX, "application/x", "something else than a box"),
            (CONFIG, "application/vnd.oci.image.config.v1+json", "something else than a box"),
            (digest.as_str(), "sha512:00", "by `sha512`"),
            (digest.as_str(), "sha256:00", "not one"),
            (INDEX, "application/x", "its layers"),
            (DISK_DIGEST, "x", "digest of its disk"),
            ("\"schemaVersion\":2", "\"schemaVersion\":1", "another version"),
            ("{\"annotations\"", "{{\"annotations\"", "not one of an image"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            let e = Shipped::parse(bad.as_bytes(), "oci://r/web:1").expect_err(from).to_string();
            assert!(e.contains(why) && e.contains("oci://r/web:1"), "{from}: {e}");
        }
    }
}
