//! `devbox digest` and `devbox parity` on real images.

use std::path::Path;
use std::process::Command;

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, ROOT, put, text, tool};

impl Lab {
    /// `parity` of the disk with another one.
    fn parity(&self, other: &Path, level: &str) -> (i32, String) {
        self.devbox(&["parity", "a.raw", text(other), "--level", level, "--all"])
    }

    /// The list of differences at level `content`.
    fn differences(&self, other: &Path) -> Vec<String> {
        let (code, out) = self.parity(other, "content");
        assert_eq!(code, 1, "{out}");
        assert_eq!(out.lines().next(), Some("different at level content"));
        listed(&out)
    }
}

/// The differences in a report with all of them; their evidence is indented further.
fn listed(report: &str) -> Vec<String> {
    let mut lines: Vec<_> = report
        .lines()
        .skip(2)
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .map(|line| line.split("  [").next().unwrap_or(line).to_owned())
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn every_container_of_one_disk_matches_at_disk_and_content() {
    let lab = Lab::new();
    let others = [
        lab.convert("a.qcow2", &["qcow2"]),
        lab.convert("z.qcow2", &["qcow2", "-c"]),
        lab.convert("a.vhd", &["vpc", "-o", "subformat=fixed,force_size=on"]),
    ];
    for other in &others {
        for (level, name) in [("disk", "bytes1"), ("content", "box1")] {
            let (code, out) = lab.parity(other, level);
            assert_eq!(code, 0, "{out}");
            assert!(out.starts_with(&format!("equal at level {level}: {name}:")), "{out}");
        }
        let (code, out) = lab.parity(other, "file");
        assert_eq!(code, 1, "{out}");
        assert!(out.starts_with("different at level file\n"), "{out}");
        assert!(listed(&out)[0].starts_with("file: content"), "{out}");
    }
    let (_, sha256) = lab.devbox(&["digest", "a.vhd", "--level", "file"]);
    let sum = tool("sha256sum", &[text(&others[2])]).stdout;
    assert_eq!(sha256.trim(), format!("sha256:{}", String::from_utf8_lossy(&sum[..64])));
}

#[test]
fn each_change_is_found_and_named() {
    let lab = Lab::new();
    let word = lab.path("word");
    std::fs::write(&word, "jello\n").expect("write");
    let write = format!("write {} new", text(&word));
    let cases: [(&[&str], &[&str]); 9] = [
        (&["set_inode_field /etc/shadow mode 0100600"], &["/etc/shadow: mode 0640 -> 0600"]),
        (&["set_inode_field /etc/shadow gid 42"], &["/etc/shadow: owner"]),
        (&["ea_set /etc/shadow user.a 1"], &["/etc/shadow: xattr user.a added"]),
        (&["ea_rm /bin/busybox user.note"], &["/bin/busybox: xattr user.note removed"]),
        (&["cd /etc", &write], &["/etc/new: added file"]),
        (&["rm /etc/shadow"], &["/etc/shadow: removed file"]),
        (&["rm /bin/sh", "cd /bin", "symlink sh dash"], &["/bin/sh: target busybox -> dash"]),
        (&["rm /dev/null", "cd /dev", "mknod null c 1 5"], &["/dev/null: device 1,3 -> 1,5"]),
        (&["set_inode_field /etc/shadow flags 0x80010"], &["/etc/shadow: flags none -> i"]),
    ];
    for (requests, expected) in cases {
        let lines = lab.differences(&lab.changed(requests));
        // What debugfs makes has its own owner and mode; only the named line matters.
        for line in expected {
            assert!(lines.iter().any(|l| l.starts_with(line)), "{requests:?}: {lines:?}");
        }
        assert!(lines.len() <= expected.len(), "{requests:?}: {lines:?}");
    }
}

#[test]
fn one_changed_byte_in_one_file_names_that_file() {
    let lab = Lab::new();
    let disk = lab.copy("b.raw");
    let bytes = std::fs::read(&disk).expect("read");
    let at = bytes.windows(8).position(|w| w == b"root:*:\n").expect("the file's bytes");
    put(&disk, at as u64 + 5, b"x");
    assert_eq!(lab.differences(&disk), ["/etc/shadow: content"]);
    let other = lab.path("b.raw");
    let (code, json) = lab.devbox(&["parity", "a.raw", text(&other), "--json"]);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["schema"], "devbox.parity/1");
    assert_eq!(json["verdict"], "different");
    assert_eq!(json["level"], "content");
    assert_eq!(json["differences"][0]["place"], "3:/etc/shadow");
    assert_eq!(json["differences"][0]["changes"][0]["kind"], "content");
}

