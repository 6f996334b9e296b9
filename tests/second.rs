//! `scripts/fs1.py`, which was written from `docs/identity.md` and shares nothing with devbox, says the
//! same of a filesystem: of the kernel's mount of an image, and of the trees of the vectors.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The folders of programs for root.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Runs a program that must succeed; its standard output.
fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).env("PATH", path()).output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A mounted image, unmounted in the end whatever happens.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where nothing can be mounted.
    fn new(image: &Path, at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("mkdir");
        let out = Command::new("mount").args(["-o", options]).arg(image).arg(at).output();
        out.is_ok_and(|out| out.status.success()).then(|| Mounted(at.to_owned()))
    }
}

impl Drop for Mounted {
    /// A process that another test starts holds, for a moment, whatever is open here.
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        let unmounted = || Command::new("umount").arg("-q").arg(&self.0).status();
        while !unmounted().is_ok_and(|status| status.success()) {
            assert!(Instant::now() < end, "`{}` cannot be unmounted", self.0.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Says why a test could not run.
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn not_run(test: &str, why: &str) {
    eprintln!("not run: {test}: {why}");
}

fn script(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fs1.py");
    tool("python3", &[&[text(&script)], args].concat())
}

/// The digests that the manifest of an image without a partition table has.
fn devbox(image: &Path) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_devbox"))
        .args(["manifest", "--level", "content"])
        .arg(image)
        .env("DEVBOX_HOME", image.with_extension("home"))
        .output()
        .expect("devbox runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let whole = String::from_utf8(out.stdout).expect("ASCII");
    let line = |start: &str| whole.lines().find(|line| line.starts_with(start)).expect(start);
    let trees = line("tree1:").replace(' ', "\n");
    let fs1 = line("fs1:").split(' ').next().unwrap_or_default();
    format!("{trees}\n{}\n{fs1}\n", line("links1:"))
}

fn write(path: impl AsRef<Path>, contents: &[u8]) {
    std::fs::write(path, contents).expect("write");
}

fn mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Everything that an entry can be.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    for dir in ["etc", "etc/deep", "empty", "sticky", "many"] {
        std::fs::create_dir(at(dir)).expect("mkdir");
    }
    mode(at("sticky"), 0o1777);
    for i in 0..600 {
        write(at(&format!("many/{i}")), format!("{i}").repeat(i % 7).as_bytes());
    }
    write(at("etc/motd"), b"hi\n");
    std::fs::hard_link(at("etc/motd"), at("etc/deep/motd")).expect("link");
    std::fs::hard_link(at("etc/motd"), at("a motd")).expect("link");
    write(at("suid"), b"#!/bin/sh\n");
    chown(at("suid"), Some(70_000), Some(4_000_000_000)).expect("chown");
    mode(at("suid"), 0o6755);
    write(at("zero"), b"");
    mode(at("zero"), 0);
    let sparse = std::fs::File::create(at("sparse")).expect("create");
    sparse.set_len((5 << 20) + 3).expect("a hole");
    write(at("large"), &b"0123456789abcdef".repeat(200_000));
    symlink("../nowhere", at("etc/link")).expect("symlink");
    symlink("x".repeat(300), at("long")).expect("symlink");
    lchown(at("long"), Some(1000), Some(1001)).expect("chown");
    for name in
        [&b"\x01"[..], b" ", b"#", b"=", b"\\e", b"a\nf b 0644", b"\xff\xfe", "é".as_bytes()]
    {
        write(root.join(std::ffi::OsStr::from_bytes(name)), name);
    }
    for (name, kind) in
        [("null", "c 1 3"), ("wide", "c 511 262143"), ("vda", "b 253 1"), ("pipe", "p")]
    {
        let node = at(name);
        let args = [&[text(&node)], &kind.split(' ').collect::<Vec<_>>()[..]].concat();
        tool("mknod", &args);
    }
    for (key, value, name) in [
        ("user.empty", "", "etc/motd"),
        ("user.=key ", "0x00ff", "etc/motd"),
        ("trusted.note", "1", "etc/deep"),
        ("security.selinux", "system_u:object_r:etc_t:s0", "etc"),
        ("user.big", &"v".repeat(2000), "large"),
    ] {
        tool("setfattr", &["-n", key, "-v", value, text(&at(name))]);
    }
    tool("setcap", &["cap_net_raw+ep", text(&at("suid"))]);
    tool("setfacl", &["-m", "u:7:rw,u:5:r,g:10:rwx,m::rw", text(&at("large"))]);
    tool("setfacl", &["-m", "d:u:9:rwx,d:o::-", text(&at("etc"))]);
    tool("setfacl", &["-m", "u:9:rwx", text(root)]);
    for (name, time) in
        [("zero", "@-5.5"), ("large", "@4294967299.25"), ("long", "@1"), ("etc", "@1700000000")]
    {
        tool("touch", &["-h", "-d", time, text(&at(name))]);
    }
    tool("chattr", &["+i", text(&at("etc/motd"))]);
    tool("chattr", &["+ai", text(&at("zero"))]);
    tool("chattr", &["+a", text(&at("etc"))]);
}

const UUID: &str = "0b1c2d3e-4f50-4162-8384-95a6b7c8d9ea";

/// Makes an image with `mkfs`, fills it through the kernel, and compares what both say.
fn both_agree(test: &str, kind: &str, size: u64, mkfs: &[&str]) {
    let dir = tempfile::tempdir().expect("tempdir");
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    std::fs::File::create(&image).and_then(|f| f.set_len(size)).expect("a sparse file");
    tool(mkfs[0], &[&mkfs[1..], &[text(&image)]].concat());
    let Some(mounted) = Mounted::new(&image, &mount, "loop") else {
        return not_run(test, &format!("this kernel does not mount {kind} here"));
    };
    fill(&mount);
    drop(mounted);
    let mounted = Mounted::new(&image, &mount, "loop,ro").expect("it was mounted before");
    let args = ["--type", kind, "--label", "a label", "--uuid", UUID];
    let second = script(&[&[text(&mount)], &args[..]].concat());
    drop(mounted);
    assert_eq!(second.lines().count(), 4, "{second}");
    assert_eq!(devbox(&image), second, "{kind}");
}

#[test]
fn both_say_the_same_of_ext4() {
    let mkfs = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "a label", "-U", UUID];
    both_agree("both_say_the_same_of_ext4", "ext4", 64 << 20, &mkfs);
}

#[test]
fn both_say_the_same_of_xfs() {
    let uuid = format!("uuid={UUID}");
    let mkfs = ["mkfs.xfs", "-q", "-f", "-L", "a label", "-m", &uuid];
    both_agree("both_say_the_same_of_xfs", "xfs", 320 << 20, &mkfs);
}

/// Subvolumes, a snapshot that cannot be written and holds an empty directory instead of another
/// one, and a default subvolume.
#[test]
fn both_say_the_same_of_btrfs() {
    let test = "both_say_the_same_of_btrfs";
    // mkfs.btrfs refuses a UUID that another device of this host has.
    let uuid = "3f9a1c52-0d7e-4b66-9a3c-5b1de0c7f482";
    let dir = tempfile::tempdir().expect("tempdir");
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    std::fs::File::create(&image).and_then(|f| f.set_len(192 << 20)).expect("a sparse file");
    tool("mkfs.btrfs", &["-q", "-f", "-L", "a label", "-U", uuid, text(&image)]);
    let options = "loop,subvolid=5,compress=zstd";
    let Some(mounted) = Mounted::new(&image, &mount, options) else {
        return not_run(test, "this kernel does not mount btrfs here");
    };
    fill(&mount);
    let at = |name: &str| mount.join(name).to_str().expect("UTF-8").to_owned();
    tool("btrfs", &["subvolume", "create", &at("@")]);
    tool("btrfs", &["subvolume", "create", &at("@/inner")]);
    write(mount.join("@/file"), b"one file");
    std::fs::hard_link(mount.join("@/file"), mount.join("@/again")).expect("link");
    tool("btrfs", &["property", "set", &at("@/file"), "compression", "lzo"]);
    tool("btrfs", &["subvolume", "snapshot", "-r", &at("@"), &at("old snapshot")]);
    tool("btrfs", &["subvolume", "set-default", &at("@")]);
    drop(mounted);
    let mounted = Mounted::new(&image, &mount, &format!("{options},ro")).expect("as before");
    let args = ["--type", "btrfs", "--label", "a label", "--uuid", uuid];
    let subvolumes = ["--default", "@", "--read-only", "old snapshot"];
    let second = script(&[&[text(&mount)], &args[..], &subvolumes].concat());
    drop(mounted);
    assert_eq!(second.lines().count(), 4, "{second}");
    // The kernel shows the time of the look for the empty directory.
    let lasting = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("tree1t:")).map(str::to_owned).collect()
    };
    assert_eq!(lasting(&devbox(&image)), lasting(&second));
}

