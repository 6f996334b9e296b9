//! The guest as it was between two layers, before the last step of a spec: a build that has to run this step alone goes
//! on from there instead of booting.
//!
//! One folder, named by chance, with a record that comes last. It belongs to the layer on which the guest goes on, and
//! goes with it; of each box the newest one stays. None is kept of a guest that was told a secret.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::record::Record as Layer;
use super::{Layers, file_name};
use crate::build::reached::Names;
use crate::digest;
use crate::error::{Error, Result};
use crate::host;
use crate::machine::fit::Fit;
use crate::machine::stamp::Stamp;
use crate::os;

/// The version of a folder's files, and of everything else in which a build must agree with the one that was saved.
const FORMAT: u32 = 1;
/// Bytes of the host's disk that are left for others.
const SPARE: u64 = 1 << 30;
/// What such a folder is called, after its dot.
const EXTENSION: &str = "memory";

/// What is known of a guest that was saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// What a step on it is made on: the key of the layer below that step, or of the source.
    below: String,
    /// The name of the layer's file on which the guest goes on.
    layer: String,
    /// Of the file with devices and memory.
    state: Stamp,
    fit: Fit,
    uuid: String,
    names: Names,
    /// The box that it was made for.
    image: String,
}

/// A guest that can go on.
#[derive(Debug)]
pub(in crate::build) struct Memory {
    dir: PathBuf,
    ssh: PathBuf,
    state: PathBuf,
    seed: PathBuf,
    record: Record,
}

impl Memory {
    fn read(dir: PathBuf) -> Option<Self> {
        let record: Record = serde_json::from_slice(&fs::read(record_of(&dir)).ok()?).ok()?;
        let (ssh, state, seed) = (ssh_of(&dir), state_of(&dir), seed_of(&dir));
        Some(Memory { ssh, state, seed, dir, record })
    }

