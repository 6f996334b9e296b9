//! `devbox manifest` on real images: a manifest says what its image says.

use std::path::Path;

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, ROOT, put, text, tool};

impl Lab {
    /// Writes the manifest of an image beside it.
    fn manifest(&self, image: &str, more: &[&str]) -> String {
        let name = format!("{image}.manifest");
        let (code, out) = self.devbox(&[&["manifest", image, "-o", &name], more].concat());
        assert_eq!(code, 0, "{out}");
        name
    }

    /// Verdict, digests and differences, without what names the sides.
    fn verdict(&self, a: &str, b: &str, level: &str) -> serde_json::Value {
        let (code, out) = self.devbox(&["parity", a, b, "--level", level, "--json"]);
        let mut json: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        json["code"] = code.into();
        for side in ["a", "b"] {
            json[side] = json[side]["digests"].take();
        }
        json["notes"].take();
        // The lines of a file are told where its contents are at hand.
        for one in json["differences"].as_array_mut().into_iter().flatten() {
            one.as_object_mut().expect("a difference").remove("details");
        }
        json
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("read")
    }
}

/// Another disk in place of `b.raw`.
fn rename(lab: &Lab, disk: &Path, name: &str) {
    std::fs::rename(disk, lab.path(name)).expect("rename");
}

#[test]
fn a_manifest_gives_the_verdict_and_the_differences_of_its_image() {
    let lab = Lab::new();
    let word = lab.path("word");
    std::fs::write(&word, "other\n").expect("write");
    let write = format!("write {} new", text(&word));
    // Files, modes, owners, attributes, flags, links, devices, times.
    let files = [
        "set_inode_field /etc/shadow mode 0100600",
        "set_inode_field /etc/shadow mtime @1700000000",
        "set_inode_field /etc/os-release gid 42",
        "ea_rm /bin/busybox user.note",
        "ea_set /etc user.a 1",
        "rm /bin/sh",
        "unlink /etc/motd.d",
        "rm /dev/null",
        "cd /etc",
        &write,
    ];
    rename(&lab, &lab.changed(&files), "files.raw");
    // Boot code of the disk, of the ESP and of ext4, the gap, the raw partition.
    let boot = lab.copy("boot.raw");
    for at in [100, 1024 * 1024 - 7, 2048 * 512 + 3, 4096 * 512 + 100, ROOT.0 * 512 + 17] {
        put(&boot, at, b"X");
    }
    let table = lab.copy("table.raw");
    tool("sfdisk", &["-q", "--part-label", text(&table), "2", "ESP"]);
    tool(
        "sfdisk",
        &["-q", "--part-uuid", text(&table), "3", "6D8E2A3C-0000-4222-8333-00000000000F"],
    );
    let grown = |name: &str, tail: &[u8]| {
        let disk = lab.copy(name);
        let file = std::fs::OpenOptions::new().write(true).open(&disk).expect("open");
        file.set_len((33 << 20) + 512).expect("grow");
        put(&disk, (33 << 20) + 512 - tail.len() as u64, tail);
    };
    grown("padded.raw", b"");
    grown("longer.raw", b"x");
    lab.copy("same.raw");
    let others = ["same", "files", "boot", "table", "padded", "longer"];
    let a = lab.manifest("a.raw", &[]);
    for other in others {
        let image = format!("{other}.raw");
        let manifest = lab.manifest(&image, &[]);
        for level in ["disk", "content", "tree", "times"] {
            let expected = lab.verdict("a.raw", &image, level);
            let code = if other == "same" { 0 } else { 1 };
            if level == "disk" {
                assert_eq!(expected["code"], code, "{other} {expected}");
            }
            for (x, y) in [(&a[..], &image[..]), ("a.raw", &manifest), (&a, &manifest)] {
                assert_eq!(lab.verdict(x, y, level), expected, "{x} {y} {level}");
            }
        }
    }
    // What ends in the middle of a chunk is known with the zeros behind it.
    assert_eq!(
        lab.verdict("padded.raw.manifest", "longer.raw.manifest", "disk"),
        lab.verdict("padded.raw", "longer.raw", "disk")
    );
}

