//! One disk in every container and back keeps `bytes1` and `box1`; one byte anywhere that counts
//! changes them and is named.

#[path = "support/containers.rs"]
mod containers;
#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, ROOT, put, text};

/// `cap_net_raw+ep`, version 2 (linux/capability.h): magic and flags, then permitted and inheritable.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`, version 2 (linux/posix_acl_xattr.h).
const ACL: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, //
    2, 0, 4, 0, 0xe8, 3, 0, 0, //
    4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, //
    0x10, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, //
    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
];
/// Its second entry as ext4 stores it: tag, permissions, id.
const STORED_ACL_ENTRY: &[u8] = &[2, 0, 4, 0, 0xe8, 3, 0, 0];

/// A disk whose root filesystem has a capability and an ACL. Without checksums of metadata, as
/// with them a changed byte is damage, which is exit 3 and no difference.
fn lab() -> Lab {
    let lab = Lab::with(&["-O", "^metadata_csum"]);
    std::fs::write(lab.path("capability"), CAPABILITY).expect("write");
    std::fs::write(lab.path("acl"), ACL).expect("write");
    let capability =
        format!("ea_set -f {} /bin/busybox security.capability", text(&lab.path("capability")));
    let acl = format!("ea_set -f {} /etc/shadow system.posix_acl_access", text(&lab.path("acl")));
    let disk = lab.changed(&[&capability, &acl]);
    std::fs::rename(disk, lab.path("a.raw")).expect("rename");
    lab
}

#[test]
fn every_container_and_the_way_back_keep_the_disk_and_its_content() {
    let lab = lab();
    let level = |path: &str, level| {
        let (code, out) = lab.devbox(&["digest", path, "--level", level]);
        assert_eq!(code, 0, "{path}: {out}");
        out
    };
    let (bytes1, box1) = (level("a.raw", "disk"), level("a.raw", "content"));
    assert!(bytes1.starts_with("bytes1:") && box1.starts_with("box1:"), "{bytes1}{box1}");
    let desk = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    containers::each(&lab.path("a.raw"), desk.path(), &|_| true, &mut |name, path| {
        assert_eq!(level(text(path), "disk"), bytes1, "{name}");
        assert_eq!(level(text(path), "content"), box1, "{name}");
        seen += 1;
    });
    assert!(seen > 40, "{seen}");
}

#[test]
fn one_flipped_byte_is_named_wherever_it_is() {
    let lab = lab();
    let disk = std::fs::read(lab.path("a.raw")).expect("read");
    let find = |what: &[u8], from: u64| {
        let from = from as usize;
        let mut places = disk[from..].windows(what.len()).enumerate().filter(|(_, w)| *w == what);
        let (at, _) = places.next().expect("it is there");
        (from + at) as u64
    };
    let esp = 4096 * 512;
    let cases = [
        ("the gap", 1024 * 1024 - 7, "disk: gap before the first partition"),
        ("a file in the ESP", find(b"hello\n", esp), "/boot/efi/EFI/BOOT/BOOTX64.EFI: content"),
        (
            "a capability",
            find(CAPABILITY, ROOT.0 * 512) + 5,
            "/bin/busybox: xattr security.capability",
        ),
        (
            "an ACL",
            find(STORED_ACL_ENTRY, ROOT.0 * 512) + 2,
            "/etc/shadow: xattr system.posix_acl_access",
        ),
    ];
    for (what, at, named) in cases {
        let other = lab.copy("b.raw");
        put(&other, at, &[disk[at as usize] ^ 2]);
        let (code, out) = lab.devbox(&["parity", "a.raw", "b.raw", "--all"]);
        assert_eq!(code, 1, "{what}: {out}");
        assert!(out.contains("\n  1 difference\n"), "{what}: {out}");
        assert!(out.lines().any(|line| line.trim().starts_with(named)), "{what}: {out}");
    }
}

#[test]
fn a_flipped_byte_under_a_checksum_is_no_verdict() {
    let lab = Lab::new();
    let disk = std::fs::read(lab.path("a.raw")).expect("read");
    let root = (ROOT.0 * 512) as usize;
    let at = disk[root..].windows(4).position(|w| w == b"note").expect("the attribute's name");
    let other = lab.copy("b.raw");
    put(&other, (root + at) as u64, b"N");
    let (code, out) = lab.devbox(&["parity", "a.raw", text(&other)]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("checksum"), "{out}");
}

#[test]
fn a_container_that_is_not_read_is_named() {
    let lab = Lab::new();
    for (format, named) in [("vdi", "VDI"), ("qed", "QED"), ("parallels", "Parallels")] {
        let (code, out) = lab.devbox(&["digest", text(&lab.convert("other", &[format]))]);
        assert_eq!(code, 3, "{format}: {out}");
        assert!(out.contains(named), "{format}: {out}");
    }
}
