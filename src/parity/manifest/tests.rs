//! What is written is read back as it was, and what differs by a byte is refused.

use super::*;
use crate::digest::FileDigest;
use crate::image::tree::NodeKind;
use crate::parity::canonical::{
    self, BootEntry, Content as Leaf, Disk, Package, Partition, System, disk as disk_text,
};
use crate::parity::hashed::tests::{Memory, example};

/// A tree with everything that a line can say.
fn rich() -> Memory {
    let mut fs = example();
    for (i, name) in ["a", "b", "c", "l", "p", "ping", "tmp"].into_iter().enumerate() {
        fs.named(name).mtime = i as i64 - 1;
    }
    fs.named("a").mtime = 1_700_000_000;
    fs.named("c").mtime = 1_700_000_000;
    let ping = fs.named("ping");
    ping.xattrs = vec![(b"user.=key ".to_vec(), vec![0, 0xff]), (b"user.a".to_vec(), vec![])];
    (ping.immutable, ping.append_only) = (true, true);
    let etc = fs.dir(0, b"b-1", 0o755);
    fs.file(etc, b"x", 0o600, b"x");
    fs.dir(etc, b"empty", 0o700);
    for (name, kind) in [
        ("null", NodeKind::CharDevice { major: 1, minor: 3 }),
        ("vda", NodeKind::BlockDevice { major: 253, minor: 0 }),
    ] {
        fs.file(etc, name.as_bytes(), 0o660, b"");
        fs.named(name).kind = kind;
    }
    fs
}

fn hashed(fs: &Memory) -> Hashed {
    Hashed::read(fs, &Limits::default()).expect("hash")
}

fn package(name: &str, version: &str) -> Package {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let (arch, status) = (bytes("amd64"), bytes("install,ok,installed"));
    Package { kind: "deb", name: bytes(name), arch, version: bytes(version), status }
}

/// A manifest of a system with two filesystems and a raw partition, on a disk of 4 MiB and 512 bytes.
pub(super) fn manifest() -> Manifest {
    let boot = FileDigest::of(b"boot");
    let (root, data) = (hashed(&rich()), hashed(&Memory::new()));
    let logs = hashed(&example());
    let chunks = Chunks {
        size: (4 << 20) + 512,
        chunks: vec![[1; 32], [2; 32]].into(),
        padded: Some([3; 32]),
    };
    let part = |number, content| Partition {
        number,
        type_id: "0fc63daf-8483-4772-8e79-3d69d8477de4".to_owned(),
        id: format!("6d8e2a3c-0000-4222-8333-00000000000{number}"),
        name: "é x".into(),
        attributes: 1 << 63,
        content,
    };
    let volume = |name: &str, content| {
        let (name, uuid) = (name.to_owned(), format!("{name}-uuid"));
        canonical::Volume { name, uuid, content }
    };
    let group = canonical::Group {
        name: "vg0".to_owned(),
        uuid: "vg-uuid".to_owned(),
        physical: vec!["pv-uuid-1".to_owned(), "pv-uuid-0".to_owned()],
        volumes: vec![
            volume("swap", Leaf::Bytes(chunks.digest())),
            volume("logs", Leaf::Filesystem(logs.fs1(boot))),
        ],
    };
    let vg1 = crate::digest::GroupDigest::of(&canonical::group(&group));
    let disk = Disk {
        table: "gpt",
        id: "6d8e2a3c-1111-4222-8333-444455556666".to_owned(),
        boot440: boot,
        gap: FileDigest::of(b""),
        partitions: vec![
            part(2, Leaf::Filesystem(root.fs1(boot))),
            part(4, Leaf::Bytes(chunks.digest())),
            part(5, Leaf::Filesystem(data.fs1(boot))),
            part(6, Leaf::Group(vg1)),
            part(7, Leaf::Group(vg1)),
        ],
    };
    let entry = BootEntry {
        title: b"Lab 1".to_vec(),
        kernel: b"/vmlinuz".to_vec(),
        command_line: b"root=/dev/vda1 ro".to_vec(),
    };
    let system = System {
        arch: "amd64".to_owned(),
        firmware: vec!["bios"],
        disks: vec![crate::digest::DiskDigest::of(&disk_text(&disk))],
        boot: vec![entry],
    };
    let held = |tree| content::Held::Filesystem { tree: Box::new(tree), boot };
    let group = content::Volumes { line: group, held: vec![content::Held::Bytes, held(logs)] };
    let is_group = || content::Held::Group(0);
    let held = vec![held(root), content::Held::Bytes, held(data), is_group(), is_group()];
    let groups = vec![group];
    Manifest {
        notes: vec!["partition 2: a  note with = and é".to_owned()],
        bytes: Some(chunks),
        held: Held::System(Box::new(Content { system, disk, held, groups })),
        packages: Packages::of(vec![package("zsh", "5.9"), package("g++", "4:12")])
            .map_err(|e| e.to_string()),
    }
}

