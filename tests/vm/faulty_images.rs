//! Damaged and hostile images: exit 3 from what reads them, exit 1 from what builds on them, the
//! object named, nothing else opened.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::people::{exits, run};
use crate::workbench::{Project, image_spec, insist, sha256, tiny_disk};

/// A project whose source is the image that `make` writes; insists on both exit codes.
fn refused(name: &str, words: &[&str], make: impl FnOnce(&Path)) {
    let project = Project::new(name, "");
    let image = project.dir().join("image");
    let _ = fs::remove_file(&image);
    make(&image);
    let spec = image_spec(
        name,
        &format!("path = \"{}\"\nsha256 = \"{}\"", image.display(), sha256(&image)),
        "",
    );
    fs::write(project.dir().join("devbox.toml"), spec).expect("write the spec");
    let path = image.to_str().expect("text");
    for args in [&["digest", path][..], &["parity", path, path]] {
        let said = exits(&mut project.devbox(args), 3);
        insist(&said, words);
        assert!(said.err.contains("image"), "the object is not named:\n{}", said.err);
        assert!(!said.out.contains("equal"), "{}", said.out);
    }
    let said = exits(&mut project.devbox(&["build"]), 1);
    insist(&said, words);
    project.insist_on_no_guest();
    assert_eq!(project.outputs(), Vec::<PathBuf>::new());
}

fn copy_of_tiny(to: &Path) {
    fs::copy(tiny_disk().0, to).expect("copy");
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(bytes, at).expect("write");
}

fn qemu_img(args: &[&str], path: &Path, size: Option<&str>) {
    run(Command::new("qemu-img").args(args).arg(path).args(size));
}

#[test]
fn a_truncated_qcow2() {
    refused("truncated", &["truncated"], |path| {
        copy_of_tiny(path);
        let length = fs::metadata(path).expect("made").len();
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|f| f.set_len(length / 2))
            .expect("cut");
    });
}

#[test]
fn a_qcow2_that_claims_an_absurd_size() {
    refused("absurd", &["claims a disk of", "limit"], |path| {
        copy_of_tiny(path);
        // The virtual size, a big-endian u64 at byte 24 (QEMU docs/interop/qcow2.txt).
        put(path, 24, &(1u64 << 62).to_be_bytes());
    });
}

#[test]
fn a_backing_file_elsewhere_is_never_opened() {
    let project = Project::new("backing-pipe", "");
    let pipe = project.dir().join("pipe");
    let _ = fs::remove_file(&pipe);
    run(Command::new("mkfifo").arg(&pipe));
    // Whoever opened the pipe for reading would hang here for ever, and this test with it.
    refused("backing", &["backing", "pipe"], |path| {
        qemu_img(
            &["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", pipe.to_str().expect("text")],
            path,
            Some("64M"),
        );
    });
}

#[test]
fn a_disk_without_partition_table() {
    refused("no-table", &["partition table"], |path| {
        let file = fs::File::create(path).expect("create");
        file.set_len(64 << 20).expect("size");
        file.write_all_at(b"just bytes", 4096).expect("write");
    });
}

#[test]
fn an_ext4_with_garbage_in_its_metadata() {
    refused("garbage", &["ext4"], |path| {
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(tiny_disk().0).arg(path));
        let out = run(Command::new("sfdisk").arg("--json").arg(path));
        let table: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let root = table["partitiontable"]["partitions"]
            .as_array()
            .and_then(|p| p.last())
            .and_then(|p| p["start"].as_u64())
            .expect("a root partition")
            * 512;
        // The first inode table, found as its descriptor says (kernel.org ext4, block group
        // descriptors: `bg_inode_table_lo` at byte 8), with 4 KiB blocks.
        let file = fs::File::open(path).expect("open");
        let mut word = [0; 4];
        file.read_exact_at(&mut word, root + 4096 + 8).expect("the descriptor");
        let inodes = root + u64::from(u32::from_le_bytes(word)) * 4096;
        put(path, inodes + 256, &[0xa5; 1024]);
    });
}

#[test]
fn a_raw_file_that_hides_a_qcow2_header_is_not_followed() {
    // A guest can write a qcow2 header into its raw disk; an explicit format keeps it a raw disk.
    let project = Project::new("probe", "");
    let image = project.dir().join("image");
    qemu_img(
        &["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd"],
        &image,
        Some("64M"),
    );
    let spec = image_spec(
        "probe",
        &format!(
            "path = \"{}\"\nformat = \"raw\"\nsha256 = \"{}\"",
            image.display(),
            sha256(&image)
        ),
        "",
    );
    fs::write(project.dir().join("devbox.toml"), spec).expect("write the spec");
    let said = exits(&mut project.devbox(&["build"]), 1);
    insist(&said, &["image"]);
    assert!(!said.err.contains("root:x:0:0"), "{}", said.err);
    project.insist_on_no_guest();
}
