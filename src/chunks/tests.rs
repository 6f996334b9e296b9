//! Disks that are cut, packed and put together again.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::index::{self, encode_table};
use super::local::{self, Local};
use super::pack::{Packed, Whole, Work, pack, unpack};
use super::plan::{self, numbered};
use super::*;
use crate::digest::FileDigest;

/// Bytes that look like those of files: some repeat, some do not compress.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 64);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 4 {
            0 => out.extend_from_slice(&state.to_le_bytes()),
            1 => out.extend_from_slice(&[b'a'; 40]),
            _ => out.extend_from_slice(format!("line {}\n", state % 1000).as_bytes()),
        }
    }
    out.truncate(length);
    out
}

fn written(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).expect("written");
    path
}

struct Made {
    whole: Whole,
    packs: Vec<(Packed, Vec<u8>)>,
}

fn made(path: &Path) -> Made {
    let mut packs = vec![];
    let whole = pack(path, Work::Pack, &mut |_| Ok(()), &mut |packed, bytes| {
        assert_eq!(packed, Packed { digest: FileDigest::of(&bytes), size: bytes.len() as u64 });
        packs.push((packed, bytes));
        Ok(())
    });
    Made { whole: whole.expect("packs"), packs }
}

/// Puts the disk together in `dir` from what `local` has and from the packs; how many bytes of packs that took.
fn assembled(dir: &Path, made: &Made, local: &Local) -> (Vec<u8>, u64) {
    let index = Index::parse(&made.whole.index.encode().expect("encodes")).expect("parses");
    assert_eq!(index, made.whole.index);
    let heads = index.packs.iter().zip(&made.whole.tables).zip(&made.whole.packs);
    let tables = heads.map(|((head, table), packed)| {
        head.read_table(&encode_table(table), packed.size).expect("reads")
    });
    let tables: Vec<_> = tables.collect();
    index.check(&tables).expect("fits");
    let path = dir.join("out");
    let file = fs::File::options().create(true).truncate(true).read(true).write(true).open(&path);
    let target = Target::new(file.expect("file"), &index.weave).expect("target");
    let chunks = numbered(&index, &tables);
    let missing = local.copy(&chunks, &target).expect("copies");
    let mut moved = 0;
    for request in plan::requests(&missing) {
        let named = made.whole.packs[request.pack];
        let (_, pack) = made.packs.iter().find(|(packed, _)| *packed == named).expect("pack");
        moved += request.range.end - request.range.start;
        for wanted in &request.chunks {
            let from = wanted.chunk.at as usize;
            let packed = &pack[from..from + wanted.chunk.entry.packed as usize];
            let bytes = unpack(&wanted.chunk.entry, packed).expect("unpacks");
            for chunk in std::iter::once(&wanted.chunk).chain(&wanted.also) {
                target.write(chunk, &bytes).expect("writes");
            }
        }
    }
    assert_eq!(target.missing(&chunks).expect("reads"), []);
    (fs::read(path).expect("reads"), moved)
}

#[test]
fn a_disk_comes_out_as_it_went_in_and_the_same_twice() {
    let dir = tempfile::tempdir().expect("folder");
    let mut content = bytes(1, 3_000_000);
    content.resize(5_000_000, 0);
    content.extend(bytes(2, 777));
    content.extend(bytes(1, 500_000));
    let path = written(dir.path(), "in", &content);
    let one = made(&path);
    let (out, _) = assembled(dir.path(), &one, &Local::default());
    assert!(out == content, "the bytes are the same");
    let two = made(&path);
    assert_eq!(one.whole, two.whole);
    assert_eq!(
        one.whole.index.encode().expect("encodes"),
        two.whole.index.encode().expect("encodes")
    );
    assert_eq!(one.whole.index.digest, FileDigest::of(&content));
    let named = pack(&path, Work::Name, &mut |_| Ok(()), &mut |_, _| panic!("no pack"));
    let ids = |whole: &Whole| whole.tables.concat().iter().map(|e| e.id).collect::<Vec<_>>();
    assert_eq!(ids(&named.expect("names")), ids(&one.whole));
}

