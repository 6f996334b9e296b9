//! A qcow2 layer of what changed between two raw images, as a guest's writes would leave one.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::mounted::{run, text};
use super::numbers::Numbers;

/// Bytes in a cluster.
const CLUSTER: usize = 64 << 10;
/// Entries in a second-level table.
const ENTRIES: usize = CLUSTER / 8;
/// Bit 63: nobody else uses the cluster.
const OWN: u64 = 1 << 63;
/// The cluster is zeros.
const ZERO: u64 = 1;

/// Writes to `layer` what of `new` differs from `old`, two raw images of one size, above `base`. Zeros
/// are marked as zeros in one of two clusters, and some clusters are there though they are equal: a
/// guest wrote what was there.
pub(crate) fn write(old: &Path, new: &Path, base: &Path, layer: &Path, numbers: &mut Numbers) {
    let size = std::fs::metadata(new).expect("it is there").len();
    let base = std::fs::canonicalize(base).expect("it is there");
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(layer)],
    );
    let (old, new) = (File::open(old).expect("old"), File::open(new).expect("new"));
    let file = File::options().read(true).write(true).open(layer).expect("layer");
    let mut l1_at = [0; 8];
    file.read_exact_at(&mut l1_at, 40).expect("a header");
    let l1_at = u64::from_be_bytes(l1_at);
    let mut end = file.metadata().expect("it is there").len().next_multiple_of(CLUSTER as u64);
    let mut append = |bytes: &[u8]| {
        let at = end;
        file.write_all_at(bytes, at).expect("it writes");
        end += CLUSTER as u64;
        at
    };
    let (mut before, mut after) = (vec![0; CLUSTER], vec![0; CLUSTER]);
    for table in 0..size.div_ceil((CLUSTER * ENTRIES) as u64) {
        let mut entries = vec![0u64; ENTRIES];
        for (i, entry) in entries.iter_mut().enumerate() {
            let at = (table as usize * ENTRIES + i) as u64 * CLUSTER as u64;
            if at >= size {
                break;
            }
            let length = (CLUSTER as u64).min(size - at) as usize;
            before.fill(0);
            after.fill(0);
            old.read_exact_at(&mut before[..length], at).expect("it reads");
            new.read_exact_at(&mut after[..length], at).expect("it reads");
            if before == after && !numbers.one_in(200) {
                continue;
            }
            let zeros = after.iter().all(|byte| *byte == 0) && numbers.one_in(2);
            *entry = if zeros { ZERO } else { append(&after) | OWN };
        }
        if entries.iter().any(|entry| *entry != 0) {
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            let at = append(&bytes) | OWN;
            file.write_all_at(&at.to_be_bytes(), l1_at + table * 8).expect("it writes");
        }
    }
    (&file).flush().expect("it writes");
}
