//! From the disk whose steps are done to the box in the store: seal, write, check, name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::task::spawn_blocking;

use super::outputs::{self, Early};
use super::provision::Provisioned;
use super::seal::{self, Bootable, Seal, Values};
use super::workspace::Workspace;
use super::{Build, flat, parent, repack};
use crate::blocking::blocking;
use crate::digest::SpecDigest;
use crate::error::{Error, Kind, Result};
use crate::image::Limits;
use crate::image::container::Format;
use crate::image::disk::Disk;
use crate::image::slice::Whole;
use crate::machine::config::Accelerator;
use crate::parity::before::{After, Before};
use crate::parity::bytes::Chunks;
use crate::parity::content::Content;
use crate::source::{self, SourceDisk, seed::Seed};
use crate::spec::{Firmware, Source, Spec};
use crate::store::{BoxConfig, BoxRef, Finished, Outcome, Store};

/// The end of a build.
pub(super) struct Finish<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) store: &'a Store,
    /// What the box is made of.
    pub(super) spec1: SpecDigest,
    pub(super) source: &'a SourceDisk,
    pub(super) work: &'a Workspace,
    pub(super) accelerator: Accelerator,
}

impl Finish<'_> {
    /// From the disk whose steps are done to the box in the store.
    pub(super) async fn run(
        &self,
        done: &Provisioned,
        early: &mut Option<Early>,
    ) -> Result<BoxRef> {
        let Provisioned { chain, values, .. } = done;
        let Finish { build, store, source, work, .. } = *self;
        build.refuse_other_packages(chain).await?;
        let overlay = work.file("disk.qcow2");
        let (top, format) = chain.top();
        outputs::overlay(top, format, source.size, &overlay, self.build.options.sandbox)?;
        let mut within = chain.folders();
        within.push(parent(&overlay));
        let bootable = Bootable::find(&overlay, Format::Qcow2, &within)?;
        if build.options.outputs {
            *early = Early::of(build.spec, &build.output_dir(), source)?;
        }
        let disk = store.stage()?;
        let mut files = vec![disk.path().to_owned()];
        files.extend(early.as_ref().map(|early| early.path().to_owned()));
        let begun = match &self.build.spec.source {
            // The sealed disk is written anew from its files, none of which is where it was.
            Source::Packages(_) => None,
            Source::Image(_) | Source::Iso(_) | Source::Box(_) => {
                let chain = chain.clone();
                let flat = flat::begin(&chain, source.size, files.clone(), self.build.cancel)?;
                Some((flat, spawn_blocking(move || Before::read(&chain.disk()?))))
            }
        };
        self.seal(&overlay, &bootable, values).await?;
        let sealed = flat::Chained::open(&overlay, &chain.files())?;
        let anew = self.repack(&overlay, within).await?;
        let start = Instant::now();
        self.build.events.phase("Checking the sealed image and hashing it");
        let (written, after) = match (anew, begun) {
            (None, Some((flat, before))) => {
                let changed = sealed.changed.clone();
                let written = flat.finish(sealed, self.build.cancel.clone()).await?;
                // What could not be read then is read now, and told then.
                let before = before.await.ok().and_then(Result::ok);
                (written, before.map(|before| before.after(changed)))
            }
            (anew, _) => {
                let disk = match anew {
                    Some(raw) => outputs::open(&raw, Format::Raw)?.reader,
                    None => sealed.disk,
                };
                let cancel = self.build.cancel.clone();
                let write = move || flat::write(&*disk, files, &cancel);
                (blocking("writing the disk", write).await?, None)
            }
        };
        if let Some(early) = early {
            early.whole(written)?;
        }
        build.verified().await?;
        let disk = disk.finish_as(written.digest, written.length)?;
        self.keep(disk, after, bootable.cmdline, values.clone(), start).await
    }

    async fn seal(&self, overlay: &Path, bootable: &Bootable, values: &Values) -> Result<()> {
        let Finish { work, accelerator, .. } = *self;
        let start = Instant::now();
        self.build.events.phase("Sealing");
        let seal = Seal {
            overlay,
            bootable,
            values,
            dir: &work.machine("seal"),
            runtime: work.runtime(),
            accelerator,
            cpus: self.build.spec.machine.cpus,
            arch: self.build.spec.arch,
        };
        let report = seal.run(self.build.events, self.build.cancel).await?;
        for change in &report.changes {
            self.build
                .events
                .program("seal", format!("{}: {} {}", change.step, change.what, change.path));
        }
        for note in &report.notes {
            self.build.events.note(note);
        }
        let changed = report.changes.len();
        self.build.events.done(format!("sealed, {changed} paths changed"), start.elapsed());
        Ok(())
    }

    /// The sealed disk of a `packages` source, written anew; `None` where that would lose something, or there is no
    /// such source.
    async fn repack(&self, overlay: &Path, folders: Vec<PathBuf>) -> Result<Option<PathBuf>> {
        let Finish { source, work, .. } = *self;
        let Source::Packages(packages) = &self.build.spec.source else { return Ok(None) };
        let start = Instant::now();
        self.build.events.phase("Writing the sealed disk anew");
        let seed = Seed::from_text(&self.build.spec.name);
        let layout = source::packages::layout(packages, self.build.spec.arch, source.epoch, &seed);
        let raw = work.file("sealed.raw");
        match repack::repack(overlay, folders, &layout, &raw, self.build.cancel).await {
            Ok(()) => {
                self.build.events.done("the same files, the same bytes each time", start.elapsed());
                Ok(Some(raw))
            }
            Err(e) if e.kind() == Kind::Interrupted => Err(e),
            Err(e) => {
                let why = [&[e.what().to_owned()], e.causes(), e.details()].concat().join("; ");
                self.build.events.note(format!(
                    "the disk stays as the guest wrote it, so two builds match at level content and not at level disk: {why}"
                ));
                Ok(None)
            }
        }
    }

    /// Checks the disk that was written into the store, and gives it its name.
    async fn keep(
        &self,
        disk: Finished,
        after: Option<After>,
        cmdline: String,
        values: Values,
        start: Instant,
    ) -> Result<BoxRef> {
        let (spec1, size) = (self.spec1, self.source.size);
        let (spec, store) = (self.build.spec.clone(), self.store.clone());
        let existing = self.build.existing();
        // Hashing fills all cores for a second; Ctrl-C is heard at its end.
        let work = move || {
            let described = describe(&spec, spec1, disk.path(), size, after, cmdline, &values)?;
            store.add_finished(&described, disk, existing)
        };
        let added = blocking("hashing the disk", work).await?;
        let reference = added.image.config().reference();
        self.build.events.done(
            match added.outcome {
                Outcome::New => format!("{reference} is in the store"),
                Outcome::Replaced => format!("{reference} means the new box now"),
                Outcome::Same => format!("{reference} was in the store already, byte for byte"),
                Outcome::SameContent | Outcome::Unnamed => {
                    format!(
                        "{reference} was in the store already with the same content; kept as it is"
                    )
                }
            },
            start.elapsed(),
        );
        Ok(added.image)
    }
}

