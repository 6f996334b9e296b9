//! The record of what a boot of a box reads ([`crate::chunks::boot`]) travels beside the box: it belongs to the manifest and does
//! not change it.

use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::manifest::Blob;
use super::remote::{Access, Options, Remote};
use crate::chunks::boot;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;

/// Media type of a record.
const BOOT: &str = "application/vnd.devbox.boot.v1";

/// Puts `record`, that of a box whose disk is `disk`, beside the box at `address`. False if one was there.
///
/// # Errors
/// The box is not there, or nothing can be written there.
pub async fn attach_boot(
    address: &Address,
    disk: FileDigest,
    record: &[u8],
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<bool> {
    boot::parse(record, disk)?;
    let Some(which) = &address.which else {
        return Err(Error::usage(format!("`{address}` does not say which box")));
    };
    let remote = Remote::open(&address.place, Access::Push, options, events, cancel).await?;
    let Some((bytes, digest)) = remote.manifest(which).await? else {
        return Err(Error::failed(format!("there is no box `{address}`")));
    };
    // One is enough, and the first is as good as the next.
    if found(&remote, digest, disk).await?.is_some() {
        return Ok(false);
    }
    remote.attach(&Blob::of(&bytes), BOOT, record.to_vec()).await?;
    Ok(true)
}

/// The record beside the box with the manifest `manifest`, if there is one that can be read.
///
/// # Errors
/// The place cannot be reached.
pub(super) async fn found(
    remote: &Remote,
    manifest: FileDigest,
    disk: FileDigest,
) -> Result<Option<Vec<u8>>> {
    let all = remote.attached(manifest, BOOT).await?;
    Ok(all.into_iter().find(|record| boot::parse(record, disk).is_ok()))
}