/// Names, the read-only attribute and boot code; vfat has no more.
#[test]
fn both_say_the_same_of_vfat() {
    // A loader that goes on in the sectors that FAT32 reserves, and what stands there anyway.
    let loaders = [(2, 0), (7, 4), (12, 100), (31, 511)];
    for (width, size, loaders) in
        [("16", "16384", &[][..]), ("32", "40000", &[]), ("32", "40000", &loaders)]
    {
        let mut digests = vec![];
        for with in [false, true] {
            digests.push(vfat(width, size, if with { loaders } else { &[] }));
        }
        if let [Some(without), Some(with)] = &digests[..] {
            let fs1 = |text: &str| text.lines().last().map(str::to_owned);
            assert_eq!(fs1(with) == fs1(without), loaders.is_empty(), "{width}");
        }
    }
}

/// What both say, if this kernel mounts vfat.
fn vfat(width: &str, size: &str, loaders: &[(usize, usize)]) -> Option<String> {
    let test = "both_say_the_same_of_vfat";
    let dir = tempfile::tempdir().expect("tempdir");
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    let options = ["-C", "-F", width, "-i", "1234ABCD", "-n", "EFI SYS"];
    tool("mkfs.vfat", &[&options[..], &[text(&image), size]].concat());
    let mut bytes = std::fs::read(&image).expect("read");
    loaders.iter().for_each(|(sector, byte)| bytes[sector * 512 + byte] = 0x90);
    write(&image, &bytes);
    let options = "loop,utf8,tz=UTC,umask=022";
    let Some(mounted) = Mounted::new(&image, &mount, options) else {
        not_run(test, "this kernel does not mount vfat here");
        return None;
    };
    std::fs::create_dir_all(mount.join("EFI/BOOT")).expect("mkdir");
    write(mount.join("EFI/BOOT/BOOTX64.EFI"), &b"MZ".repeat(40_000));
    write(mount.join("a long name with é and 😀.txt"), b"hi\n");
    write(mount.join("fixed"), b"fixed\n");
    mode(mount.join("fixed"), 0o444);
    tool("touch", &["-d", "@1700000000", text(&mount.join("fixed"))]);
    drop(mounted);
    let mounted = Mounted::new(&image, &mount, &format!("{options},ro")).expect("as before");
    let args = ["--type", "vfat", "--label", "EFI SYS", "--uuid", "1234-ABCD", "--boot-of-vfat"];
    let second = script(&[&[text(&mount)], &args[..], &[text(&image)]].concat());
    drop(mounted);
    assert_eq!(devbox(&image), second);
    Some(second)
}

