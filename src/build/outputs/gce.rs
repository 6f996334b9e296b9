//! An image for Google's cloud: `disk.raw` in a tar archive of GNU's old form, compressed by gzip
//! (Compute Engine, "Manually import boot disks": `tar --format=oldgnu -Sczf`).

use std::io::Write as _;
use std::path::Path;

use super::archive::{Archive, Form};
use super::{Work, stream};
use crate::error::Result;

/// Writes it to `out`.
pub(super) fn write(work: &Work, out: &Path) -> Result<()> {
    let to = stream::gzip(stream::create(out)?);
    let mut archive = Archive::new(to, Form::Gnu, work.image.config().epoch);
    archive.sparse("disk.raw", &*work.disk()?, &work.cancel)?;
    archive.finish()?.finish()?.flush()?;
    Ok(())
}
