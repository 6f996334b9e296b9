//! A version for several architectures: an image index under its tag (OCI Image Format Specification 1.1, `image-index.md`).
//!
//! A registry knows no exchange of tags, so two pushes at the same time could lose one of both. Each architecture therefore has a
//! tag of its own, too, written first (`1.2.0_amd64`; no version, so nobody takes it for one), and whoever writes the version's
//! tag reads all of them again afterwards: the last one to write finds what the others pushed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::address::{Address, Which};
use super::look;
use super::manifest::{Blob, MAX_MANIFEST, Shipped};
use super::remote::Remote;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::spec::Arch;
use crate::store::{BOX, BoxConfig, INDEX, MANIFEST, encode};

/// How often a tag is written anew while others write it.
const TRIES: usize = 16;
/// Architectures that a message names.
const NAMED: usize = 8;

/// What is under a tag.
#[derive(Debug)]
pub(super) struct Found {
    /// The bytes of the box's own manifest.
    pub(super) bytes: Vec<u8>,
    /// Their digest.
    pub(super) digest: FileDigest,
    /// What they say.
    pub(super) shipped: Shipped,
    /// The architecture that an index says it is for.
    listed: Option<String>,
}

impl Found {
    /// Refuses a box for another architecture than the one that is wanted, or that its index names.
    pub(super) fn check(
        &self,
        config: &BoxConfig,
        address: &Address,
        arch: Option<&str>,
    ) -> Result<()> {
        if let Some(listed) = self.listed.as_ref().filter(|listed| **listed != config.arch) {
            return Err(Error::undetermined(format!(
                "`{address}` lists a box for {} as one for {}",
                shown(&config.arch),
                shown(listed)
            )));
        }
        match arch {
            Some(arch) if arch != config.arch => Err(Error::failed(format!(
                "`{address}` has no box for {arch}"
            ))
            .detail(format!("it is {} for {}", config.reference(), shown(&config.arch)))
            .hint(
                "Take that one with `--arch`, or have it built and pushed for this architecture.",
            )),
            _ => Ok(()),
        }
    }
}

/// The box of `arch` (Debian's name) at an address: of an index the one of that architecture, without `arch` the one of
/// this host; else what is there. None if there is nothing.
///
/// # Errors
/// The place cannot be reached; it is no box; the index has none of that architecture: then what it has is named.
pub(super) async fn find(
    remote: &Remote,
    address: &Address,
    which: &Which,
    arch: Option<&str>,
) -> Result<Option<Found>> {
    let Some((bytes, digest)) = document(remote, which).await? else { return Ok(None) };
    let at = address.to_string();
    let Some(index) = Listed::parse(&bytes, &at)? else {
        let shipped = Shipped::parse(&bytes, &at)?;
        return Ok(Some(Found { bytes, digest, shipped, listed: None }));
    };
    let host = Arch::of_host().map(Arch::as_str);
    let Some(wanted) = arch.or(host) else {
        return Err(index.none(&at, std::env::consts::ARCH));
    };
    let Some(blob) = index.0.get(wanted) else { return Err(index.none(&at, wanted)) };
    let gone = || {
        Error::undetermined(format!("`{at}` lists a box for {wanted} that is not there"))
            .detail(format!("its manifest would be {}", blob.digest))
            .hint("Push the box for that architecture again.")
    };
    let which = Which::Digest(blob.digest);
    let (bytes, digest) = remote.manifest(&which).await?.ok_or_else(gone)?;
    let shipped = Shipped::parse(&bytes, &at)?;
    Ok(Some(Found { bytes, digest, shipped, listed: Some(wanted.to_owned()) }))
}

