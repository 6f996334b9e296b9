//! Everything the kernel can write into an ext filesystem, under many feature sets.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::oracle;
use super::workshop::{Workshop, open, run};

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
    let mut x = seed | 1;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

/// One of each thing a filesystem can hold. `block` bytes of attributes fit beside others.
fn populate(root: &Path, block: usize) {
    let at = |name: &str| root.join(name);
    for size in
        [0, 1, 59, 60, 61, 100, 155, 160, 200, 1023, 1024, 4095, 4096, 4097, 70_000, 3_000_000]
    {
        fs::write(at(&format!("file-{size}")), noise(size, size as u32)).unwrap();
    }
    for length in [1, 58, 59, 60, 61, 120, 200, 1000, 1023] {
        symlink("t".repeat(length), at(&format!("link-{length}"))).unwrap();
    }
    let mut sparse = File::create(at("sparse")).unwrap();
    for place in [0, 100_000, 5_000_000, 16_000_000] {
        sparse.seek(SeekFrom::Start(place)).unwrap();
        sparse.write_all(&noise(5000, place as u32)).unwrap();
    }
    sparse.set_len(17_000_003).unwrap();
    let _ = Command::new("fallocate").args(["-l", "200000"]).arg(at("unwritten")).output();
    let _ = Command::new("fallocate").args(["-n", "-l", "200000"]).arg(at("file-4097")).output();
    fs::hard_link(at("file-4096"), at("second-name")).unwrap();
    for (name, kind, major, minor) in [
        ("null", FileType::CharacterDevice, 1, 3),
        ("wide-char", FileType::CharacterDevice, 300, 70_000),
        ("wide-block", FileType::BlockDevice, 4095, 1_048_575),
        ("block", FileType::BlockDevice, 8, 255),
        ("zero", FileType::CharacterDevice, 0, 0),
        ("fifo", FileType::Fifo, 0, 0),
        ("socket", FileType::Socket, 0, 0),
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
    for i in 0..300 {
        fs::write(at(&format!("many/entry-{i:05}")), i.to_string()).unwrap();
    }
    for i in (0..300).step_by(3) {
        fs::remove_file(at(&format!("many/entry-{i:05}"))).unwrap();
    }
    attributes(root, block);
    for (name, mode) in [("file-1", 0o4755), ("file-100", 0o2710), ("empty", 0o1777)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let owner =
        |name: &str, uid, gid| std::os::unix::fs::lchown(at(name), Some(uid), Some(gid)).unwrap();
    owner("file-0", 1000, 1000);
    owner("file-59", 70_000, 4_000_000_000);
    owner("link-1", 33, 34);
    set_time(&at("file-60"), 0);
    set_time(&at("file-61"), -1_000_000);
    set_time(&at("link-58"), 1);
    set_time(&at("file-160"), 0x7fff_ffff);
}

fn attributes(root: &Path, block: usize) {
    let at = |name: &str| root.join(name);
    set_xattr(&at("file-200"), "user.small", b"1");
    set_xattr(&at("file-200"), "user.empty", b"");
    set_xattr(&at("file-200"), "user.large", &noise(block - 300, 9));
    set_xattr(&at("file-1023"), "security.capability", CAPABILITY);
    set_xattr(&at("file-1023"), "security.selinux", b"system_u:object_r:bin_t:s0\0");
    set_xattr(&at("file-1023"), "trusted.note", b"only root sees this");
    set_xattr(&at("file-1024"), "system.posix_acl_access", ACL);
    set_xattr(&at("a"), "system.posix_acl_default", ACL);
    set_xattr(&at("a"), "user.on-a-directory", &noise(block / 4, 3));
    set_xattr(&at("link-60"), "trusted.on-a-link", b"x");
    set_xattr(&at("fifo"), "security.selinux", b"fifo_t");
    for i in 0..20 {
        let name = format!("shared-{i}");
        fs::write(at(&name), b"same attributes").unwrap();
        set_xattr(&at(&name), "user.shared", &noise(block / 2, 77));
    }
}

/// Attributes above one block, times beyond 2038, and flags: what only ext4 can hold.
fn populate_ext4(root: &Path, ea_inode: bool) {
    let at = |name: &str| root.join(name);
    for (name, seconds) in
        [("file-1024", 0x8000_0000), ("file-1023", 0x1_0000_0000 + 5), ("file-4095", 0x3_7fff_ffff)]
    {
        set_time(&at(name), seconds);
    }
    if ea_inode {
        set_xattr(&at("file-4096"), "user.huge", &noise(60_000, 5));
        set_xattr(&at("file-4095"), "user.huge", &noise(60_000, 5));
        set_xattr(&at("empty"), "user.huge", &noise(10_000, 6));
    }
}

fn compare(test: &str, arguments: &[&str]) {
    let workshop = Workshop::new();
    let text = arguments.join(" ");
    let own_size: &[&str] = if text.contains("-b ") { &[] } else { &["-b", "4096"] };
    let image = workshop.image("80M", &[arguments, own_size].concat());
    let block = if text.contains("-b 1024") { 1024 } else { 2048 };
    {
        let Some(mount) = workshop.mount(test, &image, "rw") else { return };
        populate(&mount.0, block);
        if text.contains("ext4") && !text.contains("-I 128") {
            populate_ext4(&mount.0, text.contains("ea_inode"));
        }
        run(Command::new("chattr").arg("+i").arg(mount.0.join("file-3000000")));
        run(Command::new("chattr").arg("+a").arg(mount.0.join("a/b")));
    }
    let Some(mount) = workshop.mount(test, &image, "ro") else { return };
    let kernel = oracle::kernel(&mount.0);
    drop(mount);
    let filesystem = open(&image).unwrap();
    oracle::assert_equal(&oracle::read(&filesystem), &kernel);
    // The checker of the format agrees that nothing is wrong with what was compared.
    run(Command::new("e2fsck").args(["-fn"]).arg(&image));
}

macro_rules! feature_sets {
    ($($name:ident: $arguments:expr;)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), &$arguments);
        })*
    };
}

