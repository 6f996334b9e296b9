//! Everything that the kernel can write into a btrfs filesystem.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::workshop::run;

/// A POSIX ACL in the form programs see: named user 1001 may read.
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe9, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];
/// `cap_net_raw=ep` as `setcap` writes it (version 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn set_xattr(path: &Path, key: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()).unwrap();
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes that differ at every place and do not pack.
pub(super) fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Bytes that pack to about a third, and differ from place to place.
pub(super) fn prose(length: usize, seed: u32) -> Vec<u8> {
    let words = noise(length / 3 + 1, seed);
    let all = words.iter().flat_map(|b| [b'a' + (b & 15), b'e', b' ', b'o']);
    all.take(length).collect()
}

/// Flushes `root`'s filesystem.
pub(super) fn sync(root: &Path) {
    rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
}

pub(super) fn btrfs(arguments: &[&str], paths: &[&Path]) {
    run(Command::new("btrfs").args(arguments).args(paths));
}

/// One of each thing. `many` is the number of entries of the largest directory.
pub(super) fn all(root: &Path, many: usize) {
    let at = |name: &str| root.join(name);
    for size in [0, 1, 100, 2000, 2047, 2048, 2049, 3900, 4095, 4096, 4097, 70_000, 3_000_000] {
        fs::write(at(&format!("noise-{size}")), noise(size, size as u32)).unwrap();
        fs::write(at(&format!("prose-{size}")), prose(size, size as u32)).unwrap();
    }
    for length in [1, 59, 60, 1000, 2000] {
        symlink("t".repeat(length), at(&format!("link-{length}"))).unwrap();
    }
    extents(root);
    for (name, kind, major, minor) in [
        ("null", FileType::CharacterDevice, 1, 3),
        ("wide-char", FileType::CharacterDevice, 300, 70_000),
        ("wide-block", FileType::BlockDevice, 4095, 1_048_575),
        ("zero", FileType::CharacterDevice, 0, 0),
        ("fifo", FileType::Fifo, 0, 0),
    ] {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from(0o640), device).unwrap();
    }
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir_all(at("a/b/c/d")).unwrap();
    fs::write(at("a/b/c/d/leaf"), b"leaf").unwrap();
    for odd in [&b"new\nline"[..], b"\xff\xfe", b" space ", b"back\\slash", &[b'n'; 255]] {
        fs::write(root.join(OsStr::from_bytes(odd)), odd).unwrap();
    }
    fs::create_dir(at("many")).unwrap();
    for i in 0..many {
        fs::write(at(&format!("many/entry-{i:05}")), i.to_string()).unwrap();
    }
    for i in (0..many).step_by(3) {
        fs::remove_file(at(&format!("many/entry-{i:05}"))).unwrap();
    }
    // More names than the references of one item have room for.
    fs::create_dir(at("names")).unwrap();
    for i in 0..200 {
        let name = format!("names/{i}-{}", "long".repeat(25));
        match fs::hard_link(at("noise-4096"), at(&name)) {
            // Without the feature `extref`.
            Err(e) if e.kind() == std::io::ErrorKind::TooManyLinks => break,
            done => done.unwrap(),
        }
    }
    attributes(root);
    for (name, mode) in [("noise-1", 0o4755), ("noise-100", 0o2710), ("empty", 0o1777)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let owner =
        |name: &str, uid, gid| std::os::unix::fs::lchown(at(name), Some(uid), Some(gid)).unwrap();
    owner("noise-0", 1000, 1000);
    owner("prose-1", 70_000, 4_000_000_000);
    owner("link-1", 33, 34);
    for (name, seconds) in [
        ("noise-2047", 0),
        ("noise-2048", -1_000_000),
        ("link-59", 1),
        ("prose-2047", 0x1_8000_0000),
        ("prose-2048", i64::from(i32::MIN) * 4),
    ] {
        set_time(&at(name), seconds);
    }
    flags(root);
}

