//! Damaged and hostile images: one clear error or the same bytes, never a panic, a hang or a guess.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::populate::{ACL, noise, set_xattr};
use super::workshop::Workshop;
use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Kind, Result};
use crate::image::filesystem::xfs::Xfs;
use crate::image::filesystem::xfs::checksum;
use crate::image::oracle::Numbers;
use crate::image::tree::{Filesystem as _, NodeKind};
use crate::image::{Limits, ReadAt};

/// A disk in memory, most of it zeros, that remembers which sectors were read.
struct Sparse {
    size: u64,
    blocks: std::collections::BTreeMap<u64, Vec<u8>>,
    read: std::sync::Mutex<HashSet<u64>>,
}

const BLOCK: u64 = 4096;

impl Sparse {
    fn new(bytes: &[u8]) -> Self {
        let blocks = (0..).zip(bytes.chunks(BLOCK as usize));
        let blocks = blocks.filter(|(_, block)| block.iter().any(|&b| b != 0));
        Sparse {
            size: bytes.len() as u64,
            blocks: blocks.map(|(i, block)| (i, block.to_vec())).collect(),
            read: Default::default(),
        }
    }

    fn copy(&self) -> Self {
        Sparse { size: self.size, blocks: self.blocks.clone(), read: Default::default() }
    }

    fn change(&mut self, at: u64) -> &mut u8 {
        let block = self.blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
        &mut block[(at % BLOCK) as usize]
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (i, byte) in (at..).zip(bytes) {
            *self.change(i) = *byte;
        }
    }

    fn get(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_at(&mut bytes, at).unwrap();
        bytes
    }

    /// Changes bytes of a structure and gives it the checksum that it then has.
    fn forge(&mut self, at: u64, length: usize, crc: usize, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.get(at, length);
        change(&mut bytes);
        let sum = checksum::compute(&bytes, crc).to_le_bytes();
        bytes[crc..crc + 4].copy_from_slice(&sum);
        self.put(at, &bytes);
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        crate::image::slice::check_range(buf.len(), offset, self.size)?;
        buf.fill(0);
        let mut read = self.read.lock().unwrap();
        let mut at = offset;
        while at < offset + buf.len() as u64 {
            read.insert(at / 512);
            let end = (at / 512 * 512 + 512).min(offset + buf.len() as u64);
            if let Some(block) = self.blocks.get(&(at / BLOCK)) {
                let from = (at % BLOCK) as usize;
                let length = (end - at) as usize;
                buf[(at - offset) as usize..][..length]
                    .copy_from_slice(&block[from..from + length]);
            }
            at = end;
        }
        Ok(())
    }
}

/// A small image with one of each structure, cut off or unmounted.
fn make(test: &str, cut: bool) -> Option<Sparse> {
    let workshop = Workshop::new(test)?;
    let image = workshop.image(32, &["-b", "size=1024", "-i", "size=512", "-d", "agcount=2"]);
    let mount = workshop.mount(&image, "rw");
    let root = &mount.0;
    fs::create_dir_all(root.join("a/b")).unwrap();
    for i in 0..300 {
        let name = root.join(format!("a/a-name-of-some-length-{i:03}"));
        fs::write(name, noise(i % 50, 1)).unwrap();
    }
    for i in 0..15 {
        fs::write(root.join(format!("a/b/{i}")), b"b").unwrap();
    }
    fs::write(root.join("large"), noise(150_000, 3)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for i in 0..60u64 {
        sparse.write_all_at(b"x", i * 9000).unwrap();
    }
    // An open file would keep the filesystem mounted.
    drop(sparse);
    std::os::unix::fs::symlink("t".repeat(900), root.join("remote-link")).unwrap();
    std::os::unix::fs::symlink("large", root.join("link")).unwrap();
    fs::hard_link(root.join("large"), root.join("a/again")).unwrap();
    set_xattr(&root.join("a"), "user.leaf", &noise(500, 5));
    set_xattr(&root.join("large"), "user.note", b"in the inode");
    set_xattr(&root.join("large"), "user.remote", &noise(3000, 7));
    set_xattr(&root.join("sparse"), "system.posix_acl_access", ACL);
    for i in 0..60 {
        set_xattr(&root.join("a/b"), &format!("user.tree-{i}"), &noise(100, i));
    }
    if cut {
        let request = ["-x", "-c", "shutdown -f"];
        super::workshop::run(std::process::Command::new("xfs_io").args(request).arg(root));
    }
    drop(mount);
    Some(Sparse::new(&fs::read(image).unwrap()))
}

fn clean() -> Option<&'static Sparse> {
    static IMAGE: OnceLock<Option<Sparse>> = OnceLock::new();
    IMAGE.get_or_init(|| make("damage of a clean filesystem", false)).as_ref()
}

