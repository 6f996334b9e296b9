//! Runs a spec: source -> overlay -> boot -> steps -> shut down -> seal -> flatten -> check ->
//! store -> outputs.
//!
//! Each stage cleans up behind itself, also after a failure and Ctrl-C: machines are ended by their
//! stage and die with devbox, files lie in a [`workspace`] that is removed, and the store and the
//! outputs get whole files by rename. What stays after a failure is a folder of logs, named in the
//! message.

pub mod adopt;
pub mod base;
mod chain;
mod files;
mod finish;
mod flat;
mod guest;
pub(crate) mod hardware;
mod install;
pub mod layers;
pub mod lock;
mod mirror;
pub mod on_error;
mod outputs;
mod pinned;
mod provision;
mod reached;
mod repack;
pub mod seal;
mod seed;
mod steps;
mod workspace;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::digest::{FileDigest, SpecDigest};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::sandbox::{self, Policy};
use crate::exec::tools;
use crate::host::Paths;
use crate::image::Limits;
use crate::image::container::Format;
use crate::image::disk::Disk;
use crate::lock::Host;
use crate::machine::accel;
use crate::machine::config::Accelerator;
use crate::machine::firmware;
use crate::parity::cache::Cache;
use crate::source::image::{ResolvedImage, Verification};
use crate::source::medium::Medium;
use crate::source::{self, SourceDisk};
use crate::spec::{self, Firmware, InputFormat, IsoSource, Source, Spec};
use crate::store::{BoxRef, Existing, Store};

use finish::Finish;
pub use mirror::Loan;
pub use on_error::OnError;
pub use outputs::{Output, export};
pub use pinned::{Keep, Pinned};
use seal::Bootable;
use workspace::Workspace;

/// What a caller may choose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the outputs go; `dist` in the spec's folder if absent.
    pub output_dir: Option<PathBuf>,
    /// Writes the outputs that the spec names; `up` needs only the box.
    pub outputs: bool,
    /// Builds although the store has a box that was made from the same inputs.
    pub rebuild: bool,
    /// Moves a name that is taken to the new box.
    pub replace: bool,
    /// Runs all steps, whatever the cache of steps has.
    pub no_cache: bool,
    /// Runs this step, by name or number, and those after it, whatever the cache of steps has.
    pub from_step: Option<String>,
    /// The lock that the build keeps to.
    pub lock: Option<Pinned>,
    /// Runs the installer of an `iso` source anew, although the cache has the disk of the same inputs.
    pub reinstall: bool,
    /// Shows the screen of a machine in which an installer runs, by VNC on 127.0.0.1.
    pub vnc: bool,
    /// How many seconds the clock of the steps' guest goes ahead of the host's.
    pub clock_ahead: i64,
    /// What is done after a step has failed.
    pub on_error: OnError,
    /// Whether `qemu-img` may read disks where this host cannot isolate it.
    pub sandbox: Policy,
}

/// What a build brought.
#[derive(Debug, Clone)]
pub struct Built {
    /// The box in the store.
    pub image: BoxRef,
    /// The outputs, in the order of the spec.
    pub outputs: Vec<Output>,
    /// Files about them: manifest, sums, SBOM, provenance.
    pub about: Vec<PathBuf>,
    /// Whether the store had the box already, so that nothing was built.
    pub reused: bool,
}

