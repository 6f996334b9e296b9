//! Databases as text, against the vectors, and what is refused.

use super::*;
use crate::image::Limits;
use crate::parity::hashed::tests::{Memory, vector};
use crate::parity::listed::Listed;

/// A filesystem with these files.
fn system(files: &[(&str, &str)]) -> Memory {
    let mut fs = Memory::new();
    for (path, text) in files {
        fs.write_at(path, text.as_bytes());
    }
    fs
}

fn read(files: &[(&str, &str)]) -> Result<Packages> {
    let fs = system(files);
    let listed = Listed::read(&fs, &Limits::default()).expect("list");
    Packages::read(Files { fs: &fs, tree: &listed })
}

const DPKG: &str = "var/lib/dpkg/status";
const DEBIAN: &str = "\
Package: tzdata
Status: install reinstreq half-installed
Architecture: all
Version: 2024b-0+deb12u1
Description: time zones
 Version: 9
 .
 more

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9+deb12u8

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u8

package:g++
STATUS:   hold\tok  installed
Architecture: amd64
Version: 4:12.2.0-3

Package: gone
Status: purge ok not-installed
Architecture: amd64

Package: old-conf
Status: deinstall ok config-files
Architecture: all
Version: 1.0~rc1-1
Conffiles:
 /etc/old 0123

Package: base-files
Status: install ok installed
Architecture: amd64
Version: 12.4+deb12u7
";

fn assert_vector(packages: &Packages, name: &str) {
    let (preimage, digest) = vector(&format!("pkgs1/{name}"));
    assert_eq!(String::from_utf8_lossy(&packages.preimage()), String::from_utf8_lossy(&preimage));
    assert_eq!(packages.digest().to_string(), digest);
}

#[test]
fn the_databases_of_dpkg_and_apk_are_the_vectors() {
    assert_vector(&read(&[(DPKG, DEBIAN)]).expect("Debian"), "debian");
    assert_vector(&read(&[(DPKG, "\n \n")]).expect("nothing installed"), "none");
    let distroless = [
        (
            "var/lib/dpkg/status.d/base",
            "Package: base-files\nArchitecture: amd64\nVersion: 12.4+deb12u7",
        ),
        ("var/lib/dpkg/status.d/base.md5sums", "0123  etc/os-release\n"),
        ("var/lib/dpkg/status.d/netbase", "Package: netbase\nVersion: 6.4\nArchitecture: all\n"),
    ];
    assert_vector(&read(&distroless).expect("distroless"), "distroless");
    let alpine = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\n\n\
        P:zlib\nV:1.2.13-r1\nA:x86_64\n\nF:etc\nM:0:0:755\n\nP:alpine-baselayout\nV:3.4.3-r2\nA:x86_64";
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        assert_vector(&read(&[(path, alpine)]).expect("Alpine"), "alpine");
    }
    // A merged `/usr`: one database, not two of it.
    let mut fs = system(&[("usr/lib/apk/db/installed", alpine)]);
    fs.symlink(0, b"lib", b"usr/lib");
    let listed = Listed::read(&fs, &Limits::default()).expect("list");
    assert_vector(&Packages::read(Files { fs: &fs, tree: &listed }).expect("reads"), "alpine");
}

#[test]
fn a_system_whose_packages_cannot_be_told_is_no_empty_one() {
    let apk = "lib/apk/db/installed";
    let cases: [(&[(&str, &str)], &str); 12] = [
        (&[("etc/os-release", "ID=x")], "no package database"),
        (
            &[("usr/lib/sysimage/rpm/rpmdb.sqlite", "")],
            "rpm database `/usr/lib/sysimage/rpm/rpmdb.sqlite` is damaged",
        ),
        (
            &[("usr/share/rpm/rpmdb.sqlite", ""), ("usr/share/rpm/rpmdb.sqlite-wal", "x")],
            "rpm database `/usr/share/rpm/rpmdb.sqlite` is not whole",
        ),
        (
            &[("usr/lib/sysimage/rpm/Packages.db", "")],
            "rpm database `/usr/lib/sysimage/rpm/Packages.db`",
        ),
        (&[(DPKG, ""), ("var/lib/rpm/Packages", "")], "rpm database `/var/lib/rpm/Packages`"),
        (&[("var/lib/pacman/local/ALPM_DB_VERSION", "9")], "pacman database"),
        (&[(DPKG, "Package: a\nVersion 1\n")], "damaged at line 2"),
        (&[(DPKG, "Package: a\nVersion: 1\n\nVersion: 2\n")], "damaged at line 4"),
        (&[(DPKG, "Package: a\nStatus: install,ok installed\n")], "`Status` is not three words"),
        (&[(DPKG, "Package: a\nPackage: b\n")], "there twice"),
        (&[(DPKG, "Package: a\n\nPackage: a\n")], "`a` is there twice"),
        (&[(apk, "P:a\nnonsense\n")], "damaged at line 2"),
    ];
    for (files, expected) in cases {
        let e = read(files).expect_err(expected);
        assert_eq!(e.kind(), crate::error::Kind::Undetermined, "{e}");
        assert!(e.to_string().contains(expected), "{e} lacks {expected}");
    }
}

#[test]
fn packages_are_added_removed_and_changed() {
    let old = read(&[(DPKG, DEBIAN)]).expect("reads");
    let text = DEBIAN
        .replace("4:12.2.0-3", "4:13.1-1")
        .replace("purge ok not-installed", "install ok installed\nVersion: 2")
        .replace("Architecture: i386", "Architecture: armhf")
        .replace("hold\tok", "install ok");
    let new = read(&[(DPKG, &text)]).expect("reads");
    let mut out = Differences::default();
    compare(&old, &new, &mut out);
    let lines: Vec<_> = out.sorted().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "package g++:amd64: version 4:12.2.0-3 -> 4:13.1-1, status hold,ok,installed -> install,ok,installed",
            "package gone:amd64: added 2",
            "package libc6:armhf: added 2.36-9+deb12u8",
            "package libc6:i386: removed 2.36-9+deb12u8",
        ]
    );
}
