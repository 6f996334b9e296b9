use super::*;
use crate::image::Limits;
use crate::parity::hashed::tests::Memory;
use crate::parity::listed::Listed;

/// A filesystem with these files.
fn filesystem(all: &[(&str, &str)]) -> Memory {
    let mut fs = Memory::new();
    for (path, text) in all {
        fs.write_at(path, text.as_bytes());
    }
    fs
}

fn owners(fs: &Memory) -> Owners {
    let tree = Listed::read(fs, &Limits::default()).expect("list");
    Owners::read(Files { fs, tree: &tree }).expect("read")
}

fn names(owners: &Owners, path: &str) -> Vec<String> {
    let owned = owners.of(path.as_bytes()).cloned().unwrap_or_default();
    let name = |index: &Index| {
        let (name, arch) = owners.package(*index).expect("a package");
        format!("{}:{}", String::from_utf8_lossy(name), String::from_utf8_lossy(arch))
    };
    owned.by.iter().map(name).collect()
}

#[test]
fn dpkg_says_who_owns_a_file_with_which_sum_also_through_a_merged_usr() {
    let mut fs = filesystem(&[
        ("var/lib/dpkg/info/bash.list", "/.\n/bin\n/bin/bash\n/etc\n/etc/bash.bashrc\n"),
        ("var/lib/dpkg/info/bash.md5sums", "0123456789abcdef0123456789abcdef  bin/bash\n"),
        ("var/lib/dpkg/info/libc6:amd64.list", "/.\n/etc\n/lib/libc.so\n"),
        (
            "var/lib/dpkg/status",
            "Package: bash\nConffiles:\n /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d\n /etc/old newconffile obsolete\nDescription: x\n /etc/none 89269e1298235f1b12b4c16e4065ad0d\n\n",
        ),
        ("usr/bin/bash", "elf"),
    ]);
    fs.symlink(0, b"bin", b"usr/bin");
    let owners = owners(&fs);
    assert_eq!(names(&owners, "usr/bin/bash"), ["bash:"]);
    assert_eq!(names(&owners, "bin/bash"), Vec::<String>::new());
    assert_eq!(names(&owners, "etc"), ["bash:", "libc6:amd64"]);
    let bash = owners.of(b"usr/bin/bash").expect("owned");
    let sum = unhex(b"0123456789abcdef0123456789abcdef").expect("hex");
    assert_eq!((bash.checksum, bash.is_config), (Some(Checksum::Md5(sum)), false));
    let config = owners.of(b"etc/bash.bashrc").expect("owned");
    let sum = unhex(b"89269e1298235f1b12b4c16e4065ad0d").expect("hex");
    assert_eq!((config.checksum, config.is_config), (Some(Checksum::Md5(sum)), true));
    let old = owners.of(b"etc/old").expect("known");
    assert_eq!((old.checksum, old.is_config, old.by.len()), (None, true, 0));
    assert!(owners.of(b"etc/none").is_none());
}

#[test]
fn a_distroless_database_has_its_lists_in_its_sums() {
    let fs = filesystem(&[
        ("var/lib/dpkg/status.d/base", "Package: base-files\n"),
        (
            "var/lib/dpkg/status.d/base.md5sums",
            "0123456789abcdef0123456789abcdef  etc/issue\nbad\n",
        ),
    ]);
    assert_eq!(names(&owners(&fs), "etc/issue"), ["base:"]);
}

#[test]
fn apk_says_who_owns_a_file_with_which_sum() {
    // The checksum of the empty file: printf '' | sha1sum | xxd -r -p | base64.
    let fs = filesystem(&[(
        "lib/apk/db/installed",
        "C:Q1x\nP:musl\nV:1\nA:x86_64\nF:lib\nR:ld.so\na:0:0:755\nZ:Q12jmj7l5rSw0yVb/vlWAYkK/YBwk=\nF:etc\nR:hosts\nZ:bad\n\nP:other\nV:2\nA:x86_64\nF:etc\n\n",
    )]);
    let owners = owners(&fs);
    assert_eq!(names(&owners, "lib/ld.so"), ["musl:x86_64"]);
    let sum = unhex(b"da39a3ee5e6b4b0d3255bfef95601890afd80709").expect("hex");
    assert_eq!(owners.of(b"lib/ld.so").and_then(|o| o.checksum), Some(Checksum::Sha1(sum)));
    assert_eq!(names(&owners, "etc"), ["musl:x86_64", "other:x86_64"]);
    let hosts = owners.of(b"etc/hosts").expect("owned");
    assert_eq!((hosts.checksum, hosts.is_config), (None, true));
}