/// Builds the spec's box and its outputs.
///
/// # Errors
/// Whatever stands in the way: a missing tool, a name that is taken, a failing step, an image that
/// cannot be sealed, no space; or Ctrl-C (kind `Interrupted`). No process and no half output is left.
pub async fn run(
    spec: &Spec,
    paths: &Paths,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Built> {
    let pinned = options.lock.as_ref().map(|pinned| pinned.pin(spec));
    let spec = pinned.as_ref().unwrap_or(spec);
    let stop = cancel.child_token();
    let build = Build::new(spec, paths, options, events, &stop);
    build.run().await.map_err(failed)
}

/// A build that could not read something has failed; only a comparison can be undetermined.
fn failed(e: Error) -> Error {
    if e.kind() == Kind::Undetermined { e.with_kind(Kind::Failed) } else { e }
}

/// Runs the steps up to and with the one of this name or number, and keeps their layers for the next build. Makes no
/// box.
///
/// # Errors
/// As [`run`]; the spec has no such step.
pub async fn until(
    step: &str,
    spec: &Spec,
    paths: &Paths,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<()> {
    let pinned = options.lock.as_ref().map(|pinned| pinned.pin(spec));
    let spec = pinned.as_ref().unwrap_or(spec);
    let stop = cancel.child_token();
    let build = Build::new(spec, paths, options, events, &stop);
    build.until(step).await.map_err(failed)
}

/// The arguments of [`run`], for its stages.
struct Build<'a> {
    spec: &'a Spec,
    paths: &'a Paths,
    options: &'a Options,
    events: &'a Events,
    /// Also cancelled where the build has begun with a wrong image.
    cancel: &'a CancellationToken,
    /// Of what it starts from, beside the boot of its guest.
    verification: Mutex<Verification>,
    /// What the installer of an `iso` source reached.
    installer: OnceLock<Vec<Host>>,
}

impl<'a> Build<'a> {
    fn new(
        spec: &'a Spec,
        paths: &'a Paths,
        options: &'a Options,
        events: &'a Events,
        cancel: &'a CancellationToken,
    ) -> Self {
        let (verification, installer) = (Mutex::default(), OnceLock::new());
        Build { spec, paths, options, events, cancel, verification, installer }
    }

    /// The stages, in order.
    async fn run(&self) -> Result<Built> {
        self.check_host()?;
        if !self.spec.tested {
            self.events.warn("the spec says `tested = false`: whoever wrote it could not build it");
        }
        let store = Store::open(&self.paths.store)?;
        let mut work = Workspace::open(self.spec, self.paths)?;
        let input = self.input().await?;
        let digest = input.digest()?;
        if let (Input::Box(base), Some(_)) = (&input, self.spec.is_box()) {
            return self.as_it_is(base.image.clone(), digest, work).await;
        }
        let spec1 = spec::digest::spec1(self.spec, digest.as_ref())?;
        let stored = match self.reusable(&store, spec1).await? {
            Some(stored) => {
                self.verified().await?;
                self.as_locked(stored).await?
            }
            None => None,
        };
        let reused = stored.is_some();
        let mut early = None;
        let image = match stored {
            Some(stored) => stored,
            None => {
                let made = async {
                    let source = self.disk(input, &work).await?;
                    let made_of = (digest, spec1);
                    self.make(&store, made_of, &source, &work, &mut early).await
                };
                let made = made.await;
                self.unless_unverified(made).await?
            }
        };
        let outputs::Written { outputs, about } =
            self.outputs(&image, digest, reused, early).await?;
        work.succeeded();
        self.prune_layers();
        Ok(Built { image, outputs, about, reused })
    }

    /// A spec that is nothing but its source's box: that box, and its outputs.
    async fn as_it_is(
        &self,
        image: BoxRef,
        digest: Option<FileDigest>,
        mut work: Workspace,
    ) -> Result<Built> {
        self.events.note(format!(
            "nothing changes the source's box, so there is nothing to build: it is {}",
            image.config().reference()
        ));
        let outputs::Written { outputs, about } = self.outputs(&image, digest, true, None).await?;
        work.succeeded();
        Ok(Built { image, outputs, about, reused: true })
    }

    /// As [`until`].
    async fn until(&self, step: &str) -> Result<()> {
        let last = self.step_named(step)?;
        self.check_host()?;
        let mut work = Workspace::open(self.spec, self.paths)?;
        let done = async {
            let source = self.disk(self.input().await?, &work).await?;
            let steps = &self.spec.steps[..=last];
            self.provision(&source, steps, &work, self.accelerator().await?).await
        };
        let done = self.unless_unverified(done.await).await?;
        self.remembered(done.remembering).await;
        work.succeeded();
        Ok(())
    }

    /// Removes layers that are too many or too old. That it cannot is no fault of this build.
    fn prune_layers(&self) {
        match layers::prune(self.paths, layers::Age::default(), false) {
            Ok(Some(pruned)) if !pruned.is_empty() => {
                let bytes: u64 = pruned.iter().map(|(_, bytes)| bytes).sum();
                self.events.note(format!("{} MiB of old layers were removed", bytes >> 20));
            }
            Ok(_) => {}
            Err(e) => self.events.warn(format!("old layers were not removed: {}", e.what())),
        }
    }

    /// What runs guests on this host.
    async fn accelerator(&self) -> Result<Accelerator> {
        let choice = accel::choose(&self.paths.cache, hardware::arch(self.spec.arch)).await?;
        self.events.note(format!("guests run by {}", choice.reason));
        Ok(choice.accelerator)
    }

    /// All tools, before any work.
    fn check_host(&self) -> Result<()> {
        let arch = hardware::arch(self.spec.arch);
        for tool in [tools::qemu(arch), tools::QEMU_IMG, tools::SSH, tools::TAR] {
            tool.find()?;
        }
        sandbox::check("qemu-img", self.options.sandbox)?;
        match self.spec.machine.firmware {
            Firmware::Bios => {}
            Firmware::Uefi => drop(firmware::find(arch, false)?),
            Firmware::SecureBoot => drop(firmware::find(arch, true)?),
        }
        let now = jiff::Timestamp::now().as_second();
        if self.spec.seal.epoch.is_some_and(|epoch| epoch > now) {
            return Err(Error::usage("`seal.epoch` lies in the future")
                .detail("files that the build writes now would be older than it, with times that differ from build to build")
                .hint("Give a date in the past, or leave it out."));
        }
        Ok(())
    }

    fn existing(&self) -> Existing {
        if self.options.replace { Existing::Replace } else { Existing::Refuse }
    }

    /// The stored box of the same inputs; an error if the name is taken by other inputs.
    async fn reusable(&self, store: &Store, spec1: SpecDigest) -> Result<Option<BoxRef>> {
        store.may_add(&self.spec.name, &self.spec.version, spec1, self.existing())?;
        let Options { rebuild, no_cache, from_step, .. } = self.options;
        if *rebuild || *no_cache || from_step.is_some() {
            return Ok(None);
        }
        let stored = store.find(&self.spec.name, &self.spec.version)?;
        let same = stored.filter(|image| image.config().spec1 == spec1);
        if let Some(image) = &same {
            self.events.note(format!(
                "{} is in the store, built from the same inputs; `devbox build --rebuild` builds it again",
                image.config().reference()
            ));
        }
        match same {
            Some(image) => {
                crate::delta::whole(store, image, self.events, self.cancel).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Waits until the image that the build starts from is known to be the right one: before its guest is given
    /// anything to do, and before anything is kept.
    async fn verified(&self) -> Result<()> {
        self.verification.lock().await.end().await
    }

    /// What came of a stage; that it began with a wrong image is the cause of all that failed in it.
    async fn unless_unverified<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.verified().await?;
        }
        result
    }

    /// The file that the source names. A local image may still be hashed: [`Build::verified`].
    async fn input(&self) -> Result<Input<'_>> {
        let (paths, events, cancel) = (self.paths, self.events, self.cancel);
        Ok(match &self.spec.source {
            Source::Packages(_) => Input::None,
            Source::Image(image) => {
                let claimed = source::image::claim(image, paths, events, cancel).await?;
                *self.verification.lock().await = claimed.1;
                Input::Image(claimed.0)
            }
            Source::Iso(iso) => Input::Iso(iso, Medium::resolve(iso, paths, events, cancel).await?),
            Source::Box(source) => {
                let found = base::resolve(self.spec, source, paths, events, cancel);
                Input::Box(Box::new(found.await?))
            }
        })
    }

    /// The disk to start from.
    async fn disk(&self, input: Input<'_>, work: &Workspace) -> Result<SourceDisk> {
        match input {
            Input::None => self.packages_disk().await,
            Input::Image(image) => self.image_disk(image),
            Input::Iso(iso, medium) => self.installation(iso, &medium, work).await,
            Input::Box(base) => Ok(self.box_disk(&base.image)),
        }
    }

    /// An image as the disk to start from. Its date is that of its newest file.
    fn image_disk(&self, image: ResolvedImage) -> Result<SourceDisk> {
        let format = source_format(&image)?;
        let epoch = match self.spec.seal.epoch {
            Some(epoch) => epoch,
            None => newest_file(&image.path, image.format)?.min(jiff::Timestamp::now().as_second()),
        };
        Ok(SourceDisk {
            format,
            path: image.path,
            // All outputs have the same size in whole MiB, as a fixed VHD must (Azure).
            size: image.virtual_size.next_multiple_of(1 << 20),
            epoch,
            key: image.sha256,
        })
    }

    /// A box as the disk to start from: it has a date already.
    fn box_disk(&self, image: &BoxRef) -> SourceDisk {
        SourceDisk {
            path: image.disk_path().to_owned(),
            format: InputFormat::Qcow2,
            size: image.disk_size(),
            epoch: self.spec.seal.epoch.unwrap_or(image.config().epoch),
            key: image.disk_digest().hex(),
        }
    }

    /// From the source's disk to the box in the store.
    async fn make(
        &self,
        store: &Store,
        (file, planned): (Option<FileDigest>, SpecDigest),
        source: &SourceDisk,
        work: &Workspace,
        early: &mut Option<outputs::Early>,
    ) -> Result<BoxRef> {
        let format = container_format(source.format);
        let within = [parent(&source.path), parent(&work.file("disk"))];
        // What cannot be sealed is refused before a minute of work.
        Bootable::find(&source.path, format, &within)?;
        let data = outputs::allocated(&*outputs::open(&source.path, format)?.reader)?;
        outputs::check_space(&self.paths.cache, data, "the build")?;
        outputs::check_space(&self.paths.store, data, "the new box")?;

        let accelerator = self.accelerator().await?;
        let mut done = self.provision(source, &self.spec.steps, work, accelerator).await?;
        let remembering = done.remembering.take();
        let made = async {
            let spec1 = spec::digest::spec1_of(self.spec, file.as_ref(), &done.inputs)?;
            if spec1 != planned {
                self.changed_meanwhile(store, spec1)?;
            }
            let finish = Finish { build: self, store, spec1, source, work, accelerator };
            finish.run(&done, early).await
        };
        let made = made.await;
        self.remembered(remembering).await;
        made
    }

    /// Files of steps are other ones than when the build began: what ran counts.
    fn changed_meanwhile(&self, store: &Store, spec1: SpecDigest) -> Result<()> {
        if self.options.lock.as_ref().is_some_and(|pinned| pinned.keep == Keep::Exactly) {
            return Err(Error::failed("files of the steps were changed while they were built, so they are not what is locked")
                .hint("Look at them, and run the same command again."));
        }
        self.events.note(
            "files of the steps were changed since the build began; the box is of those that ran",
        );
        store.may_add(&self.spec.name, &self.spec.version, spec1, self.existing())
    }

    async fn outputs(
        &self,
        image: &BoxRef,
        source: Option<FileDigest>,
        reused: bool,
        early: Option<outputs::Early>,
    ) -> Result<outputs::Written> {
        if !self.options.outputs {
            return Ok(outputs::Written::default());
        }
        let dir = self.output_dir();
        let digests = Cache::new(self.paths.digests());
        let policy = self.options.sandbox;
        let options = outputs::Options { policy, digests: &digests, reuse: reused, early };
        outputs::write(image, self.spec, source, &dir, options, self.events, self.cancel).await
    }

    fn output_dir(&self) -> PathBuf {
        match &self.options.output_dir {
            Some(dir) => dir.clone(),
            None => self.spec.dir.join("dist"),
        }
    }
}

/// A file that a source begins with.
enum Input<'a> {
    None,
    Image(ResolvedImage),
    Iso(&'a IsoSource, Medium),
    Box(Box<base::Base>),
}

impl Input<'_> {
    /// Its digest.
    fn digest(&self) -> Result<Option<FileDigest>> {
        let sha256 = match self {
            Input::None => return Ok(None),
            Input::Image(image) => &image.sha256,
            Input::Iso(_, medium) => &medium.sha256,
            Input::Box(base) => return Ok(Some(base.image.disk_digest())),
        };
        let digest = format!("sha256:{sha256}").parse();
        Ok(Some(digest.map_err(|e| Error::failed("a damaged digest").cause(e))?))
    }
}