#[test]
fn the_same_image_gives_the_same_bytes_in_any_container_and_place() {
    let lab = Lab::new();
    let first = lab.bytes(&lab.manifest("a.raw", &[]));
    lab.convert("z.qcow2", &["qcow2", "-c"]);
    lab.convert("a.vhd", &["vpc", "-o", "subformat=fixed,force_size=on"]);
    for other in ["z.qcow2", "a.vhd"] {
        assert_eq!(lab.bytes(&lab.manifest(other, &[])), first, "{other}");
    }
    let (code, out) = lab.devbox(&["manifest", "a.raw"]);
    assert_eq!((code, out.as_bytes()), (0, &first[..]));
    let whole = String::from_utf8(first).expect("ASCII");
    assert!(!whole.contains(text(lab.path("").as_path())), "no path of this host");
    for line in ["\nbytes1:", "\nbox1:", "\n  f etc/motd 0644 1000 ", "\n  etc/motd etc/motd.d\n"] {
        assert!(whole.contains(line), "{whole} lacks {line}");
    }
    // Verified, and written again from itself.
    std::fs::write(lab.path("one.manifest"), &whole).expect("write");
    let (code, again) = lab.devbox(&["manifest", "one.manifest"]);
    assert_eq!((code, again), (0, whole));
    let (_, box1) = lab.devbox(&["digest", "a.raw"]);
    let (code, claimed) = lab.devbox(&["digest", "one.manifest"]);
    assert_eq!((code, claimed), (0, box1));
    // The page says how to check a block with two tools.
    let page = include_str!("../docs/manifest.md");
    let command = page.lines().find_map(|l| l.strip_prefix("    (echo ")).expect("the command");
    let command = format!("cd {} && (echo {command}", text(&lab.path("")));
    let command = command.replace("box.manifest", "one.manifest");
    let sum = tool("sh", &["-c", &command]).stdout;
    let (_, box1) = lab.devbox(&["digest", "one.manifest"]);
    assert_eq!(box1.trim(), format!("box1:{}", String::from_utf8_lossy(&sum[..64])));
}

#[test]
fn a_manifest_holds_its_levels_and_no_more() {
    let lab = Lab::new();
    let whole = lab.manifest("a.raw", &[]);
    std::fs::copy(lab.path("a.raw"), lab.path("c.raw")).expect("copy");
    let content = lab.manifest("c.raw", &["--level", "content"]);
    std::fs::copy(lab.path("a.raw"), lab.path("t.raw")).expect("copy");
    let tree = lab.manifest("t.raw", &["--level", "tree"]);
    let cases = [
        (&whole, "disk", 0),
        (&whole, "file", 2),
        (&content, "disk", 3),
        (&content, "content", 0),
        (&content, "times", 0),
        (&tree, "content", 3),
        (&tree, "tree", 0),
        (&tree, "packages", 3),
    ];
    for (manifest, level, expected) in cases {
        let (code, out) = lab.devbox(&["parity", manifest, "a.raw", "--level", level]);
        assert_eq!(code, expected, "{manifest} {level}: {out}");
        assert!(code == 0 || out.contains(manifest.as_str()), "{out}");
        let (code, out) = lab.devbox(&["digest", manifest, "--level", level]);
        assert_eq!(code, expected, "{manifest} {level}: {out}");
    }
    // A directory has its files, and they are those of the image that was made from it.
    let dir = lab.manifest("root", &[]);
    let (code, out) = lab.devbox(&["parity", "root", &dir, "--level", "times"]);
    assert_eq!(code, 0, "{out}");
    let expected = lab.verdict("root", "a.raw", "tree");
    assert_eq!(expected["code"], 1);
    assert_eq!(lab.verdict(&dir, &tree, "tree"), expected);
    let (code, out) = lab.devbox(&["manifest", "root", "--level", "disk"]);
    assert_eq!(code, 2, "{out}");
}

#[test]
fn a_manifest_is_never_overwritten_and_never_half_there() {
    let lab = Lab::new();
    let name = lab.manifest("a.raw", &[]);
    let first = lab.bytes(&name);
    let (code, out) = lab.devbox(&["manifest", "root", "-o", &name]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("is there already"), "{out}");
    assert_eq!(lab.bytes(&name), first);
    put(&lab.copy("torn.raw"), ROOT.0 * 512 + 2048, &[0xa5; 2048]);
    let (code, out) = lab.devbox(&["manifest", "torn.raw", "-o", "torn.manifest"]);
    assert_eq!(code, 3, "{out}");
    let (code, out) = lab.devbox(&["manifest", "a.raw", "-o", "no/such/folder"]);
    assert_eq!(code, 2, "{out}");
    let left: Vec<_> = std::fs::read_dir(lab.path(""))
        .expect("list")
        .map(|e| e.expect("entry").file_name())
        .collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("torn.manifest")), "{left:?}");
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".manifest-")), "{left:?}");
}

