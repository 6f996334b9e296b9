//! Where things are in a qcow2 that is written once (QEMU, docs/interop/qcow2.txt): header, the tables of fixed places,
//! the clusters of the disk, the tables that describe them.
//!
//! Where the clusters begin follows from the size of the disk alone, so some can be written before anybody knows the rest.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};

/// Bytes of a cluster: what `qemu-img` takes by default.
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Entries of a table that fills a cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// References that a block counts, 16 bits each.
const COUNTED: u64 = CLUSTER / 2;
/// "this cluster has one reference" (section "L1 table entry", bit 63).
const COPIED: u64 = 1 << 63;
/// Bytes of the header of version 3 (section "Header").
const HEADER: u32 = 104;
/// Where the first-level table begins: behind the header, in clusters.
const L1: u64 = 1;

/// The places of a file's parts; all in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Size of the disk in bytes.
    size: u64,
}

/// What stands behind the clusters of the disk: bytes and their place in the file.
pub(super) type Tables = Vec<(u64, Vec<u8>)>;

impl Layout {
    pub(super) fn new(size: u64) -> Self {
        Layout { size }
    }

    /// Entries of the first-level table.
    fn l1_entries(self) -> u64 {
        self.size.div_ceil(CLUSTER * ENTRIES)
    }

    /// Where the table of reference counts begins.
    fn refcounts(self) -> u64 {
        L1 + self.l1_entries().div_ceil(ENTRIES)
    }

    /// Clusters of the table of reference counts: enough for a disk without a hole.
    fn refcounts_size(self) -> u64 {
        // Each cluster of the disk, a second-level table for each 8192 of them, a block of counts for each 32768, the
        // tables above them: less than twice the disk.
        let most = 2 * self.size.div_ceil(CLUSTER) + 1024;
        most.div_ceil(COUNTED).div_ceil(ENTRIES)
    }

    /// Where the clusters of the disk begin in the file, in bytes.
    pub(super) fn data_place(self) -> u64 {
        (self.refcounts() + self.refcounts_size()) * CLUSTER
    }

    /// The first cluster.
    pub(super) fn header(self) -> Result<Vec<u8>> {
        let l1_entries = u32::try_from(self.l1_entries())
            .map_err(|_| Error::failed(format!("a disk of {} bytes is too large", self.size)))?;
        let refcounts = u32::try_from(self.refcounts_size()).unwrap_or(u32::MAX);
        let mut out = b"QFI\xfb".to_vec();
        out.extend(3u32.to_be_bytes());
        // No backing file.
        out.extend([0; 12]);
        out.extend(CLUSTER_BITS.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        // Not encrypted.
        out.extend([0; 4]);
        out.extend(l1_entries.to_be_bytes());
        out.extend((L1 * CLUSTER).to_be_bytes());
        out.extend((self.refcounts() * CLUSTER).to_be_bytes());
        out.extend(refcounts.to_be_bytes());
        // No snapshots; no features of any kind.
        out.extend([0; 4 + 8 + 3 * 8]);
        // Counts have 2^4 bits.
        out.extend(4u32.to_be_bytes());
        out.extend(HEADER.to_be_bytes());
        // The end of the header's extensions is zeros, like the rest of the cluster.
        out.resize(CLUSTER as usize, 0);
        Ok(out)
    }

    /// The tables of a file in which the clusters of the disk stand where `places` says, the last of them in front of
    /// `end`, and nothing stands in the clusters at `free`; and the length of the file. All places in bytes.
    pub(super) fn tables(
        self,
        places: &BTreeMap<u64, u64>,
        free: &BTreeSet<u64>,
        end: u64,
    ) -> (Tables, u64) {
        let mut tables = vec![];
        let mut next = end;
        let mut l1 = vec![0; (self.l1_entries().div_ceil(ENTRIES) * CLUSTER) as usize];
        let mut all = places.iter().peekable();
        while let Some((cluster, _)) = all.peek() {
            let number = **cluster / ENTRIES;
            let mut l2 = vec![0; CLUSTER as usize];
            while let Some((cluster, place)) =
                all.next_if(|(cluster, _)| **cluster / ENTRIES == number)
            {
                put(&mut l2, cluster % ENTRIES, place | COPIED);
            }
            put(&mut l1, number, next | COPIED);
            tables.push((next, l2));
            next += CLUSTER;
        }
        tables.push((L1 * CLUSTER, l1));

        // The blocks of counts count themselves.
        let used = next / CLUSTER;
        let mut blocks = used.div_ceil(COUNTED);
        while (used + blocks).div_ceil(COUNTED) > blocks {
            blocks += 1;
        }
        let mut root = vec![0; (self.refcounts_size() * CLUSTER) as usize];
        for number in 0..blocks {
            let counted = (used + blocks - number * COUNTED).min(COUNTED);
            let mut block = vec![0; CLUSTER as usize];
            let clusters = (number * COUNTED..).map(|cluster| cluster * CLUSTER);
            for (count, place) in block.chunks_exact_mut(2).take(counted as usize).zip(clusters) {
                count.copy_from_slice(&u16::from(!free.contains(&place)).to_be_bytes());
            }
            put(&mut root, number, next);
            tables.push((next, block));
            next += CLUSTER;
        }
        tables.push((self.refcounts() * CLUSTER, root));
        (tables, next)
    }
}

fn put(table: &mut [u8], entry: u64, value: u64) {
    let at = entry as usize * 8;
    table[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_of_the_file_is_counted_once() {
        // Two blocks of counts, and the case in which the second is needed for the blocks alone.
        for used in [1, 32_700, 32_756, 32_757, 32_758, 40_000] {
            let layout = Layout::new(4 << 30);
            let first = layout.data_place();
            let places = (0..used).map(|number| (number, first + number * CLUSTER)).collect();
            let (tables, length) = layout.tables(&places, &BTreeSet::new(), first + used * CLUSTER);
            let (_, root) = tables.last().expect("the table of counts");
            let blocks: Vec<u64> = root
                .chunks_exact(8)
                .map(|entry| u64::from_be_bytes(entry.try_into().expect("8 bytes")))
                .take_while(|place| *place != 0)
                .collect();
            let mut counted = 0;
            for place in blocks {
                let found = tables.iter().find(|(at, _)| *at == place);
                let (_, block) = found.expect("a block where the table says");
                counted += block.chunks_exact(2).filter(|count| *count == [0, 1]).count() as u64;
            }
            assert_eq!(counted, length / CLUSTER, "{used} clusters");
        }
    }
}
