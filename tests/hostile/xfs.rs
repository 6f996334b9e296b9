//! XFS, version 5. `xfs_db` changes fields and gives their structures the checksums that they then
//! have.

use crate::workshop::Workshop;

const CONTENT: &[&str] = &["content"];

/// Where the superblock of the first allocation group says that the log starts, in blocks of 1 KiB.
const LOG_START: u64 = 48;

/// A filesystem of 32 MiB with the files `one` and `two`, the directories `/etc` and `/a/b` and the
/// link `sym`.
fn image() -> Workshop {
    let shop = Workshop::new();
    shop.sh("head -c 20000 /dev/urandom > file; echo ID=lab > os-release
         cat > proto << END
/
0 0
d--755 0 0
etc d--755 0 0
os-release ---644 0 0 os-release
$
a d--755 0 0
b d--755 0 0
$
$
one ---644 0 0 file
two ---644 0 0 file
sym l--777 0 0 one
$
END
         truncate -s 32M disk.raw
         mkfs.xfs --unsupported -q -b size=1024 -i size=512 -d agcount=2 -p proto disk.raw");
    shop
}

/// Runs commands of `xfs_db` on the disk, which must change it.
fn db(shop: &Workshop, commands: &[&str]) {
    let before = std::fs::read(shop.path("disk.raw")).expect("read");
    let options: String = commands.iter().map(|command| format!(" -c '{command}'")).collect();
    shop.sh(&format!("xfs_db -x{options} disk.raw"));
    let after = std::fs::read(shop.path("disk.raw")).expect("read");
    assert!(before != after, "{commands:?} changed nothing");
}

/// The disk with one field changed of what stands at `place` is refused with `words`.
fn lie(place: &str, field: &str, words: &str) {
    let shop = image();
    db(&shop, &[place, &format!("write -d {field}")]);
    shop.refused("disk.raw", CONTENT, words);
}

#[test]
fn a_whole_image_is_read() {
    let shop = image();
    shop.read("disk.raw", "tree");
    shop.read("disk.raw", "content");
}

#[test]
fn superblocks_that_lie_are_refused() {
    for (field, words) in [
        ("blocksize 4294967295", "its blocks have"),
        ("dblocks 18446744073709551615", "groups of"),
        ("dblocks 33000", "groups of"),
        ("agblocks 1", "groups of"),
        ("agcount 4294967295", "groups of"),
        ("agblklog 60", "groups of"),
        ("inodesize 65535", "its inodes have"),
        ("inopblog 31", "its inodes have"),
        ("sectsize 1", "its sectors have"),
        ("dirblklog 255", "its directory blocks have"),
        ("rootino 18446744073709551615", "no directory in use"),
        ("rootino 68", "no directory in use"),
        ("logstart 18446744073709551615", "not inside one allocation group"),
        ("logblocks 4294967295", "its log has"),
        ("logstart 0", "external log"),
        ("inprogress 1", "did not come to its end"),
        ("rblocks 100", "realtime"),
    ] {
        lie("sb 0", field, words);
    }
}

#[test]
fn features_that_are_not_read_are_named() {
    for (field, words) in [
        ("features_incompat 0x10b", "metadir"),
        ("features_incompat 0x20b", "zoned"),
        ("features_incompat 0x8000000b", "FEATURE_I31"),
        ("features_incompat 0x1b", "in need of repair"),
        ("versionnum 0xb4a6", "version 6 of the superblock"),
        ("versionnum 0xf4a5", "ascii-ci"),
    ] {
        lie("sb 0", field, words);
    }
}

#[test]
fn directories_that_go_in_circles_are_refused() {
    for (place, field, words) in [
        // `/a/b` leads to the root, to `/a`, to `/etc`.
        ("path /a", "u3.sfdir3.list[0].inumber.i4 64", "second name of directory"),
        ("path /a", "u3.sfdir3.list[0].inumber.i4 67", "second name of directory"),
        ("path /", "u3.sfdir3.list[1].inumber.i4 39872", "second name of directory"),
        // To a file, to an inode that is free, to none.
        ("path /a", "u3.sfdir3.list[0].inumber.i4 68", "different file types"),
        ("path /a", "u3.sfdir3.list[0].inumber.i4 127", "not in use"),
        ("path /a", "u3.sfdir3.list[0].inumber.i4 4294967295", "not in use"),
        ("path /a", "u3.sfdir3.hdr.parent.i4 68", "`..` does not lead to inode"),
    ] {
        lie(place, field, words);
    }
}

#[test]
fn names_that_no_kernel_makes_are_refused() {
    for (name, words) in
        [("/ne", "impossible name"), ("two", "the name `two` twice"), ("..", "impossible name")]
    {
        let shop = image();
        let length = format!("write -d u3.sfdir3.list[2].namelen {}", name.len());
        let text = format!("write -d u3.sfdir3.list[2].name \"{name}\"");
        if name.len() == 3 {
            db(&shop, &["path /", &text]);
        } else {
            db(&shop, &["path /", &length, &text]);
        }
        shop.refused("disk.raw", CONTENT, if name == ".." { "disk.raw" } else { words });
    }
}

#[test]
fn inodes_that_lie_are_refused() {
    for (place, field, words) in [
        ("path /one", "core.size 9223372036854775807", "--max-contents"),
        ("path /one", "core.nextents 4000000000", "extents do not fit"),
        ("path /one", "core.format 3", "block map"),
        ("path /one", "core.format 1", "the format 1"),
        ("path /one", "core.forkoff 255", "its attributes start at byte 2040"),
        ("path /one", "core.mode 0", "not in use"),
        ("path /one", "core.mode 0170644", "its mode is"),
        ("path /one", "v3.inumber 69", "it says it is inode 69"),
        ("path /a", "core.size 255", "disk.raw"),
        ("path /a", "core.size 9223372036854775807", "disk.raw"),
        ("path /sym", "core.size 1024", "disk.raw"),
        ("path /sym", "core.size 0", "from 1 to 1024 bytes"),
        // The first extent: in no group, over the end of one, none, 2 GiB long.
        ("path /one", "u3.bmx[0].startblock 4503599627370495", "inside one allocation group"),
        ("path /one", "u3.bmx[0].startblock 16383", "inside one allocation group"),
        ("path /one", "u3.bmx[0].blockcount 0", "is impossible"),
        ("path /one", "u3.bmx[0].blockcount 2097151", "inside one allocation group"),
    ] {
        lie(place, field, words);
    }
}

#[test]
fn extents_of_two_files_in_one_place_are_read_as_the_kernel_does() {
    let shop = image();
    let honest = shop.read("disk.raw", "tree").0;
    // Both hold the same bytes; the second one then in the blocks of the first.
    shop.sh("xfs_db -r -c 'path /one' -c 'print u3.bmx[0].startblock' disk.raw > start");
    let answer = std::fs::read_to_string(shop.path("start")).expect("read");
    let start = answer.trim().rsplit(' ').next().expect("a number");
    db(&shop, &["path /two", &format!("write -d u3.bmx[0].startblock {start}")]);
    assert_eq!(shop.read("disk.raw", "tree").0, honest);
    // And in the superblock's.
    db(&shop, &["path /two", "write -d u3.bmx[0].startblock 0"]);
    assert_ne!(shop.read("disk.raw", "tree").0, honest);
}

#[test]
fn inode_trees_that_lie_are_refused() {
    for (place, field, words) in [
        ("agi 0", "root 4294967295", "disk.raw"),
        ("agi 0", "root 0", "disk.raw"),
        ("agi 0", "level 200", "disk.raw"),
        ("agi 0", "length 1", "disk.raw"),
        ("agi 0", "seqno 7", "disk.raw"),
        ("agi 0", "versionnum 9", "disk.raw"),
    ] {
        lie(place, field, words);
    }
    for field in [
        "numrecs 65535",
        "level 1",
        "owner 1",
        "bno 0",
        "recs[1].startino 4294967232",
        "recs[1].startino 0",
    ] {
        let shop = image();
        db(&shop, &["agi 0", "addr root", &format!("write -d {field}")]);
        shop.refused("disk.raw", CONTENT, "disk.raw");
    }
}

#[test]
fn attribute_forks_that_lie_are_refused() {
    for (field, words) in [
        ("a.sfattr.hdr.totsize 65535", "its list is too long"),
        ("a.sfattr.hdr.totsize 3", "disk.raw"),
        ("a.sfattr.hdr.count 255", "disk.raw"),
        ("a.sfattr.hdr.count 0", "another length than its entries"),
        ("a.sfattr.list[0].namelen 255", "disk.raw"),
        ("a.sfattr.list[0].valuelen 255", "disk.raw"),
        ("a.sfattr.list[0].namelen 0", "disk.raw"),
        ("core.aformat 0", "its attributes have the format 0"),
        ("core.aformat 3", "disk.raw"),
    ] {
        let shop = image();
        db(&shop, &["path /one", "attr_set -u note -v 20"]);
        shop.read("disk.raw", "content");
        db(&shop, &["path /one", &format!("write -d {field}")]);
        shop.refused("disk.raw", CONTENT, words);
    }
    // In blocks: a leaf, and values in blocks of their own.
    for field in
        ["hdr.count 65535", "hdr.info.owner 64", "entries[0].nameidx 65535", "entries[0].nameidx 0"]
    {
        let shop = image();
        db(&shop, &["path /one", "attr_set -u note -v 300", "attr_set -u large -v 9000"]);
        shop.read("disk.raw", "content");
        db(&shop, &["path /one", "ablock 0", &format!("write -d {field}")]);
        shop.refused("disk.raw", CONTENT, "disk.raw");
    }
    for (field, words) in [
        ("a.bmx[0].startblock 4503599627370495", "inside one allocation group"),
        ("a.bmx[0].startblock 64", "disk.raw"),
        ("core.naextents 65535", "extents do not fit"),
    ] {
        let shop = image();
        db(&shop, &["path /one", "attr_set -u note -v 300", "attr_set -u large -v 9000"]);
        db(&shop, &["path /one", &format!("write -d {field}")]);
        shop.refused("disk.raw", CONTENT, words);
    }
}

/// A disk whose log has these bytes at `at` of its only record; and where the log is.
fn log(at: u64, bytes: &[u8]) -> Workshop {
    let shop = image();
    let start = shop.get("disk.raw", LOG_START, 8).try_into().expect("8 bytes");
    let log = u64::from_be_bytes(start) * 1024;
    assert_eq!(shop.get("disk.raw", log, 4), [0xfe, 0xed, 0xba, 0xbe]);
    // A checksum of 0 is none.
    shop.put("disk.raw", log + 32, &[0; 4]);
    shop.put("disk.raw", log + at, bytes);
    shop
}

#[test]
fn logs_that_lie_are_refused() {
    // Offsets in a record: `struct xlog_rec_header`, then `struct xlog_op_header` (xfs_log_format.h).
    for (at, bytes, words) in [
        // Operations that are not there, a record of 4 GiB, one of another cycle, none.
        (40, &u32::MAX.to_be_bytes()[..], "the log of the XFS filesystem is dirty"),
        (12, &u32::MAX.to_be_bytes(), "has 4294967295 bytes"),
        (4, &u32::MAX.to_be_bytes(), "starts in cycle 4294967295"),
        (0, &[0], "starts in cycle"),
    ] {
        log(at, bytes).refused("disk.raw", CONTENT, words);
    }
    // Not marked as unmounted, and nothing to replay.
    let (_, notes) = log(512 + 9, &[0]).read("disk.raw", "content");
    assert!(notes.contains("0 transactions (0 sectors) of its log were replayed"), "{notes}");
}

#[test]
fn a_cut_image_is_refused() {
    let shop = image();
    shop.sh("truncate -s 31M disk.raw");
    shop.refused("disk.raw", CONTENT, "but its device only");
}
