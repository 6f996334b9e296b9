//! A box goes out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::address::{Address, Which, is_tag};
use super::described::{Described, cut_up};
use super::manifest::{Blob, Shipped};
use super::platforms::{Found, Publish};
use super::remote::{Access, Options, Remote};
use super::trust::Given;
use super::{AT_ONCE, Moved, signing};
use crate::attest::sign::Signer;
use crate::blocking::blocking;
use crate::chunks::index::encode_table;
use crate::chunks::pack::{Packed, Whole, Work};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::store::{BoxRef, Store};

/// Most other versions whose packs are looked up, each with a request.
const OTHERS: usize = 2;
/// Bytes of packs that are under way at once: those of incompressible files are large.
const UNDER_WAY: u64 = 16 << 20;
/// Packs that were asked for in vain before the rest is sent without asking.
const IN_VAIN: usize = 16;

/// A box that is there now.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Where it is: place and tag.
    pub address: Address,
    /// Digest of its manifest.
    pub manifest: FileDigest,
    /// Whether it was there already.
    pub was_there: bool,
    /// Packs of it that were there already, and all of them.
    pub packs: (usize, usize),
    /// The channels that were asked for, and whether each moved.
    pub channels: Vec<(String, bool)>,
    /// What moved.
    pub moved: Moved,
}

/// Pushes the box `image` to `address`, under its version if that names no tag; then lets each channel of `options` mean it.
///
/// # Errors
/// The tag is that of a release and holds another box, or is that of another version; a channel is called like a
/// version; the place refuses; `cancel` was cancelled.
pub async fn push(
    store: &Store,
    image: &BoxRef,
    address: &Address,
    described: &Described,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Pushed> {
    let config = image.config();
    let tag = tag(address, &config.version)?;
    options.channels.iter().try_for_each(|channel| check_channel(channel))?;
    let address = Address { place: address.place.clone(), which: Some(Which::Tag(tag.clone())) };
    let remote =
        Arc::new(Remote::open(&address.place, Access::Push, options, events, cancel).await?);
    let to = Target { store, image, address: &address, tag: &tag };
    let mut pushed = to.push(&remote, options.signer.as_ref(), described, events, cancel).await?;
    let mut moved = vec![];
    for channel in &options.channels {
        let moves = to.publish(&remote).point(channel).await?;
        moved.push((channel.clone(), moves));
    }
    pushed.channels = moved;
    pushed.moved = Moved::of(&remote);
    Ok(pushed)
}

/// A box, and where it goes.
struct Target<'a> {
    store: &'a Store,
    image: &'a BoxRef,
    address: &'a Address,
    tag: &'a str,
}

impl Target<'_> {
    fn publish<'a>(&'a self, remote: &'a Remote) -> Publish<'a> {
        let Target { image, address, tag, .. } = *self;
        let arch = &image.config().arch;
        Publish { remote, address, tag, arch, release: is_release(tag) }
    }

    /// Puts the signatures of the box beside its manifest.
    async fn sign(
        &self,
        remote: &Remote,
        subject: &Blob,
        shipped: &Shipped,
        signer: Option<&Arc<Signer>>,
        events: &Events,
    ) -> Result<()> {
        let Target { store, image, address, .. } = *self;
        let (config, manifest) = (image.config(), subject.digest);
        let placed = Given { address, manifest, shipped, config, envelopes: &[] }.placed();
        signing::with_push((store, image), remote, &placed, subject, signer, events).await
    }

    async fn push(
        &self,
        remote: &Arc<Remote>,
        signer: Option<&Arc<Signer>>,
        described: &Described,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Pushed> {
        let Target { store, image, address, tag } = *self;
        let (config, address) = (image.config(), address.clone());
        let config_bytes = config.encode()?;
        let before = match self.publish(remote).before().await? {
            None => None,
            Some(Found { bytes, digest, shipped: before, .. }) => {
                if before.config == Blob::of(&config_bytes) && before.disk == image.disk_digest() {
                    self.sign(remote, &Blob::of(&bytes), &before, signer, events).await?;
                    let packs = (before.packs.len(), before.packs.len());
                    let moved = Moved::of(remote);
                    let channels = vec![];
                    // A push that was cut off left it under the tag of its architecture alone.
                    self.publish(remote).publish(&before, bytes).await?;
                    return Ok(Pushed {
                        address,
                        manifest: digest,
                        was_there: true,
                        packs,
                        channels,
                        moved,
                    });
                }
                if is_release(tag) {
                    return Err(taken(&address, &before, image.disk_digest()));
                }
                Some(before)
            }
        };
        let mut there = There::default();
        if let Some(before) = before {
            there.known.extend(before.packs);
        }
        for version in others(store, image)? {
            there.add(remote, version).await;
        }
        let (whole, there) = send_packs(image, remote, there, events, cancel).await?;
        let mut tables = vec![];
        for table in &whole.tables {
            tables.extend_from_slice(&encode_table(table));
        }
        let index = whole.index.encode()?;
        let shipped = Shipped {
            config: Blob::of(&config_bytes),
            index: Blob::of(&index),
            tables: Blob::of(&tables),
            packs: whole
                .packs
                .iter()
                .map(|pack| Blob { digest: pack.digest, size: pack.size })
                .collect(),
            disk: image.disk_digest(),
        };
        // They are new, or small: nobody is asked whether they are there.
        futures_util::try_join!(
            remote.put(&shipped.tables, tables.into()),
            remote.put(&shipped.index, index.into()),
            remote.put(&shipped.config, config_bytes.into()),
        )?;
        let manifest = shipped.encode(&config.name, &config.version)?;
        let subject = Blob::of(&manifest);
        let digest = subject.digest;
        // Before its name: nobody finds the box without what was signed of it.
        self.sign(remote, &subject, &shipped, signer, events).await?;
        self.publish(remote).publish(&shipped, manifest).await?;
        let packs = (there, shipped.packs.len());
        described.keep(&whole, events);
        let (channels, moved) = (vec![], Moved::of(remote));
        Ok(Pushed { address, manifest: digest, was_there: false, packs, channels, moved })
    }
}

