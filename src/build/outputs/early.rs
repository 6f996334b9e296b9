//! The output `qcow2`, which is the box's disk byte for byte, so it is written with it.

use std::path::Path;
use std::time::Instant;

use fs_err as fs;

use super::partial::Partial;
use super::{Output, Work, check_space, reuse, suffix, with_small_files};
use crate::build::flat::Written;
use crate::error::{Error, Result};
use crate::parity::watch::Stamp;
use crate::spec::{OutputFormat, Spec};
use crate::store::BoxRef;

const FORMAT: OutputFormat = OutputFormat::Qcow2;

/// An output that is being written; removed unless it is published.
pub(in crate::build) struct Early {
    partial: Partial,
    /// What it is, once it is whole, and its times then.
    written: Option<(Written, Stamp, Instant)>,
}

impl Early {
    /// Where to write it, if the spec wants it in `dir`; it has about `data` bytes.
    ///
    /// # Errors
    /// The folder cannot be made, or has no space for it.
    pub(in crate::build) fn of(spec: &Spec, dir: &Path, data: u64) -> Result<Option<Self>> {
        if !spec.outputs.contains(&FORMAT) {
            return Ok(None);
        }
        fs::create_dir_all(dir)?;
        check_space(dir, data, "the outputs")?;
        let name = format!("{}-{}{}", spec.name, spec.version, suffix(FORMAT));
        Ok(Some(Early { partial: Partial::beside(dir, &name), written: None }))
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
        let Some((Written { digest, length }, stamp, since)) = self.written else {
            return Err(Error::failed(format!("`{}` was not written", path.display())));
        };
        tokio::time::sleep(reuse::GRAIN.saturating_sub(since.elapsed())).await;
        self.partial.publish(&path)?;
        reuse::keep(work, FORMAT, &path, &stamp, digest);
        let output = Output::of_file(FORMAT, path, length, digest);
        with_small_files(work, FORMAT, name, output)
    }
}
