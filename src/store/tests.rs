use std::os::unix::fs::PermissionsExt as _;

use super::config::example;
use super::*;
use crate::error::Kind;
use tokio_util::sync::CancellationToken;

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Home { dir: tempfile::tempdir().expect("temporary folder") }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn store(&self) -> Store {
        Store::open(&self.root()).expect("opens")
    }
}

fn add_with(store: &Store, version: &str, content: &[u8], existing: Existing) -> Result<Added> {
    let disk = store.stage().expect("stages");
    std::fs::write(disk.path(), content).expect("writes");
    let mut config = example("web", version, content);
    config.spec1 = crate::digest::SpecDigest::of(content);
    store.add(&config, disk, existing)
}

fn add(store: &Store, version: &str, content: &[u8]) -> BoxRef {
    add_with(store, version, content, Existing::Refuse).expect("adds").image
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("reads").count()
}

#[test]
fn a_box_is_found_again_with_its_config_and_a_read_only_disk() {
    let home = Home::new();
    let added = add(&home.store(), "1.0.0", b"disk");
    let found = home.store().find("web", "1.0.0").expect("reads").expect("is there");
    assert_eq!(found.manifest_digest(), added.manifest_digest());
    assert_eq!(found.config(), added.config());
    assert_eq!(std::fs::read(found.disk_path()).expect("reads"), b"disk");
    let mode = std::fs::metadata(found.disk_path()).expect("stat").permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
    assert_eq!(count(&home.root().join("tmp")), 0);
    assert!(home.store().find("web", "1.0.1").expect("reads").is_none());
}

/// The layout's files as the specification wants them.
#[test]
fn the_layout_is_an_oci_image_layout() {
    let home = Home::new();
    let added = add(&home.store(), "1.0.0", b"disk");
    let text = |name: &str| std::fs::read_to_string(home.root().join(name)).expect(name);
    assert_eq!(text("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value = serde_json::from_str(&text("index.json")).expect("JSON");
    assert_eq!(index["schemaVersion"], 2);
    let entry = &index["manifests"][0];
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(entry["artifactType"], "application/vnd.devbox.image.v1");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "web:1.0.0");
    assert_eq!(entry["digest"], added.manifest_digest().to_string());
    let manifest = text(&format!("blobs/sha256/{}", added.manifest_digest().hex()));
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.devbox.config.v1+json");
    assert_eq!(manifest["layers"][0]["digest"], added.disk_digest().to_string());
    assert_eq!(manifest["layers"][0]["size"], 4);
}

#[test]
fn the_same_box_gives_the_same_manifest_in_any_store() {
    let (a, b) = (Home::new(), Home::new());
    assert_eq!(
        add(&a.store(), "1.0.0", b"disk").manifest_digest(),
        add(&b.store(), "1.0.0", b"disk").manifest_digest()
    );
    let again = add_with(&a.store(), "1.0.0", b"disk", Existing::Refuse).expect("adds");
    assert_eq!(again.outcome, Outcome::Same);
}

#[test]
fn a_release_is_immutable_and_a_pre_release_moves() {
    let home = Home::new();
    let store = home.store();
    add(&store, "1.0.0", b"one");
    let e = add_with(&store, "1.0.0", b"two", Existing::Refuse).expect_err("refused");
    assert!(e.what().contains("`web:1.0.0`"), "{e}");
    assert!(e.to_string().contains("--replace"), "{e}");
    let found = store.find("web", "1.0.0").expect("reads").expect("is there");
    assert_eq!(std::fs::read(found.disk_path()).expect("reads"), b"one");

    let replaced = add_with(&store, "1.0.0", b"two", Existing::Replace).expect("replaces");
    assert_eq!(replaced.outcome, Outcome::Replaced);

    add(&store, "1.1.0-dev", b"one");
    let moved = add_with(&store, "1.1.0-dev", b"two", Existing::Refuse).expect("moves");
    assert_eq!(moved.outcome, Outcome::Replaced);
    assert_eq!(store.list().expect("lists").len(), 2);
}

#[test]
fn a_rebuild_with_the_same_content_keeps_the_stored_box() {
    let home = Home::new();
    let store = home.store();
    let first = add(&store, "1.0.0", b"one");
    let disk = store.stage().expect("stages");
    std::fs::write(disk.path(), b"other blocks").expect("writes");
    let mut config = first.config().clone();
    config.bytes1 = crate::digest::BytesDigest::of(b"other blocks");
    let added = store.add(&config, disk, Existing::Refuse).expect("adds");
    assert_eq!(added.outcome, Outcome::SameContent);
    assert_eq!(added.image.manifest_digest(), first.manifest_digest());
    assert_eq!(store.prune(&Live::new(), true).expect("prunes"), Pruned::default());
}

#[test]
fn prune_keeps_what_the_index_or_a_machine_names() {
    let home = Home::new();
    let store = home.store();
    let old = add(&store, "1.0.0-dev", b"old");
    let new = add(&store, "1.0.0-dev", b"new");
    let live = Live::from([(old.manifest_digest(), vec!["web-1".to_owned()])]);
    assert!(store.prune(&live, false).expect("prunes").blobs.is_empty());
    assert_eq!(store.get(old.manifest_digest()).expect("is there").config(), old.config());

    let would = store.prune(&Live::new(), true).expect("prunes");
    assert_eq!(would.blobs.len(), 3, "manifest, config and disk of the old one");
    assert!(old.disk_path().exists(), "a dry run removes nothing");
    assert_eq!(store.prune(&Live::new(), false).expect("prunes"), would);
    assert!(!old.disk_path().exists());
    assert!(new.disk_path().exists());
    assert!(store.get(old.manifest_digest()).is_err());
}

#[test]
fn remove_frees_only_what_no_other_box_has() {
    let home = Home::new();
    let store = home.store();
    let first = add(&store, "1.0.0", b"shared disk");
    let second = add(&store, "1.0.1", b"shared disk");
    assert_eq!(first.disk_path(), second.disk_path());
    let removed = store.remove("web", "1.0.0", &Live::new()).expect("removes");
    assert_eq!(removed.blobs.len(), 2, "manifest and config; the disk is still named");
    assert!(second.disk_path().exists());
    assert!(store.find("web", "1.0.0").expect("reads").is_none());
    let e = store.remove("web", "1.0.0", &Live::new()).expect_err("gone");
    assert!(e.to_string().contains("devbox box list"), "{e}");
}

#[test]
fn a_box_in_use_is_not_removed_and_its_machines_are_named() {
    let home = Home::new();
    let store = home.store();
    let image = add(&store, "1.0.0", b"disk");
    let live = Live::from([(image.manifest_digest(), vec!["a".into(), "b".into()])]);
    let e = store.remove("web", "1.0.0", &live).expect_err("in use");
    assert!(e.what().contains("in use by `a`, `b`"), "{e}");
    assert!(store.find("web", "1.0.0").expect("reads").is_some());
}

#[test]
fn damage_is_noticed_before_it_is_used() {
    let home = Home::new();
    let store = home.store();
    let image = add(&store, "1.0.0", b"disk");
    store.verify(&image).expect("is whole");
    let spoil = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let mut bytes = std::fs::read(path).expect("reads");
        bytes[0] ^= 1;
        std::fs::write(path, bytes).expect("writes");
    };
    spoil(image.disk_path());
    let e = store.verify(&image).expect_err("was changed");
    assert!(e.what().contains(&image.disk_digest().hex()), "{e}");
    spoil(&blobs::path(&home.root(), image.manifest_digest()));
    assert!(store.find("web", "1.0.0").is_err());
    assert!(store.prune(&Live::new(), false).is_err(), "what it names cannot be told");
    assert!(image.disk_path().exists());
    store.remove("web", "1.0.0", &Live::new()).expect("a damaged box can be removed");
    assert!(!image.disk_path().exists());
}