/// Cuts the disk and sends the packs that are not there, some at once. How many were there.
async fn send_packs(
    image: &BoxRef,
    remote: &Arc<Remote>,
    there: There,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(Whole, usize)> {
    let (sender, mut packs) = mpsc::channel::<(Packed, Vec<u8>)>(1);
    let (image, events, cancel) = (image.clone(), events.clone(), cancel.clone());
    let what = format!("pushing {}", image.config().reference());
    let cutting = blocking("cutting the disk", move || {
        // Nobody listens any more if a blob could not be sent; that error is the one that counts.
        let mut send = |packed, bytes| {
            sender
                .blocking_send((packed, bytes))
                .map_err(|_| Error::failed("the push was given up"))
        };
        cut_up(&image, &what, Work::Pack, &events, &cancel, &mut send)
    });
    let known = &there;
    let sending = async {
        let (mut under_way, mut bytes_under_way, mut there) = (FuturesUnordered::new(), 0, 0);
        let mut all = false;
        while !all || !under_way.is_empty() {
            let full = under_way.len() >= AT_ONCE || bytes_under_way >= UNDER_WAY;
            tokio::select! {
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    let (size, was_there) = done?;
                    bytes_under_way -= size;
                    there += usize::from(was_there);
                }
                pack = packs.recv(), if !full && !all => match pack {
                    Some((packed, bytes)) => {
                        let blob = Blob { digest: packed.digest, size: packed.size };
                        bytes_under_way += blob.size;
                        under_way.push(async move {
                            let size = blob.size;
                            let was_there = known.send(remote, blob, bytes.into()).await?;
                            Ok::<_, Error>((size, was_there))
                        });
                    }
                    None => all = true,
                },
            }
        }
        // Dropped here, so that the other side ends if this one failed.
        drop(packs);
        Ok::<_, Error>(there)
    };
    let (whole, there) = tokio::join!(cutting, sending);
    let there = there?;
    Ok((whole?, there))
}

/// Packs that are there.
#[derive(Debug, Default)]
struct There {
    known: BTreeSet<Blob>,
    /// How many in a row were asked for in vain.
    in_vain: AtomicUsize,
}

impl There {
    /// Adds those of another version. That it cannot be read is no failure: then each pack is asked for.
    async fn add(&mut self, remote: &Remote, version: String) {
        let Ok(Some((bytes, _))) = remote.manifest(&Which::Tag(version)).await else { return };
        self.known.extend(Shipped::parse(&bytes, "").into_iter().flat_map(|shipped| shipped.packs));
    }

