//! Outputs: the sealed disk in the formats that the spec names, each read back and compared with
//! the sealed one before it gets its name.
//!
//! One file a family: [`convert`] for containers that `qemu-img` writes, with the ids of [`identity`];
//! [`ova`], [`gce`], [`vagrant`] and [`containerdisk`] for disks in archives ([`archive`], [`stream`]);
//! [`aws`] and [`xen`] for what stands beside a raw disk; [`about`] for what is said about all of them. Nothing of this host and no time of the
//! build is in them: writing twice gives the same bytes.

mod about;
mod archive;
mod aws;
mod checks;
mod containerdisk;
mod convert;
mod early;
mod gce;
mod identity;
mod ova;
mod partial;
mod reuse;
mod stream;
mod vagrant;
mod xen;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fs_err as fs;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::digest::{BytesDigest, FileDigest};
use crate::error::{Context as _, Error, Result};
use crate::event::Events;
use crate::exec::sandbox::Policy;
use crate::image::ReadAt;
use crate::image::container::Format;
use crate::parity::cache::Cache;
use crate::parity::watch::Stamp;
use crate::spec::{Machine, OutputFormat, Spec};
use crate::store::BoxRef;

pub(super) use checks::{allocated, check_space, open};
pub(super) use convert::overlay;
pub(super) use early::Early;

use checks::Form;
use convert::Target;
use identity::Identity;
use partial::Partial;

/// One written output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Its format, by the name in the spec.
    pub format: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Digest of the file.
    pub sha256: FileDigest,
    /// Bytes that it takes on the host's disk.
    pub stored: u64,
    /// Small files that belong to it.
    pub beside: Vec<PathBuf>,
}

impl Output {
    fn of_file(format: OutputFormat, path: PathBuf, size: u64, sha256: FileDigest) -> Self {
        let stored = crate::host::stored_bytes(&path);
        Output { format: format.as_str(), path, size, sha256, stored, beside: vec![] }
    }
}

/// How outputs are written.
pub(super) struct Options<'a> {
    /// Whether `qemu-img` may read disks where this host cannot isolate it.
    pub(super) policy: Policy,
    /// What is known of files that nobody changed.
    pub(super) digests: &'a Cache,
    /// Leaves an output of the same box that is as it was written.
    pub(super) reuse: bool,
    /// The output `qcow2`, if it was written with the box.
    pub(super) early: Option<Early>,
}

/// A small file that belongs to an output.
struct Beside {
    /// What its name ends in, behind the box's name and version.
    suffix: &'static str,
    bytes: Vec<u8>,
}

/// What outputs are written of, and where.
struct Work {
    image: BoxRef,
    /// What is known of files that nobody changed.
    digests: Cache,
    machine: Machine,
    dir: PathBuf,
    policy: Policy,
    cancel: CancellationToken,
}

impl Work {
    /// What the names of all files begin with.
    fn base(&self) -> String {
        format!("{}-{}", self.image.config().name, self.image.config().version)
    }

    /// The box's disk.
    fn disk(&self) -> Result<Arc<dyn ReadAt>> {
        Ok(open(self.image.disk_path(), Format::Qcow2)?.reader)
    }

    fn identity(&self) -> Identity {
        Identity::new(self.image.config().bytes1, self.image.config().epoch)
    }
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// The outputs, in the order of the spec.
    pub(super) outputs: Vec<Output>,
    /// What is said about them, in files beside them.
    pub(super) about: Vec<PathBuf>,
}

/// Writes the outputs of `image` that `spec` names into `dir`, and what is said about them. `source` is
/// the digest of the image that the box was made of. Each output gets its name only when it is whole,
/// is on the disk, and was read back with the same bytes as the box.
///
/// # Errors
/// No space, a failing `qemu-img`, or an output that does not have the box's bytes.
pub(super) async fn write(
    image: &BoxRef,
    spec: &Spec,
    source: Option<FileDigest>,
    dir: &Path,
    mut options: Options<'_>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Written> {
    if spec.outputs.is_empty() {
        return Ok(Written::default());
    }
    fs::create_dir_all(dir)?;
    let work = Arc::new(Work {
        image: image.clone(),
        machine: spec.machine.clone(),
        digests: options.digests.clone(),
        dir: dir.to_owned(),
        policy: options.policy,
        cancel: cancel.clone(),
    });
    let names: Vec<_> = spec.outputs.iter().map(|f| (*f, work.base() + suffix(*f))).collect();
    let known: Vec<_> = names
        .iter()
        .map(|(format, name)| options.reuse.then(|| reuse::find(&work, *format, name)).flatten())
        .collect();
    let new = known.iter().filter(|output| output.is_none()).count() as u64;
    if new > 0 {
        let data = allocated(&*work.disk()?)?;
        let there = u64::from(options.early.is_some());
        // One more: what is packed takes its place twice, while it is written or read back.
        check_space(dir, data.saturating_mul(new + 1 - there), "the outputs")?;
    }
    let mut outputs = vec![];
    for ((format, name), known) in names.iter().zip(known) {
        let start = Instant::now();
        if let Some(known) = known {
            events.note(format!("{} is as it was written", known.path.display()));
            outputs.push(with_small_files(&work, *format, name, known)?);
            continue;
        }
        events.phase(format!("Writing {name}"));
        let early = options.early.take_if(|early| early.is(*format, image));
        let output = match early {
            Some(early) => early.publish(&work, name).await?,
            None => one(&work, *format, name).await?,
        };
        events.done(format!("{} written and read back", output.path.display()), start.elapsed());
        outputs.push(output);
    }
    let (spec, told, seen) = (spec.clone(), outputs.clone(), events.clone());
    let about =
        blocking(&work, move |work| about::write(work, &spec, source, &told, &seen)).await?;
    Ok(Written { outputs, about })
}

