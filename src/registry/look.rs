//! What a place says of a box, before anything of its disk moves.

use tokio_util::sync::CancellationToken;

use super::address::{Address, Which};
use super::manifest::Shipped;
use super::platforms;
use super::remote::{Access, Options, Remote};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::store::BoxConfig;

/// Largest config of a box in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// A box that is there.
#[derive(Debug, Clone)]
pub struct Offered {
    /// Where: with the digest of its manifest, so that it stays this one although its tag moves.
    pub address: Address,
    /// The digest of its manifest.
    pub manifest: FileDigest,
    /// SHA-256 of its disk's file.
    pub disk: FileDigest,
    /// What it says of itself. Nobody has proven it.
    pub config: BoxConfig,
}

/// Asks what is at `address`; none if there is nothing.
///
/// # Errors
/// The address names no tag or digest; the place cannot be reached; it is no box.
pub async fn look(
    address: &Address,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Option<Offered>> {
    let which = named(address)?;
    let remote = Remote::open(&address.place, Access::Pull, options, events, cancel).await?;
    let arch = options.arch.as_deref();
    let Some(found) = platforms::find(&remote, address, which, arch).await? else {
        return Ok(None);
    };
    let config = config(&remote, &found.shipped, address).await?;
    found.check(&config, address, arch)?;
    let (manifest, shipped) = (found.digest, found.shipped);
    let address = Address { place: address.place.clone(), which: Some(Which::Digest(manifest)) };
    Ok(Some(Offered { address, manifest, disk: shipped.disk, config }))
}

/// Which box an address means.
///
/// # Errors
/// It does not say.
pub(super) fn named(address: &Address) -> Result<&Which> {
    address.which.as_ref().ok_or_else(|| {
        Error::usage(format!("`{address}` does not say which box"))
            .hint(format!("Name a tag or a digest, as in `{address}:1.0.0`."))
    })
}

/// What a box says of itself.
///
/// # Errors
/// It cannot be read, or is not what this version of devbox writes.
pub(super) async fn config(
    remote: &Remote,
    shipped: &Shipped,
    address: &Address,
) -> Result<BoxConfig> {
    let bytes =
        remote.blob("read what the box says of itself", &shipped.config, MAX_CONFIG).await?;
    let config = BoxConfig::parse(&bytes)?;
    if config.encode()? != bytes {
        return Err(Error::undetermined(format!(
            "`{address}` says of itself what this version of devbox does not write"
        )));
    }
    Ok(config)
}