pub(super) fn text(manifest: &Manifest) -> String {
    let mut out = vec![];
    manifest.write(&mut out).expect("written");
    String::from_utf8(out).expect("ASCII")
}

pub(super) fn read(text: &str) -> Result<Manifest> {
    Manifest::read(text.as_bytes(), &Limits::default())
}

/// The manifest of a tree alone.
fn of_tree(fs: &Memory) -> Manifest {
    let held = Held::Tree(Box::new(hashed(fs)));
    Manifest { notes: vec![], bytes: None, held, packages: Err("no  package database".into()) }
}

#[test]
fn what_is_read_back_writes_the_same_text() {
    let whole = text(&manifest());
    let again = read(&whole).expect("read");
    assert_eq!(text(&again), whole);
    assert_eq!(again.notes, manifest().notes);
    assert_eq!(again.scope(), Scope::Disk);
    let mut content = manifest();
    content.bytes = None;
    let tree = of_tree(&rich());
    for one in [content, tree, of_tree(&Memory::new())] {
        let whole = text(&one);
        let again = read(&whole).expect("read");
        assert_eq!(text(&again), whole);
        assert_eq!(again.scope(), one.scope());
        assert_eq!(again.packages, one.packages);
    }
}

#[test]
fn the_models_are_those_of_the_image() {
    for level in [Level::Disk, Level::Content, Level::Packages] {
        let model = read(&text(&manifest())).expect("read").model(level).expect("held");
        assert_eq!(model.digests(), manifest().model(level).expect("held").digests());
    }
    let tree = |level| of_tree(&rich()).model(level).expect("held").digests();
    for level in [Level::Tree, Level::Times] {
        let model = read(&text(&of_tree(&rich()))).expect("read").model(level).expect("held");
        assert_eq!(model.digests(), tree(level));
        assert_eq!(model.digests()[1], hashed(&rich()).links1().to_string());
    }
    assert_eq!(tree(Level::Tree)[0], hashed(&rich()).tree1().to_string());
    assert_eq!(tree(Level::Times)[0], hashed(&rich()).tree1t().to_string());
}

#[test]
fn a_level_that_is_not_there_is_no_answer() {
    for level in [Level::Disk, Level::Content, Level::Packages] {
        let e = of_tree(&rich()).model(level).expect_err("not held");
        assert_eq!(e.kind(), crate::error::Kind::Undetermined, "{e}");
    }
    assert_eq!(
        manifest().model(Level::File).expect_err("never held").kind(),
        crate::error::Kind::Usage
    );
    // Two filesystems, and neither is a system.
    let e = manifest().model(Level::Tree).expect_err("which one?");
    assert!(e.what().contains("no filesystem that could be its root"), "{e}");
}

/// The same text with its last line made right again.
fn sealed(text: &str) -> String {
    let at = text.rfind("end sha256:").expect("an end");
    format!("{}end {}\n", &text[..at], FileDigest::of(&text.as_bytes()[..at]))
}