/// Whether there is a box of `arch` (Debian's name) at an address.
///
/// # Errors
/// As [`find`].
pub(super) async fn is_for(
    remote: &Remote,
    address: &Address,
    which: &Which,
    arch: &str,
) -> Result<bool> {
    let Some((bytes, _)) = document(remote, which).await? else { return Ok(false) };
    let at = address.to_string();
    match Listed::parse(&bytes, &at)? {
        Some(listed) => Ok(listed.0.contains_key(arch)),
        None => {
            let shipped = Shipped::parse(&bytes, &at)?;
            Ok(look::config(remote, &shipped, address).await?.arch == arch)
        }
    }
}

/// A manifest or an index.
async fn document(remote: &Remote, which: &Which) -> Result<Option<(Vec<u8>, FileDigest)>> {
    let accept = format!("{MANIFEST}, {INDEX}");
    remote.document("read the manifest of the box", which, &accept).await
}

/// The boxes of an index, by architecture.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed(BTreeMap<String, Blob>);

impl Listed {
    /// Reads an index; none if these bytes are something else.
    ///
    /// # Errors
    /// It is an index that says nothing certain; kind `Undetermined`.
    fn parse(bytes: &[u8], at: &str) -> Result<Option<Self>> {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(None) };
        if value["mediaType"] != INDEX {
            return Ok(None);
        }
        let other = |why: String| {
            Error::undetermined(format!(
                "`{at}` lists boxes in a way that this version of devbox does not read"
            ))
            .cause(why)
        };
        let mut all = BTreeMap::new();
        let entries = value["manifests"].as_array().map_or(&[][..], Vec::as_slice);
        // What others put beside boxes is theirs.
        for entry in entries.iter().filter(|entry| entry["artifactType"] == BOX) {
            let Some(arch) = entry["platform"]["architecture"].as_str() else {
                return Err(other("a box has no architecture".to_owned()));
            };
            let digest = entry["digest"].as_str().unwrap_or_default();
            let Ok(digest) = digest.parse() else {
                let kind: String =
                    digest.split(':').next().unwrap_or_default().chars().take(16).collect();
                return Err(other(format!(
                    "the box for {} is named by `{kind}` and not by `sha256`",
                    shown(arch)
                )));
            };
            let size = entry["size"].as_u64().unwrap_or(0);
            if size == 0 || size > MAX_MANIFEST {
                return Err(other(format!(
                    "the manifest of the box for {} has {size} bytes",
                    shown(arch)
                )));
            }
            if all.insert(arch.to_owned(), Blob { digest, size }).is_some() {
                return Err(other(format!("it has two boxes for {}", shown(arch))));
            }
        }
        Ok(Some(Listed(all)))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let manifests: Vec<Value> = self
            .0
            .iter()
            .map(|(arch, blob)| {
                json!({
                    "mediaType": MANIFEST,
                    "artifactType": BOX,
                    "digest": blob.digest.to_string(),
                    "size": blob.size,
                    "platform": {"architecture": arch, "os": "linux"},
                })
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        encode(&index)
    }

    /// That it has no box for `wanted`.
    fn none(&self, at: &str, wanted: &str) -> Error {
        let mut named: Vec<String> = self.0.keys().take(NAMED).map(|arch| shown(arch)).collect();
        if self.0.len() > NAMED {
            named.push(format!("{} more", self.0.len() - NAMED));
        }
        let has = if named.is_empty() { "no box at all".to_owned() } else { named.join(", ") };
        Error::failed(format!("`{at}` has no box for {wanted}"))
            .detail(format!("it has {has}"))
            .hint("Take one of those with `--arch`, or have it built and pushed for this architecture.")
    }
}

/// The name of an architecture from outside.
fn shown(arch: &str) -> String {
    arch.chars().filter(|c| c.is_ascii_graphic()).take(32).collect()
}

/// A box that is to be found under a tag.
pub(super) struct Publish<'a> {
    pub(super) remote: &'a Remote,
    /// The place with the tag.
    pub(super) address: &'a Address,
    pub(super) tag: &'a str,
    /// The box's architecture, Debian's name.
    pub(super) arch: &'a str,
    /// Whether what is under the tag never changes.
    pub(super) release: bool,
}

