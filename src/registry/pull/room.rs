//! Whether the disk of a box fits: what its manifest says of it, and the space of this host.

use super::Job;
use crate::chunks::index::{Index, MAX_INDEX};
use crate::chunks::{BLOCK, Strand};
use crate::error::{Error, Result};
use crate::host::free_bytes;

/// Bytes that stay free on the disk: a full disk breaks more than this pull.
const SPARE: u64 = 64 << 20;
/// One of so many blocks of a cluster is no zeros: 64 KiB and 4 KiB.
const LEAST_OF_CLUSTER: u64 = 16;

impl Job {
    /// Whether the index fits what the manifest says, and the disk of this host.
    pub(super) fn check(&self, index: &Index) -> Result<()> {
        let tables: u64 = index.packs.iter().map(|pack| pack.table_size).sum();
        let fits = index.digest == self.shipped.disk
            && index.packs.len() == self.shipped.packs.len()
            && tables == self.shipped.tables.size;
        if !fits {
            return Err(Error::undetermined(
                "the index of the disk does not fit the manifest of the box",
            )
            .hint("Push the box again."));
        }
        let needed = self.needed(index);
        // A cluster of a qcow2 can be zeros but for one block. A file that is nearly all zeros is none, and would be hashed
        // for hours.
        let most = needed.saturating_mul(LEAST_OF_CLUSTER).saturating_add(SPARE);
        if tables > MAX_INDEX || index.weave.size > most {
            return Err(Error::undetermined("the index of the disk claims what no disk has")
                .detail(format!("{} bytes with {needed} bytes of data", index.weave.size)));
        }
        let free = free_bytes(self.store.root())?;
        let missing = self.to_come(index);
        if missing.saturating_add(SPARE) <= free {
            return Ok(());
        }
        Err(self.no_room(missing, free))
    }

    /// Bytes that the disk still has to take: what an earlier attempt left takes its place already, and holes take none.
    fn to_come(&self, index: &Index) -> u64 {
        self.needed(index).saturating_sub(self.store.partial_bytes(index.digest))
    }

    fn no_room(&self, missing: u64, free: u64) -> Error {
        Error::failed(format!("not enough free space in `{}` for the box", self.store.root().display()))
            .cause(format!("{missing} bytes are needed and {free} are free"))
            .hint("Free some space there, or remove boxes with `devbox box remove` and `devbox box prune`.")
    }

    /// A disk that became full on the way is told as one that was too small.
    pub(super) fn full(&self, index: &Index, e: Error) -> Error {
        let free = || free_bytes(self.store.root()).unwrap_or(0);
        match e.lacks_space() {
            true => self
                .no_room(self.to_come(index), free())
                .cause(e.what())
                .detail("what arrived is kept"),
            false => e,
        }
    }

    fn needed(&self, index: &Index) -> u64 {
        let blocks = Strand::ALL.map(|strand| index.weave.length(strand));
        blocks.iter().fold(0u64, |sum, n| sum.saturating_add(*n)).saturating_mul(BLOCK as u64)
    }
}
