//! Kills the store's writer at each of its crash points and looks at what is left.
//!
//! Run with `cargo test --features crash-points --test store_crash`.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use devbox::digest::{BoxDigest, BytesDigest, SpecDigest};
use devbox::store::{BoxConfig, Existing, Live, Store};

/// Set in the child: the folder of the store.
const CHILD: &str = "DEVBOX_TEST_STORE";

fn config(content: &[u8]) -> BoxConfig {
    BoxConfig {
        name: "web".into(),
        version: "1.0.0-dev".into(),
        arch: "amd64".into(),
        firmware: "bios".into(),
        spec1: SpecDigest::of(content),
        bytes1: BytesDigest::of(content),
        box1: BoxDigest::of(content),
        disk_size: 1 << 20,
        cmdline: String::new(),
        epoch: 0,
        seal: "seal/1".into(),
        devbox: "0".into(),
    }
}

fn add(store: &Store, content: &[u8]) {
    let disk = store.stage().expect("stages");
    std::fs::write(disk.path(), content).expect("writes");
    store.add(&config(content), disk, Existing::Refuse).expect("adds");
}

/// The work that is killed: one box is replaced, another one removed.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&root)).expect("opens");
    add(&store, b"second");
    store.remove("web", "1.0.0-dev", &Live::new()).expect("removes");
}

#[test]
fn a_writer_killed_at_any_point_leaves_whole_boxes_and_at_most_a_temporary_file() {
    let points: Vec<_> = devbox::crash::POINTS.iter().filter(|p| p.starts_with("store.")).collect();
    assert!(points.len() >= 5, "{points:?}");
    for point in points {
        let home = tempfile::tempdir().expect("temporary folder");
        let root = home.path().join("store");
        add(&Store::open(&root).expect("opens"), b"first");

        let status = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child"])
            .env(CHILD, &root)
            .env("DEVBOX_CRASH", point)
            .output()
            .expect("runs")
            .status;
        assert_eq!(status.signal(), Some(9), "{point}: the child was not killed there");

        let store = Store::open(&root).expect("opens after the crash");
        let left = std::fs::read_dir(root.join("tmp")).expect("reads").count();
        assert_eq!(left, 0, "{point}: the next command cleans up");
        match store.find("web", "1.0.0-dev").expect("reads") {
            Some(image) => store.verify(&image).expect("the box is whole"),
            None => assert_eq!(*point, "store.entry-removed"),
        }
        store.prune(&Live::new(), false).expect("prunes");
        let blobs = std::fs::read_dir(root.join("blobs/sha256")).expect("reads").count();
        let named = store.list().expect("lists").len() * 3;
        assert_eq!(blobs, named, "{point}: nothing unnamed stays after prune");
        add(&store, b"third");
        assert_eq!(store.list().expect("lists").len(), 1);
    }
}
