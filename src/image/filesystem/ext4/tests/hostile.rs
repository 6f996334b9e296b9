//! Damaged and malicious images: each ends in a tree or in one error that names the object.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kernel::{noise, set_xattr};
use super::workshop::{Bytes, Workshop, run};
use crate::error::{Error, Kind, Result};
use crate::image::Limits;
use crate::image::filesystem::ext4::{Ext4, blockmap, inode, scan};
use crate::image::tree::{Filesystem as _, NodeKind};

/// Without checksums, so that damage reaches what lies behind them.
const BARE: &str = "^metadata_csum";

/// A small image with one of each structure, in blocks of 1 KiB.
fn make(workshop: &Workshop, kind: &str, features: &str) -> PathBuf {
    let root = workshop.path("tree");
    fs::create_dir_all(root.join("a/b")).unwrap();
    for i in 0..60 {
        let name = root.join(format!("a/a-name-of-some-length-{i:02}"));
        fs::write(name, noise(i * 40, 1)).unwrap();
    }
    fs::write(root.join("large"), noise(150_000, 3)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for i in 0..30u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", i * 9000).unwrap();
    }
    std::os::unix::fs::symlink("t".repeat(200), root.join("slow-link")).unwrap();
    std::os::unix::fs::symlink("large", root.join("link")).unwrap();
    fs::hard_link(root.join("large"), root.join("a/again")).unwrap();
    set_xattr(&root.join("a"), "user.block", &noise(500, 5));
    set_xattr(&root.join("large"), "user.note", b"in the inode");
    set_xattr(&root.join("sparse"), "system.posix_acl_access", super::kernel::ACL);
    let tree = root.to_str().unwrap();
    let arguments =
        ["-t", kind, "-b", "1024", "-I", "256", "-N", "256", "-O", features, "-d", tree];
    workshop.image("4M", &arguments)
}

fn debugfs(image: &PathBuf, commands: &[&str]) {
    for command in commands {
        run(Command::new("debugfs").args(["-w", "-R", command]).arg(image));
    }
}

/// Leaves three transactions in the journal.
fn leave_journal(workshop: &Workshop, image: &PathBuf) {
    let contents = workshop.path("contents");
    fs::write(&contents, noise(3072, 8)).unwrap();
    let script = workshop.path("script");
    let contents = contents.display();
    fs::write(
        &script,
        format!("jo -c\njw -b 3000,3001 {contents}\njw -r 3001\njw -b 3002 {contents}\njc\n"),
    )
    .unwrap();
    run(Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(image));
}

fn open(bytes: Vec<u8>) -> Result<Ext4> {
    Ext4::open(Arc::new(Bytes(bytes)), &Limits::default())
}

