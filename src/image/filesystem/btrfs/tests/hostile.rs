//! Damaged and malicious images: each ends in a tree or in one error that names the object.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fill::{noise, prose};
use super::workshop::{Workshop, is_made, run};
use crate::error::{Error, Kind, Result};
use crate::image::filesystem::btrfs::Btrfs;
use crate::image::filesystem::btrfs::checksum::Checksum;
use crate::image::oracle::{Memory, Numbers};
use crate::image::tree::{Filesystem as _, NodeKind};
use crate::image::{Limits, ReadAt};

/// Longest time that one image may take: far more than any needs.
const DEADLINE: Duration = Duration::from_secs(10);
const SUPER: usize = 64 << 10;
const NODE: usize = 4096;

/// Contents by inode and names in order: all that damage could change.
type Seen = BTreeMap<Vec<u8>, Vec<u8>>;

fn make(workshop: &Workshop, profile: &str) -> Vec<u8> {
    let (root, image) = (workshop.path("tree"), workshop.path(profile));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("a/b")).unwrap();
    for i in 0..150 {
        fs::write(root.join(format!("a/name-of-some-length-{i:03}")), noise(i * 40, 1)).unwrap();
    }
    fs::write(root.join("large"), prose(150_000, 3)).unwrap();
    std::os::unix::fs::symlink("t".repeat(200), root.join("link")).unwrap();
    // Mixed block groups make the smallest images; for two copies of them mkfs finds no room.
    let mixed: &[&str] = if profile == "single" { &["-M"] } else { &["-n", "4096"] };
    let arguments = [mixed, &["-q", "-f", "-m", profile, "-d", profile, "--rootdir"]].concat();
    fs::File::create(&image)
        .unwrap()
        .set_len(if profile == "single" { 16 } else { 128 } << 20)
        .unwrap();
    run(Command::new("mkfs.btrfs").args(arguments).args([&root, &image]));
    fs::read(image).unwrap()
}

fn limits() -> Limits {
    Limits { contents: 256 << 20, entries: 10_000, ..Limits::default() }
}

fn look(device: Arc<dyn ReadAt>) -> Result<Seen> {
    let started = Instant::now();
    let result = (|| {
        let filesystem = Btrfs::open(device, &limits())?;
        let tree = filesystem.tree()?;
        let mut seen = Seen::new();
        for node in &tree.nodes {
            let mut contents = format!("{:?}", (node.mode, node.uid, &node.xattrs)).into_bytes();
            match &node.kind {
                NodeKind::File { size, .. } => {
                    let mut length = 0;
                    filesystem.read_file(node, &mut |piece| {
                        assert!(piece.len() <= 1 << 20);
                        length += piece.len() as u64;
                        contents.extend_from_slice(piece.get(..100).unwrap_or(piece));
                        contents.extend(Checksum::Crc32c.compute(piece));
                        Ok(())
                    })?;
                    assert_eq!(length, *size);
                }
                kind => contents.extend(format!("{kind:?}").into_bytes()),
            }
            seen.insert(node.name.clone(), contents);
        }
        Ok(seen)
    })();
    assert!(started.elapsed() < DEADLINE, "it took {:?}", started.elapsed());
    result
}

fn device(bytes: &[u8]) -> Arc<dyn ReadAt> {
    Memory::shared(bytes.to_vec())
}

/// An image with another block in it.
struct Patched {
    image: Arc<Vec<u8>>,
    at: usize,
    block: Vec<u8>,
}

