//! One of each thing that an XFS filesystem can hold.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags,
};

/// A POSIX ACL in the form programs see: named user 1001 may read.
pub(super) const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe9, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// `cap_net_raw=ep` as `setcap` writes it (version 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn set_xattr(path: &Path, key: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()).unwrap();
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes that differ at every place.
pub(super) fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

/// Fills `root`; `many` entries in the largest directory, `late` times outside of 32 bits.
pub(super) fn populate(root: &Path, many: usize, late: bool) {
    let at = |name: &str| root.join(name);
    for size in [0, 1, 100, 511, 512, 1023, 1024, 4095, 4096, 4097, 70_000, 3_000_000] {
        fs::write(at(&format!("file-{size}")), noise(size, size as u32)).unwrap();
    }
    for length in [1, 59, 60, 155, 156, 157, 300, 335, 336, 337, 800, 968, 969, 1000, 1023] {
        symlink("t".repeat(length), at(&format!("link-{length}"))).unwrap();
    }
    files(root);
    fs::hard_link(at("file-4096"), at("second-name")).unwrap();
    for (name, kind, major, minor) in [
        ("null", FileType::CharacterDevice, 1, 3),
        ("wide-char", FileType::CharacterDevice, 300, 70_000),
        ("widest-block", FileType::BlockDevice, 511, 0x3_ffff),
        ("block", FileType::BlockDevice, 8, 255),
        ("zero", FileType::CharacterDevice, 0, 0),
        ("fifo", FileType::Fifo, 0, 0),
        ("socket", FileType::Socket, 0, 0),
    ] {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from(0o640), device).unwrap();
    }
    directories(root, many);
    attributes(root);
    for (name, mode) in [("file-1", 0o4755), ("file-100", 0o2710), ("empty", 0o1777)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let owner =
        |name: &str, uid, gid| std::os::unix::fs::lchown(at(name), Some(uid), Some(gid)).unwrap();
    owner("file-0", 1000, 1000);
    owner("file-511", 70_000, 4_000_000_000);
    owner("link-1", 33, 34);
    set_time(&at("file-512"), 0);
    set_time(&at("file-1023"), -1_000_000);
    set_time(&at("link-59"), 1);
    set_time(&at("null"), 0x7fff_ffff);
    if late {
        set_time(&at("file-1024"), 0x8000_0000);
        set_time(&at("file-4095"), 0x3_7fff_ffff);
        set_time(&at("empty"), 16_299_260_424);
    }
    for (name, flag) in [("file-3000000", IFlags::IMMUTABLE), ("a/b", IFlags::APPEND)] {
        rustix::fs::ioctl_setflags(File::open(at(name)).unwrap(), flag).unwrap();
    }
}

/// Files with holes, with space that was never written, and in many pieces.
fn files(root: &Path) {
    let at = |name: &str| root.join(name);
    let sparse = File::create(at("sparse")).unwrap();
    for place in [0, 100_000, 5_000_000, 16_000_000] {
        sparse.write_all_at(&noise(5000, place as u32), place).unwrap();
    }
    sparse.set_len(17_000_003).unwrap();
    let unwritten = File::create(at("unwritten")).unwrap();
    let allocate = |file: &File, flags, from, length| {
        rustix::fs::fallocate(file, flags, from, length).unwrap()
    };
    allocate(&unwritten, FallocateFlags::empty(), 0, 200_000);
    unwritten.write_all_at(b"in the middle", 100_000).unwrap();
    allocate(&unwritten, FallocateFlags::KEEP_SIZE, 200_000, 500_000);
    File::create(at("only-a-hole")).unwrap().set_len(3_000_000).unwrap();
    // A tree of hundreds of extents, some of them unwritten.
    let pieces = File::create(at("pieces")).unwrap();
    for i in 0..700u64 {
        pieces.write_all_at(&noise(3000, i as u32), i * 16_384).unwrap();
        if i % 7 == 0 {
            allocate(&pieces, FallocateFlags::empty(), i * 16_384 + 8192, 4096);
        }
    }
    let growing = File::create(at("growing")).unwrap();
    for i in 0..50 {
        growing.write_all_at(&noise(10_000, i), u64::from(i) * 10_000).unwrap();
    }
}

fn directories(root: &Path, many: usize) {
    let at = |name: &str| root.join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir_all(at("a/b/c/d")).unwrap();
    fs::write(at("a/b/c/d/leaf"), b"leaf").unwrap();
    for odd in [&b"new\nline"[..], b"\xff\xfe", b" space ", b"back\\slash", &[b'n'; 255]] {
        fs::write(root.join(OsStr::from_bytes(odd)), odd).unwrap();
    }
    // In the inode, one block, several blocks, a tree; with gaps, and emptied again.
    for count in [3, 40, 300, many] {
        let folder = at(&format!("many-{count}"));
        fs::create_dir(&folder).unwrap();
        for i in 0..count {
            let path = folder.join(format!("entry-{i:05}"));
            // Every tenth one is a file with contents: names are what counts here.
            if i % 10 == 0 { fs::write(path, i.to_string()) } else { File::create(path).map(drop) }
                .unwrap();
        }
        for i in (0..count).step_by(3) {
            fs::remove_file(folder.join(format!("entry-{i:05}"))).unwrap();
        }
        for i in count..count + count / 10 {
            symlink("x", folder.join(format!("a much longer name than the others {i:05}")))
                .unwrap();
        }
    }
    fs::create_dir(at("emptied")).unwrap();
    for i in 0..400 {
        fs::write(at(&format!("emptied/{i}")), b"").unwrap();
    }
    for i in 0..399 {
        fs::remove_file(at(&format!("emptied/{i}"))).unwrap();
    }
}

fn attributes(root: &Path) {
    let at = |name: &str| root.join(name);
    set_xattr(&at("file-100"), "user.small", b"1");
    set_xattr(&at("file-100"), "user.empty", b"");
    set_xattr(&at("file-1023"), "security.capability", CAPABILITY);
    set_xattr(&at("file-1023"), "security.selinux", b"system_u:object_r:bin_t:s0\0");
    set_xattr(&at("file-1023"), "trusted.note", b"only root sees this");
    set_xattr(&at("file-1024"), "system.posix_acl_access", ACL);
    set_xattr(&at("a"), "system.posix_acl_default", ACL);
    set_xattr(&at("a"), "user.on-a-directory", &noise(1000, 3));
    set_xattr(&at("link-60"), "trusted.on-a-link", b"x");
    set_xattr(&at("link-1000"), "security.selinux", &noise(300, 4));
    set_xattr(&at("fifo"), "security.selinux", b"fifo_t");
    set_xattr(&at("null"), "trusted.leaf", &noise(800, 8));
    // One leaf, a value in blocks of its own, and a tree of leaves.
    set_xattr(&at("file-4096"), "user.large", &noise(65_536, 5));
    set_xattr(&at("file-4096"), "user.medium", &noise(3000, 6));
    for i in 0..400 {
        set_xattr(&at("file-70000"), &format!("user.many-{i}"), &noise(i % 97, i as u32));
    }
    for i in 0..40 {
        set_xattr(&at("many-3"), &format!("trusted.big-{i}"), &noise(7000, i));
    }
    // A fork of attributes that is empty again.
    set_xattr(&at("file-1"), "user.gone", &noise(3000, 1));
    rustix::fs::lremovexattr(at("file-1"), "user.gone").unwrap();
}