feature_sets! {
    ext2_reads_as_the_kernel_does: ["-t", "ext2"];
    ext2_with_small_blocks_and_inodes: ["-t", "ext2", "-b", "1024", "-I", "128"];
    ext2_of_revision_zero: ["-t", "ext2", "-r", "0", "-b", "1024", "-I", "128"];
    ext2_without_file_types_and_sparse_superblocks: ["-t", "ext2", "-O", "^filetype,^sparse_super,^resize_inode", "-b", "2048"];
    ext3_reads_as_the_kernel_does: ["-t", "ext3"];
    ext3_with_small_blocks: ["-t", "ext3", "-b", "1024"];
    ext4_reads_as_the_kernel_does: ["-t", "ext4"];
    ext4_with_blocks_of_1_kib: ["-t", "ext4", "-b", "1024"];
    ext4_with_blocks_of_2_kib: ["-t", "ext4", "-b", "2048"];
    ext4_with_inodes_of_128_bytes: ["-t", "ext4", "-I", "128", "-b", "4096"];
    ext4_with_inodes_of_512_bytes: ["-t", "ext4", "-I", "512"];
    ext4_with_inodes_of_1024_bytes_and_inline_data: ["-t", "ext4", "-I", "1024", "-O", "inline_data"];
    ext4_with_inline_data: ["-t", "ext4", "-O", "inline_data"];
    ext4_with_inline_data_and_blocks_of_1_kib: ["-t", "ext4", "-O", "inline_data", "-b", "1024"];
    ext4_with_attribute_inodes: ["-t", "ext4", "-O", "ea_inode"];
    ext4_with_attribute_inodes_and_inline_data: ["-t", "ext4", "-O", "ea_inode,inline_data", "-b", "1024"];
    ext4_without_checksums: ["-t", "ext4", "-O", "^metadata_csum"];
    ext4_with_group_checksums_only: ["-t", "ext4", "-O", "^metadata_csum,uninit_bg"];
    ext4_with_group_checksums_and_no_64bit: ["-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit", "-b", "1024"];
    ext4_without_64bit: ["-t", "ext4", "-O", "^64bit"];
    ext4_without_extents: ["-t", "ext4", "-O", "^extent,^64bit,^metadata_csum"];
    ext4_without_flex_bg: ["-t", "ext4", "-O", "^flex_bg", "-b", "1024"];
    ext4_with_meta_bg: ["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"];
    ext4_with_sparse_super2: ["-t", "ext4", "-O", "sparse_super2,^resize_inode", "-b", "1024"];
    ext4_with_a_checksum_seed: ["-t", "ext4", "-O", "metadata_csum_seed"];
    ext4_with_an_orphan_file: ["-t", "ext4", "-O", "orphan_file"];
    ext4_without_a_journal: ["-t", "ext4", "-O", "^has_journal"];
    ext4_with_bigalloc: ["-t", "ext4", "-O", "bigalloc", "-C", "16384"];
    ext4_with_bigalloc_and_blocks_of_1_kib: ["-t", "ext4", "-O", "bigalloc", "-b", "1024", "-C", "8192"];
    ext4_with_large_dir_and_mmp: ["-t", "ext4", "-O", "large_dir,mmp"];
    ext4_with_a_fast_commit_area: ["-t", "ext4", "-O", "fast_commit"];
    ext4_with_small_groups: ["-t", "ext4", "-g", "1024", "-N", "4096"];
}
