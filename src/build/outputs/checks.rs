//! What is looked at before and after writing: free space, and whether an image has the box's bytes.

use std::path::Path;

use crate::digest::BytesDigest;
use crate::error::{Context as _, Error, Result};
use crate::host;
use crate::image::ReadAt;
use crate::image::container::{self, Format};
use crate::parity::bytes::Chunks;

/// Free bytes that are left to the host's disk.
const RESERVE: u64 = 64 << 20;

/// Opens an image of ours, which has no backing file.
pub(in crate::build) fn open(path: &Path, format: Format) -> Result<container::Container> {
    let options = container::Options { format: Some(format), ..container::Options::default() };
    container::open(path, &options)
}

/// Bytes of a disk that are not zeros as far as its container knows.
pub(in crate::build) fn allocated(disk: &dyn ReadAt) -> Result<u64> {
    let (mut at, mut sum) = (0, 0);
    while let Some(range) = disk.next_data(at)? {
        sum += range.end - range.start;
        at = range.end;
    }
    Ok(sum)
}

/// Refuses work that the disk below `dir` has no space for.
pub(in crate::build) fn check_space(dir: &Path, needed: u64, what: &str) -> Result<()> {
    let free = host::free_bytes(dir)?;
    if free >= needed.saturating_add(RESERVE) {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::failed(format!("`{}` has too little free space for {what}", dir.display()))
        .detail(format!("needed: {} MiB; free: {} MiB", mib(needed + RESERVE), mib(free)))
        .hint("Free some space there (`devbox box prune` removes what no box needs), or choose another disk with `DEVBOX_HOME` or `--output-dir`."))
}

/// In what form an output holds the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The file is the container.
    Plain(Format),
    /// The container is in an archive.
    Packed(Format),
}

/// `bytes1` of an output, read back through all that is around the disk. What is compressed is
/// unpacked into a file without a name in `dir`.
///
/// # Errors
/// It cannot be read, or is in another form.
pub(super) fn bytes1(path: &Path, form: Form, dir: &Path) -> Result<BytesDigest> {
    let shown = || format!("cannot read `{}` back", path.display());
    let disk = match form {
        Form::Plain(format) => open(path, format).context(shown)?,
        Form::Packed(format) => {
            let options = container::Options {
                scratch: Some(dir.to_owned()),
                ..container::Options::default()
            };
            let disk = container::open(path, &options).context(shown)?;
            if disk.format != format || disk.wrapping.is_none() {
                return Err(Error::failed(shown()).cause(format!(
                    "the disk in it is read as {}, not {}",
                    disk.format.as_str(),
                    format.as_str()
                )));
            }
            disk
        }
    };
    Ok(Chunks::read(&*disk.reader).context(shown)?.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_space_is_said_before_the_work() {
        let e = check_space(Path::new("/"), u64::MAX / 2, "the outputs").expect_err("too much");
        assert!(e.what().contains("too little free space for the outputs"), "{e}");
        check_space(Path::new("/"), 0, "nothing").expect("fits");
    }
}
