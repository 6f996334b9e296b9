//! The output `qcow2`, which is the box's disk byte for byte, so it is written with it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;

use super::partial::Partial;
use super::{Output, Work, allocated, check_space, open, reuse, suffix, with_small_files};
use crate::build::container_format;
use crate::build::flat::Written;
use crate::crash;
use crate::error::{Error, Result};
use crate::parity::watch::Stamp;
use crate::source::SourceDisk;
use crate::spec::{OutputFormat, Spec};
use crate::store::BoxRef;

const FORMAT: OutputFormat = OutputFormat::Qcow2;

/// An output that is being written; removed unless it is published.
pub(in crate::build) struct Early {
    partial: Partial,
    /// What it is, once it is whole, and its times then.
    written: Option<(Written, Stamp, Instant)>,
    _folder: Folder,
}

/// The folder of the outputs; removed again if it was made for one that did not come.
struct Folder {
    made: Option<PathBuf>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that holds something stays.
        let _ = self.made.take().map(fs::remove_dir);
    }
}

impl Early {
    /// Where to write it, if the spec wants it in `dir`; it has about as many bytes as `source`.
    ///
    /// # Errors
    /// The folder cannot be made, or has no space for it.
    pub(in crate::build) fn of(
        spec: &Spec,
        dir: &Path,
        source: &SourceDisk,
    ) -> Result<Option<Self>> {
        if !spec.outputs.contains(&FORMAT) {
            return Ok(None);
        }
        let folder = Folder { made: (!dir.exists()).then(|| dir.to_owned()) };
        fs::create_dir_all(dir)?;
        let data = allocated(&*open(&source.path, container_format(source.format))?.reader)?;
        check_space(dir, data, "the outputs")?;
        let name = format!("{}-{}{}", spec.name, spec.version, suffix(FORMAT));
        Ok(Some(Early { partial: Partial::beside(dir, &name), written: None, _folder: folder }))
    }

    /// Where it is written.
    pub(in crate::build) fn path(&self) -> &Path {
        self.partial.path()
    }

    /// It is whole, on the disk, and was read back.
    pub(in crate::build) fn whole(&mut self, written: Written) -> Result<()> {
        self.written = Some((written, Stamp::of(self.path())?, Instant::now()));
        Ok(())
    }

    /// Whether it is this output of the box: the store may have had the same content with other bytes.
    pub(super) fn is(&self, format: OutputFormat, image: &BoxRef) -> bool {
        let digest = self.written.as_ref().map(|(written, ..)| written.digest);
        format == FORMAT && digest == Some(image.disk_digest())
    }

    /// Gives it its name.
    pub(super) async fn publish(self, work: &Work, name: &str) -> Result<Output> {
        let path = work.dir.join(name);
        let Some((Written { digest, length, .. }, stamp, since)) = self.written else {
            return Err(Error::failed(format!("`{}` was not written", path.display())));
        };
        crash::point("build.output-written");
        tokio::time::sleep(reuse::GRAIN.saturating_sub(since.elapsed())).await;
        self.partial.publish(&path)?;
        reuse::keep(work, FORMAT, &path, &stamp, digest);
        let output = Output::of_file(FORMAT, path, length, digest);
        with_small_files(work, FORMAT, name, output)
    }
}
