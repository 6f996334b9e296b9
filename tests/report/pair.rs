//! Two systems that differ in what people plant by accident: secrets, hostile names, rights, packages.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::lab::{Lab, ROOT, put, text, tool};

/// What no report may hold.
pub(crate) const SECRETS: &[&str] = &[
    "saltAAAA",
    "hashAAAAhashAAAA",
    "saltBBBB",
    "hashBBBBhashBBBB",
    "cGxhbnRlZCBwcml2YXRlIGtleQ",
    "b3RoZXIgcHJpdmF0ZSBrZXk",
    "ghp_0plantedTokenOfTheFirstSide1",
    "ghp_0plantedTokenOfTheOtherSide2",
    "correct-horse-1",
    "correct-horse-2",
    "bootpass1",
    "bootpass2",
    "mirrorpw1",
    "mirrorpw2",
    "battery-1",
    "battery-2",
    "staple-1",
    "staple-2",
];

/// Names that a page, a terminal or a parser could obey.
pub(crate) const HOSTILE: &[&str] = &[
    "<script>document.title='owned'<\u{202e}lmth.x",
    "\"onmouseover='alert(1)'\"",
    "]]>&amp;<!--",
    "new\nline\u{1b}[2J",
];

/// A file of both sides, if it is there.
const FILES: &[(&str, Option<&str>, Option<&str>)] = &[
    (
        "etc/shadow",
        Some("root:$6$saltAAAA$hashAAAAhashAAAA:1:::::: \n"),
        Some("root:$6$saltBBBB$hashBBBBhashBBBB:2::::::\n"),
    ),
    (
        "etc/ssh/ssh_host_ed25519_key",
        Some("-----BEGIN OPENSSH PRIVATE KEY-----\ncGxhbnRlZCBwcml2YXRlIGtleQ\n"),
        Some("-----BEGIN OPENSSH PRIVATE KEY-----\ncGxhbnRlZCBwcml2YXRlIGtleQ\n"),
    ),
    (
        "etc/app/server.conf",
        Some("port = 80\n-----BEGIN PRIVATE KEY-----\ncGxhbnRlZCBwcml2YXRlIGtleQ\n"),
        Some("port = 80\n-----BEGIN PRIVATE KEY-----\nb3RoZXIgcHJpdmF0ZSBrZXk\n"),
    ),
    (
        "etc/environment",
        Some("PATH=/bin\nGITHUB=ghp_0plantedTokenOfTheFirstSide1\n"),
        Some("PATH=/usr/bin\nGITHUB=ghp_0plantedTokenOfTheOtherSide2\n"),
    ),
    (
        "etc/db.ini",
        Some("password = correct-horse-1 battery-1\nsecret: |\n  staple-1\n"),
        Some("password = correct-horse-2 battery-2\nsecret: |\n  staple-2\n"),
    ),
    (
        "boot/grub/grub.cfg",
        Some(
            "menuentry 'Lab' {\n linux /vmlinuz root=/dev/vda3 ro luks.password=\"x bootpass1\"\n initrd /initrd\n}\n",
        ),
        Some(
            "menuentry 'Lab' {\n linux /vmlinuz root=/dev/vda3 rw luks.password=\"x bootpass2\"\n initrd /initrd\n}\n",
        ),
    ),
    (
        "etc/apt/sources.list",
        Some("deb https://me:mirrorpw1@mirror.example.org/debian bookworm main\n"),
        Some("deb https://me:mirrorpw2@mirror.example.org/debian bookworm main\n"),
    ),
    ("etc/sudoers.d/90-dev", None, Some("dev ALL=(ALL) NOPASSWD:ALL\n")),
    (
        "etc/motd",
        Some("hello\n"),
        Some("</pre><script>document.title='owned'</script>\u{202e}olleh\n"),
    ),
    ("usr/bin/tool", Some("a\n"), Some("b\n")),
    (
        "var/lib/dpkg/status",
        Some(
            "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.15-1\n\n",
        ),
        Some(
            "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.17-1\n\n",
        ),
    ),
];

/// How many changes [`make_some`] chooses from.
pub(crate) const CHANGES: usize = FILES.len() + HOSTILE.len() + 1;

/// Makes `a.raw` and `b.raw` in the lab, which differ in everything here.
pub(crate) fn make(lab: &Lab) {
    make_some(lab, &[true; CHANGES]);
}

/// Makes `a.raw` and `b.raw` in the lab, which differ in the changes that are chosen.
pub(crate) fn make_some(lab: &Lab, chosen: &[bool; CHANGES]) {
    let (files, rest) = chosen.split_at(FILES.len());
    for (side, name) in ["a.raw", "b.raw"].into_iter().enumerate() {
        let root = lab.path(&format!("root-{name}"));
        _ = std::fs::remove_dir_all(&root);
        tool("cp", &["-a", text(&lab.path("root")), text(&root)]);
        for ((path, a, b), changed) in FILES.iter().zip(files) {
            if let Some(content) = if side == 1 && *changed { b } else { a } {
                write(&root.join(path), content);
            }
        }
        if side == 1 {
            for (n, (hostile, _)) in
                HOSTILE.iter().zip(rest).enumerate().filter(|(_, (_, on))| **on)
            {
                write(&root.join("etc").join(hostile), &format!("{n}\n"));
            }
            if rest[HOSTILE.len()] {
                let mode = std::fs::Permissions::from_mode(0o4755);
                std::fs::set_permissions(root.join("usr/bin/tool"), mode).expect("chmod");
            }
        }
        disk(lab, &root, name);
    }
}

/// A disk whose root filesystem holds a folder, and is otherwise that of the lab.
pub(crate) fn disk(lab: &Lab, root: &Path, name: &str) {
    let fs = lab.path("made.ext4");
    _ = std::fs::remove_file(&fs);
    std::fs::File::create(&fs).and_then(|file| file.set_len(ROOT.1 * 512)).expect("a sparse file");
    let uuid = "6d8e2a3c-0000-4222-8333-0000000000aa";
    let seed = format!("hash_seed={uuid}");
    let options = ["-q", "-t", "ext4", "-L", "root", "-U", uuid, "-E", &seed, "-d", text(root)];
    tool("mke2fs", &[&options[..], &[text(&fs)]].concat());
    if name != "a.raw" {
        lab.copy(name);
    }
    put(&lab.path(name), ROOT.0 * 512, &std::fs::read(fs).expect("read"));
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
    // Not through a hard link of the lab.
    _ = std::fs::remove_file(path);
    std::fs::write(path, content).expect("write");
}
