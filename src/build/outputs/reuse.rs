//! Outputs that an earlier build wrote, read back, and that nobody changed since.

use std::path::Path;
use std::time::Duration;

use super::{Output, Work};
use crate::digest::FileDigest;
use crate::parity::cache::{Answer, Place};
use crate::parity::watch::Stamp;
use crate::spec::OutputFormat;

/// More than the grain of a file's times.
pub(super) const GRAIN: Duration = Duration::from_millis(25);

/// The output `name` of the same box, as it was written.
pub(super) fn find(work: &Work, format: OutputFormat, name: &str) -> Option<Output> {
    let path = work.dir.join(name);
    let meta = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    let answer = work.digests.get(&place(work, format, &path)?)?;
    let sha256 = answer.digests.first()?.parse().ok()?;
    Some(Output::of_file(format, path, meta.len(), sha256))
}

/// Remembers an output that was written, read back and named; `written` is its stamp before it was read.
pub(super) fn keep(
    work: &Work,
    format: OutputFormat,
    path: &Path,
    written: &Stamp,
    sha256: FileDigest,
) {
    let Some(place) = place(work, format, path) else { return };
    let answer = Answer { digests: vec![sha256.to_string()], notes: vec![], host_keys: vec![] };
    work.digests.put_own(&place, path, written, &answer);
}

/// Everything that decides what an output is.
fn place(work: &Work, format: OutputFormat, path: &Path) -> Option<Place> {
    let path = std::path::absolute(path).ok()?;
    let (image, machine) = (work.image.manifest_digest(), &work.machine);
    work.digests.place_of(&format!("output {} {image} {path:?} {machine:?}", format.as_str()))
}
