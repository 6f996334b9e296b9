//! What established readers see in our images.

use std::path::Path;
use std::process::Command;

use super::{File, image};

fn files() -> Vec<File> {
    let file = |name: &str, bytes: &[u8]| File { name: name.to_owned(), bytes: bytes.to_vec() };
    vec![
        file("user-data", b"#cloud-config\n{}\n"),
        file("meta-data", b"{}\n"),
        file("network-config", &vec![b'x'; 5000]),
        file("empty.txt", b""),
    ]
}

/// Runs an oracle; a missing one is said and counted by its line.
fn oracle(test: &str, program: &str, args: &[&str], image: &Path) -> Option<String> {
    let args: Vec<String> =
        args.iter().map(|a| a.replace("IMAGE", &image.display().to_string())).collect();
    match Command::new(program).args(&args).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{program} {args:?}: {text}");
            Some(text.into_owned())
        }
        Err(e) => {
            use std::io::Write as _;
            let _ =
                writeln!(std::io::stderr(), "not run: {test}: `{program}` is not installed ({e})");
            None
        }
    }
}

fn written() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("seed.iso");
    std::fs::write(&path, image("cidata", &files()).expect("image")).expect("written");
    (dir, path)
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(
        image("cidata", &files()).expect("image"),
        image("cidata", &files()).expect("image")
    );
}

#[test]
fn blkid_sees_the_label_that_cloud_init_looks_for() {
    let (_dir, path) = written();
    let args = ["-p", "-o", "export", "IMAGE"];
    if let Some(text) = oracle("blkid_sees_the_label", "/usr/sbin/blkid", &args, &path) {
        assert!(text.contains("LABEL=cidata") && text.contains("TYPE=iso9660"), "{text}");
    }
}

#[test]
fn xorriso_extracts_every_file_by_its_rock_ridge_name() {
    let (dir, path) = written();
    let out = dir.path().join("out");
    let to = out.display().to_string();
    let args = ["-osirrox", "on", "-indev", "IMAGE", "-extract", "/", &to];
    let Some(text) = oracle("xorriso_extracts_every_file", "xorriso", &args, &path) else { return };
    assert!(!text.contains("WARNING") && !text.contains("FAILURE"), "{text}");
    for file in files() {
        assert_eq!(std::fs::read(out.join(&file.name)).expect("extracted"), file.bytes);
    }
}

#[test]
fn other_readers_find_files_in_folders_and_so_does_ours() {
    let file = |name: &str| File { name: name.to_owned(), bytes: name.as_bytes().to_vec() };
    let files =
        ["openstack/latest/user_data", "openstack/latest/meta_data.json", "a", "ab/c", "a-b/c"]
            .map(|name| if name == "a" { file("z") } else { file(name) });
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("config.iso");
    let bytes = image("config-2", &files).expect("image");
    std::fs::write(&path, &bytes).expect("written");
    let test = "other_readers_find_files_in_folders";
    for tree in ["-R", "-J"] {
        let Some(text) = oracle(test, "isoinfo", &["-i", "IMAGE", tree, "-f"], &path) else {
            return;
        };
        for file in &files {
            assert!(text.lines().any(|l| l == format!("/{}", file.name)), "{tree}: {text}");
        }
    }
    let out = dir.path().join("out").display().to_string();
    let args = ["-osirrox", "on", "-indev", "IMAGE", "-extract", "/", &out];
    let Some(text) = oracle(test, "xorriso", &args, &path) else { return };
    assert!(!text.contains("WARNING") && !text.contains("FAILURE"), "{text}");
    for file in &files {
        let read = std::fs::read(dir.path().join("out").join(&file.name)).expect("extracted");
        assert_eq!(read, file.bytes);
    }
    let reader = crate::image::container::raw::Raw::open(&path).expect("opened");
    let volume = crate::image::iso9660::Volume::open(&reader).expect("a volume");
    for file in &files {
        let found = volume.file(&file.name).expect("there");
        let at = usize::try_from(found.offset).expect("small");
        assert_eq!(&bytes[at..at + file.bytes.len()], file.bytes);
    }
}

#[test]
fn isoinfo_lists_both_trees() {
    let (_dir, path) = written();
    for tree in ["-R", "-J"] {
        let args = ["-i", "IMAGE", tree, "-f"];
        let Some(text) = oracle("isoinfo_lists_both_trees", "isoinfo", &args, &path) else {
            return;
        };
        for file in files() {
            assert!(text.lines().any(|l| l.trim_start_matches('/') == file.name), "{tree}: {text}");
        }
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let file = |name: &str| vec![File { name: name.to_owned(), bytes: vec![] }];
    for name in ["", ".", "a//b", "/a", "a/", "a/../b", "a/b/c/d/e/f/g/h/i", "ü", &"x".repeat(61)]
    {
        image("cidata", &file(name)).expect_err(name);
    }
    image("", &file("a")).expect_err("empty label");
    image("seventeen-letters", &file("a")).expect_err("long label");
    let twice = [file("a"), file("a")].concat();
    image("cidata", &twice).expect_err("the same name twice");
    let many: Vec<File> = (0..40).flat_map(|n| file(&format!("file-{n}"))).collect();
    image("cidata", &many).expect_err("more than a sector of records");
}
