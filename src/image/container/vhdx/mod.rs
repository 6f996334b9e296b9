//! Microsoft VHDX: fixed and dynamic disks.
//!
//! Source: [MS-VHDX], "Virtual Hard Disk v2 (VHDX) File Format".

mod guid;
mod header;
mod log;
mod metadata;
mod region;
mod replayed;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::header::Header;
pub(super) use self::header::MAGIC;
use self::metadata::Metadata;
use self::region::Regions;
use self::table::Disk;
use super::source::Source;
use super::{damaged, too_large};
use crate::error::{Error, Result};
use crate::image::{Limits, ReadAt};

/// Everything in the file but the log begins at a whole MiB.
const MIB: u64 = 1 << 20;
/// The unit of the log in bytes.
const SECTOR: u64 = 4096;

/// What [`open`] gives.
pub(super) struct Opened {
    pub(super) reader: Arc<dyn ReadAt>,
    pub(super) notes: Vec<String>,
}

/// Opens a disk; what its log holds is applied in memory.
pub(super) fn open(file: Source, limits: &Limits) -> Result<Opened> {
    let Header { log, mut notes } = Header::read(&file)?;
    let bytes: Arc<dyn ReadAt> = match log::replay(&file, &log)? {
        Some(replayed) => {
            notes
                .push("the disk was not closed properly; its log was applied in memory".to_owned());
            Arc::new(replayed)
        }
        None => Arc::new(file.clone()),
    };
    let regions = Regions::read(&file, &*bytes, &log)?;
    let metadata = Metadata::read(&file, &*bytes, &regions.metadata)?;
    if metadata.size > limits.disk_size {
        return Err(too_large(&file, metadata.size, limits.disk_size));
    }
    if metadata.sector != 512 {
        notes.push(format!("the guest sees sectors of {} bytes", metadata.sector));
    }
    let disk = Disk::open(file, bytes, metadata, &regions)?;
    Ok(Opened { reader: Arc::new(disk), notes })
}

fn bad(file: &Source, why: impl std::fmt::Display) -> Error {
    damaged(file, why)
}

fn refused(file: &Source, feature: &str) -> Error {
    Error::undetermined(format!(
        "`{}` uses a VHDX feature that is not read: {feature}",
        file.name()
    ))
    .hint(
        "Convert it with `qemu-img convert -f vhdx -O qcow2`, if you trust it, and use the result.",
    )
}
