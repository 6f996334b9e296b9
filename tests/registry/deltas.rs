//! Old versions are kept as what differs from the newest one, and nobody who uses them sees it.

use std::process::{Command, Output};

use devbox::digest::FileDigest;
use serde_json::Value;

use crate::boxes::{Home, two_versions};

fn devbox(home: &Home, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devbox"))
        .args(args)
        .current_dir(home.path())
        .env("DEVBOX_HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path().join("run"))
        .output()
        .expect("runs")
}

fn said(home: &Home, args: &[&str]) -> String {
    let out = devbox(home, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn json(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&said(home, args)).expect("JSON")
}

#[test]
fn an_old_version_takes_little_and_comes_back_for_whoever_needs_it() {
    let home = Home::new();
    let (first, second) = two_versions(&home);
    let (disk, newest) = (first.disk_digest(), second.disk_digest().to_string());
    let is_whole = || first.disk_path().exists();

    let planned = json(&home, &["box", "prune", "--dry-run", "--json"]);
    assert_eq!(planned["disks"][0]["reference"], "web:1.0.0", "{planned}");
    assert!(is_whole(), "nothing was done");
    let text = said(&home, &["box", "prune"]);
    assert!(text.contains("web:1.0.0 is kept as what differs from web:1.1.0"), "{text}");
    assert!(!is_whole());
    let listed = json(&home, &["box", "list", "--json"]);
    let kept = |number: usize| listed[number]["kept"].as_u64().expect("a number");
    assert!(kept(0) * 20 < kept(1), "{listed}");
    assert_eq!(listed[0]["difference_from"], newest);
    assert_eq!(listed[0]["stored"], first.stored_size());
    assert!(said(&home, &["box", "show", "web:1.0.0"]).contains(&newest));
    // It is read without being put together.
    said(&home, &["box", "verify"]);
    said(&home, &["box", "show", "web:1.0.0", "--verify"]);
    assert!(!is_whole());

    // Whoever needs the disk has it, byte for byte.
    let folder = format!("dir:{}", home.path().join("bucket").display());
    for args in [
        vec!["box", "push", "web:1.0.0", &folder],
        vec!["digest", "web:1.0.0"],
        vec!["box", "export", "web:1.0.0", "--format", "vagrant", "--output-dir", "out"],
    ] {
        said(&home, &["box", "prune"]);
        assert!(!is_whole(), "{args:?}");
        let out = devbox(&home, &args);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(!err.contains("not in the store"), "{args:?}: {err}");
        assert!(err.contains("web:1.0.0 is whole again"), "{args:?}: {err}");
        let bytes = std::fs::read(first.disk_path()).expect("is there");
        assert_eq!(FileDigest::of(&bytes), disk, "{args:?}");
    }

    // A pull of the next version uses what is there; one that is a delta is no hindrance.
    said(&home, &["box", "prune"]);
    let other = Home::new();
    other.add("web", "1.0.0", second.disk_path());
    said(&other, &["box", "pull", &format!("{folder}:1.0.0"), "--replace"]);
    said(&home, &["box", "pull", &format!("{folder}:1.0.0")]);
    assert!(!is_whole(), "it is here");

    // The newest one goes, and the old one stands alone.
    said(&home, &["box", "remove", "web:1.1.0"]);
    said(&home, &["box", "verify"]);
    let text = said(&home, &["box", "prune"]);
    assert!(text.contains("web:1.0.0 is whole again"), "{text}");
    assert!(is_whole() && !second.disk_path().exists());
    home.is_clean();
}

#[test]
fn one_that_cannot_be_put_together_says_so_and_goes_when_it_is_removed() {
    let home = Home::new();
    let (first, _) = two_versions(&home);
    said(&home, &["box", "prune"]);
    let delta = home.path().join("store/deltas").join(first.disk_digest().hex());
    let bytes = std::fs::read(&delta).expect("is there");
    for damage in [&bytes[..bytes.len() / 2], &bytes[..10], b"", &[&bytes[..90], b"x"].concat()] {
        std::fs::remove_file(&delta).expect("removed");
        std::fs::write(&delta, damage).expect("written");
        let out = devbox(&home, &["box", "verify"]);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(!out.status.success() && text.contains("damaged"), "{text}");
        assert!(text.contains("web:1.0.0"), "{text}");
        let out = devbox(&home, &["box", "push", "web:1.0.0", "dir:bucket"]);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && err.contains("damaged"), "{err}");
        assert!(err.contains("devbox box remove"), "it says what to do: {err}");
        assert!(!first.disk_path().exists());
    }
    said(&home, &["box", "remove", "web:1.0.0"]);
    assert!(!delta.exists());
    said(&home, &["box", "verify"]);
    home.is_clean();
}