impl ReadAt for Patched {
    fn size(&self) -> u64 {
        self.image.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        crate::image::slice::check_range(buf.len(), offset, self.size())?;
        let start = offset as usize;
        let end = start + buf.len();
        buf.copy_from_slice(&self.image[start..end]);
        let (first, last) = (start.max(self.at), end.min(self.at + self.block.len()));
        if first < last {
            let patch = &self.block[first - self.at..last - self.at];
            buf[first - start..last - start].copy_from_slice(patch);
        }
        Ok(())
    }
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Where tree blocks are that belong to the filesystem.
fn blocks(image: &[u8]) -> Vec<usize> {
    let uuid = &image[SUPER + 32..SUPER + 48];
    let is_block = |at: &usize| {
        let block = &image[*at..*at + NODE];
        let sum = Checksum::Crc32c.compute(&block[32..]);
        *at != SUPER && &block[32..48] == uuid && block[..4] == sum[..4]
    };
    (0..image.len()).step_by(NODE).filter(is_block).collect()
}

/// Gives a block the checksum of what is in it.
fn seal(image: &mut [u8], at: usize) {
    let sum = Checksum::Crc32c.compute(&image[at + 32..at + NODE]);
    image[at..at + 32].copy_from_slice(&sum);
}

fn is_clear(e: &Error) -> bool {
    e.kind() == Kind::Undetermined && !e.what().is_empty()
}

#[test]
fn flipped_bits_are_seen_or_mended_by_the_second_copy() {
    if !is_made("flipped_bits_are_seen_or_mended_by_the_second_copy") {
        return;
    }
    let workshop = Workshop::new();
    for (profile, mended) in [("single", false), ("dup", true)] {
        let image = Arc::new(make(&workshop, profile));
        let whole = look(device(&image)).unwrap();
        assert!(whole.len() > 150);
        let mut numbers = Numbers::new(5);
        let places = [&blocks(&image)[..], &[SUPER]].concat();
        let (mut errors, mut equal) = (0, 0);
        for _ in 0..150 {
            let at = places[numbers.below(places.len() as u64) as usize];
            let mut block = image[at..at + NODE].to_vec();
            for _ in 0..=numbers.below(3) {
                block[numbers.below(NODE as u64) as usize] ^= 1 << numbers.below(8);
            }
            match look(Arc::new(Patched { image: image.clone(), at, block })) {
                Ok(seen) => {
                    assert_eq!(seen, whole, "damage at {at} was not seen");
                    equal += 1;
                }
                Err(e) => {
                    assert!(is_clear(&e), "{e}");
                    errors += 1;
                }
            }
        }
        // Old blocks and those of the extent tree are not read; all of dup but the superblock is
        // there twice.
        assert!(equal > 0 && (mended || errors > 0), "{profile}: {errors} errors, {equal} equal");
    }
}

#[test]
fn flipped_bits_under_right_checksums_never_panic_or_hang() {
    if !is_made("flipped_bits_under_right_checksums_never_panic_or_hang") {
        return;
    }
    let workshop = Workshop::new();
    let image = Arc::new(make(&workshop, "single"));
    let mut numbers = Numbers::new(6);
    let places = [&blocks(&image)[..], &[SUPER, SUPER]].concat();
    let mut errors = 0;
    for _ in 0..400 {
        let place = places[numbers.below(places.len() as u64) as usize];
        let mut bytes = image[place..place + NODE].to_vec();
        for _ in 0..=numbers.below(4) {
            // Headers and the tables behind them are where most decisions are made.
            let reach = if numbers.below(2) == 0 { 300 } else { NODE as u64 - 32 };
            let at = 32 + numbers.below(reach) as usize;
            bytes[at] = match numbers.below(4) {
                0 => 0xff,
                1 => 0,
                2 => bytes[at].wrapping_add(1),
                _ => bytes[at] ^ 1 << numbers.below(8),
            };
        }
        seal(&mut bytes, 0);
        if let Err(e) = look(Arc::new(Patched { image: image.clone(), at: place, block: bytes })) {
            assert!(is_clear(&e), "{e}");
            errors += 1;
        }
    }
    assert!(errors > 50, "only {errors} of 400 were noticed");
}

#[test]
fn contents_that_changed_are_an_error() {
    if !is_made("contents_that_changed_are_an_error") {
        return;
    }
    let workshop = Workshop::new();
    for profile in ["single", "dup"] {
        let mut image = make(&workshop, profile);
        let whole = look(device(&image)).unwrap();
        let contents = prose(150_000, 3);
        let part = &contents[40_000..40_100];
        let found: Vec<usize> = memchr::memmem::find_iter(&image, part).collect();
        assert_eq!(found.len(), if profile == "dup" { 2 } else { 1 });
        image[found[0]] ^= 1;
        match (profile, look(device(&image))) {
            ("dup", seen) => assert_eq!(seen.unwrap(), whole),
            (_, seen) => {
                let e = seen.unwrap_err();
                assert!(e.what().contains("contents at address"), "{e}");
                assert!(e.causes()[0].contains("checksum"), "{e}");
            }
        }
    }
}

#[test]
fn a_second_copy_that_was_needed_is_noted() {
    if !is_made("a_second_copy_that_was_needed_is_noted") {
        return;
    }
    let workshop = Workshop::new();
    let mut image = make(&workshop, "dup");
    let all = blocks(&image);
    let address = |at: usize| le64(&image, at + 48);
    // The first copies of all blocks.
    let first: Vec<usize> = all
        .iter()
        .copied()
        .filter(|at| all.iter().any(|o| o > at && address(*o) == address(*at)))
        .collect();
    first.iter().for_each(|at| image[at + 200] ^= 0xff);
    let filesystem = Btrfs::open(device(&image), &limits()).unwrap();
    filesystem.tree().unwrap();
    let notes = filesystem.late_notes();
    assert!(matches!(&notes[..], [note] if note.contains("second copy")), "{notes:?}");
}

/// A block of level 1 and the number of its children.
fn parent(image: &[u8]) -> usize {
    let is_parent = |at: &usize| image[at + 100] == 1 && le64(image, at + 88) == 5;
    blocks(image).into_iter().rfind(is_parent).expect("a tree of two levels")
}

fn refused(image: &[u8], words: &str) {
    let e = look(device(image)).expect_err(words);
    assert!(is_clear(&e) && e.to_string().contains(words), "{words}: {e}");
}

#[test]
fn claims_that_are_no_tree_are_refused() {
    if !is_made("claims_that_are_no_tree_are_refused") {
        return;
    }
    let workshop = Workshop::new();
    let image = make(&workshop, "single");
    let node = parent(&image);
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let block = if at < SUPER + NODE { SUPER } else { at - at % NODE };
        seal(&mut image, block);
        image
    };
    // A block that is its own child; the child of its neighbour; one that nobody wrote.
    let own = image[node + 48..node + 56].to_vec();
    refused(&changed(node + 101 + 17, &own), "its level is 1, not 0");
    let next = image[node + 101 + 33 + 17..][..8].to_vec();
    refused(&changed(node + 101 + 17, &next), "the tree block at");
    refused(&changed(node + 101 + 17, &(1u64 << 40).to_le_bytes()), "no chunk holds it");
    // Keys out of order; more children than there is room for; a leaf at the top.
    let last = [0xff; 8];
    refused(&changed(node + 101, &last), "the tree block at");
    refused(&changed(node + 96, &u32::MAX.to_le_bytes()), "it has 4294967295 entries");
    refused(&changed(node + 100, &[9]), "its level is 9");
    // The superblock: a chunk without an end, thousands of stripes, chunks beyond the array.
    let chunk = SUPER + 811 + 17;
    refused(&changed(chunk, &u64::MAX.to_le_bytes()), "chunk");
    refused(&changed(chunk + 44, &u16::MAX.to_le_bytes()), "structure");
    refused(&changed(SUPER + 160, &u32::MAX.to_le_bytes()), "system chunks");
    refused(&changed(SUPER + 148, &(1u32 << 30).to_le_bytes()), "tree blocks of 1073741824");
    refused(&changed(SUPER + 80, &u64::MAX.to_le_bytes()), "the root of tree 1");
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    if !is_made("what_is_not_read_is_refused_by_name") {
        return;
    }
    let workshop = Workshop::new();
    let image = make(&workshop, "single");
    let with = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[SUPER + at..][..bytes.len()].copy_from_slice(bytes);
        seal(&mut image, SUPER);
        image
    };
    let incompat = le64(&image, SUPER + 188);
    for (bit, name) in [
        (12, "`zoned`"),
        (13, "`extent_tree_v2`"),
        (14, "`raid_stripe_tree`"),
        (15, "unknown incompatible feature (bit 15)"),
        (63, "unknown incompatible feature (bit 63)"),
    ] {
        refused(&with(188, &(incompat | 1 << bit).to_le_bytes()), name);
    }
    for (bit, name) in
        [(32, "`seeding`"), (33, "`metadump`"), (35, "`changing_fsid`"), (50, "bit 50")]
    {
        refused(&with(56, &(1u64 | 1 << bit).to_le_bytes()), name);
    }
    refused(&with(136, &2u64.to_le_bytes()), "2 devices");
    refused(&with(96, &(1u64 << 20).to_le_bytes()), "log tree");
    for (bit, name) in [(3, "RAID0"), (4, "RAID1"), (6, "RAID10"), (7, "RAID5"), (9, "RAID1C3")] {
        refused(&with(811 + 17 + 24, &(2u64 | 1 << bit).to_le_bytes()), name);
    }
}

#[test]
fn other_profiles_are_refused_by_name() {
    if !is_made("other_profiles_are_refused_by_name") {
        return;
    }
    let workshop = Workshop::new();
    let second = workshop.path("second");
    fs::File::create(&second).unwrap().set_len(256 << 20).unwrap();
    let more = second.to_str().unwrap();
    let image = workshop.path("image");
    for profile in ["raid0", "raid1"] {
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let two: [&Path; 2] = [&image, Path::new(more)];
        run(Command::new("mkfs.btrfs").args(["-q", "-f", "-m", profile, "-d", profile]).args(two));
        let e = super::workshop::open(&image).err().expect("refused");
        assert!(e.what().contains("2 devices"), "{e}");
    }
}
