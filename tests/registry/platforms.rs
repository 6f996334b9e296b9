//! One version for several architectures.

use std::path::Path;

use devbox::digest::FileDigest;
use devbox::error::Result;
use devbox::event::Events;
use devbox::registry::{Address, Options, Pulled, choose};
use devbox::spec::Wish;
use devbox::store::BoxRef;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::boxes::{Home, bytes, options};
use crate::server::Registry;

fn add(home: &Home, version: &str, arch: &str, seed: u64) -> BoxRef {
    let path = home.path().join("disk");
    std::fs::write(&path, bytes(seed, 100_000)).expect("written");
    home.add_for("base", version, arch, &path)
}

async fn pull(home: &Home, address: &str, arch: Option<&str>) -> Result<Pulled> {
    let options = Options { arch: arch.map(str::to_owned), ..options() };
    home.pull_with(address, options).await
}

#[tokio::test]
async fn two_architectures_are_one_version_and_each_finds_its_own() {
    let Some(registry) = Registry::start("architectures") else { return };
    // A store has one box of a name, so each architecture is built in its own.
    let (amd, arm) = (Home::new(), Home::new());
    let folder = format!("dir:{}", amd.path().join("boxes").display());
    for place in [registry.repository("base"), folder] {
        let a = add(&amd, "1.0.0", "amd64", 1);
        let b = add(&arm, "1.0.0", "arm64", 2);
        let address = format!("{place}:1.0.0");
        let first = amd.push_to(&a, &place, &["stable"]).await.expect("pushes");
        let e = pull(&Home::new(), &address, Some("arm64")).await.expect_err("not yet").to_string();
        assert!(e.contains("no box for arm64") && e.contains("amd64"), "{e}");
        let second = arm.push_to(&b, &place, &["stable"]).await.expect("pushes");
        for (arch, manifest) in [("amd64", first.manifest), ("arm64", second.manifest)] {
            for tag in ["1.0.0", "stable"] {
                let pulled = pull(&Home::new(), &format!("{place}:{tag}"), Some(arch)).await;
                let pulled = pulled.unwrap_or_else(|e| panic!("{arch} {tag}: {e}"));
                assert_eq!((pulled.manifest, &*pulled.image.config().arch), (manifest, arch));
            }
        }
        // Both are there, and nothing moves again.
        let again = amd.push_to(&a, &place, &["stable"]).await.expect("is there");
        assert!(again.was_there && again.moved.sent == 0, "{again:?}");
        assert_eq!(again.channels, [("stable".to_owned(), false)]);
        // A release is immutable for each.
        let other = Home::new();
        let e = other.push(&add(&other, "1.0.0", "arm64", 3), &place).await.expect_err("taken");
        assert!(e.to_string().contains("is there with another content"), "{e}");
        // Without a wish, that of this host.
        let pulled = pull(&Home::new(), &address, None).await.expect("pulls");
        let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        assert_eq!(pulled.image.config().arch, host);
    }
}

#[tokio::test]
async fn pushes_at_the_same_time_lose_no_architecture() {
    let Some(registry) = Registry::start("pushes at the same time") else { return };
    let place = registry.repository("base");
    for n in 0..12 {
        let (amd, arm, version) = (Home::new(), Home::new(), format!("1.{n}.0"));
        let (a, b) = (add(&amd, &version, "amd64", 2 * n), add(&arm, &version, "arm64", 2 * n + 1));
        let (first, second) = tokio::join!(
            amd.push_to(&a, &place, &["stable"]),
            arm.push_to(&b, &place, &["stable"])
        );
        let (first, second) = (first.expect("pushes"), second.expect("pushes"));
        for (arch, manifest) in [("amd64", first.manifest), ("arm64", second.manifest)] {
            for tag in [&*version, "stable"] {
                let pulled = pull(&Home::new(), &format!("{place}:{tag}"), Some(arch)).await;
                let pulled = pulled.unwrap_or_else(|e| panic!("{arch} {tag}: {e}"));
                assert_eq!(pulled.manifest, manifest, "{arch} {tag}");
            }
        }
    }
}

#[tokio::test]
async fn one_that_moves_moves_for_each_architecture_alone() {
    let Some(registry) = Registry::start("architectures that move") else { return };
    let place = registry.repository("base");
    let address = format!("{place}:2.0.0-dev");
    let arm = Home::new();
    let kept = arm.push(&add(&arm, "2.0.0-dev", "arm64", 1), &place).await.expect("pushes");
    for seed in [2, 3] {
        let amd = Home::new();
        let moved = amd.push(&add(&amd, "2.0.0-dev", "amd64", seed), &place).await.expect("moves");
        let pulled = pull(&Home::new(), &address, Some("amd64")).await.expect("pulls");
        assert_eq!(pulled.manifest, moved.manifest);
        let pulled = pull(&Home::new(), &address, Some("arm64")).await.expect("pulls");
        assert_eq!(pulled.manifest, kept.manifest);
    }
}

