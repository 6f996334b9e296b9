//! Headers made here in databases that SQLite made.

use super::header::Damage;
use super::*;
use crate::image::Limits;
use crate::parity::hashed::tests::{Memory, vector};
use crate::parity::listed::Listed;
use crate::parity::packages::files::{Checksum, Owners};
use crate::parity::packages::{Database as Alone, Packages};

/// Types of tags.
const CHAR: u32 = 1;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;

/// A tag with its type, count and data.
type Tag<'a> = (u32, u32, u32, &'a [u8]);

/// A header of these tags.
fn blob(tags: &[Tag<'_>]) -> Vec<u8> {
    let (mut index, mut data) = (vec![], vec![]);
    for (tag, kind, count, bytes) in tags {
        for number in [*tag, *kind, data.len() as u32, *count] {
            index.extend(number.to_be_bytes());
        }
        data.extend_from_slice(bytes);
    }
    [&(tags.len() as u32).to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), &index, &data]
        .concat()
}

/// A package of a name, an architecture, a version and a release, each ended by NUL.
fn package(name: &str, arch: &str, version: &str, release: &str, epoch: Option<u32>) -> Vec<u8> {
    let texts = [name, version, release, arch].map(|text| [text.as_bytes(), b"\0"].concat());
    let epoch = epoch.map(u32::to_be_bytes);
    let mut tags: Vec<Tag<'_>> = vec![
        (63, 7, 16, b"a region: sixteen"),
        (1000, STRING, 1, &texts[0]),
        (1001, STRING, 1, &texts[1]),
        (1002, STRING, 1, &texts[2]),
    ];
    if !arch.is_empty() {
        tags.push((1022, STRING, 1, &texts[3]));
    }
    if let Some(epoch) = &epoch {
        tags.push((1003, INT32, 1, epoch));
    }
    blob(&tags)
}

/// A database of these headers.
fn database(blobs: &[Vec<u8>]) -> Vec<u8> {
    const MAKE: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')
for line in sys.argv[2:]:
    db.execute('INSERT INTO Packages (blob) VALUES (?)', (bytes.fromhex(line),))
db.commit()";
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("db");
    let out = std::process::Command::new("python3")
        .args(["-c", MAKE])
        .arg(&path)
        .args(blobs.iter().map(|blob| crate::digest::hex(blob)))
        .output()
        .expect("python3 is needed for this test");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::read(&path).expect("read")
}

fn packages(fs: &Memory) -> Result<Packages> {
    let tree = Listed::read(fs, &Limits::default()).expect("list");
    Packages::read(Files { fs, tree: &tree })
}

#[test]
fn the_database_of_rpm_is_the_vector() {
    let bytes = database(&[
        package("kernel-core", "x86_64", "6.9.4", "200.fc40", None),
        package("vim-minimal", "x86_64", "9.1.452", "1.fc40", Some(2)),
        package("gpg-pubkey", "", "a15b79cc", "63d04c2c", None),
        package("kernel-core", "x86_64", "6.10.3", "200.fc40", None),
        package("glibc", "i686", "2.39", "17.fc40", Some(0)),
        package("glibc", "x86_64", "2.39", "17.fc40", None),
    ]);
    let (preimage, digest) = vector("pkgs1/rpm");
    for path in ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"] {
        let mut fs = Memory::new();
        fs.write_at(&format!("{path}/rpmdb.sqlite"), &bytes);
        fs.write_at(&format!("{path}/rpmdb.sqlite-wal"), b"");
        let found = packages(&fs).expect(path);
        assert_eq!(String::from_utf8_lossy(&found.preimage()), String::from_utf8_lossy(&preimage));
        assert_eq!(found.digest().to_string(), digest);
        let path_of = format!("/{path}/rpmdb.sqlite");
        let alone = Alone { path: path_of.as_bytes(), text: &bytes };
        assert_eq!(Packages::of_databases(&[alone]).expect("the same"), found);
        // What is still to be written into it is not looked over.
        fs.write_at(&format!("{path}/rpmdb.sqlite-journal"), b"x");
        let e = packages(&fs).expect_err("a journal");
        assert_eq!(e.kind(), crate::error::Kind::Undetermined);
        assert!(e.to_string().contains("rpmdb.sqlite` is not whole"), "{e}");
    }
    // One folder that is a link to another: one database, not two of it.
    let mut fs = Memory::new();
    fs.write_at("usr/lib/sysimage/rpm/rpmdb.sqlite", &bytes);
    let lib = fs.dir(0, b"var", 0o755);
    let lib = fs.dir(lib, b"lib", 0o755);
    fs.symlink(lib, b"rpm", b"../../usr/lib/sysimage/rpm");
    assert_eq!(packages(&fs).expect("one").digest().to_string(), digest);
}

