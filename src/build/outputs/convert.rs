//! What `qemu-img` does: overlays, and the disk in another container.

use std::path::Path;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::exec::sandbox::{self, Bounds, Policy};
use crate::exec::{self, tools};
use crate::host;
use crate::image::container::Format;

use super::identity::Identity;

/// With less free space, in bytes, a failing `qemu-img` is taken to have failed for that.
const FULL: u64 = 1 << 20;

/// A container that `qemu-img` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Version 3, nothing compressed.
    Qcow2,
    /// Version 3, each cluster compressed by zstd.
    Qcow2Zstd,
    /// Sparse.
    Raw,
    /// Stream-optimised: the one form of VMDK that ESXi takes in an upload.
    Vmdk,
    /// Fixed.
    Vhd,
    /// Dynamic.
    Vhdx,
}

impl Target {
    /// What our own reader calls it.
    pub(super) fn format(self) -> Format {
        match self {
            Target::Qcow2 | Target::Qcow2Zstd => Format::Qcow2,
            Target::Raw => Format::Raw,
            Target::Vmdk => Format::Vmdk,
            Target::Vhd => Format::Vhd,
            Target::Vhdx => Format::Vhdx,
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Target::Qcow2 => &["-o", "compat=1.1,cluster_size=65536"],
            Target::Qcow2Zstd => {
                &["-c", "-o", "compat=1.1,cluster_size=65536,compression_type=zstd"]
            }
            Target::Raw => &[],
            Target::Vmdk => &["-o", "subformat=streamOptimized,adapter_type=lsilogic,compat6"],
            // Whole MiB and no rounding to a disk geometry, as Azure wants.
            Target::Vhd => &["-o", "subformat=fixed,force_size=on"],
            Target::Vhdx => &["-o", "subformat=dynamic"],
        }
    }
}

/// `qemu-img convert`, with both formats given: QEMU never guesses. Without `-W`, which would make
/// a qcow2's bytes depend on timing.
fn convert(input: &Path, from: Format, out: &Path, to: Target) -> Result<Command> {
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["convert", "-f", from.qemu_driver(), "-O", to.format().qemu_driver()]);
    command.args(to.options()).arg(input).arg(out);
    Ok(command)
}

/// Writes the disk `input` of `size` bytes into `out`, with nothing left to chance: what `qemu-img`
/// draws at random is replaced by what follows from `identity`.
///
/// # Errors
/// `qemu-img` fails, or writes a form that is not known here.
pub(super) async fn run(
    (input, from): (&Path, Format),
    (out, to): (&Path, Target),
    size: u64,
    identity: &Identity,
    policy: Policy,
    cancel: &CancellationToken,
) -> Result<()> {
    let command = isolated(convert(input, from, out, to)?, size, policy)?;
    exec::group::run(command, |_| {}, cancel).await.map_err(|e| explained(e, out, to))?;
    identity.settle(out, to.format())
}

/// What can be done about the commonest failures.
fn explained(e: Error, out: &Path, to: Target) -> Error {
    let said = |text: &str| e.details().iter().any(|line| line.contains(text));
    // Of a full disk, some of QEMU's formats say `Invalid argument`.
    let full = host::free_bytes(out).is_ok_and(|free| free < FULL);
    if full || said("No space left on device") {
        return e.hint("Free some space on that disk, then run the same command again.");
    }
    if to == Target::Qcow2Zstd
        && (said("compression_type") || said("compression type") || said("zstd"))
    {
        return e.hint("Update `qemu-img` to one that knows zstd (QEMU 5.1 or newer), or leave `qcow2-zstd` out of `outputs`.");
    }
    e
}

/// `qemu-img`, which reads what a guest or somebody else wrote, isolated as far as `policy` says.
fn isolated(command: Command, size: u64, policy: Policy) -> Result<Command> {
    let mut command = sandbox::command(command, &Bounds::for_disk(size), policy)?;
    command.stdin(Stdio::null());
    Ok(command)
}

/// Makes an overlay of `size` bytes on a source disk, both formats given. The source's header was
/// checked by our own reader: it names no other file.
pub(in crate::build) fn overlay(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(to: Target) -> String {
        let command = convert(Path::new("/in"), Format::Qcow2, Path::new("/out"), to);
        let command = command.expect("qemu-img");
        let words: Vec<_> = command.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn both_formats_are_always_given() {
        assert_eq!(line(Target::Raw), "convert -f qcow2 -O raw /in /out");
        assert_eq!(
            line(Target::Qcow2),
            "convert -f qcow2 -O qcow2 -o compat=1.1,cluster_size=65536 /in /out"
        );
        assert_eq!(
            line(Target::Vhd),
            "convert -f qcow2 -O vpc -o subformat=fixed,force_size=on /in /out"
        );
    }
}
