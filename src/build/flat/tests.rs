//! Files that are written in two parts, against `qemu-img`.

use super::*;
use crate::image::oracle::{Memory, Numbers, run, tool};

/// A disk with data here and there; the last cluster is not full.
fn disk(numbers: &mut Numbers, clusters: u64) -> Vec<u8> {
    let mut bytes = vec![0; (clusters * CLUSTER + 512 * numbers.below(128)) as usize];
    for cluster in bytes.chunks_mut(CLUSTER as usize) {
        if numbers.below(3) > 0 {
            let at = numbers.below(cluster.len() as u64 + 1) as usize;
            cluster[at..].fill(1 + numbers.below(255) as u8);
        }
    }
    bytes
}

fn files(folder: &Path) -> Vec<PathBuf> {
    ["a", "b"].map(|name| folder.join(name)).to_vec()
}

fn write_early(before: &[u8], size: u64, clusters: &[u64], folder: &Path) -> Early {
    let memory = Memory(before.to_vec());
    let copies = copies(files(folder)).expect("files");
    Early::write(&memory, size, clusters, copies, &CancellationToken::new()).expect("it writes")
}

/// Both files are these bytes, and `qemu-img` finds no fault in them.
fn check(folder: &Path, written: Written, bytes: &[u8]) {
    let Some(qemu) = tool("qemu-img", "a qcow2 that is written in two parts") else { return };
    std::fs::write(folder.join("raw"), bytes).expect("written");
    for path in files(folder) {
        let content = std::fs::read(&path).expect("there");
        assert_eq!(written.digest, FileDigest::of(&content));
        assert_eq!(written.length, content.len() as u64);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        run(folder, &qemu, &["check", "-q", "-f", "qcow2", name]);
        run(folder, &qemu, &["compare", "-f", "raw", "-F", "qcow2", "raw", name]);
        let options =
            container::Options { format: Some(Format::Qcow2), ..container::Options::default() };
        let ours = container::open(&path, &options).expect("opens").reader;
        let mut read = vec![0; bytes.len()];
        ours.read_at(&mut read, 0).expect("reads");
        assert_eq!(ours.size(), bytes.len() as u64);
        assert!(read == bytes, "our reader sees other bytes");
    }
}

#[test]
fn a_disk_of_two_parts_is_the_disk() {
    for seed in 0..12 {
        let mut numbers = Numbers::new(seed);
        let count = numbers.below(60);
        let folder = tempfile::tempdir().expect("a folder");
        let before = disk(&mut numbers, count);
        let early: Vec<u64> = (0..count + 2).filter(|_| numbers.below(2) == 0).collect();
        // The disk grows, and a guest writes beside what was written early.
        let mut after = before.clone();
        after.resize(before.len() + numbers.below(3 << 20) as usize / 512 * 512, 0);
        let mut changed = vec![];
        for number in (0..count).filter(|number| !early.contains(number)) {
            if numbers.below(2) == 0 {
                let start = number * CLUSTER + 4096 * numbers.below(16);
                let mut range = start..start + 4096;
                let mut byte = numbers.below(256) as u8;
                if numbers.below(3) == 0 {
                    (range, byte) = (number * CLUSTER..(number + 1) * CLUSTER, 0);
                }
                range.end = range.end.min(after.len() as u64);
                after[range.start as usize..range.end as usize].fill(byte);
                changed.push(range);
            }
        }
        let part = write_early(&before, after.len() as u64, &early, folder.path());
        let memory = Memory(after.clone());
        let written = part.complete(&memory, &changed, &CancellationToken::new());
        let written = written.expect("it writes");
        check(folder.path(), written, &after);
    }
}

/// Else a version of a box would move files that did not change, since they lie elsewhere in its file.
#[test]
fn clusters_stand_in_the_order_of_the_disk_whichever_were_written_early() {
    let folder = tempfile::tempdir().expect("a folder");
    let before: Vec<u8> = (0..64 * CLUSTER).map(|at| (at / CLUSTER + 1) as u8).collect();
    let mut after = before.clone();
    let range = 7 * CLUSTER..7 * CLUSTER + 4096;
    after[range.start as usize..range.end as usize].fill(0);
    let memory = Memory(after.clone());
    let whole = write(&memory, files(folder.path()), &CancellationToken::new()).expect("it writes");
    for early in [vec![1, 2, 8, 63], (0..64).filter(|number| *number != 7).collect()] {
        let part = write_early(&before, before.len() as u64, &early, folder.path());
        let changed = [range.clone()];
        let written = part.complete(&memory, &changed, &CancellationToken::new());
        let written = written.expect("it writes");
        check(folder.path(), written, &after);
        assert_eq!(written.digest, whole.digest, "{early:?}");
    }
}

