//! Which of the versions at a place is meant.

use std::fmt::Write as _;

use semver::Version;
use tokio_util::sync::CancellationToken;

use super::address::{Address, Place, Which};
use super::look::{Offered, look};
use super::platforms;
use super::remote::{Access, Options, Remote};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::spec::Wish;

/// Versions that a message names.
const NAMED: usize = 8;
/// Versions that are looked at for one of the right architecture, each with a request or two.
const LOOKED_AT: usize = 8;

/// The versions at a place, the newest first. Tags that are no versions are left out.
///
/// # Errors
/// The place cannot be reached, or its list does not end.
pub async fn versions(
    place: &Place,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Vec<Version>> {
    let remote = Remote::open(place, Access::Pull, options, events, cancel).await?;
    of(&remote).await
}

async fn of(remote: &Remote) -> Result<Vec<Version>> {
    let tags = remote.tags().await?;
    let mut all: Vec<Version> = tags.iter().filter_map(|tag| Version::parse(tag).ok()).collect();
    all.sort();
    all.reverse();
    Ok(all)
}

/// The newest version at `place` that `wish` fits, and where `options` name an architecture, one that is there for it; of
/// many that are not, the first few are looked at. And all versions.
///
/// # Errors
/// As [`versions`]; a box cannot be read.
pub async fn newest(
    place: &Place,
    wish: &Wish,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(Option<Version>, Vec<Version>)> {
    let remote = Remote::open(place, Access::Pull, options, events, cancel).await?;
    let all = of(&remote).await?;
    let mut fitting = all.iter().filter(|version| wish.fits(version));
    let Some(arch) = &options.arch else { return Ok((fitting.next().cloned(), all)) };
    for version in fitting.take(LOOKED_AT) {
        let which = Which::Tag(version.to_string());
        let address = Address { place: place.clone(), which: Some(which.clone()) };
        if platforms::is_for(&remote, &address, &which, arch).await? {
            return Ok((Some(version.clone()), all));
        }
    }
    Ok((None, all))
}

/// The box at `place` that `wish` means: of those that fit, the newest.
///
/// # Errors
/// There is none: then what there is is named; the place cannot be reached; what is there says that it is another version.
pub async fn choose(
    place: &Place,
    wish: &Wish,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Offered> {
    let which = match wish {
        Wish::Digest(digest) => Which::Digest(*digest),
        Wish::Channel(channel) => Which::Tag(channel.clone()),
        Wish::Exact(version) => Which::Tag(version.to_string()),
        Wish::Range(_) => {
            let (newest, all) = newest(place, wish, options, events, cancel).await?;
            // If none is for the architecture, the newest one says so.
            let newest = newest.or_else(|| all.iter().find(|version| wish.fits(version)).cloned());
            let Some(newest) = newest else {
                return Err(Error::failed(format!("no box at `{place}` fits {wish}"))
                    .detail(listed(&all))
                    .hint("Change `version` of the source, or push such a box."));
            };
            Which::Tag(newest.to_string())
        }
    };
    let address = Address { place: place.clone(), which: Some(which.clone()) };
    let Some(offered) = look(&address, options, events, cancel).await? else {
        let none = Error::failed(format!("there is no box `{address}`"));
        let all = match wish {
            Wish::Exact(_) => versions(place, options, events, cancel).await.ok(),
            _ => None,
        };
        return Err(match all {
            Some(all) => none.detail(listed(&all)),
            None => none,
        }
        .hint("Check the address, the version or the name of the channel."));
    };
    let version = &offered.config.version;
    match &which {
        Which::Tag(tag) if !matches!(wish, Wish::Channel(_)) && tag != version => {
            Err(Error::undetermined(format!("`{address}` is not what its tag says"))
                .detail(format!("it says of itself that it is {}", offered.config.reference()))
                .hint("Ask whoever pushed it; `@sha256:…` takes it nevertheless."))
        }
        _ => Ok(offered),
    }
}

/// The newest of these, in words.
fn listed(all: &[Version]) -> String {
    let mut out = match all {
        [] => return "it has no versions".to_owned(),
        _ => "it has ".to_owned(),
    };
    for (i, version) in all.iter().take(NAMED).enumerate() {
        let _ = write!(out, "{}{version}", if i == 0 { "" } else { ", " });
    }
    if all.len() > NAMED {
        let _ = write!(out, " and {} more", all.len() - NAMED);
    }
    out
}