/// Holes, written over, allocated ahead, shared, cut short.
fn extents(root: &Path) {
    let at = |name: &str| root.join(name);
    let open = |name: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(at(name))
            .unwrap()
    };
    let sparse = open("sparse");
    for place in [0, 100_000, 5_000_000, 16_000_000] {
        sparse.write_all_at(&noise(5000, place as u32), place).unwrap();
    }
    sparse.set_len(17_000_003).unwrap();
    run(Command::new("fallocate").args(["-l", "200000"]).arg(at("allocated")));
    let ahead = open("half-written");
    run(Command::new("fallocate").args(["-l", "400000"]).arg(at("half-written")));
    ahead.write_all_at(&noise(50_000, 9), 100_000).unwrap();
    sync(root);
    // Pieces of a packed extent stay in use behind what is written over it.
    fs::write(at("over"), prose(1_000_000, 5)).unwrap();
    sync(root);
    let over = open("over");
    for place in (0..900_000).step_by(70_000) {
        over.write_all_at(&prose(9000, place as u32 + 1), place).unwrap();
    }
    sync(root);
    for place in (4096..200_000).step_by(12_288) {
        over.write_all_at(&noise(4096, place as u32 + 1), place).unwrap();
    }
    sync(root);
    for name in ["over", "prose-3000000", "prose-100", "sparse"] {
        run(Command::new("cp")
            .arg("--reflink=always")
            .arg(at(name))
            .arg(at(&format!("{name}-clone"))));
    }
    let clone = open("over-clone");
    clone.write_all_at(b"only in the clone", 300_000).unwrap();
    // Written past the page cache, each piece gets an extent of its own.
    let script = "for i in $(seq 60 -1 0); do \
        dd if=/dev/urandom of=\"$0\" bs=4k seek=$((i * 2)) count=1 conv=notrunc oflag=direct status=none; done";
    run(Command::new("sh").args(["-c", script]).arg(at("fragments")));
    for (name, size) in [("cut", 150_001), ("grown", 900_001), ("cut-inline", 700)] {
        let bytes = if name == "cut-inline" { 1900 } else { 600_000 };
        fs::write(at(name), prose(bytes, 7)).unwrap();
        sync(root);
        open(name).set_len(size).unwrap();
    }
    fs::write(at("inline-grown"), prose(1000, 3)).unwrap();
    sync(root);
    open("inline-grown").set_len(50_000).unwrap();
    fs::write(at("punched"), prose(500_000, 7)).unwrap();
    sync(root);
    run(Command::new("fallocate").args(["-p", "-o", "100000", "-l", "150000"]).arg(at("punched")));
}

/// A file of more than 4 GiB, nearly all of it a hole: it takes time to hash.
pub(super) fn huge(root: &Path) {
    let huge = File::create(root.join("huge")).unwrap();
    huge.write_all_at(b"at the end", (4 << 30) + 12_345).unwrap();
    huge.set_len((4 << 30) + 100_000).unwrap();
}

fn attributes(root: &Path) {
    let at = |name: &str| root.join(name);
    set_xattr(&at("noise-1"), "user.small", b"1");
    set_xattr(&at("noise-1"), "user.empty", b"");
    set_xattr(&at("noise-1"), "user.large", &noise(3000, 9));
    set_xattr(&at("prose-1"), "security.capability", CAPABILITY);
    set_xattr(&at("prose-1"), "security.selinux", b"system_u:object_r:bin_t:s0\0");
    set_xattr(&at("prose-1"), "trusted.note", b"only root sees this");
    set_xattr(&at("prose-100"), "system.posix_acl_access", ACL);
    set_xattr(&at("a"), "system.posix_acl_default", ACL);
    set_xattr(&at("link-60"), "trusted.on-a-link", b"x");
    set_xattr(&at("fifo"), "security.selinux", b"fifo_t");
    for i in 0..200 {
        set_xattr(&at("empty"), &format!("user.attribute-{i}"), &noise(i, 77));
    }
}

fn flags(root: &Path) {
    let at = |name: &str| root.join(name);
    for (flag, name) in [("+i", "noise-70000"), ("+a", "a/b"), ("+c", "empty"), ("+m", "a")] {
        run(Command::new("chattr").arg(flag).arg(at(name)));
    }
    let plain = at("without-sums");
    File::create(&plain).unwrap();
    run(Command::new("chattr").arg("+C").arg(&plain));
    fs::write(&plain, noise(300_000, 11)).unwrap();
    btrfs(&["property", "set"], &[&at("a/b/c"), Path::new("compression"), Path::new("lzo")]);
    fs::write(at("a/b/c/packed"), prose(200_000, 12)).unwrap();
}

/// Subvolumes in subvolumes, snapshots of them, one deleted, another default one.
pub(super) fn subvolumes(root: &Path) {
    let at = |name: &str| root.join(name);
    btrfs(&["subvolume", "create"], &[&at("outer")]);
    fs::create_dir(at("outer/folder")).unwrap();
    std::os::unix::fs::chown(at("outer/folder"), Some(5), Some(6)).unwrap();
    btrfs(&["subvolume", "create"], &[&at("outer/folder/placeholder")]);
    fs::write(at("outer/folder/placeholder/inside"), prose(40_000, 1)).unwrap();
    fs::write(at("outer/file"), noise(40_000, 2)).unwrap();
    fs::hard_link(at("outer/file"), at("outer/folder/second")).unwrap();
    btrfs(&["subvolume", "snapshot"], &[&at("outer"), &at("writable")]);
    fs::write(at("writable/file"), b"changed in the snapshot").unwrap();
    btrfs(&["subvolume", "snapshot", "-r"], &[&at("outer"), &at("outer/frozen")]);
    fs::create_dir(at("deep")).unwrap();
    fs::set_permissions(at("outer"), fs::Permissions::from_mode(0o700)).unwrap();
    btrfs(&["subvolume", "create"], &[&at("deep/gone")]);
    for i in 0..50 {
        fs::write(at(&format!("deep/gone/{i}")), noise(5000, i)).unwrap();
    }
    btrfs(&["subvolume", "snapshot"], &[&at("deep/gone"), &at("deep/kept")]);
    btrfs(&["subvolume", "delete"], &[&at("deep/gone")]);
    btrfs(&["subvolume", "set-default"], &[&at("writable")]);
}