#[test]
fn clusters_that_became_zeros_count_nothing_and_a_file_full_of_them_is_written_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = vec![7; 64 * CLUSTER as usize];
    let early: Vec<u64> = (0..32).collect();
    let lengths = [33..36, 33..60].map(|gone: Range<u64>| {
        let mut after = before.clone();
        let range = gone.start * CLUSTER..gone.end * CLUSTER;
        after[range.start as usize..range.end as usize].fill(0);
        let memory = Memory(after.clone());
        let part = write_early(&before, before.len() as u64, &early, folder.path());
        let written = part.complete(&memory, &[range], &CancellationToken::new());
        let written = written.expect("it writes");
        check(folder.path(), written, &after);
        written.length
    });
    assert!(lengths[1] < lengths[0], "{lengths:?}");
}

#[test]
fn what_was_changed_after_it_was_written_is_in_no_place_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut before = vec![7; 8 * CLUSTER as usize];
    let secret = b"a key that the seal removes";
    before[3 * CLUSTER as usize..][..secret.len()].copy_from_slice(secret);
    let part = write_early(&before, before.len() as u64, &[1, 2, 3, 5], folder.path());
    let find = |path: &Path| {
        let bytes = std::fs::read(path).expect("there");
        bytes.windows(secret.len()).any(|window| window == secret)
    };
    assert!(files(folder.path()).iter().all(|path| find(path)), "it was guessed to stay");

    let mut after = before;
    let range = 3 * CLUSTER..3 * CLUSTER + 4096;
    after[range.start as usize..range.end as usize].fill(0);
    let memory = Memory(after.clone());
    let written = part.complete(&memory, &[range], &CancellationToken::new()).expect("it writes");
    check(folder.path(), written, &after);
    assert!(!files(folder.path()).iter().any(|path| find(path)));
}

#[test]
fn the_same_disk_gives_the_same_file() {
    let bytes = disk(&mut Numbers::new(5), 40);
    let digests = [(); 2].map(|()| {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = Memory(bytes.clone());
        let written = write(&memory, files(folder.path()), &CancellationToken::new());
        let written = written.expect("it writes");
        check(folder.path(), written, &bytes);
        written.digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_file_of_many_tables_is_sound() {
    // Six second-level tables: 3 GiB, of which each 31st cluster is used.
    struct Sparse;
    impl ReadAt for Sparse {
        fn size(&self) -> u64 {
            3 << 30
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            for (cluster, number) in buf.chunks_mut(CLUSTER as usize).zip(offset / CLUSTER..) {
                cluster.fill(if number % 31 == 0 { (number % 251) as u8 + 1 } else { 0 });
            }
            Ok(())
        }
    }
    let Some(qemu) = tool("qemu-img", "a qcow2 of many tables") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a");
    let written = write(&Sparse, vec![path.clone()], &CancellationToken::new()).expect("it writes");
    assert_eq!(written.length, std::fs::metadata(&path).expect("there").len());
    run(folder.path(), &qemu, &["check", "-q", "-f", "qcow2", "a"]);
    let options = container::Options { format: Some(Format::Qcow2), ..Default::default() };
    let ours = container::open(&path, &options).expect("opens").reader;
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..Sparse.size()).step_by(1 << 20) {
        ours.read_at(&mut a, at).expect("reads");
        Sparse.read_at(&mut b, at).expect("reads");
        assert!(a == b, "at {at}");
    }
}

#[test]
fn a_disk_that_is_given_up_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let disk = Memory(vec![1; 4 * CLUSTER as usize]);
    let e = write(&disk, files(folder.path()), &cancel).expect_err("cancelled");
    assert_eq!(e.kind(), crate::error::Kind::Interrupted);
}
