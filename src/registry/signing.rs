//! Signatures of boxes: made, put beside the manifest, kept with the box in the store.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::address::{Address, Place, Which};
use super::manifest::Blob;
use super::remote::{Access, Options, Remote};
use super::trust::{Given, SIGNATURE};
use super::{look, platforms};
use crate::attest::placed::{Placed, Signed};
use crate::attest::sign::Signer;
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::store::{BoxRef, Store};

/// A box that is signed now.
#[derive(Debug, Clone)]
pub struct SignedBox {
    /// Where it is, with the digest of its manifest.
    pub address: Address,
    /// What was signed.
    pub placed: Placed,
    /// Fingerprint of the key.
    pub keyid: String,
    /// Whether the same signature was there.
    pub was_there: bool,
}

/// Signs the box at `address` as what it is there; `elsewhere`: as what it is at that place, which shows the same box.
///
/// # Errors
/// It is not there; it is neither the one in the store nor named by its digest, so nobody has said which one is meant; the
/// signer does not sign; the place cannot be written to.
pub async fn sign(
    store: &Store,
    address: &Address,
    elsewhere: Option<&Place>,
    signer: &Signer,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<SignedBox> {
    let which = look::named(address)?;
    let remote = Remote::open(&address.place, Access::Push, options, events, cancel).await?;
    let arch = options.arch.as_deref();
    let Some(found) = platforms::find(&remote, address, which, arch).await? else {
        return Err(Error::failed(format!("there is no box `{address}`"))
            .hint("Check the address, or push the box with `devbox box push`."));
    };
    let config = look::config(&remote, &found.shipped, address).await?;
    found.check(&config, address, arch)?;
    let (bytes, manifest, shipped) = (found.bytes, found.digest, found.shipped);
    let here = store.find(&config.name, &config.version)?;
    let here =
        here.filter(|image| *image.config() == config && image.disk_digest() == shipped.disk);
    if here.is_none() && matches!(which, Which::Tag(_)) {
        return Err(Error::new(Kind::Trust, format!("`{address}` is not a box that is in the store"))
            .cause("who signs what a tag means at this moment signs what the place says, not what somebody has seen")
            .detail(format!("there: {} for {}, manifest {manifest}", config.reference(), config.arch))
            .hint(format!("Pull it first, or name its digest: `{}@{manifest}`.", address.place)));
    }
    let place = elsewhere.unwrap_or(&address.place).clone();
    let signed_as = Address { place, which: None };
    let given =
        Given { address: &signed_as, manifest, shipped: &shipped, config: &config, envelopes: &[] };
    let (placed, subject) = (given.placed(), Blob::of(&bytes));
    let text = placed.sign(signer)?;
    let was_there = attach(&remote, &subject, std::slice::from_ref(&text)).await? == 0;
    if let Some(image) = here {
        store.keep_signatures(&image, &[text])?;
    }
    let address = Address { place: address.place.clone(), which: Some(Which::Digest(manifest)) };
    Ok(SignedBox { address, placed, keyid: signer.keyid(), was_there })
}

/// Puts the signatures of a box that is pushed beside its manifest: a new one, and those that the store keeps. That a place does
/// not take the latter is said and is no failure.
///
/// # Errors
/// The signer does not sign, or the place does not take what it signed.
pub(super) async fn with_push(
    (store, image): (&Store, &BoxRef),
    remote: &Remote,
    placed: &Placed,
    subject: &Blob,
    signer: Option<&Arc<Signer>>,
    events: &Events,
) -> Result<()> {
    let mut kept = store.signatures(image)?;
    // A box that another devbox has packed has another manifest, of which these say nothing.
    kept.retain(|text| {
        Signed::parse(text).is_ok_and(|signed| signed.placed.manifest == subject.digest)
    });
    match attach(remote, subject, &kept).await {
        Err(e) if e.kind() == Kind::Interrupted => return Err(e),
        Err(e) => {
            events.warn(format!("the signatures of the box were not pushed: {}", e.what()));
        }
        Ok(_) => {}
    }
    let Some(signer) = signer else { return Ok(()) };
    let text = placed.sign(signer)?;
    attach(remote, subject, std::slice::from_ref(&text)).await?;
    store.keep_signatures(image, &[text])
}

/// How many of them were not there.
async fn attach(remote: &Remote, subject: &Blob, wanted: &[Vec<u8>]) -> Result<usize> {
    if wanted.is_empty() {
        return Ok(0);
    }
    let there = remote.attached(subject.digest, SIGNATURE).await?;
    let mut new = 0;
    for text in wanted.iter().filter(|text| !there.contains(text)) {
        remote.attach(subject, SIGNATURE, text.clone()).await?;
        new += 1;
    }
    Ok(new)
}

/// The signatures of a manifest. Where nobody demands them, that they cannot be read is said and is no failure.
///
/// # Errors
/// They are demanded and cannot be read, or `cancel` was cancelled.
pub(super) async fn read(
    remote: &Remote,
    manifest: FileDigest,
    demanded: bool,
    events: &Events,
) -> Result<Vec<Vec<u8>>> {
    match remote.attached(manifest, SIGNATURE).await {
        Err(e) if demanded || e.kind() == Kind::Interrupted => Err(e),
        Err(e) => {
            events.warn(format!("the signatures of the box were not read: {}", e.what()));
            Ok(vec![])
        }
        Ok(texts) => Ok(texts),
    }
}
