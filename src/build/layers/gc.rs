//! Removes layers by age and by size; what a layer lies on outlives it.

use std::collections::{HashMap, HashSet};
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::record::Record;
use super::{folder, lock_file, memory};
use crate::error::{Error, Result};
use crate::host::{self, Paths};

/// How long a layer stays that no build uses.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bytes on the host's disk that all layers may take together.
const MOST_BYTES: u64 = 20 << 30;

/// Which layers stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// One that was not used for longer goes.
    pub unused: Duration,
    /// If all take more bytes, those go first that were not used for the longest time.
    pub bytes: u64,
}

impl Default for Age {
    /// What each build applies: 30 days, 20 GiB.
    fn default() -> Self {
        Age { unused: UNUSED, bytes: MOST_BYTES }
    }
}

/// A layer in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its key: 64 hex digits.
    pub key: String,
    /// The step's name.
    pub step: String,
    /// `name:version` of the box that it was made for.
    pub image: String,
    /// Bytes on the host's disk, with its memory.
    pub stored: u64,
    /// Of these, bytes of the memory of a guest that goes on from it.
    pub memory: u64,
    /// When a build used it last.
    pub used: SystemTime,
}

/// What was removed, or would be: each file with its bytes on the host's disk.
pub type Pruned = Vec<(PathBuf, u64)>;

/// All layers, the latest used first.
#[must_use]
pub fn list(paths: &Paths) -> Vec<Kept> {
    let dir = folder(paths);
    let memories = memory::stored(&dir);
    let kept = |(record, used): (Record, SystemTime)| Kept {
        stored: stored(&record, &memories, &dir),
        memory: memories.get(&record.disk(&dir)).copied().unwrap_or(0),
        key: record.key,
        step: record.title,
        image: record.image,
        used,
    };
    Record::all(&dir).into_iter().map(kept).collect()
}

/// Removes layers beyond `age`, those that nothing can use any more, and what killed builds left. `None` if a build
/// runs: it may need them.
///
/// # Errors
/// A file cannot be removed.
pub fn prune(paths: &Paths, age: Age, dry_run: bool) -> Result<Option<Pruned>> {
    let dir = folder(paths);
    if !dir.exists() {
        return Ok(Some(vec![]));
    }
    let lock = lock_file(&dir)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => {
            return Err(Error::failed("cannot lock the cache of steps").cause(e));
        }
    }
    let all = Record::all(&dir);
    let staying = staying(&all, age, &dir);
    let mut pruned = vec![];
    // Records first: a file without one counts for nothing; so does memory without its layer.
    for (record, _) in all.iter().filter(|(record, _)| !staying.contains(&*record.key)) {
        remove(record.path(&dir), dry_run, &mut pruned)?;
    }
    let named = |(record, _): &&(Record, SystemTime)| staying.contains(&*record.key);
    let files: HashSet<PathBuf> = all.iter().filter(named).map(|(r, _)| r.disk(&dir)).collect();
    let records: HashSet<PathBuf> = all.iter().map(|(record, _)| record.path(&dir)).collect();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let ours = path.file_name().is_some_and(|name| name == "lock")
            || records.contains(&path)
            || memory::is_one(&path)
                && memory::layer_of(&path, &dir).is_some_and(|layer| files.contains(&layer));
        if !ours && !files.contains(&path) {
            remove(path, dry_run, &mut pruned)?;
        }
    }
    Ok(Some(pruned))
}

/// Bytes of a layer and its memory.
fn stored(record: &Record, memories: &HashMap<PathBuf, u64>, dir: &Path) -> u64 {
    let disk = record.disk(dir);
    host::stored_bytes(&disk).saturating_add(memories.get(&disk).copied().unwrap_or(0))
}

/// The keys of the layers that stay, each with all that it lies on.
fn staying<'a>(all: &'a [(Record, SystemTime)], age: Age, dir: &Path) -> HashSet<&'a str> {
    let now = SystemTime::now();
    let memories = memory::stored(dir);
    let mut staying = HashSet::new();
    let mut bytes: u64 = 0;
    // The latest used first: so one layer that is too much takes none with it that was used after it.
    for (record, used) in all {
        let unused = now.duration_since(*used).unwrap_or_default();
        let chain = chain(record, all, dir);
        let Some(chain) = chain.filter(|_| unused <= age.unused) else { continue };
        let new: Vec<_> = chain.into_iter().filter(|r| !staying.contains(&*r.key)).collect();
        let more: u64 = new.iter().map(|record| stored(record, &memories, dir)).sum();
        if bytes.saturating_add(more) <= age.bytes {
            bytes += more;
            staying.extend(new.iter().map(|record| &*record.key));
        }
    }
    staying
}

/// The layer and all that it lies on; `None` if something is missing.
fn chain<'a>(
    record: &'a Record,
    all: &'a [(Record, SystemTime)],
    dir: &Path,
) -> Option<Vec<&'a Record>> {
    let mut chain = vec![record];
    loop {
        let top = *chain.last()?;
        if !top.disk(dir).exists() || !top.base.is_there() {
            return None;
        }
        let Some(below) = &top.layer else { return Some(chain) };
        let (below, _) = all.iter().find(|(record, _)| record.disk == *below)?;
        // Records that name each other in a circle were made by nobody; they go.
        if chain.len() > all.len() {
            return None;
        }
        chain.push(below);
    }
}

fn remove(path: PathBuf, dry_run: bool, pruned: &mut Pruned) -> Result<()> {
    let stored = host::stored_bytes(&path);
    if !dry_run {
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    pruned.push((path, stored));
    Ok(())
}