/// Proves that the disk is sealed, and hashes it: what changed, where it is known as it was before.
fn describe(
    spec: &Spec,
    spec1: SpecDigest,
    disk: &Path,
    size: u64,
    after: Option<After>,
    cmdline: String,
    values: &Values,
) -> Result<BoxConfig> {
    let mut container = outputs::open(disk, Format::Qcow2)?;
    container.reader = Arc::new(Whole(container.reader));
    let disk = Disk::read(container, &Limits::default())?;
    let reader = &disk.container.reader;
    if reader.size() != size {
        return Err(Error::failed(format!(
            "the sealed disk has {} bytes instead of {size}",
            reader.size()
        )));
    }
    // Each reads the disk for itself, from memory: a thread a core has work until the last of them ends.
    let (checked, (bytes1, box1)) = rayon::join(
        || seal::check::check(&disk, values),
        || {
            rayon::join(
                || match &after {
                    Some(after) => after.bytes(&**reader),
                    None => Chunks::read(&**reader).map(|chunks| chunks.digest()),
                },
                || match &after {
                    Some(after) => after.content(&disk).map(|content| content.digest()),
                    None => Content::read(&disk).map(|content| content.digest()),
                },
            )
        },
    );
    checked?;
    Ok(BoxConfig {
        name: spec.name.clone(),
        version: spec.version.clone(),
        arch: spec.arch.as_str().to_owned(),
        firmware: match spec.machine.firmware {
            Firmware::Bios => "bios".to_owned(),
            Firmware::Uefi | Firmware::SecureBoot => "uefi".to_owned(),
        },
        spec1,
        bytes1: bytes1?,
        box1: box1?,
        disk_size: size,
        cmdline,
        epoch: values.epoch,
        seal: seal::VERSION.to_owned(),
        devbox: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