/// The trees of the vectors, made as files.
#[test]
fn the_vectors_are_what_the_script_says() {
    let test = "the_vectors_are_what_the_script_says";
    let dir = tempfile::tempdir().expect("tempdir");
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    std::fs::File::create(&image).and_then(|f| f.set_len(16 << 20)).expect("a sparse file");
    tool("mke2fs", &["-q", "-F", "-t", "ext4", text(&image)]);
    let Some(_mounted) = Mounted::new(&image, &mount, "loop") else {
        return not_run(test, "this kernel does not mount ext4 here");
    };
    std::fs::remove_dir(mount.join("lost+found")).expect("rmdir");
    let vector = |name: &str| {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.digest"));
        std::fs::read_to_string(file).expect("the vector").trim().to_owned()
    };
    let says = || -> Vec<String> {
        let args = [text(&mount), "--type", "ext4", "--label", "root", "--uuid", UUID];
        script(&args).lines().map(str::to_owned).collect()
    };
    let at = |name: &str| mount.join(name);
    assert_eq!(says()[..3], [vector("tree1/empty"), vector("tree1t/empty"), vector("links1/none")]);
    write(at("a"), b"hi\n");
    std::fs::hard_link(at("a"), at("c")).expect("link");
    std::fs::create_dir(at("b")).expect("mkdir");
    std::fs::create_dir(at("tmp")).expect("mkdir");
    mode(at("tmp"), 0o1777);
    symlink("../a", at("b/l")).expect("symlink");
    tool("mkfifo", &["-m", "0644", text(&at("b/p"))]);
    write(at("b/ping"), b"hi\n");
    mode(at("b/ping"), 0o755);
    write(at("b/é =x"), b"");
    for (name, time) in [
        ("a", "@1700000000"),
        ("b/l", "@1700000003"),
        ("b/p", "@0"),
        ("b/ping", "@-1"),
        ("b/é =x", "@4294967296"),
        ("b", "@1700000001"),
        ("tmp", "@1700000002"),
    ] {
        tool("touch", &["-h", "-d", time, text(&at(name))]);
    }
    let expected = ["tree1/root", "tree1t/root", "links1/root", "fs1/root"].map(vector);
    assert_eq!(says(), expected);
    // Something that has no rule is no digest.
    let _socket = std::os::unix::net::UnixListener::bind(at("b/socket")).expect("bind");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fs1.py");
    let out = Command::new("python3").arg(file).arg(&mount).args(["--type", "ext4"]).output();
    let out = out.expect("it runs");
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stderr).contains("/b/socket: a socket"), "{out:?}");
}