#[test]
fn what_is_outside_of_files_counts_at_content() {
    let lab = Lab::new();
    let cases = [
        (100, "disk: boot code"),
        (1024 * 1024 - 7, "disk: gap before the first partition"),
        (2048 * 512 + 3, "partition 1: content"),
        (4096 * 512 + 100, "partition 2: boot code"),
        (ROOT.0 * 512 + 17, "partition 3: boot code"),
    ];
    for (at, expected) in cases {
        let disk = lab.copy("b.raw");
        put(&disk, at, b"X");
        assert_eq!(lab.differences(&disk), [expected], "byte {at}");
    }
    let fs = lab.path("relabelled.ext4");
    std::fs::copy(lab.path("root.ext4"), &fs).expect("copy");
    tool("tune2fs", &["-L", "other", text(&fs)]);
    let disk = lab.copy("b.raw");
    put(&disk, ROOT.0 * 512, &std::fs::read(fs).expect("read"));
    assert_eq!(lab.differences(&disk), ["partition 3: name root -> other"]);
    let disk = lab.copy("b.raw");
    tool("sfdisk", &["-q", "--part-label", text(&disk), "2", "ESP"]);
    assert_eq!(lab.differences(&disk), ["partition 2: name esp -> ESP"]);
    let disk = lab.copy("b.raw");
    let uuid = "6D8E2A3C-0000-4222-8333-00000000000F";
    tool("sfdisk", &["-q", "--part-uuid", text(&disk), "3", uuid]);
    let lines = lab.differences(&disk);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("partition 3: id 6d8e2a3c-"), "{lines:?}");
}

#[test]
fn a_changed_kernel_command_line_is_said_beside_its_file() {
    let lab = Lab::new();
    let disk = lab.copy("b.raw");
    let bytes = std::fs::read(&disk).expect("read");
    let at = bytes.windows(9).position(|w| w == b"vda3 ro\n ").expect("grub.cfg");
    put(&disk, at as u64 + 3, b"9");
    let lines = lab.differences(&disk);
    let command_line = "boot entry Lab: command line `root=/dev/vda3 ro` -> `root=/dev/vda9 ro`";
    assert_eq!(lines, ["/boot/grub/grub.cfg: content", command_line]);
}

#[test]
fn free_space_and_the_size_of_the_disk_are_no_content() {
    let lab = Lab::new();
    let word = lab.path("word");
    std::fs::write(&word, vec![b'x'; 100_000]).expect("write");
    let write = format!("write {} new", text(&word));
    let free = lab.changed(&["cd /etc", &write, "rm new"]);
    let (code, out) = lab.parity(&free, "disk");
    assert_eq!(code, 1, "{out}");
    assert!(listed(&out)[0].starts_with("bytes "), "{out}");
    assert!(out.contains("hint: The content is equal"), "{out}");
    let (code, out) = lab.parity(&free, "content");
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_limit_that_is_reached_is_exit_3_and_names_its_option() {
    let lab = Lab::new();
    let cases = [
        ("--max-disk-size=31MiB", "--max-disk-size"),
        ("--max-entries=4", "--max-entries"),
        ("--max-depth=1", "--max-depth"),
        ("--max-path=4", "--max-path"),
        ("--max-file-size=63B", "--max-file-size"),
        ("--max-contents=100B", "--max-contents"),
        ("--max-xattr=0", "--max-xattr"),
        ("--max-xattrs=4", "--max-xattrs"),
        ("--timeout=0s", "--timeout"),
    ];
    for (option, named) in cases {
        let (code, out) = lab.devbox(&["digest", "a.raw", option]);
        assert_eq!(code, 3, "{option}: {out}");
        assert!(out.contains(&format!("raise the limit with `{named}`")), "{option}: {out}");
    }
    let (code, out) = lab.devbox(&["digest", "a.raw", "--max-disk-size=32MiB", "--max-depth=3"]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_padded_disk_is_a_verdict_of_its_own() {
    let lab = Lab::new();
    let disk = lab.copy("b.raw");
    let file = std::fs::OpenOptions::new().write(true).open(&disk).expect("open");
    file.set_len((33 << 20) + 512).expect("grow");
    let (code, out) = lab.parity(&disk, "disk");
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("padded at level disk"), "{out}");
    let allowed = ["parity", "b.raw", "a.raw", "--level", "disk", "--allow-padding"];
    let (code, out) = lab.devbox(&allowed);
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("padded at level disk"), "{out}");
    put(&disk, (33 << 20) + 511, b"x");
    let (code, out) = lab.devbox(&allowed);
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("different at level disk"), "{out}");
    assert!(out.contains("bytes 33554432..34603520: content"), "{out}");
}

