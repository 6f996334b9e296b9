//! What is said about outputs, in files beside them: `manifest.json`, `SHA256SUMS`, an SBOM, a
//! provenance, and variables for Terraform. No time of the build and no path of this host is in them.

mod manifest;
mod provenance;
mod sbom;
mod terraform;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Output, Work, small, stream};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::spec::Spec;

/// A file with its digest.
struct Listed {
    name: String,
    size: u64,
    sha256: FileDigest,
    /// The output that it is or belongs to.
    of: Option<&'static str>,
    /// Whether it holds the disk.
    is_disk: bool,
}

/// Writes all of them, the sums last. Returns their paths.
///
/// # Errors
/// A file cannot be written; the folder of a Terraform module is not there.
pub(super) fn write(
    work: &Work,
    spec: &Spec,
    source: Option<FileDigest>,
    outputs: &[Output],
    events: &Events,
) -> Result<Vec<PathBuf>> {
    let mut files = listed(work, outputs)?;
    let mut written = vec![];
    let base = work.base();
    let mut add = |name: String, value: &Value, files: &mut Vec<Listed>| -> Result<()> {
        let path = small(&work.dir, &name, format!("{value:#}\n").as_bytes())?;
        files.push(Listed::read(work, &path, None)?);
        written.push(path);
        Ok(())
    };
    add(format!("{base}.spdx.json"), &sbom::document(work, events)?, &mut files)?;
    let statement = provenance::statement(work, spec, source, &files);
    add(format!("{base}.provenance.json"), &statement, &mut files)?;
    let manifest = manifest::document(work, &files);
    add(manifest::NAME.to_owned(), &manifest, &mut files)?;
    if let Some(deploy) = &spec.deploy {
        let path = terraform::write(work, deploy, outputs)?;
        if path.parent() == Some(&work.dir) {
            files.push(Listed::read(work, &path, None)?);
        }
        written.push(path);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut sums = String::new();
    for file in &files {
        let _ = writeln!(sums, "{}  {}", file.sha256.hex(), file.name);
    }
    written.push(small(&work.dir, "SHA256SUMS", sums.as_bytes())?);
    Ok(written)
}

impl Listed {
    /// A small file as it is on the disk.
    fn read(work: &Work, path: &Path, of: Option<&'static str>) -> Result<Self> {
        let (sha256, size) = stream::digest(path, &work.cancel)?;
        Ok(Listed { name: name(path)?, size, sha256, of, is_disk: false })
    }
}

/// The outputs and what belongs to them.
fn listed(work: &Work, outputs: &[Output]) -> Result<Vec<Listed>> {
    let mut all = vec![];
    for output in outputs {
        let Output { path, size, sha256, format, .. } = output;
        let (size, sha256, of) = (*size, *sha256, Some(*format));
        all.push(Listed { name: name(path)?, size, sha256, of, is_disk: true });
        for path in &output.beside {
            all.push(Listed::read(work, path, of)?);
        }
    }
    Ok(all)
}

fn name(path: &Path) -> Result<String> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.ok_or_else(|| Error::failed(format!("`{}` has no name", path.display())))
}

/// The box's date as RFC 3339 has it.
fn date(work: &Work) -> Result<String> {
    jiff::Timestamp::from_second(work.image.config().epoch)
        .map(|time| time.to_string())
        .map_err(|e| Error::failed("the box has an impossible date").cause(e))
}