#[test]
fn files_have_states_flags_and_digests_of_two_kinds() {
    let sum = |text: &str| crate::digest::FileDigest::of(text.as_bytes()).hex();
    let digests = [sum("a"), String::new(), sum("c"), sum("d"), sum("e"), sum("f")].join("\0");
    let numbers = |all: &[u32]| all.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    let tags: [(u32, u32, u32, &[u8]); 12] = [
        (1000, STRING, 1, b"alpha\0"),
        (1001, STRING, 1, b"1\0"),
        (1002, STRING, 1, b"1\0"),
        (1022, STRING, 1, b"noarch\0"),
        (1118, STRINGS, 3, b"/etc/\0/usr/bin/\0relative/\0"),
        (1116, INT32, 7, &numbers(&[0, 1, 1, 0, 1, 1, 2])),
        (1117, STRINGS, 7, b"a.conf\0folder\0c\0ghost\0replaced\0unsure\0lost\0"),
        (1035, STRINGS, 6, digests.as_bytes()),
        (1037, INT32, 6, &numbers(&[1, 0, 0, 64, 0, 0])),
        (1045, INT32, 6, &numbers(&[!0, !0, !0, !0, !0, !1])),
        (1029, CHAR, 6, &[0, 0, 0, 0, 1, 0]),
        // The data of all, and the end of the last digest.
        (5011, INT32, 1, &numbers(&[8])),
    ];
    let read = |tags: &[(u32, u32, u32, &[u8])]| {
        let mut fs = Memory::new();
        fs.write_at("var/lib/rpm/rpmdb.sqlite", &database(&[blob(tags)]));
        let tree = Listed::read(&fs, &Limits::default()).expect("list");
        Owners::read(Files { fs: &fs, tree: &tree }).expect("read")
    };
    let owners = read(&tags);
    let of = |path: &str| {
        let owned = owners.of(path.as_bytes())?;
        let (name, arch) = owners.package(*owned.by.first()?)?;
        assert_eq!((&name[..], &arch[..]), (&b"alpha"[..], &b"noarch"[..]));
        Some((owned.checksum, owned.is_config))
    };
    let sha = |text: &str| {
        Some(Checksum::Sha256(*crate::digest::FileDigest::of(text.as_bytes()).as_bytes()))
    };
    assert_eq!(of("etc/a.conf"), Some((sha("a"), true)));
    assert_eq!(of("usr/bin/folder"), Some((None, false)));
    assert_eq!(of("usr/bin/c"), Some((sha("c"), false)));
    assert_eq!(of("etc/ghost"), Some((None, true)));
    assert_eq!(of("usr/bin/replaced"), None);
    assert_eq!(of("usr/bin/unsure"), Some((sha("f"), true)));
    assert_eq!(of("relative/lost"), None);
    // Without the algorithm it is MD5, of which these digests are none.
    let old = read(&tags[..11]);
    assert_eq!(old.of(b"usr/bin/c").map(|owned| owned.checksum), Some(None));
    // Lists that make no sense are left out, with the package that has them.
    let mut broken = tags;
    broken[6].2 = 99;
    assert!(read(&broken).is_empty());
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let good = package("a", "x", "1", "2", None);
    let of = |blob: &[u8]| -> std::result::Result<Package, Damage> {
        super::package(&Header::of(blob)?)
    };
    assert_eq!(of(&good).expect("good").version, b"1-2");
    for len in 0..good.len() {
        assert!(of(&good[..len]).is_err(), "cut off at {len}");
    }
    let cases: [(&[Tag<'_>], &str); 5] = [
        (&[(1000, STRING, 1, b"a\0")], "no name or no version"),
        (&[(1000, INT32, 1, b"a\0")], "another type"),
        (&[(1001, STRING, 1, b"1\0"), (1001, STRING, 1, b"a")], "no end"),
        (&[(1001, STRING, 1, b"1\0"), (1002, STRING, 1, b"1\0"), (1003, INT32, !0, b"")], "longer"),
        (&[(1001, STRING, 1, &[b'1'; 5000]), (1002, STRING, 1, b"\0")], "too long"),
    ];
    for (tags, expected) in cases {
        let e = of(&blob(tags)).expect_err(expected);
        assert!(e.contains(expected), "{e} lacks {expected}");
    }
    let mut outside = good.clone();
    outside[8 + 16 + 8..8 + 16 + 12].fill(0xff);
    assert_eq!(of(&outside), Err("a tag lies outside the header"));
    assert_eq!(of(&[0xff; 64]), Err("the header has too many tags"));
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] = value;
            let _ = of(&changed);
        }
    }
}
