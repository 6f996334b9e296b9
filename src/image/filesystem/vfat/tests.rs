//! Filesystems made by `mkfs.vfat` and `mcopy`, read back by `mtype`, and the same ones damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Vfat;
use crate::error::{Kind, Result};
use crate::image::oracle::{Memory, Numbers, patchwork, run, tool};
use crate::image::tree::{Filesystem, Node, NodeKind, Tree};
use crate::image::{Limits, ReadAt};

const NAMES: [&str; 7] = [
    "README.TXT",
    "lower.txt",
    "Mixed Case and a long name.conf",
    "\u{fc}n\u{ef}c\u{f6}de \u{6f22}.bin",
    "sub/deeper/core.efi",
    "sub/empty",
    "a-name-of-exactly-26-chars",
];

fn open(data: Vec<u8>) -> Result<Vfat> {
    let reader: Arc<dyn ReadAt> = Memory::shared(data);
    Vfat::open(reader, &Limits::default())
}

/// Every path with its node.
fn paths(tree: &Tree) -> BTreeMap<String, Node> {
    fn walk(tree: &Tree, id: u32, at: &str, out: &mut BTreeMap<String, Node>) {
        let NodeKind::Directory { children } = &tree.nodes[id as usize].kind else { return };
        for child in children {
            let node = &tree.nodes[*child as usize];
            let path = format!("{at}{}", String::from_utf8_lossy(&node.name));
            walk(tree, *child, &format!("{path}/"), out);
            out.insert(path, node.clone());
        }
    }
    let mut out = BTreeMap::new();
    walk(tree, 0, "", &mut out);
    out
}

fn read(filesystem: &Vfat, node: &Node) -> Result<Vec<u8>> {
    let mut data = vec![];
    filesystem.read_file(node, &mut |piece| {
        assert!(piece.len() <= 1 << 20);
        data.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(data)
}

/// A filesystem of `kib` KiB and width `bits` with [`NAMES`] in it.
fn made(dir: &Path, bits: &str, kib: &str, per_cluster: &str) -> Option<Vec<u8>> {
    let test = "vfat";
    let (mkfs, mcopy) = (tool("mkfs.vfat", test)?, tool("mcopy", test)?);
    let mattrib = tool("mattrib", test)?;
    let _ = fs::remove_file(dir.join("fs"));
    run(
        dir,
        &mkfs,
        &["-C", "-F", bits, "-s", per_cluster, "-i", "12345678", "-n", "MY LABEL", "fs", kib],
    );
    fs::create_dir_all(dir.join("tree/sub/deeper")).expect("mkdir");
    for (n, name) in (0..).zip(NAMES) {
        let data = if name.ends_with("empty") {
            vec![]
        } else {
            patchwork(1000 + 70_001 * n, n as u64 + 1)
        };
        fs::write(dir.join("tree").join(name), data).expect("write");
    }
    let sh = format!("cd tree && LC_ALL=C.UTF-8 {} -s -i ../fs * ::", mcopy.display());
    run(dir, Path::new("sh"), &["-c", &sh]);
    run(dir, &mattrib, &["-i", "fs", "+r", "::README.TXT"]);
    Some(fs::read(dir.join("fs")).expect("read"))
}

#[test]
fn every_width_reads_as_mtools_wrote_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (bits, kib, per_cluster) in
        [("12", "2048", "2"), ("16", "20000", "2"), ("32", "40000", "1")]
    {
        let Some(data) = made(dir.path(), bits, kib, per_cluster) else { return };
        let filesystem = open(data).expect("it opens");
        let identity = filesystem.identity();
        assert_eq!((&identity.label[..], identity.uuid.as_str()), (&b"MY LABEL"[..], "1234-5678"));
        assert_eq!(filesystem.notes(), Vec::<String>::new());
        let found = paths(&filesystem.tree().expect("a tree"));
        let mut expected: Vec<&str> = NAMES.to_vec();
        expected.extend(["sub", "sub/deeper"]);
        expected.sort_unstable();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected);
        for name in NAMES {
            let bytes = read(&filesystem, &found[name]).expect("it reads");
            assert!(bytes == fs::read(dir.path().join("tree").join(name)).expect("read"), "{name}");
        }
        assert_eq!(
            (found["README.TXT"].mode, found["lower.txt"].mode, found["sub"].mode),
            (0o444, 0o644, 0o755)
        );
        if let Some(mtype) = tool("mtype", "vfat") {
            let theirs = run(dir.path(), &mtype, &["-i", "fs", "::sub/deeper/core.efi"]);
            assert!(read(&filesystem, &found["sub/deeper/core.efi"]).expect("it reads") == theirs);
        }
        // mcopy without -m stamps the current time, so a wrong place of the field would show.
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() as i64;
        assert!((found["lower.txt"].mtime - now).abs() < 26 * 3600, "{}", found["lower.txt"].mtime);
    }
}

