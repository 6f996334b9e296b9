//! An image of containers in an archive, as a containerDisk is: its one layer has the disk.
//!
//! Sources: OCI Image Format Specification 1.1, `image-layout.md`, `image-index.md`, `manifest.md`; Docker Image Specification
//! 1.2, "Combined Image JSON + Filesystem Changeset Format", which `docker save` writes.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tar::Member;
use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::container::source::Source;

/// The members that make an archive an image layout.
const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// What `docker save` has in their place.
const SAVED: &str = "manifest.json";
/// Longest document in bytes: a registry's customary limit for manifests.
const LONGEST: usize = 4 << 20;
/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

/// An image in what `docker save` writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    /// Digests of the layers, unpacked.
    diff_ids: Vec<String>,
}

/// The layer of the image and what the archive is, if it is an image layout or written by `docker save`.
///
/// # Errors
/// Kind `Undetermined`: it holds not exactly one image with one layer, or a blob has not the digest
/// that it is named by.
pub(super) fn layer<'m>(
    file: &Source,
    members: &'m [Member],
    limits: &Limits,
) -> Result<Option<(&'m Member, &'static str)>> {
    let is = |name: &str| members.iter().any(|member| member.name == name);
    let image = Image { file, members, limits };
    if !is(LAYOUT) || !is(INDEX) {
        let saved = if is(SAVED) { image.saved()? } else { None };
        return Ok(saved.map(|layer| (layer, "docker archive")));
    }
    let index: Index = image.document(image.member(INDEX)?)?;
    let [manifest] = index.manifests.as_slice() else {
        return Err(image.bad(format!("it holds {} images, not one", index.manifests.len())));
    };
    let manifest: Manifest = image.document(image.blob(manifest)?)?;
    let [layer] = manifest.layers.as_slice() else {
        return Err(image.bad(format!("its image has {} layers, not one", manifest.layers.len())));
    };
    image.blob(layer).map(|layer| Some((layer, "OCI image")))
}

struct Image<'a, 'm> {
    file: &'a Source,
    members: &'m [Member],
    limits: &'a Limits,
}

impl<'m> Image<'_, 'm> {
    fn member(&self, name: &str) -> Result<&'m Member> {
        let found = self.members.iter().find(|member| member.name == name);
        found.ok_or_else(|| self.bad(format!("`{}` is not there", name.escape_debug())))
    }

    /// The layer of the image that `docker save` wrote; none if the archive is of something else, in which a file has that name.
    fn saved(&self) -> Result<Option<&'m Member>> {
        let Ok(images) = self.document::<Vec<Saved>>(self.member(SAVED)?) else { return Ok(None) };
        let [image] = images.as_slice() else {
            return Err(self.bad(format!("it holds {} images, not one", images.len())));
        };
        let [layer] = image.layers.as_slice() else {
            return Err(self.bad(format!("its image has {} layers, not one", image.layers.len())));
        };
        let config: Config = self.document(self.member(&image.config)?)?;
        let [expected] = config.rootfs.diff_ids.as_slice() else {
            let named = config.rootfs.diff_ids.len();
            return Err(self.bad(format!("its config names {named} layers, not one")));
        };
        let member = self.member(layer)?;
        let found = self.digest(member)?;
        if found.to_string() == *expected {
            return Ok(Some(member));
        }
        Err(self
            .bad(format!("`{}` has another digest", member.name))
            .detail(format!("expected: {}", expected.escape_debug()))
            .detail(format!("found: {found}")))
    }

    /// The blob of a descriptor, when it is what the descriptor says.
    fn blob(&self, named: &Descriptor) -> Result<&'m Member> {
        let hex = named.digest.strip_prefix("sha256:");
        let hex = hex.ok_or_else(|| {
            self.bad(format!("a digest is not understood: `{}`", named.digest.escape_debug()))
        })?;
        let member = self.member(&format!("blobs/sha256/{hex}"))?;
        if member.bytes.size() != named.size {
            return Err(self.bad(format!("`{}` is not as long as it should be", member.name)));
        }
        let found = self.digest(member)?;
        if found.hex() != hex {
            return Err(self
                .bad(format!("`{}` has another digest", member.name))
                .detail(format!("found: {found}")));
        }
        Ok(member)
    }

    fn digest(&self, member: &Member) -> Result<FileDigest> {
        let mut hash = Sha256::new();
        let mut buf = vec![0; PIECE];
        let mut at = 0;
        while at < member.bytes.size() {
            self.limits.check_time()?;
            let left = member.bytes.size() - at;
            let len = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            member.bytes.read_at(&mut buf[..len], at)?;
            hash.update(&buf[..len]);
            at += len as u64;
        }
        Ok(FileDigest::from_bytes(hash.finish()))
    }

    fn document<T: DeserializeOwned>(&self, member: &Member) -> Result<T> {
        let size = member.bytes.size();
        if size > LONGEST as u64 {
            return Err(
                self.bad(format!("`{}` has {size} bytes; the limit is {LONGEST}", member.name))
            );
        }
        let text = self.file.inside(&member.name, member.bytes.clone()).read_up_to(0, LONGEST)?;
        serde_json::from_slice(&text)
            .map_err(|e| self.bad(format!("`{}` cannot be read: {e}", member.name)))
    }

    fn bad(&self, why: String) -> Error {
        Error::undetermined(format!("the OCI image `{}` is not one with a disk", self.file.name()))
            .cause(why)
            .hint("Check that it is a containerDisk; of another image, use the disk by itself.")
    }
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
