//! What moves, and what does not.

use devbox::error::Kind;
use devbox::store::Outcome;

use crate::boxes::{Home, bytes, run, two_versions};
use crate::server::{Registry, Site};

#[tokio::test]
async fn a_box_comes_back_as_it_went_and_an_update_moves_what_changed() {
    let Some(registry) = Registry::start("push and pull") else { return };
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let web = registry.repository("team/web");
    let pushed = from.push(&first, &web).await.expect("pushes");
    assert_eq!(pushed.packs.0, 0);
    assert!(!pushed.was_there);
    let again = from.push(&first, &web).await.expect("pushes");
    assert!(again.was_there && again.moved.sent == 0, "{again:?}");
    assert_eq!(again.manifest, pushed.manifest);
    // The same box at another place has the same bytes.
    let other = from.push(&first, &registry.repository("other")).await.expect("pushes");
    assert_eq!(other.manifest, pushed.manifest);
    let update = from.push(&second, &web).await.expect("pushes");
    assert!(update.packs.0 > 0, "some packs are there: {update:?}");
    // Whole packs go, of which a box so small has few.
    assert!(update.moved.sent * 3 < pushed.moved.sent * 2, "{update:?} of {pushed:?}");

    let to = Home::new();
    let pulled = to.pull(&format!("{web}:1.0.0")).await.expect("pulls");
    assert_eq!((pulled.outcome, pulled.reused), (Outcome::New, 0));
    assert_eq!(pulled.manifest, pushed.manifest);
    assert_eq!(
        pulled.image.manifest_digest(),
        first.manifest_digest(),
        "the same box in the store"
    );
    to.store.verify(&pulled.image).expect("whole");
    let twice = to.pull(&format!("{web}@{}", pushed.manifest)).await.expect("pulls");
    assert_eq!(twice.outcome, Outcome::Same);
    let update = to.pull(&format!("{web}:1.1.0")).await.expect("pulls");
    assert_eq!(update.image.manifest_digest(), second.manifest_digest());
    to.store.verify(&update.image).expect("whole");
    eprintln!("whole: {:?}; update: {:?}", pulled.moved, update.moved);
    assert!(update.moved.received * 8 < pulled.moved.received, "{update:?} of {pulled:?}");
    assert!(update.moved.requests <= 40, "{update:?}");
    to.is_clean();

    // Another one that has only cut the old version itself.
    let third = Home::new();
    third.add("web", "1.0.0", first.disk_path());
    let update = third.pull(&format!("{web}:1.1.0")).await.expect("pulls");
    assert!(update.moved.received * 6 < pulled.moved.received, "{update:?}");
    third.store.verify(&update.image).expect("whole");

    let raw = run(
        from.path(),
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://127.0.0.1:{}/team/web:1.0.0", registry.port),
        ],
    );
    assert!(raw.contains("application/vnd.devbox.image.v1"), "{raw}");
    let copy = format!("oci:{}:x", from.path().join("copy").display());
    let source = format!("docker://127.0.0.1:{}/team/web:1.1.0", registry.port);
    run(from.path(), "skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &copy]);
}

