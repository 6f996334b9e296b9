//! The step cache: after each step the disk goes on in a new layer, and the one below is kept for the next build
//! that begins with the same steps on the same source.
//!
//! A layer is a qcow2 file with a record beside it. A file without a record is being written, or is left of a
//! build that was killed. Files never change and are never renamed once they have a record: the header of the layer
//! above names them. Builds share the folder; what removes layers waits until no build runs.

mod gc;
mod memory;
mod plan;
mod record;
mod why;

use std::fs::File;
use std::path::{Path, PathBuf};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

pub use gc::{Age, Kept, Pruned, list, prune};
pub(super) use memory::{Memory, MemoryDraft, Saved};
pub(super) use plan::{Planned, plan, plan_anew};
pub(super) use record::Base;
use record::Record;

use crate::crash;
use crate::digest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::host::{self, Paths};
use crate::image::container::{self, Format};
use crate::lock::Host;
use crate::machine::fit::Fit;
use crate::source::fetch::hash_file;

/// Most layers of one build: our own reader follows a chain of so many files, and more. Further steps share the last.
pub(super) const MOST: usize = 100;

/// The folder of the layers, open for a build.
#[derive(Debug)]
pub(super) struct Layers {
    dir: PathBuf,
    /// Shared, freed by the kernel when devbox ends.
    _lock: File,
}

/// What of the cache a build starts from.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// So many steps are done already.
    pub(super) done: usize,
    /// The files of their layers, the lowest first.
    pub(super) files: Vec<PathBuf>,
    /// The public keys that their builds logged in with: their base64 parts.
    pub(super) keys: Vec<String>,
    /// What their steps reached.
    pub(super) reached: Vec<Host>,
    /// Whether the guest was shut down after the last of them.
    pub(super) down: bool,
    /// Why the step after them is not done, where there is one.
    pub(super) why: Option<String>,
}

impl Start {
    /// What the next layer lies on.
    fn top<'a>(&'a self, base: &'a Base) -> &'a Path {
        self.files.last().map_or(&*base.path, |file| &**file)
    }
}

/// How much of the cache a build may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// All that fits.
    All,
    /// Nothing.
    Nothing,
    /// What comes before this step.
    Before(usize),
}