/// Whatever one byte becomes, and whatever line is lost, doubled or moved, is refused with a line.
#[test]
fn every_changed_byte_and_line_is_refused() {
    let whole = text(&manifest());
    let refused = |text: &str, what: &str| {
        let e = read(text).expect_err(what);
        assert_eq!(e.kind(), crate::error::Kind::Undetermined, "{what}: {e}");
        assert!(e.to_string().contains("line "), "{what}: {e}");
    };
    // What is a claim by itself: notes, `padded`, and the reason why there are no packages.
    let free = |line: &str| line.starts_with("note ") || line.starts_with("  padded ");
    let mut at = 0;
    for line in whole.split_inclusive('\n') {
        for (i, byte) in line.bytes().enumerate() {
            let mut changed = whole.clone().into_bytes();
            changed[at + i] = if byte == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("ASCII");
            refused(&changed, "as it is");
            if !free(line) && !line.starts_with("end ") {
                refused(&sealed(&changed), &format!("byte {i} of {line}"));
            }
        }
        at += line.len();
    }
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for i in 0..lines.len() - 1 {
        if free(lines[i]) && lines[i].starts_with("note ") {
            continue;
        }
        let without = [&lines[..i], &lines[i + 1..]].concat().concat();
        refused(&sealed(&without), &format!("without {}", lines[i]));
        let twice = [&lines[..=i], &lines[i..]].concat().concat();
        refused(&sealed(&twice), &format!("twice {}", lines[i]));
        if i + 2 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(i, i + 1);
            refused(&sealed(&swapped.concat()), &format!("swapped {}", lines[i]));
        }
        refused(&lines[..i].concat(), "cut off");
    }
    refused(whole.trim_end(), "no end of line");
    refused(&format!("{whole}\n"), "something behind the end");
}

#[test]
fn refusals_say_what_is_wrong() {
    let tree = text(&of_tree(&rich()));
    let whole = text(&manifest());
    let cases = [
        (
            tree.replace("devbox/manifest/1", "devbox/manifest/2"),
            "manifests of version 2 are not read",
        ),
        (tree.replace("devbox/manifest/1", "devbox/manifesto"), "line 1: no manifest begins so"),
        (tree.replace("f a 0644", "f /a 0644"), "a path begins with a name"),
        (tree.replace("f a 0644", "f ./a 0644"), "its directory is not the one above"),
        (tree.replace("f a 0644", "f a 644"), "it is not as devbox writes it"),
        (tree.replace("f a 0644 0", "f a 0644 00"), "it is not as devbox writes it"),
        (tree.replace("f a 0644", "f \\x61 0644"), "it is not as devbox writes it"),
        (tree.replace("\\x3dx", "\\x3Dx"), "it is not as devbox writes it"),
        (tree.replace("x:user.a=", "x:user.a=0"), "it is not as devbox writes it"),
        (tree.replace("x:user.a=", "x:user.a= x:security.evm=00"), "it is not as devbox writes it"),
        (tree.replace("i:ai", "i:ia"), "it is not as devbox writes it"),
        (tree.replace("@1700000000", "@+1700000000"), "it is not as devbox writes it"),
        (tree.replacen("f a 0644 0 0", "f a 0644 0 1", 1), "names of one file differ"),
        (tree.replace("\n  a c\n", "\n  a zz\n"), "it names what is not there"),
        (tree.replace("\n  a c\n", "\n  a tmp\n"), "it names what is no regular file"),
        (tree.replace("\n  a c\n", "\n  a c c\n"), "a name is there twice"),
        (tree.replace("\n  a c\n", "\n  a\n"), "one name alone is no hard link"),
        (tree.replace("\n  a c\n", "\n"), "the digest is not that of the lines below"),
        (tree.replace("\n  a c\n", "\n  c a\n"), "the names in one, are not sorted"),
        (
            tree.replace("b/ping 0755 0 0 3 ", "b/ping 0755 0 0 0 "),
            "size and its digest contradict",
        ),
        (whole.replace("signers \\e", "signers x"), "it is not as devbox writes it"),
        (whole.replace("type ext4", "type ext5"), "it is not as devbox writes it"),
        (whole.replace("label root", "label toor"), "the digest is not that of the lines below"),
        (whole.replace("lv swap swap-uuid", "lv swap logs-uuid"), "is not that of the lines below"),
        (whole.replace("lv swap ", "lx swap "), "it is not as devbox writes it"),
        (whole.replace(" vg0/logs\n", " vg0/swap\n"), "`fs1 of volume vg0/logs` is expected"),
    ];
    for (changed, expected) in cases {
        assert!(changed != tree && changed != whole, "nothing changed for {expected}");
        let e = read(&sealed(&changed)).expect_err(expected).to_string();
        assert!(e.contains(expected), "{e}\nlacks {expected}");
    }
    let e = read(&tree.replacen("@0", "@9", 1)).expect_err("refused").to_string();
    assert!(e.contains("a digest is not that of the entries below"), "{e}");
    let e = read(&tree.replacen("no ", "na ", 1)).expect_err("refused").to_string();
    assert!(e.contains("the lines above are not those that were written"), "{e}");
}