#[tokio::test]
async fn a_release_never_changes_and_other_tags_move() {
    let Some(registry) = Registry::start("tags") else { return };
    let (one, two) = (Home::new(), Home::new());
    let web = registry.repository("web");
    let add = |home: &Home, version: &str, seed: u64| {
        let path = home.path().join("disk");
        std::fs::write(&path, bytes(seed, 200_000)).expect("written");
        home.add("web", version, &path)
    };
    let first = add(&one, "1.0.0", 1);
    one.push(&first, &web).await.expect("pushes");
    let stable = one.push(&first, &format!("{web}:stable")).await.expect("pushes");
    let e = two.push(&add(&two, "1.0.0", 2), &web).await.expect_err("taken");
    assert!(e.to_string().contains("is there with another content"), "{e}");
    assert!(e.to_string().contains(&first.disk_digest().to_string()), "both sides are named: {e}");
    let next = add(&two, "1.1.0", 3);
    let moved = two.push(&next, &format!("{web}:stable")).await.expect("moves");
    assert_ne!(moved.manifest, stable.manifest);
    let e = two.push(&next, &format!("{web}:1.0.0")).await.expect_err("another version");
    assert_eq!(e.kind(), Kind::Usage);
    for seed in [4, 5] {
        let home = Home::new();
        home.push(&add(&home, "2.0.0-dev", seed), &web).await.expect("a pre-release moves");
    }
    let reader = Home::new();
    let pulled = reader.pull(&format!("{web}:stable")).await.expect("pulls");
    assert_eq!(pulled.image.config().version, "1.1.0");
    // The name means another box here.
    let e = one.pull(&format!("{web}:2.0.0-dev")).await.map(drop);
    e.expect("a new name");
    let e = {
        let home = Home::new();
        add(&home, "1.1.0", 9);
        home.pull(&format!("{web}:stable")).await.expect_err("taken")
    };
    assert!(e.to_string().contains("is in the store with another content"), "{e}");
    let e = reader.pull(&format!("{web}:9.9.9")).await.expect_err("absent");
    assert!(e.to_string().contains("there is no box"), "{e}");
    reader.is_clean();
}

#[tokio::test]
async fn a_channel_follows_what_is_pushed_and_moves_no_blob() {
    let Some(registry) = Registry::start("channels") else { return };
    let home = Home::new();
    let (first, second) = two_versions(&home);
    let folder = format!("dir:{}", home.path().join("boxes").display());
    for place in [registry.repository("web"), folder] {
        let pushed = home.push_to(&first, &place, &["stable"]).await.expect("pushes");
        assert_eq!(pushed.channels, [("stable".to_owned(), true)]);
        home.push(&second, &place).await.expect("pushes");
        let pulled = Home::new().pull(&format!("{place}:stable")).await.expect("pulls");
        assert_eq!(pulled.image.config().version, "1.0.0", "it moves when it is told to");

        // What is there already is only pointed at.
        let moved = home.push_to(&second, &place, &["stable", "next"]).await.expect("moves");
        assert!(moved.was_there);
        assert_eq!(moved.channels, [("stable".to_owned(), true), ("next".to_owned(), true)]);
        assert!(moved.moved.requests < 24 && moved.moved.sent < 20_000, "{moved:?}");
        let to = Home::new();
        let pulled = to.pull(&format!("{place}:stable")).await.expect("pulls");
        assert_eq!(pulled.manifest, moved.manifest);
        assert_eq!(pulled.image.manifest_digest(), second.manifest_digest());
        let again = home.push_to(&second, &place, &["stable"]).await.expect("is there");
        assert_eq!(again.channels, [("stable".to_owned(), false)]);
        assert_eq!(again.moved.sent, 0, "{again:?}");
        let e = home.push_to(&second, &place, &["9.9.9"]).await.expect_err("a version");
        assert_eq!(e.kind(), Kind::Usage);
    }
}