fn dirty() -> Option<&'static Sparse> {
    static IMAGE: OnceLock<Option<Sparse>> = OnceLock::new();
    IMAGE.get_or_init(|| make("damage of a log", true)).as_ref()
}

/// All that a user of the reader sees; contents up to 4 MiB.
fn exercise(disk: Arc<Sparse>) -> Result<String> {
    let filesystem = Xfs::open(disk, &Limits::default())?;
    let tree = filesystem.tree()?;
    let mut left = 4usize << 20;
    let mut hash = Sha256::new();
    for node in &tree.nodes {
        hash.update(format!("{node:?}").as_bytes());
        if matches!(node.kind, NodeKind::File { .. }) {
            filesystem.read_file(node, &mut |piece| {
                left =
                    left.checked_sub(piece.len()).ok_or_else(|| Error::undetermined("enough"))?;
                hash.update(piece);
                Ok(())
            })?;
        }
    }
    Ok(FileDigest::from_bytes(hash.finish()).to_string())
}

/// Reads a changed image; panics unless it ends soon in the same tree or in one kind of error.
fn survive(changed: Sparse, what: &str) -> Result<String> {
    let start = Instant::now();
    let result = exercise(Arc::new(changed));
    let time = start.elapsed();
    assert!(time < Duration::from_secs(10), "{what} took {time:?}");
    if let Err(error) = &result {
        assert_eq!(error.kind(), Kind::Undetermined, "{what}: {error}");
        assert!(!error.hints().is_empty() || error.what() == "enough", "{what}: {error}");
    }
    result
}

/// The sectors that reading all metadata touches, and none of the contents and the log.
fn metadata(image: &Sparse) -> Vec<u64> {
    let disk = Arc::new(image.copy());
    let filesystem = Xfs::open(disk.clone(), &Limits::default()).unwrap();
    disk.read.lock().unwrap().retain(|&sector| sector == 0);
    filesystem.tree().unwrap();
    let mut sectors: Vec<u64> = disk.read.lock().unwrap().iter().copied().collect();
    sectors.sort_unstable();
    sectors
}

#[test]
fn a_flipped_byte_of_metadata_is_an_error_or_in_what_nobody_uses() {
    let Some(image) = clean() else { return };
    let original = exercise(Arc::new(image.copy())).unwrap();
    let sectors = metadata(image);
    let mut numbers = Numbers::new(1);
    let (mut refused, mut whys) = (0, HashSet::new());
    let rounds = 1500;
    for round in 0..rounds {
        let sector = sectors[numbers.below(sectors.len() as u64) as usize];
        let at = sector * 512 + numbers.below(512);
        let mut changed = image.copy();
        *changed.change(at) ^= 1 << numbers.below(8);
        match survive(changed, &format!("round {round}, byte {at}")) {
            Ok(same) => assert_eq!(same, original, "byte {at} changed what is read"),
            Err(error) => {
                refused += 1;
                whys.insert(error.what().to_owned());
            }
        }
    }
    // What is left are free inodes beside used ones, which are read with them.
    assert!(refused * 10 > rounds * 7, "{refused} of {rounds} refused");
    assert!(whys.len() > 20, "{whys:?}");
}