impl Publish<'_> {
    /// The box of this architecture that is under the tag, or under the tag of its own that an interrupted push left.
    pub(super) async fn before(&self) -> Result<Option<Found>> {
        let listed = self.listed().await?;
        let own = self.own_tag(self.arch);
        let which = match listed.0.get(self.arch) {
            Some(blob) => Which::Digest(blob.digest),
            None => Which::Tag(own),
        };
        let Some((bytes, digest)) = self.remote.manifest(&which).await? else { return Ok(None) };
        let shipped = Shipped::parse(&bytes, &self.address.to_string())?;
        Ok(Some(Found { bytes, digest, shipped, listed: None }))
    }

    /// Lets the tag mean this box besides those of other architectures. True if it did not before.
    ///
    /// # Errors
    /// A release has another box of this architecture by now; it cannot be written.
    pub(super) async fn publish(&self, shipped: &Shipped, bytes: Vec<u8>) -> Result<bool> {
        let (own, own_tag) = (Blob::of(&bytes), self.own_tag(self.arch));
        let marked = self.remote.manifest(&Which::Tag(own_tag.clone())).await?;
        if marked.is_none_or(|(_, digest)| digest != own.digest) {
            self.remote.put_manifest(&own_tag, bytes.clone(), MANIFEST).await?;
        }
        crate::crash::point("push.own-tag");
        for attempt in 0..TRIES {
            let mut all = self.listed().await?;
            if let Some(there) = all.0.get(self.arch).filter(|there| **there != own)
                && self.release
            {
                self.refuse_other(there, shipped).await?;
            }
            all.0.insert(self.arch.to_owned(), own.clone());
            for other in Arch::ALL.map(Arch::as_str).into_iter().filter(|arch| *arch != self.arch) {
                let which = Which::Tag(self.own_tag(other));
                if let Some((bytes, _)) = self.remote.manifest(&which).await? {
                    // What is there is a box of that architecture, or nobody's business.
                    Shipped::parse(&bytes, &format!("{}", self.address))?;
                    // A release stays what it is; of one that moves, what was pushed last is in its own tag.
                    let blob = Blob::of(&bytes);
                    match self.release {
                        true => drop(all.0.entry(other.to_owned()).or_insert(blob)),
                        false => drop(all.0.insert(other.to_owned(), blob)),
                    }
                }
            }
            let (wanted, kind) = match all.0.len() {
                1 => (bytes.clone(), MANIFEST),
                _ => (all.encode()?, INDEX),
            };
            let before = document(self.remote, &Which::Tag(self.tag.to_owned())).await?;
            if before.is_some_and(|(before, _)| before == wanted) {
                return Ok(attempt > 0);
            }
            self.remote.put_manifest(self.tag, wanted, kind).await?;
        }
        Err(Error::failed(format!("cannot write `{}`", self.address))
            .cause("others write it at the same time")
            .hint("Run the same command again."))
    }

    /// Lets a channel mean all that the tag means. True if it did not before.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn point(&self, channel: &str) -> Result<bool> {
        let which = Which::Tag(channel.to_owned());
        for attempt in 0..TRIES {
            let Some((bytes, digest)) =
                document(self.remote, &Which::Tag(self.tag.to_owned())).await?
            else {
                let what = format!("`{}` was removed while `{channel}` was moved", self.address);
                return Err(Error::failed(what).hint("Run the same command again."));
            };
            if document(self.remote, &which).await?.is_some_and(|(_, before)| before == digest) {
                return Ok(attempt > 0);
            }
            let kind = if Listed::parse(&bytes, "")?.is_some() { INDEX } else { MANIFEST };
            crate::crash::point("push.before-channel");
            self.remote.put_manifest(channel, bytes, kind).await?;
        }
        Err(Error::failed(format!("cannot move `{channel}`"))
            .cause("others move it at the same time")
            .hint("Run the same command again."))
    }

    /// What is under the tag, by architecture.
    async fn listed(&self) -> Result<Listed> {
        let which = Which::Tag(self.tag.to_owned());
        let Some((bytes, digest)) = document(self.remote, &which).await? else {
            return Ok(Listed::default());
        };
        let at = self.address.to_string();
        if let Some(listed) = Listed::parse(&bytes, &at)? {
            return Ok(listed);
        }
        let shipped = Shipped::parse(&bytes, &at)?;
        let config = look::config(self.remote, &shipped, self.address).await?;
        Ok(Listed([(config.arch, Blob { digest, size: bytes.len() as u64 })].into()))
    }

    /// A release that has another box of this architecture, unless that is the same one, packed in another way.
    async fn refuse_other(&self, there: &Blob, ours: &Shipped) -> Result<()> {
        let found = self.remote.manifest(&Which::Digest(there.digest)).await?;
        let Some((bytes, _)) = found else { return Ok(()) };
        let there = Shipped::parse(&bytes, &self.address.to_string())?;
        if there.is_same(ours) {
            return Ok(());
        }
        Err(super::push::taken(self.address, &there, ours.disk))
    }

    fn own_tag(&self, arch: &str) -> String {
        format!("{}_{arch}", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &str) -> Vec<u8> {
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#)
            .into_bytes()
    }

    fn entry(arch: &str, digest: &str) -> String {
        format!(
            r#"{{"mediaType":"{MANIFEST}","artifactType":"{BOX}","digest":"{digest}","size":5,"platform":{{"architecture":"{arch}","os":"linux"}}}}"#
        )
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_what_is_none_is_left_to_others() {
        let digest = FileDigest::of(b"a");
        let listed = Listed(
            [("amd64", b"a"), ("arm64", b"b")]
                .map(|(arch, bytes)| (arch.to_owned(), Blob::of(bytes)))
                .into(),
        );
        let bytes = listed.encode().expect("encodes");
        assert_eq!(Listed::parse(&bytes, "x").expect("parses"), Some(listed));
        for other in [&b"{}"[..], b"", b"[1]", br#"{"mediaType":"x"}"#] {
            assert_eq!(Listed::parse(other, "x").expect("no index"), None);
        }
        // A signature that somebody keeps in the index is no box.
        let foreign =
            index(&format!("{{\"digest\":\"{digest}\"}},{}", entry("amd64", &digest.to_string())));
        assert_eq!(Listed::parse(&foreign, "x").expect("parses").expect("an index").0.len(), 1);
    }

    #[test]
    fn hostile_indexes_are_refused_and_their_words_are_short() {
        let digest = FileDigest::of(b"a").to_string();
        for (entries, why) in [
            (entry("amd64", "sha512:00"), "by `sha512`"),
            (entry("amd64", ""), "not by `sha256`"),
            (
                format!("{},{}", entry("amd64", &digest), entry("amd64", &digest)),
                "two boxes for amd64",
            ),
            (entry("amd64", &digest).replace("\"size\":5", "\"size\":99999999"), "99999999 bytes"),
            (entry("amd64", &digest).replace("architecture", "x"), "no architecture"),
        ] {
            let e = Listed::parse(&index(&entries), "oci://r/web:1").expect_err(why).to_string();
            assert!(e.contains(why) && e.contains("oci://r/web:1"), "{e}");
        }
        let many: Vec<String> =
            (0..1000).map(|n| entry(&format!("cpu{n}\\u001b[31m"), &digest)).collect();
        let listed =
            Listed::parse(&index(&many.join(",")), "x").expect("parses").expect("an index");
        let e = listed.none("x", "arm64").to_string();
        assert!(e.contains("992 more") && e.len() < 600 && !e.contains('\u{1b}'), "{e}");
    }
}