#[tokio::test]
async fn a_folder_and_a_web_server_do_as_well() {
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let folder = from.path().join("boxes");
    let at = format!("dir:{}", folder.display());
    let pushed = from.push(&first, &at).await.expect("pushes");
    from.push(&second, &at).await.expect("pushes");
    assert!(from.push(&second, &at).await.expect("pushes").was_there);

    let to = Home::new();
    let pulled = to.pull(&format!("file://{}:1.0.0", folder.display())).await.expect("pulls");
    assert_eq!(pulled.manifest, pushed.manifest);
    let update = to.pull(&format!("{at}:1.1.0")).await.expect("pulls");
    assert!(update.moved.received * 8 < pulled.moved.received, "{update:?}");
    to.is_clean();
    to.store.verify(&update.image).expect("whole");

    // Python's server knows no ranges, and is good enough.
    let server = Site::start(&folder);
    let site = Home::new();
    let url = &server.url;
    let pulled = site.pull(&format!("{url}/:1.1.0")).await;
    let absent = site.pull(&format!("{url}/:7.0.0")).await.expect_err("absent");
    let e = site.push(&first, url).await.expect_err("read only");
    drop(server);
    assert!(absent.to_string().contains("there is no box"), "{absent}");
    assert_eq!(e.kind(), Kind::Usage);
    let pulled = pulled.expect("pulls");
    assert_eq!(pulled.image.manifest_digest(), second.manifest_digest());
    site.is_clean();

    let empty = tempfile::tempdir().expect("folder");
    let e =
        site.pull(&format!("dir:{}:1.0.0", empty.path().display())).await.expect_err("no boxes");
    assert!(e.to_string().contains("holds no boxes"), "{e}");
    // A folder whose blob was damaged.
    let blobs = folder.join("blobs/sha256");
    for entry in std::fs::read_dir(&blobs).expect("reads") {
        let path = entry.expect("reads").path();
        let mut content = std::fs::read(&path).expect("reads");
        if content.starts_with(b"{") {
            continue;
        }
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, content).expect("written");
    }
    let other = Home::new();
    let e = other.pull(&format!("{at}:1.0.0")).await.expect_err("damaged");
    eprintln!("{e}");
    other.is_clean();
}

#[tokio::test]
async fn two_pulls_of_one_box_at_once_are_one() {
    let Some(registry) = Registry::start("two pulls at once") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    let web = registry.repository("web");
    from.push(&first, &web).await.expect("pushes");
    let to = Home::new();
    let address = format!("{web}:1.0.0");
    let (a, b) = tokio::join!(to.pull(&address), to.pull(&address));
    let (a, b) = (a.expect("pulls"), b.expect("pulls"));
    let mut outcomes = [a.outcome, b.outcome];
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Same);
    assert_eq!(outcomes, [Outcome::New, Outcome::Same]);
    let least = a.moved.received.min(b.moved.received);
    assert!(least < 20_000, "one of them waited: {a:?} {b:?}");
    to.is_clean();
}

#[tokio::test]
async fn versions_share_blocks_where_the_filesystem_can() {
    let name = "versions share blocks";
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: {name}: mounting needs root");
        return;
    }
    let Some(registry) = Registry::start(name) else { return };
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let web = registry.repository("web");
    for image in [&first, &second] {
        from.push(image, &web).await.expect("pushes");
    }
    // Root's own namespace: nobody else sees the mount, and it goes with the shell.
    let script = r#"
        set -eu
        truncate -s 512M disk; mkfs.xfs -q -m reflink=1 disk; mkdir mounted
        mount -o loop disk mounted || { echo 'cannot mount'; exit 0; }
        export DEVBOX_HOME=$PWD/mounted/home
        used() { sync -f mounted; df --output=used -B1 mounted | tail -n 1; }
        used
        "$1" box pull "$2:1.0.0" >&2; used
        "$1" box pull "$2:1.1.0" >&2; used
        "$1" box show --verify web:1.1.0 >&2
        umount mounted"#;
    let home = tempfile::tempdir().expect("folder");
    let out = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_devbox"), &web])
        .current_dir(home.path())
        .output()
        .expect("runs");
    let (told, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if told.contains("cannot mount") {
        eprintln!("not run: {name}: this host does not mount XFS: {said}");
        return;
    }
    assert!(out.status.success(), "{said}");
    let used: Vec<u64> = told.split_whitespace().map(|n| n.parse().expect("bytes")).collect();
    let [empty, one, two] = used[..] else { panic!("{told}") };
    eprintln!("{} bytes with the first version, {} more with the second", one - empty, two - one);
    assert!((two - one) * 4 < one - empty, "{told}");
}