#[tokio::test]
async fn the_newest_is_one_that_there_is_for_the_architecture() {
    let (amd, arm) = (Home::new(), Home::new());
    let place = format!("dir:{}", amd.path().join("boxes").display());
    for version in ["1.0.0", "1.1.0"] {
        amd.push(&add(&amd, version, "amd64", 1), &place).await.expect("pushes");
    }
    arm.push(&add(&arm, "1.0.0", "arm64", 2), &place).await.expect("pushes");
    let at = Address::parse(&place).expect("address").place;
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    for (arch, version) in [("amd64", "1.1.0"), ("arm64", "1.0.0")] {
        let wish = Wish::version("^1").expect("a range");
        let options = Options { arch: Some(arch.to_owned()), ..options() };
        let found = choose(&at, &wish, &options, &events, &cancel).await.expect("one");
        assert_eq!((&*found.config.version, &*found.config.arch), (version, arch));
    }
    let options = Options { arch: Some("arm64".to_owned()), ..options() };
    let wish = Wish::version(">=1.1").expect("a range");
    let e = choose(&at, &wish, &options, &events, &cancel).await.expect_err("none").to_string();
    assert!(e.contains(":1.1.0` has no box for arm64"), "{e}");
}

/// Lets `tag` mean these bytes, as whoever can write to the folder can.
fn retag(folder: &Path, tag: &str, bytes: &[u8]) {
    let digest = FileDigest::of(bytes);
    std::fs::write(folder.join("blobs/sha256").join(digest.hex()), bytes).expect("written");
    let path = folder.join("index.json");
    let mut index: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("JSON");
    let entries = index["manifests"].as_array_mut().expect("a list");
    let entry = entries.iter_mut().find(|entry| {
        entry["annotations"]["org.opencontainers.image.ref.name"].as_str() == Some(tag)
    });
    let entry = entry.expect("the tag");
    entry["digest"] = json!(digest.to_string());
    entry["size"] = json!(bytes.len());
    std::fs::write(&path, index.to_string()).expect("written");
}

#[tokio::test]
async fn an_index_that_lies_is_not_believed() {
    let home = Home::new();
    let folder = home.path().join("boxes");
    let (place, tag) = (format!("dir:{}", folder.display()), "1.0.0");
    let pushed = home.push(&add(&home, tag, "amd64", 1), &place).await.expect("pushes");
    let address = format!("{place}:{tag}");
    let entry = |arch: &str, digest: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.devbox.image.v1",
            "digest": digest, "size": 700, "platform": {"architecture": arch, "os": "linux"},
        })
    };
    let index = |entries: Vec<Value>| {
        let kind = "application/vnd.oci.image.index.v1+json";
        json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).to_string()
    };
    let own = pushed.manifest.to_string();
    let absent = FileDigest::of(b"absent").to_string();
    let many: Vec<Value> = (0..1000).map(|n| entry(&format!("cpu{n}"), &own)).collect();
    for (text, word) in [
        (index(vec![entry("arm64", &own)]), "lists a box for amd64 as one for arm64"),
        (index(many), "992 more"),
        (index(vec![entry("arm64", "sha512:00")]), "not by `sha256`"),
        (index(vec![entry("arm64", &absent)]), "that is not there"),
        (index(vec![entry("arm64", &own), entry("arm64", &own)]), "two boxes for arm64"),
        (index(vec![]), "no box at all"),
    ] {
        retag(&folder, tag, text.as_bytes());
        let to = Home::new();
        let e = pull(&to, &address, Some("arm64")).await.expect_err(word).to_string();
        assert!(e.contains(word) && e.len() < 2000, "{word}: {e}");
        to.is_clean();
        assert!(to.store.list().expect("lists").is_empty());
    }
    // One that lists itself.
    let text = index(vec![entry("arm64", &own)]);
    let nested = index(vec![entry("arm64", &FileDigest::of(text.as_bytes()).to_string())]);
    retag(&folder, tag, text.as_bytes());
    retag(&folder, tag, nested.as_bytes());
    let e = pull(&Home::new(), &address, Some("arm64")).await.expect_err("nested").to_string();
    assert!(e.contains("is not a box"), "{e}");
}