#[test]
fn damage_that_fsck_would_find_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(good) = made(dir.path(), "16", "20000", "2") else { return };
    let reserved = usize::from(u16::from_le_bytes([good[14], good[15]])) * 512;
    let fat = usize::from(u16::from_le_bytes([good[22], good[23]])) * 512;
    let found = paths(&open(good.clone()).expect("opens").tree().expect("tree"));
    let first = |name: &str| match found[name].kind {
        NodeKind::File { inode, .. } => inode as usize,
        _ => panic!("a file"),
    };
    let link = |data: &mut [u8], from: usize, to: usize| {
        for copy in 0..2 {
            let at = reserved + copy * fat + from * 2;
            data[at..at + 2].copy_from_slice(&(to as u16).to_le_bytes());
        }
    };
    let core = first("sub/deeper/core.efi");
    let cases: [(&str, usize, usize); 4] = [
        ("in use already", core, core),
        ("in use already", core, first("lower.txt")),
        ("does not exist", core, 0xfff0),
        ("its chain has 1", core, 0xffff),
    ];
    for (word, from, to) in cases {
        let mut data = good.clone();
        link(&mut data, from, to);
        let e = open(data).and_then(|fs| fs.tree()).expect_err("damage");
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
    let mut data = good.clone();
    data[reserved + 100] ^= 1;
    let e = open(data).expect_err("the copies differ");
    assert!(e.what().contains("allocation table differ"), "{e}");

    let mut dirty = good.clone();
    for copy in 0..2 {
        dirty[reserved + copy * fat + 3] &= 0x7f;
    }
    assert!(open(dirty).expect("opens").notes()[0].contains("not cleanly unmounted"));

    // README.TXT's short entry becomes a second `lower.txt` in capitals.
    let mut data = good;
    let at = data.windows(11).position(|w| w == b"README  TXT").expect("an entry");
    data[at..at + 11].copy_from_slice(b"LOWER   TXT");
    let e = open(data).and_then(|fs| fs.tree()).expect_err("two of one name");
    assert!(e.to_string().contains("only in case"), "{e}");
}

/// Firmware finds `BOOTX64.EFI` by a short name too.
#[test]
fn a_short_name_that_is_not_made_from_the_long_one_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(good) = made(dir.path(), "16", "20000", "1") else { return };
    let at = good.windows(8).position(|w| w == b"MIXEDC~1").expect("an entry");
    let sum = |short: &[u8]| short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
    for (short, is_refused) in [(b"BOOTX64 EFI", true), (b"MIXED~99CON", false)] {
        let mut data = good.clone();
        data[at..at + 11].copy_from_slice(short);
        // The first letter of the long name: a message shows what a terminal would obey.
        data[at - 31] = b'\t';
        // The slots of the long name stand in front and say to which short one they belong.
        let mut slot = at - 32;
        while data[slot + 11] == 0x0f {
            data[slot + 13] = sum(short);
            slot -= 32;
        }
        let outcome = open(data).and_then(|fs| fs.tree());
        assert_eq!(outcome.is_err(), is_refused);
        if let Err(e) = outcome {
            assert!(e.to_string().contains("a second name, `BOOTX64 EFI`"), "{e}");
            assert!(e.to_string().contains("`\\t"), "{e}");
        }
    }
}

#[test]
fn damage_anywhere_is_an_error_or_a_tree() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut numbers = Numbers::new(5);
    let began = Instant::now();
    for (bits, kib) in [("12", "2048"), ("16", "20000"), ("32", "40000")] {
        let Some(good) = made(dir.path(), bits, kib, "1") else { return };
        // Up to the end of the last data.
        let live = good.iter().rposition(|b| *b != 0).unwrap_or(0) as u64;
        let fats = good.windows(11).position(|w| w == b"README  TXT").expect("an entry") as u64;
        let mut disk = Memory(good.clone());
        for _ in 0..700 {
            let mut touched = vec![];
            for _ in 0..=numbers.below(6) {
                let at = match numbers.below(4) {
                    0 => numbers.below(90),
                    1 => fats + numbers.below(600),
                    2 => numbers.below(fats),
                    _ => numbers.below(live),
                } as usize;
                disk.0[at] = numbers.next() as u8;
                touched.push(at);
            }
            let shared = Arc::new(disk);
            let outcome = Vfat::open(shared.clone() as Arc<dyn ReadAt>, &Limits::default())
                .and_then(|filesystem| {
                    let tree = filesystem.tree()?;
                    for node in &tree.nodes {
                        read(&filesystem, node)?;
                    }
                    Ok(())
                });
            if let Err(e) = outcome {
                assert_eq!(e.kind(), Kind::Undetermined, "{e}");
            }
            disk = Arc::into_inner(shared).expect("no other owner");
            touched.iter().for_each(|at| disk.0[*at] = good[*at]);
        }
    }
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}