#[test]
fn a_tampered_manifest_is_refused_with_the_line() {
    let lab = Lab::new();
    let name = lab.manifest("a.raw", &[]);
    let whole = String::from_utf8(lab.bytes(&name)).expect("ASCII");
    let line = whole.lines().position(|l| l.contains(" etc/shadow ")).expect("the file") + 1;
    let changed = whole.replacen("f etc/shadow 0640", "f etc/shadow 0666", 1);
    assert_ne!(changed, whole);
    for (text, expected) in [
        (changed, "line ".to_owned()),
        (
            whole.replacen("f etc/shadow 0640", "f etc/shadow 640", 1),
            format!("line {line}: it is not as devbox writes it"),
        ),
        (whole[..whole.len() / 2].to_owned(), "line ".to_owned()),
    ] {
        std::fs::write(lab.path("bad.manifest"), text).expect("write");
        for args in [
            &["digest", "bad.manifest"][..],
            &["parity", "bad.manifest", "a.raw"],
            &["manifest", "bad.manifest"],
        ] {
            let (code, out) = lab.devbox(args);
            assert_eq!(code, 3, "{out}");
            assert!(
                out.contains("cannot read the manifest `bad.manifest`") && out.contains(&expected),
                "{out}"
            );
        }
    }
}

/// `NAME:VERSION` is a box unless a file has that name; then it has to be said which one is meant.
#[test]
fn a_box_of_the_store_is_named_like_everywhere() {
    use devbox::store::{BoxConfig, Existing, Store};
    let lab = Lab::new();
    let (code, out) = lab.devbox(&["digest", "web:1.0.0"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("there is no box and no file `web:1.0.0`"), "{out}");
    assert!(!lab.path("home/store").exists(), "a question makes no store");
    lab.convert("a.qcow2", &["qcow2"]);
    let store = Store::open(&lab.path("home/store")).expect("a store");
    let disk = store.stage().expect("stages");
    std::fs::copy(lab.path("a.qcow2"), disk.path()).expect("copy");
    let config = BoxConfig {
        name: "web".into(),
        version: "1.0.0".into(),
        arch: "amd64".into(),
        firmware: "bios".into(),
        // A record is never believed: these are the digests of something else.
        spec1: devbox::digest::SpecDigest::of(b""),
        bytes1: devbox::digest::BytesDigest::of(b""),
        box1: devbox::digest::BoxDigest::of(b""),
        disk_size: 32 << 20,
        cmdline: String::new(),
        epoch: 0,
        seal: "seal/1".into(),
        devbox: "0".into(),
    };
    store.add(&config, disk, Existing::Refuse).expect("adds");
    let (_, box1) = lab.devbox(&["digest", "a.raw"]);
    for name in ["web:1.0.0", "box:web:1.0.0"] {
        assert_eq!(lab.devbox(&["digest", name]), (0, box1.clone()));
    }
    let (code, json) = lab.devbox(&["parity", "web:1.0.0", "a.raw", "--json"]);
    assert!(code == 0 && json.contains("\"of\": \"box\""), "{json}");
    let whole = lab.bytes(&lab.manifest("a.raw", &[]));
    let (code, out) = lab.devbox(&["manifest", "web:1.0.0"]);
    assert_eq!((code, out.as_bytes()), (0, &whole[..]));
    // A file of that name.
    lab.copy("web:1.0.0");
    let (code, out) = lab.devbox(&["digest", "web:1.0.0"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("`./web:1.0.0`") && out.contains("`box:web:1.0.0`"), "{out}");
    for name in ["./web:1.0.0", "box:web:1.0.0"] {
        assert_eq!(lab.devbox(&["digest", name]), (0, box1.clone()));
    }
    let (code, out) = lab.devbox(&["digest", "box:web:2.0.0"]);
    assert_eq!(code, 2, "{out}");
}