#[test]
fn a_hostile_manifest_claims_in_vain() {
    let huge = format!(
        "devbox/manifest/1\nbytes1:{0}\n  size {1}\n  chunk 4194304\n",
        "0".repeat(64),
        64u64 << 40
    );
    let e = read(&huge).expect_err("no chunks").to_string();
    assert!(e.contains("line 5"), "{e}");
    let e = read(&huge.replace("70368744177664", "70368744177665")).expect_err("limit").to_string();
    assert!(e.contains("--max-disk-size"), "{e}");
    let few = Limits { entries: 5, ..Limits::default() };
    let tree = text(&of_tree(&rich()));
    let e = Manifest::read(tree.as_bytes(), &few).expect_err("limit").to_string();
    assert!(e.contains("--max-entries"), "{e}");
    let small = Limits { contents: 5, ..Limits::default() };
    let e = Manifest::read(tree.as_bytes(), &small).expect_err("limit").to_string();
    assert!(e.contains("--max-contents"), "{e}");
    let over = Some(crate::image::limits::Deadline::after(std::time::Duration::ZERO));
    let late = Limits { deadline: over, ..Limits::default() };
    let e = Manifest::read(tree.as_bytes(), &late).expect_err("limit").to_string();
    assert!(e.contains("--timeout"), "{e}");
    let endless = std::io::repeat(b'x');
    let endless =
        std::io::BufReader::new(std::io::Read::chain(&b"devbox/manifest/1\n"[..], endless));
    let e = Manifest::read(endless, &Limits::default()).expect_err("limit").to_string();
    assert!(e.contains("line 2: it is too long"), "{e}");
}

/// `docs/manifest.md` says so.
#[test]
fn a_block_is_the_preimage_without_its_tag() {
    let whole = text(&manifest());
    let block = |name: &str, tag: &str| {
        let from = whole.find(&format!("\n{name}:")).expect("the block") + 1;
        let (head, rest) = whole[from..].split_once('\n').expect("a line");
        let lines: Vec<_> = rest.lines().map_while(|line| line.strip_prefix("  ")).collect();
        let preimage = format!("{tag}\n{}\n", lines.join("\n"));
        let sum = FileDigest::of(preimage.as_bytes()).hex();
        assert!(head.starts_with(&format!("{name}:{sum}")), "{name}: {head}\n{preimage}");
    };
    for name in ["box", "disk", "vg", "fs", "links", "pkgs"] {
        block(&format!("{name}1"), &format!("devbox/{name}/1"));
    }
}

#[test]
fn json_lines_are_the_same_records() {
    let mut out = vec![];
    manifest().write_json(&mut out).expect("written");
    let out = String::from_utf8(out).expect("UTF-8");
    let records: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<_> = records.iter().map(|r| r["record"].as_str().expect("a kind")).collect();
    assert_eq!(kinds[..4], ["manifest", "note", "bytes", "chunk"]);
    assert_eq!(kinds[kinds.len() - 4..], ["packages", "package", "package", "end"]);
    let entries = text(&manifest()).lines().filter(|line| line.contains(" @")).count();
    let named = |kind: &str| kinds.iter().filter(|one| **one == kind).count();
    let files = ["file", "directory", "link", "chardev", "blockdev", "pipe"];
    assert_eq!(files.iter().map(|kind| named(kind)).sum::<usize>(), entries);
    let ping = records.iter().find(|r| r["path"] == "b/ping").expect("the file");
    assert_eq!(ping["partition"], 2);
    assert_eq!(ping["mode"], "0755");
    assert_eq!(ping["mtime"], 4);
    assert_eq!(ping["xattrs"]["user.\\x3dkey\\x20"], "00ff");
    assert_eq!(ping["flags"], "ai");
    let links = records.iter().find(|r| r["record"] == "links").expect("links");
    assert_eq!(links["paths"], serde_json::json!(["a", "c"]));
}