/// The format of a source: one that is a single file, which its digest covers as a whole.
fn source_format(image: &ResolvedImage) -> Result<InputFormat> {
    match image.format {
        Format::Raw => Ok(InputFormat::Raw),
        Format::Qcow2 => Ok(InputFormat::Qcow2),
        Format::Vhd => Ok(InputFormat::Vhd),
        other => Err(Error::failed(format!(
            "`{}` is a {} disk, which no box is built from",
            image.path.display(),
            other.as_str()
        ))
        .hint("Convert it with `qemu-img convert -O qcow2`, and use the result as the source.")),
    }
}

/// The time of the newest file on the image's Linux filesystems, in seconds since 1970 UTC.
fn newest_file(path: &Path, format: Format) -> Result<i64> {
    let disk = Disk::read(outputs::open(path, format)?, &Limits::default())?;
    let mut newest = None;
    for fs in disk.filesystems().map(|at| at.filesystem) {
        // vfat counts in local time.
        if fs.identity().kind != "vfat" {
            newest = newest.max(fs.tree()?.nodes.iter().map(|node| node.mtime).max());
        }
    }
    newest.ok_or_else(|| {
        Error::failed(format!("`{}` has no Linux filesystem that is read here", path.display()))
            .hint("Use an image with an ext4 root filesystem.")
    })
}

fn container_format(format: InputFormat) -> Format {
    match format {
        InputFormat::Raw => Format::Raw,
        InputFormat::Qcow2 => Format::Qcow2,
        InputFormat::Vhd => Format::Vhd,
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}