/// A layer that is being written; removed unless it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Draft {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file out of the cache.
    pub(super) fn move_to(mut self, path: &Path) -> Result<()> {
        fs::rename(&self.path, path)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder(paths: &Paths) -> PathBuf {
    paths.cache.join("layers")
}

fn lock_file(dir: &Path) -> Result<File> {
    host::private_dir(dir)?;
    let path = dir.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    Ok(file.into())
}

impl Layers {
    /// Opens the cache, and makes it if needed.
    pub(super) fn open(paths: &Paths) -> Result<Self> {
        let dir = folder(paths);
        let lock = lock_file(&dir)?;
        lock.lock_shared().map_err(|e| Error::failed("cannot lock the cache of steps").cause(e))?;
        Ok(Layers { dir, _lock: lock })
    }

    /// A file for a new layer.
    pub(super) fn draft(&self) -> Result<Draft> {
        let name = digest::hex(&host::random::<16>()?);
        Ok(Draft { path: self.dir.join(format!("{name}.qcow2")), kept: false })
    }

    /// Finds the layers of the first steps, as many as there are without a gap. Each is hashed before it is used.
    pub(super) async fn find(
        &self,
        plan: &[Planned],
        base: &Base,
        reuse: Reuse,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Start> {
        let mut start = Start::default();
        let all = Record::all(&self.dir);
        for (n, planned) in plan.iter().take(MOST).enumerate() {
            let found = match reuse {
                Reuse::Nothing => Err("the cache is not used".to_owned()),
                Reuse::Before(first) if n >= first => Err("it is asked for".to_owned()),
                _ => all
                    .iter()
                    .find(|(record, _)| record.key == planned.key)
                    .ok_or_else(|| why::missing(planned, n, &all)),
            };
            let record = match found {
                Ok((record, _)) => record,
                Err(why) => return Ok(Start { why: Some(why), ..start }),
            };
            let between = all.iter().map(|(boot, _)| boot).find(|boot| {
                boot.is_boot()
                    && Some(&boot.disk) == record.layer.as_ref()
                    && boot.layer == start.files.last().map(|file| file_name(file))
            });
            if let Some(boot) = between {
                let damage = self.damage(boot, start.top(base), base, events, cancel).await?;
                if damage.is_some() {
                    return Ok(Start { why: damage, ..start });
                }
                boot.used(&self.dir);
                start.files.push(boot.disk(&self.dir));
            }
            let damage = self.damage(record, start.top(base), base, events, cancel).await?;
            if damage.is_some() {
                if between.is_some() {
                    start.files.pop();
                }
                return Ok(Start { why: damage, ..start });
            }
            record.used(&self.dir);
            start.files.push(record.disk(&self.dir));
            start.keys.clone_from(&record.keys);
            start.reached.extend(record.reached.iter().cloned());
            start.down = record.down;
            start.done = n + 1;
        }
        if plan.len() > start.done {
            start.why = Some(format!("only the first {MOST} steps are kept"));
        }
        Ok(start)
    }

    /// Finds a guest that stands before the last step of the plan, the only one that is not done, and adds to `start`
    /// what lies below it.
    pub(super) async fn before_last(
        &self,
        plan: &[Planned],
        base: &Base,
        start: &mut Start,
        fit: &Fit,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Option<Memory>> {
        let Some(last) = plan.get(start.done).filter(|_| start.done + 1 == plan.len()) else {
            return Ok(None);
        };
        let Some((memory, boot)) = self.memory(&last.below, &start.files, fit) else {
            return Ok(None);
        };
        if let Some(boot) = boot {
            if self.damage(&boot, start.top(base), base, events, cancel).await?.is_some() {
                return Ok(None);
            }
            boot.used(&self.dir);
            start.keys.clone_from(&boot.keys);
            start.files.push(boot.disk(&self.dir));
        }
        Ok(Some(memory))
    }

    /// Why a layer cannot be used, if so.
    async fn damage(
        &self,
        record: &Record,
        below: &Path,
        base: &Base,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Option<String>> {
        let disk = record.disk(&self.dir);
        if !disk.exists() {
            return Ok(Some("its layer is gone".to_owned()));
        }
        if record.base != *base {
            return Ok(Some("the disk below it was made anew".to_owned()));
        }
        if hash_file(&disk, events, cancel).await? != record.sha256 {
            events.warn(format!("the layer `{}` is damaged; it is not used", disk.display()));
            return Ok(Some("its layer is damaged".to_owned()));
        }
        let folders = [base.path.parent().unwrap_or(Path::new("/")).to_owned(), self.dir.clone()];
        let options = container::Options {
            format: Some(Format::Qcow2),
            backing: container::Backing::Within(folders.into()),
            ..container::Options::default()
        };
        let fits = container::open(&disk, &options)
            .is_ok_and(|opened| opened.others().next() == below.canonicalize().ok().as_deref());
        Ok((!fits).then(|| "its layer lies on another one".to_owned()))
    }

    /// Keeps a layer: from now on another build may start from it.
    pub(super) async fn keep(
        &self,
        planned: &Planned,
        draft: Draft,
        made: Made<'_>,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<PathBuf> {
        let mut draft = draft;
        let file = fs::File::open(&draft.path)?;
        file.sync_all()?;
        let record = Record {
            key: planned.key.clone(),
            below: planned.below.clone(),
            title: planned.title.clone(),
            inputs: planned.inputs.clone(),
            disk: file_name(&draft.path),
            layer: made.below.map(file_name),
            sha256: hash_file(&draft.path, events, cancel).await?,
            base: made.base.clone(),
            keys: made.keys.to_owned(),
            reached: made.reached.to_owned(),
            down: made.down,
            image: made.image.to_owned(),
        };
        crash::point("layers.before-record");
        record.write(&self.dir)?;
        draft.kept = true;
        Ok(draft.path.clone())
    }
}

/// How a layer came to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    /// What the lowest layer lies on.
    pub(super) base: &'a Base,
    /// The layer's file below it; none where that is the base.
    pub(super) below: Option<&'a Path>,
    /// The public keys that builds logged in with, up to it.
    pub(super) keys: &'a [String],
    /// What its step reached.
    pub(super) reached: &'a [Host],
    /// Whether the guest was shut down after it.
    pub(super) down: bool,
    /// `name:version` of the box that it was made for.
    pub(super) image: &'a str,
}

#[cfg(test)]
mod tests;
