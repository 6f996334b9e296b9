//! Outputs: the sealed disk in the formats that the spec names, each read back and compared with
//! the sealed one before it gets its name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use fs_err as fs;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::digest::BytesDigest;
use crate::error::{Context as _, Error, Result};
use crate::event::Events;
use crate::exec::sandbox::{self, Bounds, Policy};
use crate::exec::{self, tools};
use crate::host;
use crate::image::ReadAt;
use crate::image::container::{self, Format};
use crate::parity::bytes::Chunks;
use crate::spec::OutputFormat;
use crate::store::BoxRef;

/// Free bytes that are left to the host's disk.
const RESERVE: u64 = 64 << 20;

/// One written output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Its format, by the name in the spec.
    pub format: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it takes on the host's disk.
    pub stored: u64,
}

fn container_format(format: OutputFormat) -> Format {
    match format {
        OutputFormat::Qcow2 => Format::Qcow2,
        OutputFormat::Raw => Format::Raw,
        OutputFormat::Vhd => Format::Vhd,
    }
}

/// `qemu-img convert`, with both formats given: QEMU never guesses. Without `-W`, which would make
/// a qcow2's bytes depend on timing.
fn convert(input: &Path, from: Format, out: &Path, to: Format) -> Result<Command> {
    let options: &[&str] = match to {
        Format::Qcow2 => &["-o", "compat=1.1,cluster_size=65536"],
        // Whole MiB and no rounding to a disk geometry, as Azure wants.
        Format::Vhd => &["-o", "subformat=fixed,force_size=on"],
        _ => &[],
    };
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["convert", "-f", from.qemu_driver(), "-O", to.qemu_driver()]);
    command.args(options).arg(input).arg(out);
    Ok(command)
}

/// `qemu-img`, which reads what a guest or somebody else wrote, isolated as far as `policy` says.
fn isolated(command: Command, size: u64, policy: Policy) -> Result<Command> {
    let mut command = sandbox::command(command, &Bounds::for_disk(size), policy)?;
    command.stdin(Stdio::null());
    Ok(command)
}

/// Makes an overlay of `size` bytes on a source disk, both formats given. The source's header was
/// checked by our own reader: it names no other file.
pub(super) fn overlay(
    backing: &Path,
    format: Format,
    size: u64,
    out: &Path,
    policy: Policy,
) -> Result<()> {
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["create", "-q", "-f", "qcow2", "-F", format.qemu_driver()]);
    // The block size of the guest's filesystem: QEMU gives back whole clusters only, so in larger
    // ones the bytes of removed files would stay beside those that are in use.
    command.args(["-o", "cluster_size=4k", "-b"]).arg(backing).arg(out).arg(size.to_string());
    exec::output(&mut isolated(command, size, policy)?).map(|_| ())
}

/// Copies what a guest sees of `overlay`, which lies on `backing` alone, into `out`, a qcow2 without
/// backing file.
pub(super) async fn flatten(
    overlay: &Path,
    backing: &Path,
    out: &Path,
    policy: Policy,
    cancel: &CancellationToken,
) -> Result<()> {
    let size = check_chain(overlay, backing)?;
    let command = convert(overlay, Format::Qcow2, out, Format::Qcow2)?;
    let command = isolated(command, size, policy)?;
    exec::group::run(command, |_| {}, cancel).await.map(|_| ())
}

/// Fails unless our own reader finds that `qemu-img` would open `backing` below `overlay`, and
/// nothing else. Returns the disk's size.
fn check_chain(overlay: &Path, backing: &Path) -> Result<u64> {
    let folder = backing.parent().unwrap_or(Path::new("/")).to_path_buf();
    let options = container::Options {
        format: Some(Format::Qcow2),
        backing: container::Backing::Within(vec![folder]),
        ..container::Options::default()
    };
    let opened = container::open(overlay, &options)?;
    if opened.others().eq([&*backing.canonicalize()?]) {
        return Ok(opened.reader.size());
    }
    Err(Error::failed(format!("`{}` does not lie on the source's disk", overlay.display()))
        .hint("Build again; something else has written into the build's folder."))
}

/// Opens an image of ours, which has no backing file.
pub(super) fn open(path: &Path, format: Format) -> Result<container::Container> {
    let options = container::Options { format: Some(format), ..container::Options::default() };
    container::open(path, &options)
}

/// Bytes of a disk that are not zeros as far as its container knows.
pub(super) fn allocated(disk: &dyn ReadAt) -> Result<u64> {
    let (mut at, mut sum) = (0, 0);
    while let Some(range) = disk.next_data(at)? {
        sum += range.end - range.start;
        at = range.end;
    }
    Ok(sum)
}