#[test]
fn damage_behind_checksums_neither_panics_nor_hangs() {
    let Some(image) = clean() else { return };
    let structures = structures(image);
    let mut numbers = Numbers::new(2);
    let (mut read, mut refused) = (0, HashSet::new());
    for round in 0..2500 {
        let mut changed = image.copy();
        for _ in 0..=numbers.below(4) {
            let &(at, length, crc) = &structures[numbers.below(structures.len() as u64) as usize];
            let from = structures[numbers.below(structures.len() as u64) as usize].0;
            let copied = image.get(from, length);
            changed.forge(at, length, crc, |bytes| damage(bytes, &copied, &mut numbers));
        }
        match survive(changed, &format!("round {round}")) {
            Ok(_) => read += 1,
            Err(error) => {
                refused.insert(error.to_string());
            }
        }
    }
    assert!(read < 2300 && refused.len() > 100, "{read} read, {} refusals", refused.len());
}

fn damage(bytes: &mut [u8], other: &[u8], numbers: &mut Numbers) {
    let length = bytes.len() as u64;
    // Half of what a structure says stands near its head.
    let within = if numbers.below(2) == 0 { 200.min(length) } else { length };
    let at = numbers.below(within) as usize;
    match numbers.below(6) {
        0 => bytes[at] = numbers.next() as u8,
        1 => bytes[at] ^= 1 << numbers.below(8),
        2 => bytes[at & !3..][..4].fill([0, 0xff][numbers.below(2) as usize]),
        3 => bytes[at & !1..][..2].copy_from_slice(&(numbers.next() as u16).to_be_bytes()),
        4 => bytes[at & !3..][..4].copy_from_slice(&(numbers.below(5000) as u32).to_be_bytes()),
        _ => {
            let end = (at + (4 << numbers.below(7))).min(bytes.len());
            bytes[at..end].copy_from_slice(&other[at..end]);
        }
    }
}

/// Place, length and place of the checksum of all that has one, but the log.
fn structures(image: &Sparse) -> Vec<(u64, usize, usize)> {
    let mut found = Vec::new();
    for (&block, bytes) in &image.blocks {
        for (i, piece) in (0..).zip(bytes.chunks(512)) {
            let at = block * BLOCK + i * 512;
            let whole = |length: usize, crc| (at, length, crc);
            found.extend(match &piece[..4] {
                b"XFSB" if at == 0 => Some(whole(512, 224)),
                b"XAGI" => Some(whole(512, 312)),
                b"IAB3" => Some(whole(1024, 52)),
                b"BMA3" => Some(whole(1024, 64)),
                b"XDB3" | b"XDD3" | b"XDF3" => Some(whole(4096, 4)),
                b"XSLM" | b"XARM" => Some(whole(1024, 12)),
                [b'I', b'N', mode, ..] if *mode != 0 => Some(whole(512, 100)),
                _ if piece[8..10] == [0x3b, 0xee] => Some(whole(1024, 12)),
                _ if matches!(piece[8..10], [0x3d, 0xf1 | 0xff] | [0x3e, 0xbe]) => {
                    Some(whole(4096, 12))
                }
                _ => None,
            });
        }
    }
    found.retain(|&(at, length, crc)| checksum::verify(&image.get(at, length), crc).is_ok());
    assert!(found.len() > 100, "{} structures", found.len());
    found
}