    /// Sends a pack; whether it was there.
    async fn send(&self, remote: &Remote, blob: Blob, bytes: Bytes) -> Result<bool> {
        if self.known.contains(&blob) {
            return Ok(true);
        }
        // A push that was cut off left its first packs, so after some that are absent the rest is, too. One that is sent
        // although it is there does no harm.
        if self.in_vain.load(Ordering::Relaxed) < IN_VAIN {
            if remote.has(&blob).await? {
                self.in_vain.store(0, Ordering::Relaxed);
                return Ok(true);
            }
            self.in_vain.fetch_add(1, Ordering::Relaxed);
        }
        remote.put(&blob, bytes).await.map(|()| false)
    }
}

/// Versions of the same box in the store, the newest first, whose packs may be there.
fn others(store: &Store, image: &BoxRef) -> Result<Vec<String>> {
    let name = &image.config().name;
    let mut others: Vec<BoxRef> = store.list()?;
    others.retain(|other| other.config().name == *name && other.config() != image.config());
    let written =
        |other: &BoxRef| fs_err::metadata(other.disk_path()).and_then(|m| m.modified()).ok();
    others.sort_by_key(|other| std::cmp::Reverse(written(other)));
    let versions = others.iter().map(|other| other.config().version.clone());
    Ok(versions.filter(|version| is_tag(version)).take(OTHERS).collect())
}

/// The tag of the box: the one that was asked for, or its version.
fn tag(address: &Address, version: &str) -> Result<String> {
    let tag = match &address.which {
        Some(Which::Digest(_)) => {
            return Err(Error::usage(format!("a box cannot be pushed to `{address}`"))
                .cause("a digest is what comes out of a push")
                .hint("Leave `@sha256:…` out."));
        }
        Some(Which::Tag(tag)) => tag.clone(),
        None => version.to_owned(),
    };
    if !is_tag(&tag) {
        return Err(Error::usage(format!("the version `{tag}` cannot be a tag of a registry"))
            .hint("Name a tag in the address, or give the spec a version without `+`."));
    }
    if is_release(&tag) && tag != version {
        return Err(Error::usage(format!("the box has the version `{version}` and not `{tag}`"))
            .hint(format!(
                "Push it as `:{version}`, or under a name that may move, such as `:stable`."
            )));
    }
    Ok(tag)
}

/// Refuses the name of a channel that would be taken for a version, or that registries do not take.
fn check_channel(channel: &str) -> Result<()> {
    let hint = "Name it by what it stands for, such as `stable` or `testing`.";
    if !is_tag(channel) {
        return Err(Error::usage(format!("`{channel}` cannot be the name of a channel"))
            .cause("a tag of a registry has letters, digits and `.`, `_`, `-`, 128 at most")
            .hint(hint));
    }
    if semver::Version::parse(channel.trim_start_matches(['v', 'V'])).is_ok() {
        return Err(Error::usage(format!("the channel `{channel}` is called like a version"))
            .cause("a channel moves from version to version")
            .hint(hint));
    }
    Ok(())
}

/// Whether a tag is the version of a release, which never moves (SemVer 2.0.0: three numbers and no pre-release part).
fn is_release(tag: &str) -> bool {
    let numbers: Vec<&str> = tag.split('.').collect();
    numbers.len() == 3
        && numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// That a release is there with another box.
pub(super) fn taken(address: &Address, before: &Shipped, disk: FileDigest) -> Error {
    Error::failed(format!("`{address}` is there with another content"))
        .detail(format!("there: disk {}", before.disk))
        .detail(format!("here:  disk {disk}"))
        .hint("Raise `version` in the spec and build again: a released version never changes.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_no_version() {
        for name in ["stable", "testing_2", "1.2", "v1"] {
            check_channel(name).expect(name);
        }
        for name in ["1.2.0", "1.2.0-dev", "v1.2.0", "", "a/b", "-x", "a b", &"x".repeat(129)] {
            assert!(check_channel(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_release_keeps_its_name_and_other_tags_move() {
        let tag = |text: &str, version: &str| {
            tag(&Address::parse(&format!("oci://r.example/web{text}")).expect("address"), version)
        };
        assert_eq!(tag("", "1.2.0").expect("good"), "1.2.0");
        assert_eq!(tag(":stable", "1.2.0").expect("good"), "stable");
        assert_eq!(tag("", "1.2.0-dev").expect("good"), "1.2.0-dev");
        assert!(tag(":1.3.0", "1.2.0").is_err());
        assert!(tag("", "1.2.0+build").is_err());
        assert!(tag(&format!("@{}", FileDigest::of(b"")), "1.2.0").is_err());
        assert!(
            is_release("1.2.0")
                && !is_release("1.2")
                && !is_release("1.2.0-dev")
                && !is_release("v1.2.0")
        );
    }
}