/// Refuses work that the disk below `dir` has no space for.
pub(super) fn check_space(dir: &Path, needed: u64, what: &str) -> Result<()> {
    let free = host::free_bytes(dir)?;
    if free >= needed.saturating_add(RESERVE) {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::failed(format!("`{}` has too little free space for {what}", dir.display()))
        .detail(format!("needed: {} MiB; free: {} MiB", mib(needed + RESERVE), mib(free)))
        .hint("Free some space there (`devbox box prune` removes what no box needs), or choose another disk with `DEVBOX_HOME` or `--output-dir`."))
}

/// A file that is being written beside its final name; removed unless it gets it.
struct Partial {
    path: PathBuf,
    done: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes the outputs of `image` into `dir`. Each gets its name only when it is whole, is on the
/// disk, and was read back with the same bytes as the box.
///
/// # Errors
/// No space, a failing `qemu-img`, or an output that does not have the box's bytes.
pub(super) async fn write(
    image: &BoxRef,
    formats: &[OutputFormat],
    dir: &Path,
    policy: Policy,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Vec<Output>> {
    if formats.is_empty() {
        return Ok(vec![]);
    }
    fs::create_dir_all(dir)?;
    let data = allocated(&*open(image.disk_path(), Format::Qcow2)?.reader)?;
    check_space(dir, data.saturating_mul(formats.len() as u64), "the outputs")?;
    let mut written = vec![];
    for format in formats {
        let start = Instant::now();
        let config = image.config();
        let name = format!("{}-{}.{}", config.name, config.version, format.as_str());
        events.phase(format!("Writing {name}"));
        let output = one(image, *format, dir, &name, policy, cancel).await?;
        events.done(format!("{} written and read back", output.path.display()), start.elapsed());
        written.push(output);
    }
    Ok(written)
}

async fn one(
    image: &BoxRef,
    format: OutputFormat,
    dir: &Path,
    name: &str,
    policy: Policy,
    cancel: &CancellationToken,
) -> Result<Output> {
    let to = container_format(format);
    let path = dir.join(name);
    // Always the same name, so that what a killed build left is overwritten by the next one.
    let mut partial = Partial { path: dir.join(format!(".{name}.partial")), done: false };
    let command = convert(image.disk_path(), Format::Qcow2, &partial.path, to)?;
    let command = isolated(command, image.config().disk_size, policy)?;
    exec::group::run(command, |_| {}, cancel)
        .await
        .map_err(|e| e.context(format!("cannot write `{}`", path.display())))?;
    crash::point("build.output-written");
    let (file, expected) = (partial.path.clone(), image.config().bytes1);
    let found = tokio::task::spawn_blocking(move || bytes1(&file, to))
        .await
        .map_err(|e| Error::failed("reading an output back was stopped").cause(e))??;
    if cancel.is_cancelled() {
        return Err(Error::interrupted("interrupted while outputs were written"));
    }
    if found != expected {
        return Err(Error::failed(format!("`{name}` does not have the bytes of the box"))
            .detail(format!("box:    {expected}"))
            .detail(format!("output: {found}"))
            .hint("Run the build again; if it happens again, this `qemu-img` cannot be trusted."));
    }
    let file = fs::File::open(&partial.path)?;
    file.sync_all()?;
    fs::rename(&partial.path, &path)?;
    partial.done = true;
    fs::File::open(dir)?.sync_all()?;
    use std::os::unix::fs::MetadataExt as _;
    let stored = file.metadata()?.blocks() * 512;
    Ok(Output { format: format.as_str(), path, stored })
}

/// `bytes1` of an image of ours.
pub(super) fn bytes1(path: &Path, format: Format) -> Result<BytesDigest> {
    let disk = open(path, format)?;
    let shown = || format!("cannot hash `{}`", path.display());
    Ok(Chunks::read(&*disk.reader).context(shown)?.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(to: Format) -> String {
        let command = convert(Path::new("/in"), Format::Qcow2, Path::new("/out"), to);
        let command = command.expect("qemu-img");
        let words: Vec<_> = command.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn both_formats_are_always_given() {
        assert_eq!(line(Format::Raw), "convert -f qcow2 -O raw /in /out");
        assert_eq!(
            line(Format::Qcow2),
            "convert -f qcow2 -O qcow2 -o compat=1.1,cluster_size=65536 /in /out"
        );
        assert_eq!(
            line(Format::Vhd),
            "convert -f qcow2 -O vpc -o subformat=fixed,force_size=on /in /out"
        );
    }

    #[test]
    fn no_space_is_said_before_the_work() {
        let e = check_space(Path::new("/"), u64::MAX / 2, "the outputs").expect_err("too much");
        assert!(e.what().contains("too little free space for the outputs"), "{e}");
        check_space(Path::new("/"), 0, "nothing").expect("fits");
    }
}
