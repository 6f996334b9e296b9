//! The log: whether it was left empty, and what a mount would replay from it.
//!
//! ```text
//! record  ->  head (where it starts and ends)  ->  transaction  ->  replay (buffer, create, inode)  ->  place
//! ```

mod buffer;
mod create;
mod head;
mod inode;
mod place;
mod record;
mod replay;
mod transaction;

use self::record::Log;
use super::fault::unsupported;
use super::volume::Volume;
use crate::error::Result;

/// Features of logs that are known: attributes by intent, which are refused where they are pending.
const KNOWN: u32 = 0x1;

/// Replays the log into the overlay of `volume`; how many transactions it held, or `None` if it was
/// left empty.
///
/// # Errors
/// Kind `Undetermined`: it is damaged, or holds what is not replayed here (by name).
pub(super) fn replay(volume: &mut Volume) -> Result<Option<u64>> {
    let Some(span) = head::find(&Log::new(volume)?)? else { return Ok(None) };
    let unknown = volume.sb.features.log_incompat & !KNOWN;
    let dirty = |e: crate::error::Error| {
        e.context("the log of the XFS filesystem is dirty and cannot be replayed")
            .hint("Mount and unmount a copy of the image once, and use the copy.")
    };
    if unknown != 0 {
        return Err(dirty(unsupported(format_args!("log feature {unknown:#x}"))));
    }
    let replayed = replay::replay(volume, span).map_err(dirty)?;
    volume.reload()?;
    Ok(Some(replayed.transactions))
}

/// The first block that is replayed, the one behind the last, and the blocks of the log.
#[cfg(test)]
pub(super) fn span(volume: &Volume) -> Option<(u32, u32, u32)> {
    let log = Log::new(volume).ok()?;
    head::find(&log).ok()?.map(|span| (span.tail, span.head, log.blocks))
}
