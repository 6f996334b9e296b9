//! The medium of the `iso` source: an ISO image by path or address, verified before anything boots from it, and read
//! here for its kernel.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::fetch::Fetcher;
use super::image::{self, Named};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::host::Paths;
use crate::image::ReadAt as _;
use crate::image::container::raw::Raw;
use crate::image::iso9660::Volume;
use crate::spec::types::IsoSource;

/// Largest kernel or initial RAM disk, in bytes; an installer with its whole system in there has less.
const LARGEST: u64 = 2 << 30;

/// An installation medium that is what its spec says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The file: the spec's own path, or a read-only file in the cache.
    pub path: PathBuf,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
}

impl Medium {
    /// Gets the medium that `source` names, and verifies its digest.
    ///
    /// # Errors
    /// It cannot be fetched or read; its digest is not the expected one (both are named); it is no ISO 9660 image;
    /// `cancel` was set.
    pub async fn resolve(
        source: &IsoSource,
        paths: &Paths,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let fetcher = Fetcher::new()?;
        let IsoSource { location, checksum, signing, .. } = source;
        let named = Named { location, checksum, signing: signing.as_ref() };
        let (path, sha256) = image::file(&fetcher, named, paths, events, cancel).await?;
        let medium = Medium { path, sha256 };
        medium.with_volume(|_, _| Ok(()))?;
        Ok(medium)
    }

    /// The contents of a file on the medium.
    ///
    /// # Errors
    /// There is no such file, or the medium is damaged.
    pub fn read(&self, file: &str) -> Result<Vec<u8>> {
        self.with_volume(|reader, volume| {
            let extent = volume.file(file)?;
            let size = usize::try_from(extent.size).ok().filter(|_| extent.size <= LARGEST);
            let Some(size) = size else {
                return Err(Error::failed(format!("`{file}` on the medium is too large"))
                    .cause(format!("it has {} bytes", extent.size)));
            };
            let mut bytes = vec![0; size];
            reader.read_at(&mut bytes, extent.offset)?;
            Ok(bytes)
        })
    }

    /// What parity could not tell is, for a build, a source that cannot be used.
    fn with_volume<T>(&self, use_it: impl FnOnce(&Raw, &Volume<'_>) -> Result<T>) -> Result<T> {
        let reader = Raw::open(&self.path)?;
        Volume::open(&reader).and_then(|volume| use_it(&reader, &volume)).map_err(|e| {
            e.with_kind(Kind::Failed).detail(format!("the medium: {}", self.path.display()))
        })
    }
}