/// Writes one output of any box of the store into `dir`, for a machine of a spec that says nothing of it.
///
/// # Errors
/// No space, a failing `qemu-img`, or an output that does not have the box's bytes.
pub async fn export(
    image: &BoxRef,
    format: OutputFormat,
    dir: &Path,
    policy: Policy,
    paths: &crate::host::Paths,
    cancel: &CancellationToken,
) -> Result<Output> {
    fs::create_dir_all(dir)?;
    let work = Arc::new(Work {
        image: image.clone(),
        machine: plain_machine(image.config())?,
        digests: Cache::new(paths.digests()),
        dir: dir.to_owned(),
        policy,
        cancel: cancel.clone(),
    });
    let data = allocated(&*work.disk()?)?;
    check_space(dir, data.saturating_mul(2), "the output")?;
    // Those of one version for several architectures stand in one folder.
    let name = format!("{}-{}{}", work.base(), image.config().arch, suffix(format));
    one(&work, format, &name).await
}

/// All defaults, with the firmware of the box.
fn plain_machine(config: &crate::store::BoxConfig) -> Result<Machine> {
    let text = format!(
        "name = \"{}\"\nversion = \"1.0.0\"\narch = \"{}\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n[machine]\nfirmware = \"{}\"\n",
        config.name, config.arch, config.firmware
    );
    let spec = crate::spec::parse(&text, Path::new(&config.name), Path::new("/"));
    Ok(spec
        .map_err(|e| Error::from(e).context("the box has a config that no machine fits"))?
        .machine)
}

/// What the name of an output ends in.
fn suffix(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Qcow2 => ".qcow2",
        OutputFormat::Qcow2Zstd => ".zstd.qcow2",
        OutputFormat::Raw => ".raw",
        OutputFormat::Vmdk => ".vmdk",
        OutputFormat::Ova => ".ova",
        OutputFormat::Vhd => ".vhd",
        OutputFormat::Vhdx => ".vhdx",
        OutputFormat::Gce => ".gce.tar.gz",
        OutputFormat::Aws => ".aws.raw",
        OutputFormat::Xen => ".xen.raw",
        OutputFormat::Vagrant => ".box",
        OutputFormat::Containerdisk => ".containerdisk.tar",
    }
}

/// Writes one output, reads it back, and gives it its name.
async fn one(work: &Arc<Work>, format: OutputFormat, name: &str) -> Result<Output> {
    let path = work.dir.join(name);
    let partial = Partial::beside(&work.dir, name);
    let form = fill(work, format, name, partial.path())
        .await
        .map_err(|e| e.context(format!("cannot write `{}`", path.display())))?;
    crash::point("build.output-written");
    let expected = work.image.config().bytes1;
    let file = partial.path().to_owned();
    let written = Stamp::of(&file)?;
    // Then its times tell it from one that somebody writes to after it was read.
    tokio::time::sleep(reuse::GRAIN).await;
    let (found, sha256, size) =
        blocking(work, move |work| read_back(work, format, form, &file)).await?;
    if work.cancel.is_cancelled() {
        return Err(Error::interrupted("interrupted while outputs were written"));
    }
    if found != expected {
        return Err(Error::failed(format!("`{name}` does not have the bytes of the box"))
            .detail(format!("box:    {expected}"))
            .detail(format!("output: {found}"))
            .hint("Run the build again; if it happens again, this `qemu-img` cannot be trusted."));
    }
    partial.publish(&path)?;
    reuse::keep(work, format, &path, &written, sha256);
    let output = Output::of_file(format, path, size, sha256);
    with_small_files(work, format, name, output)
}

/// The output with the small files that belong to it.
fn with_small_files(
    work: &Work,
    format: OutputFormat,
    name: &str,
    mut output: Output,
) -> Result<Output> {
    for file in small_files(work, format, name) {
        let name = format!("{}{}", work.base(), file.suffix);
        output.beside.push(small(&work.dir, &name, &file.bytes)?);
    }
    Ok(output)
}

