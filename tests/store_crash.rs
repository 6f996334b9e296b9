//! Kills the store's writer at each of its crash points and looks at what is left.
//!
//! Run with `cargo test --features crash-points --test store_crash`.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use devbox::delta::{self, Task};
use devbox::digest::{BoxDigest, BytesDigest, SpecDigest};
use devbox::event::Events;
use devbox::store::{BoxConfig, Existing, Live, Store};
use tokio_util::sync::CancellationToken;

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

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("reads").count()
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
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    for task in delta::plan(&store, &Live::new()).expect("plans") {
        let Task::Fold(image, base) = task else { panic!("{task:?}") };
        let live = || Ok(Live::new());
        delta::fold(&store, &image, &base, &live, &events, &cancel).expect("folds");
    }
}

/// Two versions of another box, which have nearly all in common.
fn add_versions(store: &Store) {
    let common: Vec<u8> = (0..40_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    for (version, more) in [("1.0.0", &b"old"[..]), ("1.1.0", b"new")] {
        let disk = store.stage().expect("stages");
        std::fs::write(disk.path(), [&common[..], more].concat()).expect("writes");
        let config = BoxConfig { name: "old".into(), version: version.into(), ..config(more) };
        store.add(&config, disk, Existing::Refuse).expect("adds");
    }
}

#[test]
fn a_writer_killed_at_any_point_leaves_whole_boxes_and_at_most_a_temporary_file() {
    let points: Vec<_> = devbox::crash::POINTS.iter().filter(|p| p.starts_with("store.")).collect();
    assert!(points.len() >= 5, "{points:?}");
    for point in points {
        let home = tempfile::tempdir().expect("temporary folder");
        let root = home.path().join("store");
        add(&Store::open(&root).expect("opens"), b"first");
        add_versions(&Store::open(&root).expect("opens"));

        let status = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child"])
            .env(CHILD, &root)
            .env("DEVBOX_CRASH", point)
            .output()
            .expect("runs")
            .status;
        assert_eq!(status.signal(), Some(9), "{point}: the child was not killed there");

        let store = Store::open(&root).expect("opens after the crash");
        let left = count(&root.join("tmp"));
        assert_eq!(left, 0, "{point}: the next command cleans up");
        match store.find("web", "1.0.0-dev").expect("reads") {
            Some(image) => store.verify(&image).expect("the box is whole"),
            None => assert!(["store.entry-removed", "store.delta-written"].contains(point)),
        }
        let old = store.find("old", "1.0.0").expect("reads").expect("is there");
        store.verify(&old).expect("the old version is whole");
        store.prune(&Live::new(), false).expect("prunes");
        let blobs = count(&root.join("blobs/sha256"));
        let named = store.list().expect("lists").len() * 3;
        assert!(!root.join("deltas").exists() || count(&root.join("deltas")) == 0, "{point}");
        assert_eq!(blobs, named, "{point}: nothing unnamed stays after prune");
        add(&store, b"third");
        assert_eq!(store.list().expect("lists").len(), 3);
    }
}