#[test]
fn what_moved_on_the_disk_is_not_moved_over_the_network() {
    let dir = tempfile::tempdir().expect("folder");
    let old = bytes(7, 8 << 20);
    let mut new = old.clone();
    // A file that grew by three blocks, near the beginning: all behind it moves.
    let at = 100 * BLOCK;
    new.splice(at..at, bytes(8, 3 * BLOCK));
    let path = written(dir.path(), "old", &old);
    let before = made(&path);
    let kept = written(dir.path(), "kept", &local::encode(&before.whole).expect("encodes"));
    let described = local::read(&kept, before.whole.index.digest).expect("reads");
    assert_eq!(described, before.whole);
    assert!(local::read(&kept, FileDigest::of(b"another")).is_err());
    let mut local = Local::default();
    local.add(&path, &described).expect("adds");
    let after = made(&written(dir.path(), "new", &new));
    let (out, moved) = assembled(dir.path(), &after, &local);
    assert!(out == new, "the bytes are the same");
    let whole: u64 = after.whole.packs.iter().map(|pack| pack.size).sum();
    assert!(moved > 0 && moved < whole / 20, "{moved} of {whole} bytes moved");
    let known = after.whole.index.packs.iter().filter(|head| local.table(head.table).is_some());
    assert!(known.count() * 2 > after.whole.packs.len(), "most packs are the same");
    // A disk that was damaged meanwhile gives wrong bytes, which the digests show.
    let file = fs::File::options().write(true).open(&path).expect("file");
    file.write_all_at(b"damage", 4 << 20).expect("written");
    let target = dir.path().join("damaged");
    let file = fs::File::options().create(true).truncate(true).read(true).write(true).open(target);
    let index = &after.whole.index;
    let target = Target::new(file.expect("file"), &index.weave).expect("target");
    let chunks = numbered(index, &after.whole.tables);
    let absent = local.copy(&chunks, &target).expect("copies");
    let missing = target.missing(&chunks).expect("reads");
    assert_eq!(missing.len(), absent.len() + 1);
}

#[test]
fn a_chunk_with_other_bytes_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let made = made(&written(dir.path(), "in", &bytes(3, 300_000)));
    let entry = made.whole.tables[0][0];
    let packed = &made.packs[0].1[..entry.packed as usize];
    unpack(&entry, packed).expect("unpacks");
    for at in [0, packed.len() / 2, packed.len() - 1] {
        let mut wrong = packed.to_vec();
        wrong[at] ^= 1;
        let e = unpack(&entry, &wrong).expect_err("refused");
        assert!(e.to_string().contains(&entry.id.to_string()), "{e}");
    }
    let raw = vec![0; entry.blocks as usize * BLOCK];
    assert!(unpack(&entry, &raw).is_err());
    // A little that claims to be much is not unpacked.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("compresses");
    assert!(unpack(&entry, &bomb).is_err());
    assert!(Index::parse(&bomb).is_err());
}

#[test]
fn an_index_that_contradicts_itself_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let Made { whole, .. } = made(&written(dir.path(), "in", &bytes(4, 6_000_000)));
    assert!(whole.index.packs.len() > 1, "one pack can be left out");
    let refused = |change: &dyn Fn(&mut Index)| {
        let mut index = whole.index.clone();
        change(&mut index);
        let blob = index.encode().expect("encodes");
        Index::parse(&blob).and_then(|index| index.check(&whole.tables)).expect_err("refused")
    };
    refused(&|index| index.weave.size += 4096);
    refused(&|index| index.weave.runs[0].blocks += 1);
    refused(&|index| index.weave.runs[0].blocks = 0);
    refused(&|index| index.weave.runs[0].strand = None);
    refused(&|index| index.packs[0].chunks = u64::MAX / 4);
    refused(&|index| index.packs[0].table_size = u64::MAX);
    refused(&|index| index.packs.truncate(1));
    // Runs of a byte each would fill the host's memory.
    let mut many = whole.index.clone();
    let strands = [None, Some(Strand::Contents)];
    let run = |n: u64| Run { strand: strands[(n % 2) as usize], blocks: 1 };
    many.weave.runs = (0..=index::MAX_RUNS).map(run).collect();
    let e = many.encode().expect_err("refused");
    assert!(e.to_string().contains("in 4194305 pieces; the limit is 4194304"), "{e}");
    let mut claim = b"devbox/chunks/1\n\x01".to_vec();
    claim.extend([0; 32]);
    varint::put(&mut claim, index::MAX_RUNS + 1);
    claim.extend([3, 5].repeat(100));
    let e = Index::read(&claim).expect_err("refused");
    assert!(e.to_string().contains("4194305 is above the limit of 4194304"), "{e}");
    let (head, size) = (whole.index.packs[0], whole.packs[0].size);
    let table = encode_table(&whole.tables[0]);
    head.read_table(&table, size).expect("reads");
    assert!(head.read_table(&table, size + 1).is_err());
    assert!(head.read_table(&table[1..], size).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is inserted, removed and overwritten: the new disk comes out right.
    #[test]
    fn every_change_comes_out_right(
        edits in proptest::collection::vec((0usize..200, 0usize..40, 0usize..40, any::<u64>()), 1..6),
        tail in 0usize..BLOCK,
    ) {
        let dir = tempfile::tempdir().expect("folder");
        let old = bytes(11, 200 * BLOCK);
        let mut new = old.clone();
        for (at, removed, inserted, seed) in edits {
            let at = (at * BLOCK).min(new.len());
            let end = (at + removed * BLOCK).min(new.len());
            let what = if seed % 3 == 0 { vec![0; inserted * BLOCK] } else { bytes(seed, inserted * BLOCK) };
            new.splice(at..end, what);
        }
        new.extend(bytes(5, tail));
        let path = written(dir.path(), "old", &old);
        let mut local = Local::default();
        local.add(&path, &made(&path).whole).expect("adds");
        let after = made(&written(dir.path(), "new", &new));
        let (out, _) = assembled(dir.path(), &after, &local);
        prop_assert!(out == new);
    }
}
