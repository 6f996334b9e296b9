//! The root of a real system: Debian by mmdebstrap, with everything added that a filesystem can
//! hold, on each filesystem of this kernel.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{CWD, FileType, IFlags, Mode, XattrFlags};

use super::campaign::compare;
use super::mounted::{self, Mounted, run, text};

/// `cap_net_bind_service,cap_net_raw=ep`, version 2 (linux/capability.h).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access list in the kernel's form: user 1001 may read and execute (linux/posix_acl_xattr.h).
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xe9, 3, 0, 0, 4, 0, 5, 0, 255, 255,
    255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
];

/// A file above what 32 bits can count, and where there is something in it.
const LARGE: (u64, [u64; 3]) = ((4 << 30) + 12_345, [0, (2 << 30) - 7, (4 << 30) + 12_000]);

/// The packages besides the essential ones.
const PACKAGES: &str = "iputils-ping,libcap2-bin,man-db,python3-minimal,perl-base,tzdata";

/// The tar of a system, made on first use and kept in `target/`.
fn tar() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    fs::create_dir_all(&folder).expect("target/ can be written");
    let tar = folder.join("system.tar");
    // One test makes it, the others wait.
    let lock = File::create(folder.join("lock")).expect("target/ can be written");
    lock.lock().expect("the lock can be taken");
    if !tar.exists() {
        let mirror = std::env::var("DEVBOX_TEST_MIRROR");
        let mirror = mirror.as_deref().unwrap_or("http://deb.debian.org/debian");
        let partial = folder.join("partial.tar");
        let include = format!("--include={PACKAGES}");
        let args = ["--quiet", "--variant=minbase", &include, "bookworm", text(&partial), mirror];
        run("mmdebstrap", &args);
        fs::rename(partial, &tar).expect("the same folder");
    }
    tar
}

/// What no package brings.
fn add(root: &Path) {
    let at = |name: &str| root.join("srv").join(name);
    let set = |path: &Path, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()).expect("an attribute");
    };
    // As a system with SELinux labels all of its files.
    let mut labelled = 0;
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("it lists");
        let kind = if entry.file_type().is_dir() { "dir" } else { "file" };
        let label = format!("system_u:object_r:{kind}_{}_t:s0\0", entry.depth());
        set(entry.path(), "security.selinux", label.as_bytes());
        labelled += 1;
    }
    assert!(labelled > 3000, "only {labelled} files were unpacked");
    fs::create_dir(at("many")).expect("a directory");
    for i in 0..10_000 {
        fs::write(at(&format!("many/entry-{i:05}")), format!("{i}\n")).expect("a file");
    }
    for (name, kind, major, minor) in [
        ("null", FileType::CharacterDevice, 1, 3),
        ("wide", FileType::CharacterDevice, 300, 70_000),
        ("disk", FileType::BlockDevice, 253, 16),
        ("pipe", FileType::Fifo, 0, 0),
    ] {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from(0o640), device).expect("a node");
    }
    for odd in [&b"new\nline"[..], b"\xff\xfe\x80", b" ", b"back\\slash=#", &[0xe9; 255]] {
        fs::write(root.join("srv").join(OsStr::from_bytes(odd)), odd).expect("a file");
    }
    fs::write(at("linked"), "one file\n").expect("a file");
    for i in 0..50 {
        fs::hard_link(at("linked"), at(&format!("many/linked-{i}"))).expect("a link");
    }
    // XFS stores at most 1024 bytes.
    symlink("\u{e9}/".repeat(300), at("far")).expect("a link");
    let large = File::create(at("large")).expect("a file");
    large.set_len(LARGE.0).expect("a sparse file");
    for place in LARGE.1 {
        large.write_all_at(b"not a hole", place).expect("it writes");
    }
    fs::write(at("tool"), "#!/bin/sh\n").expect("a file");
    set(&at("tool"), "security.capability", CAPABILITY);
    set(&at("tool"), "system.posix_acl_access", ACL);
    set(&at("many"), "system.posix_acl_default", ACL);
    set(&at("tool"), "user.note", &[b'n'; 1500]);
    set(&at("far"), "trusted.note", b"only root sees this");
    for (name, flag) in [("tool", IFlags::IMMUTABLE), ("linked", IFlags::APPEND)] {
        let file = File::open(at(name)).expect("it opens");
        let flags = rustix::fs::ioctl_getflags(&file).expect("flags");
        rustix::fs::ioctl_setflags(&file, flags | flag).expect("flags");
    }
}

fn same(test: &str, kind: &str, mkfs: &[&str], options: &str) {
    let (program, args) = mkfs.split_first().expect("a program");
    if !mounted::possible(test, kind, &["losetup", "cp", "tar", "mmdebstrap", program]) {
        return;
    }
    let tar = tar();
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("image");
    let file = File::create(&image).expect("an image");
    file.set_len(2 << 30).expect("a sparse file");
    run(program, &[args, &[text(&image)]].concat());
    {
        let mounted = Mounted::new(kind, &image, &folder.path().join("made"), options, true);
        let root = text(&mounted.root);
        let how = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-C", root];
        run("tar", &[&how[..], &["-xpf", text(&tar)]].concat());
        add(&mounted.root);
    }
    let began = Instant::now();
    if let Err(why) = compare(kind, options, &image, folder.path()) {
        panic!("{kind} {mkfs:?}: {why}");
    }
    eprintln!("{test}: compared in {:.1} s", began.elapsed().as_secs_f32());
}

#[test]
fn a_whole_debian_on_ext4_is_what_the_kernel_shows() {
    let test = "a_whole_debian_on_ext4_is_what_the_kernel_shows";
    same(test, "ext4", &["mke2fs", "-q", "-F", "-t", "ext4"], "");
}

#[test]
fn a_whole_debian_on_xfs_is_what_the_kernel_shows() {
    let test = "a_whole_debian_on_xfs_is_what_the_kernel_shows";
    same(test, "xfs", &["mkfs.xfs", "-q"], "");
}

#[test]
fn a_whole_debian_on_btrfs_is_what_the_kernel_shows() {
    let test = "a_whole_debian_on_btrfs_is_what_the_kernel_shows";
    same(test, "btrfs", &["mkfs.btrfs", "-q"], "compress=zstd");
}