/// All that a user of the reader does; contents up to 4 MiB.
fn exercise(bytes: Vec<u8>) -> Result<()> {
    let filesystem = open(bytes)?;
    let tree = filesystem.tree()?;
    let mut left = 4usize << 20;
    for node in &tree.nodes {
        if matches!(node.kind, NodeKind::File { .. }) {
            filesystem.read_file(node, &mut |piece| {
                left =
                    left.checked_sub(piece.len()).ok_or_else(|| Error::undetermined("enough"))?;
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Byte offsets of all blocks that hold metadata.
fn metadata(bytes: &[u8]) -> Vec<usize> {
    let filesystem = open(bytes.to_vec()).unwrap();
    let inodes = scan::scan(&filesystem.volume, &filesystem.groups, &Limits::default()).unwrap();
    let mut blocks: HashSet<u64> = (1..=4).collect();
    // Both bitmaps and the inode table of the only group.
    let group = &filesystem.groups[0];
    blocks.extend(group.inode_table - 2..group.inode_table + 64);
    for used in inodes.all() {
        let inode = &used.inode;
        if inode.xattr_block != 0 {
            blocks.insert(inode.xattr_block);
        }
        let mapped = matches!(inode.kind, inode::Type::Directory | inode::Type::File);
        if mapped && !inode.has(inode::INLINE_DATA) {
            let runs = blockmap::runs(&filesystem.volume, inode, &mut blocks).unwrap();
            if inode.kind == inode::Type::Directory {
                blocks.extend(runs.iter().flat_map(|run| run.physical..run.physical + run.count));
            }
        }
    }
    let journal = 0xc03b_3998u32.to_be_bytes();
    blocks.extend(
        (0..).zip(bytes.chunks(1024)).filter(|(_, b)| b.starts_with(&journal)).map(|b| b.0),
    );
    let mut blocks: Vec<usize> = blocks.into_iter().map(|b| b as usize * 1024).collect();
    blocks.sort_unstable();
    blocks
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

fn damage(bytes: &mut [u8], blocks: &[usize], random: &mut Random) {
    for _ in 0..=random.below(8) {
        // Half of what a block holds starts near its head.
        let within = if random.below(2) == 0 { 256 } else { 1016 };
        let at = blocks[random.below(blocks.len())] + random.below(within);
        match random.below(6) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at & !3..][..4].fill([0, 0xff][random.below(2)]),
            3 => bytes[at & !1..][..2].copy_from_slice(&(random.below(65536) as u16).to_le_bytes()),
            4 => {
                let value = random.below(5000) as u32;
                bytes[at & !3..][..4].copy_from_slice(&value.to_le_bytes());
            }
            _ => {
                let from = blocks[random.below(blocks.len())] & !3;
                let length = 4 << random.below(7);
                let to = at & !3;
                let length = length.min(bytes.len() - to.max(from));
                bytes.copy_within(from..from + length, to);
            }
        }
    }
}

/// Rounds of seeded damage; no panic, no hang, one kind of error.
fn survive(kind: &str, features: &str, journal: bool, seed: u64) {
    let workshop = Workshop::new();
    let path = make(&workshop, kind, features);
    if journal {
        leave_journal(&workshop, &path);
    }
    let original = fs::read(path).unwrap();
    exercise(original.clone()).unwrap();
    let blocks = metadata(&original);
    let mut random = Random(seed);
    let (mut read, mut refused) = (0, HashSet::new());
    for round in 0..3000 {
        let mut bytes = original.clone();
        damage(&mut bytes, &blocks, &mut random);
        let start = Instant::now();
        match exercise(bytes) {
            Ok(()) => read += 1,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Undetermined, "round {round}: {error}");
                assert!(!error.hints().is_empty() || error.what() == "enough", "{error}");
                refused.insert(error.what().to_owned());
            }
        }
        let time = start.elapsed();
        assert!(time < Duration::from_secs(10), "round {round} took {time:?}");
    }
    assert!(read < 2700 && refused.len() > 20, "{read} read, {} ways to refuse", refused.len());
}

#[test]
fn damage_without_checksums_neither_panics_nor_hangs() {
    survive("ext4", BARE, false, 1);
    survive("ext4", "^metadata_csum,inline_data,^has_journal", false, 2);
}

#[test]
fn damage_of_ext2_neither_panics_nor_hangs() {
    survive("ext2", "large_file", false, 3);
}

#[test]
fn damage_of_a_journal_neither_panics_nor_hangs() {
    survive("ext4", BARE, true, 4);
    survive("ext3", "large_file", true, 5);
}

#[test]
fn damage_under_checksums_neither_panics_nor_hangs() {
    survive("ext4", "metadata_csum,inline_data", false, 6);
}

#[test]
fn each_structure_with_a_bad_checksum_is_named() {
    let workshop = Workshop::new();
    let original = fs::read(make(&workshop, "ext4", "metadata_csum")).unwrap();
    let filesystem = open(original.clone()).unwrap();
    let tree = filesystem.tree().unwrap();
    let find = |path: &[u8]| -> u32 {
        match tree.nodes[tree.lookup(path).unwrap() as usize].kind {
            NodeKind::File { inode, .. } => inode as u32,
            _ => panic!(),
        }
    };
    let used = scan::scan(&filesystem.volume, &filesystem.groups, &Limits::default()).unwrap();
    let directory = used.all().iter().find(|u| u.inode.xattr_block != 0).unwrap();
    let runs = |inode| {
        let mut nodes = HashSet::new();
        let runs = blockmap::runs(&filesystem.volume, inode, &mut nodes).unwrap();
        (runs, nodes)
    };
    let sparse = &used.all()[used.find(find(b"/sparse")).unwrap()].inode;
    let extent_block = *runs(sparse).1.iter().next().unwrap() as usize * 1024;
    let directory_block = runs(&directory.inode).0[0].physical as usize * 1024;
    let large = find(b"/large");
    let large_at = inode::offset(&filesystem.volume.sb, &filesystem.groups[0], large - 1) as usize;
    let table = filesystem.groups[0].inode_table as usize * 1024;
    let descriptor = 2048;
    let bitmap =
        u32::from_le_bytes(original[descriptor + 4..descriptor + 8].try_into().unwrap()) as usize;
    assert!(bitmap * 1024 < table);
    for (at, name) in [
        (1024 + 0x78, "the superblock".to_owned()),
        (descriptor + 12, "the descriptor of group 0".into()),
        (bitmap * 1024, "the inode bitmap of group 0".into()),
        (large_at + 8, format!("inode {large}")),
        (extent_block + 20, format!("of inode {}", sparse.number)),
        (directory_block + 100, "block 0 of directory inode".into()),
        (directory.inode.xattr_block as usize * 1024 + 1000, "attribute block".into()),
    ] {
        let mut bytes = original.clone();
        bytes[at] ^= 4;
        let error = exercise(bytes).unwrap_err();
        assert!(error.what().contains(&name), "{name}: {error}");
        assert!(error.causes().iter().any(|c| c.contains("checksum")), "{name}: {error}");
    }
}

/// What the error says of an image changed by `debugfs`.
fn refused(commands: &[&str]) -> String {
    let workshop = Workshop::new();
    let path = make(&workshop, "ext4", BARE);
    debugfs(&path, commands);
    let error = exercise(fs::read(path).unwrap()).err();
    error.map_or("accepted".into(), |e| e.to_string())
}

#[test]
fn impossible_directories_are_refused() {
    let mut wrong = Vec::new();
    for (commands, expected) in [
        (&["ln a a/b/circle"][..], "second name of directory inode"),
        (&["ln a/b other"], "its entry `..` does not lead to inode 2"),
        (&["ln <250> ghost"], "inode 250, which is not in use"),
        (&["ln sparse more"], "more names than its link count of 1"),
        (&["sif sparse mode 0010644"], "different file types"),
        (&["sif sparse mode 0"], "its mode is"),
        (&["sif a size 5"], "its size and its blocks disagree"),
        (&["clri a"], "which is not in use"),
        (&["sif slow-link size 5000"], "from 1 to 4095 bytes"),
        (&["sif <2> mode 0100644"], "inode 2 is no directory"),
        (&["sif large size 0x7fffffffffffffff"], "its size is"),
        (&["freei large"], "which is not in use"),
    ] {
        let error = refused(commands);
        if !error.contains(expected) {
            wrong.push(format!("{commands:?}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn impossible_names_are_refused() {
    let workshop = Workshop::new();
    let original = fs::read(make(&workshop, "ext4", BARE)).unwrap();
    let old = b"a-name-of-some-length-07";
    let at = original.windows(old.len()).position(|w| w == old).unwrap();
    for (byte, expected) in [(b'/', "impossible name `/-name"), (0, "impossible name `\\x00-name")]
    {
        let mut bytes = original.clone();
        bytes[at] = byte;
        let error = exercise(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut bytes = original.clone();
    bytes[at + old.len() - 1] = b'8';
    let error = exercise(bytes).unwrap_err().to_string();
    assert!(error.contains("the name `a-name-of-some-length-08` twice"), "{error}");
    let mut bytes = original;
    bytes[at] = b'.';
    bytes[at - 2] = 1;
    let error = exercise(bytes).unwrap_err().to_string();
    assert!(error.contains("the name `.` twice"), "{error}");
}

#[test]
fn features_that_are_not_read_are_named() {
    for (feature, flags) in [("encrypt", "0x80800"), ("casefold", "0x40080000")] {
        let workshop = Workshop::new();
        let path = workshop.image("4M", &["-t", "ext4", "-O", feature]);
        // Switched on and not used, it changes nothing.
        exercise(fs::read(&path).unwrap()).unwrap();
        let set = format!("sif /secret flags {flags}");
        debugfs(&path, &["mkdir /secret", &set]);
        let error = exercise(fs::read(&path).unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Undetermined);
        let text = error.to_string();
        assert!(text.contains(&format!("`{feature}`")) && text.contains("on inode 12"), "{text}");
    }
    let workshop = Workshop::new();
    let path = workshop.image("4M", &["-t", "ext4", "-b", "1024", "-O", BARE]);
    let original = fs::read(path).unwrap();
    let with_bit = |field: usize, bit: u8| {
        let mut bytes = original.clone();
        bytes[1024 + field + usize::from(bit / 8)] |= 1 << (bit % 8);
        bytes
    };
    let error = exercise(with_bit(0x60, 20)).unwrap_err();
    assert!(error.what().contains("`FEATURE_I20`"), "{error}");
    let filesystem = open(with_bit(0x64, 25)).unwrap();
    assert!(filesystem.notes().iter().any(|n| n.contains("0x2000000")), "{:?}", filesystem.notes());
    filesystem.tree().unwrap();
}

#[test]
fn an_external_journal_that_holds_something_is_refused() {
    let workshop = Workshop::new();
    let path = workshop.image("4M", &["-t", "ext4", "-b", "1024", "-O", BARE]);
    debugfs(&path, &["ssv journal_inum 0", "ssv journal_dev 0x700", "feature needs_recovery"]);
    let error = exercise(fs::read(path).unwrap()).unwrap_err();
    assert!(error.what().contains("external journal"), "{error}");
}

#[test]
fn a_filesystem_in_use_without_a_journal_is_refused() {
    let workshop = Workshop::new();
    let path = workshop.image("4M", &["-t", "ext2"]);
    debugfs(&path, &["ssv state 0"]);
    let error = exercise(fs::read(path).unwrap()).unwrap_err();
    assert!(error.what().contains("not cleanly unmounted"), "{error}");
}

#[test]
fn a_cut_image_is_refused_at_once() {
    let workshop = Workshop::new();
    let mut bytes = fs::read(workshop.image("4M", &["-t", "ext4"])).unwrap();
    bytes.truncate(3 << 20);
    let error = open(bytes).err().unwrap().to_string();
    assert!(error.contains("4194304 bytes, but its device only 3145728"), "{error}");
    assert!(error.contains("copied completely"), "{error}");
    for length in [0, 100, 1024, 2047] {
        assert!(open(vec![0; length]).is_err());
        assert!(!super::super::probe(&Bytes(vec![0; length])).unwrap());
    }
}

#[test]
fn probe_knows_the_magic_number() {
    let workshop = Workshop::new();
    let bytes = fs::read(workshop.image("4M", &["-t", "ext2"])).unwrap();
    assert!(super::super::probe(&Bytes(bytes)).unwrap());
    assert!(!super::super::probe(&Bytes(vec![0; 8192])).unwrap());
}