/// `bytes1` of what was written, the digest and the length of the file; it is on the disk then.
fn read_back(
    work: &Work,
    format: OutputFormat,
    form: Form,
    file: &Path,
) -> Result<(BytesDigest, FileDigest, u64)> {
    let durable = fs::File::open(file)?;
    let (synced, read) = std::thread::scope(|scope| {
        let synced = scope.spawn(move || durable.sync_all());
        let read = both_digests(work, format, form, file);
        (synced.join(), read)
    });
    synced.map_err(|_| Error::failed("writing to the disk was stopped"))??;
    read
}

fn both_digests(
    work: &Work,
    format: OutputFormat,
    form: Form,
    file: &Path,
) -> Result<(BytesDigest, FileDigest, u64)> {
    if format == OutputFormat::Qcow2 {
        let (sha256, size) = stream::digest(file, &work.cancel)?;
        // The file of the store, byte for byte: what is known of that one holds for this one.
        if sha256 == work.image.disk_digest() {
            return Ok((work.image.config().bytes1, sha256, size));
        }
        return Ok((checks::bytes1(file, form, &work.dir)?, sha256, size));
    }
    let (found, hashed) = std::thread::scope(|scope| {
        let hashed = scope.spawn(|| stream::digest(file, &work.cancel));
        (checks::bytes1(file, form, &work.dir), hashed.join())
    });
    let (sha256, size) = hashed.map_err(|_| Error::failed("hashing an output was stopped"))??;
    Ok((found?, sha256, size))
}

/// Writes the bytes of an output to `out`, and says in what form they are.
async fn fill(work: &Arc<Work>, format: OutputFormat, name: &str, out: &Path) -> Result<Form> {
    let target = match format {
        OutputFormat::Qcow2 => {
            let to = out.to_owned();
            blocking(work, move |work| {
                stream::copy_file(work.image.disk_path(), &to, &work.cancel)
            })
            .await?;
            return Ok(Form::Plain(Format::Qcow2));
        }
        OutputFormat::Qcow2Zstd => Target::Qcow2Zstd,
        OutputFormat::Raw | OutputFormat::Aws | OutputFormat::Xen => Target::Raw,
        OutputFormat::Vmdk => Target::Vmdk,
        OutputFormat::Vhd => Target::Vhd,
        OutputFormat::Vhdx => Target::Vhdx,
        OutputFormat::Ova => {
            let vmdk = Partial::beside(&work.dir, &format!("{name}.vmdk"));
            disk(work, vmdk.path(), Target::Vmdk).await?;
            let (from, to) = (vmdk.path().to_owned(), out.to_owned());
            blocking(work, move |work| ova::write(work, &from, &to)).await?;
            return Ok(Form::Packed(Format::Vmdk));
        }
        OutputFormat::Gce => {
            let to = out.to_owned();
            blocking(work, move |work| gce::write(work, &to)).await?;
            return Ok(Form::Packed(Format::Raw));
        }
        OutputFormat::Vagrant => {
            let seed = vagrant::seed(work, name).await?;
            let (from, to) = (seed.path().to_owned(), out.to_owned());
            blocking(work, move |work| vagrant::write(work, &from, &to)).await?;
            return Ok(Form::Packed(Format::Qcow2));
        }
        OutputFormat::Containerdisk => {
            let to = out.to_owned();
            blocking(work, move |work| containerdisk::write(work, &to)).await?;
            return Ok(Form::Packed(Format::Qcow2));
        }
    };
    disk(work, out, target).await?;
    Ok(Form::Plain(target.format()))
}

/// The box's disk in another container.
async fn disk(work: &Work, out: &Path, to: Target) -> Result<()> {
    let size = work.image.config().disk_size;
    let from = (work.image.disk_path(), Format::Qcow2);
    convert::run(from, (out, to), size, &work.identity(), work.policy, &work.cancel).await
}

/// What stands beside an output, by its name.
fn small_files(work: &Work, format: OutputFormat, name: &str) -> Vec<Beside> {
    match format {
        OutputFormat::Aws => vec![aws::import(work, name)],
        OutputFormat::Xen => vec![xen::config(work, name)],
        OutputFormat::Containerdisk => vec![containerdisk::machine(work, name)],
        _ => vec![],
    }
}

/// Writes a small file into `dir`, whole or not at all.
fn small(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = dir.join(name);
    let partial = Partial::beside(dir, name);
    fs::write(partial.path(), bytes).context(|| format!("cannot write `{}`", path.display()))?;
    partial.publish(&path)?;
    Ok(path)
}

/// Work that fills a core, beside the runtime.
async fn blocking<T: Send + 'static>(
    work: &Arc<Work>,
    run: impl FnOnce(&Work) -> Result<T> + Send + 'static,
) -> Result<T> {
    let work = work.clone();
    crate::blocking::blocking("writing an output", move || run(&work)).await
}