    fn all(dir: &Path) -> Vec<Memory> {
        let Ok(entries) = fs::read_dir(dir) else { return vec![] };
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| is_one(path)).filter_map(Memory::read).collect()
    }

    /// The folder with both keys.
    pub(in crate::build) fn ssh(&self) -> &Path {
        &self.ssh
    }

    /// The guest's devices and memory.
    pub(in crate::build) fn state(&self) -> &Path {
        &self.state
    }

    /// Its seed, which is one of its disks.
    pub(in crate::build) fn seed(&self) -> &Path {
        &self.seed
    }

    pub(in crate::build) fn uuid(&self) -> &str {
        &self.record.uuid
    }

    /// The names that it knows.
    pub(in crate::build) fn names(&self) -> &Names {
        &self.record.names
    }

    /// Removes it, as one that is no good.
    pub(in crate::build) fn discard(&self) {
        // What stays counts for nothing, and goes with the next pruning.
        let _ = fs::remove_file(record_of(&self.dir));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One that is being written; removed unless it is kept.
#[derive(Debug)]
pub(in crate::build) struct MemoryDraft {
    dir: PathBuf,
    kept: bool,
}

impl MemoryDraft {
    /// The folder for both keys.
    pub(in crate::build) fn ssh(&self) -> PathBuf {
        ssh_of(&self.dir)
    }

    /// The file for the guest's devices and memory.
    pub(in crate::build) fn state(&self) -> PathBuf {
        state_of(&self.dir)
    }

    /// The file for its seed.
    pub(in crate::build) fn seed(&self) -> PathBuf {
        seed_of(&self.dir)
    }
}

impl MemoryDraft {
    fn stays(mut self) {
        self.kept = true;
    }
}

impl Drop for MemoryDraft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// What is known of a guest whose state was just written.
#[derive(Debug)]
pub(in crate::build) struct Saved {
    /// What the next step is made on.
    pub(in crate::build) below: String,
    /// The layer on which the guest goes on.
    pub(in crate::build) layer: PathBuf,
    pub(in crate::build) fit: Fit,
    pub(in crate::build) uuid: String,
    pub(in crate::build) names: Names,
    /// `name:version` of the box.
    pub(in crate::build) image: String,
}

impl Layers {
    /// A folder for a guest with that many bytes of memory.
    ///
    /// # Errors
    /// The host's disk has too little space for that and for what the build writes besides.
    pub(in crate::build) fn memory_draft(&self, memory: u64) -> Result<MemoryDraft> {
        let free = host::free_bytes(&self.dir)?;
        if free < memory.saturating_add(SPARE) {
            return Err(Error::failed(format!(
                "{} MiB are free in the cache, and its memory has {} MiB",
                free >> 20,
                memory >> 20
            )));
        }
        let name = digest::hex(&host::random::<16>()?);
        let draft = MemoryDraft { dir: self.dir.join(format!("{name}.{EXTENSION}")), kept: false };
        host::private_dir(&draft.dir)?;
        Ok(draft)
    }

    /// Keeps it, in place of all others of its box. That waits for the host's disk, and a step may run beside it.
    pub(in crate::build) fn keep_memory(
        &self,
        draft: MemoryDraft,
        saved: Saved,
    ) -> JoinHandle<Result<()>> {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            let state = draft.state();
            os::make_private(&state)?;
            fs::File::open(&state)?.sync_all()?;
            let record = Record {
                format: FORMAT,
                below: saved.below,
                layer: file_name(&saved.layer),
                state: Stamp::of(&state)?,
                fit: saved.fit,
                uuid: saved.uuid,
                names: saved.names,
                image: saved.image,
            };
            let before = Memory::all(&dir);
            let mut file = tempfile::NamedTempFile::new_in(&draft.dir)?;
            serde_json::to_writer(&mut file, &record).map_err(std::io::Error::from)?;
            file.as_file().sync_all()?;
            file.persist(record_of(&draft.dir)).map_err(|e| e.error)?;
            draft.stays();
            before.iter().filter(|old| old.record.image == record.image).for_each(Memory::discard);
            Ok(())
        })
    }

    /// A guest of this hardware that stands before a step on `below`, and the layers on which it goes on: those of
    /// `files`, and one more where it was saved after its boot. The caller looks at their contents.
    pub(super) fn memory(
        &self,
        below: &str,
        files: &[PathBuf],
        fit: &Fit,
    ) -> Option<(Memory, Option<Layer>)> {
        let layers: Vec<Layer> =
            Layer::all(&self.dir).into_iter().map(|(layer, _)| layer).collect();
        let top = files.last().map(|file| file_name(file));
        Memory::all(&self.dir).into_iter().find_map(|memory| {
            let Record { format, below: under, layer, state, fit: own, .. } = &memory.record;
            if *format != FORMAT || under != below || own != fit {
                return None;
            }
            if !Stamp::of(&memory.state).is_ok_and(|now| now == *state) {
                return None;
            }
            if top.as_ref() == Some(layer) {
                return Some((memory, None));
            }
            let boot = layers.iter().find(|l| l.disk == *layer && l.is_boot() && l.layer == top);
            let boot = boot.cloned()?;
            Some((memory, Some(boot)))
        })
    }
}

/// Whether this is the folder of one, finished or not.
pub(super) fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == EXTENSION)
}

/// The layer's file that a finished one belongs to.
pub(super) fn layer_of(path: &Path, dir: &Path) -> Option<PathBuf> {
    Memory::read(path.to_owned()).map(|memory| dir.join(memory.record.layer))
}

/// Bytes on the host's disk of all finished ones, by the layer's file that they belong to.
pub(super) fn stored(dir: &Path) -> HashMap<PathBuf, u64> {
    let mut all = HashMap::new();
    for memory in Memory::all(dir) {
        *all.entry(dir.join(&memory.record.layer)).or_insert(0) += host::stored_bytes(&memory.dir);
    }
    all
}

fn record_of(dir: &Path) -> PathBuf {
    dir.join("record.json")
}

fn ssh_of(dir: &Path) -> PathBuf {
    dir.join("ssh")
}

fn state_of(dir: &Path) -> PathBuf {
    dir.join("state")
}

fn seed_of(dir: &Path) -> PathBuf {
    dir.join("seed.iso")
}