#[test]
fn a_check_names_each_damaged_box_and_no_other() {
    let home = Home::new();
    let store = home.store();
    let path = |digest: FileDigest| home.root().join("blobs/sha256").join(digest.hex());
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::remove_file(path).expect("removes");
        std::fs::write(path, bytes).expect("writes");
    };
    let check = |wanted: Option<&[String]>| {
        let checks = store.check(wanted, &CancellationToken::new()).expect("checks");
        let of = |checked: &Checked| (checked.reference.clone(), checked.result.is_ok());
        (checks.boxes.iter().map(of).collect::<Vec<_>>(), checks.blobs.clone(), checks.is_clean())
    };
    let boxes = ["1.0.0", "1.1.0", "1.2.0"].map(|v| add(&store, v, v.as_bytes()));
    let gone = add(&store, "2.0.0", b"unnamed");
    let whole = |bad: &[&str]| -> Vec<(String, bool)> {
        let all = ["1.0.0", "1.1.0", "1.2.0", "2.0.0"];
        all.iter().map(|v| (format!("web:{v}"), !bad.contains(v))).collect()
    };
    assert_eq!(check(None), (whole(&[]), vec![], true));

    // Bytes of the same length, a manifest that is cut, and a disk that no box names.
    write(&path(boxes[0].disk_digest()), b"1.0.1");
    write(&path(boxes[1].manifest_digest()), b"{");
    assert_eq!(check(None).0, whole(&["1.0.0", "1.1.0"]));
    assert_eq!(
        check(Some(&["web:1.2.0".to_owned()])),
        (vec![("web:1.2.0".to_owned(), true)], vec![], true)
    );
    // Only the index, so that its blobs stay.
    let mut index = Index::read(&home.root()).expect("reads");
    index.take("web:2.0.0");
    index.write(&home.root()).expect("writes");
    write(&path(gone.disk_digest()), b"another");
    let (_, blobs, clean) = check(None);
    assert!(!clean);
    let mut bad = vec![
        path(boxes[0].disk_digest()),
        path(boxes[1].manifest_digest()),
        path(gone.disk_digest()),
    ];
    bad.sort();
    assert_eq!(blobs, bad);
}

#[test]
fn a_dead_writers_file_is_swept_and_a_living_ones_is_not() {
    let home = Home::new();
    let store = home.store();
    let staged = store.stage().expect("stages");
    std::fs::write(home.root().join("tmp/.dead"), b"half").expect("writes");
    home.store();
    assert!(!home.root().join("tmp/.dead").exists());
    assert!(staged.path().exists());
    drop(staged);
    assert_eq!(count(&home.root().join("tmp")), 0);
}

#[test]
fn a_store_of_another_version_is_refused_and_left_alone() {
    let home = Home::new();
    home.store();
    let file = home.root().join("oci-layout");
    std::fs::write(&file, r#"{"imageLayoutVersion":"2.0.0"}"#).expect("writes");
    let e = Store::open(&home.root()).expect_err("refused");
    assert!(e.to_string().contains("2.0.0"), "{e}");
    std::fs::write(&file, "nonsense").expect("writes");
    assert_eq!(Store::open(&home.root()).expect_err("refused").kind(), Kind::Undetermined);
}

#[test]
fn writers_at_once_lose_no_box() {
    let home = Home::new();
    let store = home.store();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let store = &store;
            scope.spawn(move || add(store, &format!("1.0.{n}"), format!("disk {n}").as_bytes()));
        }
    });
    assert_eq!(store.list().expect("lists").len(), 8);
}