#[test]
fn damage_of_a_log_neither_panics_nor_hangs() {
    let Some(image) = dirty() else { return };
    let original = exercise(Arc::new(image.copy())).unwrap();
    let used = log_of(image);
    let headers: Vec<u64> =
        used.iter().copied().filter(|&at| image.get(at, 4) == [0xfe, 0xed, 0xba, 0xbe]).collect();
    assert!(used.len() > 100 && headers.len() > 2, "{} {}", used.len(), headers.len());
    let mut numbers = Numbers::new(3);
    let (mut same, mut refused) = (0, HashSet::new());
    for round in 0..700 {
        let mut changed = image.copy();
        // With and without the checksum of records, which is optional.
        let forged = round % 2 == 0;
        if forged {
            headers.iter().for_each(|header| changed.put(header + 32, &[0; 4]));
        }
        for _ in 0..=numbers.below(6) {
            let places = if numbers.below(3) == 0 { &headers } else { &used };
            let sector = places[numbers.below(places.len() as u64) as usize];
            let mut bytes = changed.get(sector, 512);
            let from = used[numbers.below(used.len() as u64) as usize];
            damage(&mut bytes, &image.get(from, 512), &mut numbers);
            changed.put(sector, &bytes);
        }
        match survive(changed, &format!("round {round}")) {
            // A torn end of the log is left out, as the kernel does; then older contents are read.
            Ok(read) => same += usize::from(read == original),
            Err(error) => {
                refused.insert(error.to_string());
            }
        }
    }
    assert!(same < 600 && refused.len() > 30, "{same} same, {} refusals", refused.len());
}

/// Byte offsets of the sectors that are replayed.
fn log_of(image: &Sparse) -> Vec<u64> {
    let volume = super::super::Volume::new(Arc::new(image.copy())).unwrap();
    let (tail, head, blocks) = super::super::log::span(&volume).unwrap();
    let start = volume.offset(volume.sb.log_start, 1).unwrap();
    let count = (head + blocks - tail) % blocks;
    (0..count).map(|i| start + u64::from((tail + i) % blocks) * 512).collect()
}

/// What the error says of an image whose superblock claims something else.
fn claim(at: usize, bytes: &[u8]) -> String {
    let mut changed = clean().unwrap().copy();
    changed.forge(0, 512, 224, |sb| sb[at..at + bytes.len()].copy_from_slice(bytes));
    survive(changed, &format!("byte {at}")).err().map_or("accepted".into(), |e| e.to_string())
}