#[test]
fn a_directory_proves_level_tree_and_nothing_more() {
    let lab = Lab::new();
    let (code, out) = lab.devbox(&["parity", "a.raw", "dir:root"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("level `content` cannot be told of the directory `root`"), "{out}");
    assert!(out.contains("--level tree"), "{out}");
    let (code, out) = lab.devbox(&["digest", "--root", "root", "--level", "disk"]);
    assert_eq!(code, 2, "{out}");
    let (code, listed) = lab.devbox(&["digest", "--root", "root"]);
    assert_eq!(code, 0, "{listed}");
    assert!(listed.starts_with("tree1:") && listed.contains("\nlinks1:"), "{listed}");
    let (code, out) = lab.devbox(&["parity", "root", "dir:root", "--level", "tree"]);
    assert_eq!(code, 0, "{out}");
    // What debugfs changed in the image is what differs.
    let (code, out) = lab.devbox(&["parity", "root", "a.raw", "--level", "tree", "--all"]);
    assert_eq!(code, 1, "{out}");
    for line in ["/dev/null: added character device", "/bin/busybox: xattr user.note added"] {
        assert!(out.contains(line), "{out} lacks {line}");
    }
}

#[test]
fn times_are_a_level_of_their_own() {
    let lab = Lab::new();
    let disk = lab.changed(&["set_inode_field /etc/shadow mtime @1700000000"]);
    let (code, out) = lab.parity(&disk, "tree");
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("equal at level tree: tree1:"), "{out}");
    let (code, out) = lab.parity(&disk, "times");
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("different at level times\n  1 difference\n"), "{out}");
    let lines = listed(&out);
    assert!(lines.len() == 1 && lines[0].starts_with("/etc/shadow: mtime "), "{out}");
    assert!(lines[0].ends_with(" -> 1700000000"), "{out}");
    let (code, out) = lab.parity(&lab.copy("c.raw"), "times");
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("equal at level times: tree1t:") && out.contains(" links1:"), "{out}");
}

#[test]
fn packages_are_compared_by_the_database_in_the_image() {
    let lab = Lab::new();
    let (code, out) = lab.parity(&lab.copy("c.raw"), "packages");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("a.raw") && out.contains("no package database"), "{out}");
    let status = lab.path("status");
    let record = |name: &str, version: &str| {
        let state = "Status: install ok installed\nArchitecture: amd64\n";
        format!("Package: {name}\n{state}Version: {version}\n\n")
    };
    let with = |name: &str, records: &[String]| {
        std::fs::write(&status, records.concat()).expect("write");
        let write = format!("write {} status", text(&status));
        let disk = lab.changed(&[
            "mkdir var",
            "mkdir var/lib",
            "mkdir var/lib/dpkg",
            "cd var/lib/dpkg",
            &write,
        ]);
        std::fs::rename(&disk, lab.path(name)).expect("rename");
    };
    with("old.raw", &[record("libc6", "2.36-9"), record("vim", "2:9.0"), record("zsh", "5.9")]);
    with("new.raw", &[record("zsh", "5.9"), record("nano", "7.2"), record("libc6", "2.36-10")]);
    with("same.raw", &[record("vim", "2:9.0"), record("zsh", "5.9"), record("libc6", "2.36-9")]);
    let args = |other| ["parity", "old.raw", other, "--level", "packages", "--all"];
    let (code, out) = lab.devbox(&args("new.raw"));
    assert_eq!(code, 1, "{out}");
    assert_eq!(
        listed(&out),
        [
            "package libc6:amd64: version 2.36-9 -> 2.36-10",
            "package nano:amd64: added 7.2",
            "package vim:amd64: removed 2:9.0",
        ]
    );
    assert!(out.contains("3 differences: 3 by 3 packages"), "{out}");
    let (code, out) = lab.devbox(&args("same.raw"));
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("equal at level packages: pkgs1:"), "{out}");
}

