//! `type = "packages"`: a bootable disk from a distribution's packages. Nobody's image is
//! downloaded, and no root is needed where the host has user namespaces.

mod archive;
mod cache;
mod index;
mod locked;
mod recipe;
mod tree;

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use self::cache::{Cache, Record};
pub use self::index::{Archive, archives};
pub use self::locked::Locked;
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

/// A disk that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What is to be on it.
    pub spec: &'a Packages,
    /// For which machines.
    pub arch: Arch,
    /// The source date (seconds since 1970 UTC); the date of the suite's index if absent.
    pub epoch: Option<i64>,
    /// Where its ids come from.
    pub seed: &'a Seed,
    /// Exactly these packages; then no disk that the archive decided about is taken from the cache.
    pub locked: Option<&'a Locked>,
}

/// The disk that is wanted: from the cache if nothing changed in the archive, else made now.
///
/// # Errors
/// The host lacks a tool or user namespaces (all that is missing, before anything is fetched); the
/// archive cannot be reached or is not signed; a package does not exist; the packages do not fit
/// (names the size that they need); the host's disk is full; `cancel` was cancelled. No half disk
/// is left.
pub async fn build(
    wanted: &Wanted<'_>,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<SourceDisk> {
    let Wanted { spec, arch, epoch, seed, locked } = *wanted;
    let loader = Loader::of(arch, spec.is_signed(arch));
    preflight::packages(arch, loader)?;
    let scratch = Scratch::new()?;
    scratch::prove(&scratch, cancel).await?;

    let suites = archive::suites(spec, arch, &scratch, events, cancel).await?;
    if let Some(locked) = locked {
        let found = index::archives_of(&suites, &locked.names(), spec, &scratch, cancel).await?;
        locked.refuse_missing(&found)?;
    }
    let record = Record::new(spec, arch, epoch, seed, &suites);
    let record = match locked {
        Some(locked) => record.locked(locked),
        None => record,
    };
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
        match locked {
            Some(_) => events.note("the locked packages have a disk already"),
            None => events.note(format!(
                "packages unchanged since {}, reusing their disk",
                since.strftime("%F")
            )),
        }
        return Ok(finished(old));
    }
    if locked.is_none() {
        for why in cache.explain(&record) {
            events.note(format!("{why}: making the disk again"));
        }
    }

    let start = Instant::now();
    events.phase(format!("Installing the packages of `{}`", spec.suite));
    let layout = layout(spec, arch, record.epoch, seed);
    let tar = tree::make(wanted, &layout, &suites, &scratch, events, cancel).await?;
    events.done("packages installed", start.elapsed());

    let start = Instant::now();
    events.phase("Making a bootable disk");
    disk::assemble_in(&scratch, &tar, &cache.partial(&key)?, &layout, cancel).await?;
    cache.add(&key, &record)?;
    events.done("bootable disk made", start.elapsed());
    Ok(finished(record))
}

/// The disks that the cache has of what is wanted, whatever the archive had when they were made.
///
/// # Errors
/// The cache cannot be opened.
pub fn cached(wanted: &Wanted<'_>, paths: &Paths) -> Result<Vec<SourceDisk>> {
    let cache = Cache::open(&paths.cache)?;
    let asked = Record::new(wanted.spec, wanted.arch, wanted.epoch, wanted.seed, &[]);
    let disk = |(key, record): (String, Record)| SourceDisk {
        path: cache.disk(&key),
        format: InputFormat::Raw,
        size: record.size,
        epoch: record.epoch,
        key,
    };
    Ok(cache.all(&asked).into_iter().map(disk).collect())
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
