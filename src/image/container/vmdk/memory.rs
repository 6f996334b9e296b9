//! What all extents of one disk share: caches, and the room for directories. A descriptor can name
//! thousands of extents, so each one's own bounds would not be bounds.

use std::sync::Arc;

use super::header::Header;
use super::refused;
use super::tables::{TABLE, Table};
use crate::error::Result;
use crate::image::container::cache::Cache;
use crate::image::container::source::Source;

/// Memory for grain tables in bytes. 16 MiB of them map 256 GiB at the usual grain size.
const TABLES: usize = 16 << 20;
/// Memory for unpacked grains in bytes: a grain holds several small files, which are asked for one
/// after the other.
const GRAINS: u64 = 16 << 20;
/// Most entries in all grain directories: 16 MiB of memory, 128 TiB of disk at the usual grain size.
const MAX_TABLES: u64 = 4 << 20;

/// Tables by extent and index.
pub(super) type TableCache = Arc<Cache<(usize, usize), Table>>;
/// Unpacked grains by extent and index.
pub(super) type GrainCache = Arc<Cache<(usize, u64), Vec<u8>>>;

/// The shared memory of one disk.
pub(super) struct Memory {
    tables: TableCache,
    grains: Option<(u64, GrainCache)>,
    room: u64,
    extents: usize,
}

/// One extent's share.
pub(super) struct Share {
    pub(super) tables: TableCache,
    pub(super) grains: Option<GrainCache>,
    /// The extent's number in the keys.
    pub(super) extent: usize,
}

impl Memory {
    pub(super) fn new() -> Self {
        let tables = Arc::new(Cache::new(TABLES / TABLE));
        Memory { tables, grains: None, room: MAX_TABLES, extents: 0 }
    }

    /// Room for one more extent.
    pub(super) fn share(&mut self, file: &Source, header: &Header) -> Result<Share> {
        self.room = self.room.checked_sub(header.tables()).ok_or_else(|| {
            refused(file, &format!("grain directories of more than {MAX_TABLES} entries"))
        })?;
        let mut grains = None;
        if header.packed {
            let bytes = header.grain_bytes();
            let capacity = usize::try_from(GRAINS / bytes).unwrap_or(1);
            let (known, cache) =
                self.grains.get_or_insert_with(|| (bytes, Arc::new(Cache::new(capacity))));
            if *known != bytes {
                return Err(refused(file, "packed extents of different grain sizes"));
            }
            grains = Some(cache.clone());
        }
        self.extents += 1;
        Ok(Share { tables: self.tables.clone(), grains, extent: self.extents })
    }
}