#[test]
fn what_cannot_be_read_is_no_verdict() {
    let lab = Lab::new();
    let absent = lab.path("absent.raw");
    let noise = lab.path("noise.raw");
    std::fs::write(&noise, vec![0x5a; 1 << 20]).expect("write");
    let torn = lab.copy("torn.raw");
    // Garbage over the group descriptors, which follow the superblock.
    put(&torn, ROOT.0 * 512 + 2048, &[0xa5; 2048]);
    let short = lab.copy("short.raw");
    let file = std::fs::OpenOptions::new().write(true).open(&short).expect("open");
    file.set_len(16 << 20).expect("cut");
    for bad in [&absent, &noise, &torn, &short] {
        let (code, out) = lab.parity(bad, "content");
        assert_eq!(code, 3, "{}: {out}", bad.display());
        let name = bad.file_name().and_then(|n| n.to_str()).expect("a name");
        assert!(out.contains(name), "{out} does not name {name}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn an_image_and_its_mounted_filesystem_have_the_same_tree() {
    let lab = Lab::new();
    let mount = lab.path("mnt");
    std::fs::create_dir(&mount).expect("mkdir");
    let fs = lab.path("root.ext4");
    let options = "loop,ro,noload";
    let out = Command::new("mount").args(["-o", options]).arg(&fs).arg(&mount).output();
    if !out.as_ref().is_ok_and(|out| out.status.success()) {
        eprintln!("not run: an_image_and_its_mounted_filesystem_have_the_same_tree: no loop mount");
        return;
    }
    let (code, verdict) = lab.devbox(&["parity", "a.raw", "mnt", "--level", "tree"]);
    // What is mounted inside is looked beneath.
    let over = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(mount.join("dev")).status();
    let (again, beneath) = lab.devbox(&["parity", "a.raw", "mnt", "--level", "tree"]);
    if over.is_ok_and(|status| status.success()) {
        tool("umount", &[text(&mount.join("dev"))]);
    }
    tool("umount", &[text(&mount)]);
    assert_eq!(code, 0, "{verdict}");
    assert_eq!((again, beneath), (0, verdict));
}

#[test]
fn an_answer_that_cannot_be_written_is_no_verdict() {
    let lab = Lab::new();
    for args in [
        &["digest", "a.raw"][..],
        &["parity", "a.raw", "a.raw"],
        &["parity", "a.raw", "a.raw", "--json"],
    ] {
        let full =
            std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
        let out = Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(args)
            .env("DEVBOX_HOME", lab.path("home"))
            .current_dir(lab.path("."))
            .stdout(full)
            .output()
            .expect("devbox runs");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(3), "{args:?}: {stderr}");
        assert!(stderr.contains("cannot write to standard output"), "{stderr}");
    }
}

#[test]
fn a_pipe_is_no_file() {
    let lab = Lab::new();
    tool("mkfifo", &[text(&lab.path("pipe"))]);
    for level in ["file", "disk", "content", "tree"] {
        let (code, message) = lab.devbox(&["digest", "pipe", "--level", level]);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains("`pipe` is not a "), "{message}");
    }
}

/// A loader can be told to run code that no digest covers.
#[test]
fn code_in_an_extended_boot_record_is_refused() {
    let lab = Lab::new();
    let disk = lab.path("mbr.raw");
    std::fs::File::create(&disk).and_then(|file| file.set_len(8 << 20)).expect("a sparse file");
    let script = lab.path("mbr.sfdisk");
    std::fs::write(
        &script,
        "label: dos\nstart=2048, size=8192, type=5\nstart=4096, size=2048, type=83\n",
    )
    .expect("write");
    tool("sh", &["-c", &format!("sfdisk -q {} < {}", text(&disk), text(&script))]);
    let (code, plain) = lab.devbox(&["digest", "mbr.raw"]);
    assert_eq!(code, 0, "{plain}");
    // The first record stands where the extended partition begins.
    put(&disk, 2048 * 512 + 100, b"\x90");
    let (code, message) = lab.devbox(&["digest", "mbr.raw"]);
    assert_eq!(code, 3, "{message}");
    assert!(message.contains("the extended boot record at byte 1048576 holds code"), "{message}");
    let (code, whole) = lab.devbox(&["digest", "mbr.raw", "--level", "disk"]);
    assert_eq!(code, 0, "{whole}");
}