#[test]
fn impossible_superblocks_are_refused() {
    if clean().is_none() {
        return;
    }
    let mut wrong = Vec::new();
    let huge = u32::MAX.to_be_bytes();
    for (at, bytes, expected) in [
        (120, &[40u8][..], "its blocks have"),
        (4, &huge[..], "its blocks have"),
        (8, &u64::MAX.to_be_bytes()[..], "groups of"),
        (88, &huge[..], "groups of"),
        (84, &huge[..], "groups of"),
        (84, &[0, 0, 0, 1][..], "groups of"),
        (124, &[60][..], "groups of"),
        (102, &[0x40, 0][..], "its sectors have"),
        (121, &[200][..], "its sectors have"),
        (104, &[0, 1][..], "its inodes have"),
        (122, &[77][..], "its inodes have"),
        (123, &[13][..], "its inodes have"),
        (192, &[99][..], "its directory blocks have"),
        (48, &u64::MAX.to_be_bytes()[..], "not inside one allocation group"),
        (48, &[0; 8][..], "`external log`"),
        (96, &huge[..], "its log has"),
        (56, &u64::MAX.to_be_bytes()[..], "no directory in use"),
        (56, &[0, 0, 0, 0, 0, 0, 0, 3][..], "no directory in use"),
        (126, &[1][..], "`mkfs.xfs` did not come to its end"),
        (16, &[0, 0, 0, 0, 0, 0, 1, 0][..], "`realtime subvolume`"),
        (100, &[0xf4, 0xb5][..], "`ascii-ci`"),
        (100, &[0xb4, 0xa6][..], "`version 6 of the superblock`"),
        (100, &[0xb4, 0xa3][..], "`version 3 of the superblock`"),
        (216, &[0, 0, 1, 0xb][..], "`metadir`"),
        (216, &[0, 0, 2, 0xb][..], "`zoned`"),
        (216, &[0, 0, 0, 0x1b][..], "in need of repair"),
        (216, &[0x10, 0, 0, 0xb][..], "`FEATURE_I28`"),
        (32, &[7; 16][..], "the UUID of another filesystem"),
        (0, b"XFSC", "it has no magic number"),
    ] {
        let error = claim(at, bytes);
        if !error.contains(expected) {
            wrong.push(format!("{at} {bytes:x?}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unknown_read_only_features_are_noted() {
    let Some(image) = clean() else { return };
    let mut changed = image.copy();
    changed.forge(0, 512, 224, |sb| sb[212] = 0x20);
    let filesystem = Xfs::open(Arc::new(changed), &Limits::default()).unwrap();
    assert!(filesystem.notes()[0].contains("0x20000000"), "{:?}", filesystem.notes());
    filesystem.tree().unwrap();
}

/// Byte offset of the inode at `path`.
fn inode_at(image: &Sparse, path: &[u8]) -> u64 {
    let filesystem = Xfs::open(Arc::new(image.copy()), &Limits::default()).unwrap();
    let mut numbers = vec![filesystem.volume.sb.root];
    let mut budget = super::super::Budget::new(&filesystem.volume);
    let inodes =
        super::super::scan::scan(&filesystem.volume, &filesystem.limits, &mut budget).unwrap();
    let entries =
        super::super::listing::read(&filesystem.volume, &inodes, &filesystem.limits, &mut budget)
            .unwrap();
    for name in path.split(|&b| b == b'/') {
        let index = inodes.find(*numbers.last().unwrap()).unwrap();
        let entry = entries[index].iter().find(|entry| entry.name == name).unwrap();
        numbers.push(entry.inode);
    }
    let number = *numbers.last().unwrap();
    let sb = &filesystem.volume.sb;
    let within = number & ((1 << (sb.ag_log + sb.inodes_per_block_log)) - 1);
    let ag = (number >> (sb.ag_log + sb.inodes_per_block_log)) as u32;
    filesystem.volume.at(ag, 0) + within * u64::from(sb.inode_size)
}

/// What the error says of an image with a forged inode.
fn forged(path: &[u8], at: usize, bytes: &[u8]) -> String {
    let image = clean().unwrap();
    let mut changed = image.copy();
    changed.forge(inode_at(image, path), 512, 100, |inode| {
        inode[at..at + bytes.len()].copy_from_slice(bytes);
    });
    survive(changed, "a forged inode").err().map_or("accepted".into(), |e| e.to_string())
}

#[test]
fn impossible_inodes_are_refused() {
    if clean().is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for (path, at, bytes, expected) in [
        (&b"large"[..], 2, &[0x41, 0xed][..], "its size and its blocks disagree"),
        (b"large", 2, &[0, 0], "which is not in use"),
        (b"large", 2, &[0x31, 0], "its mode is"),
        (b"large", 4, &[2], "its version is 2"),
        (b"large", 5, &[1], "the format 1"),
        (b"large", 5, &[9], "the format 9"),
        (b"large", 16, &[0, 0, 0, 1], "more names than its link count of 1"),
        (b"large", 16, &[0, 0, 0, 0], "which is not in use"),
        (b"large", 56, &[0xff; 8], "its size is"),
        (b"large", 56, &[0x7f; 8], "bytes in its files"),
        (b"large", 76, &[0x7f, 0xff, 0xff, 0xff], "extents do not fit"),
        (b"large", 82, &[255], "its attributes start at byte 2040"),
        (b"large", 83, &[0], "its attributes have the format 0"),
        (b"large", 90, &[0, 1], "`realtime`"),
        (b"large", 152, &[0; 8], "it says it is inode 0"),
        (b"large", 160, &[9; 16], "the UUID of another filesystem"),
        // The first extent: empty, and beyond the disk.
        (b"large", 184, &[0; 8], "is impossible"),
        (b"large", 184, &[0xff; 4], "not inside one allocation group"),
        (b"a", 56, &[0, 0, 0, 0, 0, 0, 0x10, 1], "its size and its blocks disagree"),
        (b"sparse", 178, &[0, 200], "its root has 200 entries"),
        (b"sparse", 176, &[0, 60], "at level 60"),
        (b"remote-link", 56, &[0, 0, 0, 0, 0, 0, 8, 0], "from 1 to 1024 bytes"),
        (b"remote-link", 56, &[0, 0, 0, 0, 0, 0, 3, 0xff], "is shorter than its size"),
        (b"link", 177, &[0], "contains NUL"),
    ] {
        let error = forged(path, at, bytes);
        if !error.contains(expected) {
            wrong.push(format!("{} {at} {bytes:x?}: {error}", path.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Changes an entry of the directory block with the name `old`.
fn entry(old: &[u8], change: impl FnOnce(&mut [u8], usize)) -> String {
    let image = clean().unwrap();
    let mut changed = image.copy();
    let place = |bytes: &[u8]| bytes.windows(old.len()).position(|w| w == old);
    let (block, at) = structures(image)
        .into_iter()
        .filter(|(_, length, crc)| (*length, *crc) == (4096, 4))
        .find_map(|(block, ..)| place(&image.get(block, 4096)).map(|at| (block, at)))
        .unwrap();
    changed.forge(block, 4096, 4, |bytes| change(bytes, at));
    survive(changed, "a forged entry").err().map_or("accepted".into(), |e| e.to_string())
}

#[test]
fn impossible_entries_are_refused() {
    let Some(image) = clean() else { return };
    let old = b"a-name-of-some-length-107";
    let a = {
        let raw = image.get(inode_at(image, b"a"), 512);
        u64::from_be_bytes(raw[152..160].try_into().unwrap())
    };
    for (expected, error) in [
        ("impossible name `/-name", entry(old, |bytes, at| bytes[at] = b'/')),
        ("impossible name `\\x00-name", entry(old, |bytes, at| bytes[at] = 0)),
        (
            "the name `a-name-of-some-length-108` twice",
            entry(old, |bytes, at| bytes[at + old.len() - 1] = b'8'),
        ),
        ("which is not in use", entry(old, |bytes, at| bytes[at - 9..at - 1].fill(0x7f))),
        ("different file types", entry(old, |bytes, at| bytes[at + old.len()] = 3)),
        ("unknown file type 77", entry(old, |bytes, at| bytes[at + old.len()] = 77)),
        ("is out of place", entry(old, |bytes, at| bytes[at + 29] = 100)),
        (
            "second name of directory inode",
            entry(old, |bytes, at| {
                bytes[at - 9..at - 1].copy_from_slice(&a.to_be_bytes());
                bytes[at + old.len()] = 2;
            }),
        ),
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_cut_image_is_refused_at_once() {
    let Some(image) = clean() else { return };
    let mut cut = image.copy();
    cut.size -= 1 << 20;
    let error = survive(cut, "a cut image").unwrap_err().to_string();
    assert!(error.contains("but its device only"), "{error}");
    for size in [0, 3, 511, 512] {
        let mut cut = image.copy();
        cut.size = size;
        assert!(survive(cut.copy(), "almost nothing").is_err());
        assert_eq!(super::super::probe(&cut).unwrap(), size >= 512);
    }
}

#[test]
fn limits_are_named() {
    let Some(image) = clean() else { return };
    let base = Limits::default();
    for (limits, expected) in [
        (Limits { entries: 100, ..base }, "--max-entries"),
        (Limits { depth: 1, ..base }, "--max-depth"),
        (Limits { path: 10, ..base }, "--max-path"),
        (Limits { xattr: 400, ..base }, "--max-xattr"),
        (Limits { xattrs: 600, ..base }, "--max-xattrs"),
        (Limits { contents: 10_000, ..base }, "--max-contents"),
    ] {
        let filesystem = Xfs::open(Arc::new(image.copy()), &limits).unwrap();
        let error = filesystem.tree().unwrap_err();
        assert!(error.hints().iter().any(|h| h.contains(expected)), "{expected}: {error}");
    }
}
