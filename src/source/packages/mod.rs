//! `type = "packages"`: a bootable disk from a distribution's packages. Nobody's image is
//! downloaded, and no root is needed where the host has user namespaces.

mod archive;
mod cache;
mod recipe;
mod tree;

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use self::cache::{Cache, Record};
use crate::error::Result;
use crate::event::Events;
use crate::host::Paths;
use crate::source::SourceDisk;
use crate::source::disk::scratch::{self, Scratch};
use crate::source::disk::{self, Layout, Loader, preflight};
use crate::source::seed::Seed;
use crate::spec::types::{Arch, InputFormat, Packages};

/// Label of the root filesystem.
const LABEL: &str = "root";

/// The disk for `spec`: from the cache if nothing changed in the archive, else made now.
///
/// `epoch` is the wished source date (seconds since 1970 UTC); the date of the suite's index if absent.
///
/// # Errors
/// The host lacks a tool or user namespaces (all that is missing, before anything is fetched); the
/// archive cannot be reached or is not signed; a package does not exist; the packages do not fit
/// (names the size that they need); the host's disk is full; `cancel` was cancelled. No half disk
/// is left.
pub async fn build(
    spec: &Packages,
    arch: Arch,
    epoch: Option<i64>,
    seed: &Seed,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<SourceDisk> {
    let loader = Loader::of(arch, spec.is_signed(arch));
    preflight::packages(arch, loader)?;
    let scratch = Scratch::new()?;
    scratch::prove(&scratch, cancel).await?;

    let suites = archive::suites(spec, arch, &scratch, events, cancel).await?;
    let record = Record::new(spec, arch, epoch, seed, &suites);
    let key = record.key();
    let cache = Cache::open(&paths.cache)?;
    let _lock = cache.lock(&key, events, cancel).await?;
    let finished = |record: Record| SourceDisk {
        path: cache.disk(&key),
        format: InputFormat::Raw,
        size: record.size,
        epoch: record.epoch,
        key: key.clone(),
    };
    if let Some(old) = cache.find(&key) {
        let since = jiff::Timestamp::from_second(old.epoch).unwrap_or_default();
        events
            .note(format!("packages unchanged since {}, reusing their disk", since.strftime("%F")));
        return Ok(finished(old));
    }
    for why in cache.explain(&record) {
        events.note(format!("{why}: making the disk again"));
    }

    let start = Instant::now();
    events.phase(format!("Installing the packages of `{}`", spec.suite));
    let layout = layout(spec, arch, record.epoch, seed);
    let tar = tree::make(spec, arch, &layout, &suites, &scratch, events, cancel).await?;
    events.done("packages installed", start.elapsed());

    let start = Instant::now();
    events.phase("Making a bootable disk");
    disk::assemble_in(&scratch, &tar, &cache.partial(&key)?, &layout, cancel).await?;
    cache.add(&key, &record)?;
    events.done("bootable disk made", start.elapsed());
    Ok(finished(record))
}

/// Where everything lies on the disk of `spec`.
#[must_use]
pub fn layout(spec: &Packages, arch: Arch, epoch: i64, seed: &Seed) -> Layout {
    Layout {
        size: spec.disk_size,
        epoch,
        seed: *seed,
        label: LABEL.to_owned(),
        arch,
        loader: Loader::of(arch, spec.is_signed(arch)),
    }
}

/// The mirrors of the spec with the host's mirror that stands in for each, for builds only. The
/// name of a host's mirror must not get into an image, a lock or a log.
///
/// # Errors
/// `cancel` was cancelled, or there is no scratch space.
pub async fn host_mirrors(
    spec: &Packages,
    arch: Arch,
    cancel: &CancellationToken,
) -> Result<Vec<(String, String)>> {
    archive::stand_ins(spec, arch, &Scratch::new()?, cancel).await
}
