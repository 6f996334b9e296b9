//! What networks, servers and disks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use devbox::error::Kind;
use devbox::store::{BoxRef, Outcome};

use crate::boxes::{Home, bytes, patient, two_versions};
use crate::proxy::{Asked, Fault, Proxy};
use crate::server::Registry;

/// Connections that are cut in one test.
const CUTS: u64 = 200;

fn is_blob(asked: &Asked<'_>) -> bool {
    asked.method == "GET" && asked.path.contains("/blobs/")
}

/// Numbers that look random and are the same each time.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 + Send {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// Pulls until the box is here: some attempts may be one too many, and the next goes on, until there were `most`. Bytes
/// that the last one moved.
async fn pull_through(
    to: &Home,
    address: &str,
    image: &BoxRef,
    pulls: &mut usize,
    most: usize,
) -> u64 {
    let pulled = loop {
        *pulls += 1;
        match to.pull(address).await {
            Ok(pulled) => break pulled,
            Err(e) => {
                assert!(e.to_string().contains("run the same command again"), "{e}");
                to.is_clean();
            }
        }
        assert!(*pulls < most, "it does not come to an end");
    };
    assert_eq!(pulled.image.manifest_digest(), image.manifest_digest());
    to.store.verify(&pulled.image).expect("whole");
    to.is_clean();
    pulled.moved.received
}

#[tokio::test]
async fn connections_that_are_cut_200_times_cost_no_byte_twice() {
    let Some(registry) = Registry::start("cut connections") else { return };
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let web = registry.repository("web");
    from.push(&first, &web).await.expect("pushes");
    from.push(&second, &web).await.expect("pushes");
    let proxy = Proxy::start(registry.port).await;
    let web = proxy.repository("web");
    let plain = Home::new().pull(&format!("{web}:1.1.0")).await.expect("pulls").moved.received;

    let cuts = Arc::new(AtomicUsize::new(0));
    let (mut pulls, mut most) = (0, 0);
    let mut seed = 0;
    while cuts.load(Ordering::Relaxed) < CUTS as usize {
        seed += 1;
        let (mut below, counted) = (numbers(seed), cuts.clone());
        proxy.set(move |_| {
            // Two of three: then it goes on, and a cut at once is no end.
            if below(3) == 0 {
                return Fault::None;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            Fault::Cut(below(120_000) as usize + 1)
        });
        let to = Home::new();
        let moved = pull_through(&to, &format!("{web}:1.1.0"), &second, &mut pulls, 100).await;
        most = most.max(moved);
    }
    let cuts = cuts.load(Ordering::Relaxed);
    eprintln!("{cuts} cuts in {pulls} pulls; at most {most} bytes arrived for {plain}");
    // What a cut costs is what the kernel had in its buffers, and a repeated index or manifest.
    assert!(most < plain * 3 / 2, "{most} of {plain}");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_one_that_stays_so_is_named() {
    let Some(registry) = Registry::start("busy servers") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    let proxy = Proxy::start(registry.port).await;
    let web = proxy.repository("web");
    let sick = |every: usize, status: u16, header: &'static str| {
        let mut count = 0;
        move |_: &Asked<'_>| {
            count += 1;
            if count % every == 0 { Fault::Answer(status, header) } else { Fault::None }
        }
    };
    proxy.set(sick(3, 500, ""));
    from.push_with(&first, &web, patient()).await.expect("pushes in spite of 500");
    proxy.set(sick(4, 429, "Retry-After: 0"));
    let to = Home::new();
    let pulled = to.pull_with(&format!("{web}:1.0.0"), patient()).await;
    pulled.expect("pulls in spite of 429");
    to.is_clean();
    for (status, header, word) in [
        (503, "", "503"),
        (429, "Retry-After: 86400", "it asks for a pause of 86400 s"),
        (307, "Location: /v2/web/manifests/1.0.0", "from one address to the next"),
        (403, "", "403"),
        (401, "WWW-Authenticate: Basic realm=x", "who asks"),
        (401, "WWW-Authenticate: Bearer realm=\"file:///x\"", "gives tokens"),
        (200, "Content-Type: text/html", "is not a box"),
    ] {
        proxy.set(move |_| Fault::Answer(status, header));
        let to = Home::new();
        let e = to.pull(&format!("{web}:1.0.0")).await.expect_err("refused").to_string();
        assert!(e.contains(word), "{status} {header}: {e}");
        to.is_clean();
    }
}

#[tokio::test]
async fn a_registry_that_does_not_see_yet_what_it_was_given_is_asked_again() {
    let Some(registry) = Registry::start("late registries") else { return };
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let proxy = Proxy::start(registry.port).await;
    let web = proxy.repository("web");
    // What `docker-registry` says where somebody else puts the same blob at that moment.
    let late = |most: usize| {
        let mut said = 0;
        move |asked: &Asked<'_>| {
            if asked.method != "PUT" || !asked.path.contains("/manifests/") || said == most {
                return Fault::None;
            }
            said += 1;
            Fault::Refuse(
                400,
                "{\"errors\": [{\"code\": \"DIGEST_INVALID\"}, {\"code\": \"MANIFEST_BLOB_UNKNOWN\"}]}",
            )
        }
    };
    proxy.set(late(3));
    from.push_with(&first, &web, patient()).await.expect("pushes all the same");
    Home::new().pull(&format!("{web}:1.0.0")).await.expect("it is there");
    proxy.set(late(usize::MAX));
    let e = from.push_with(&second, &web, patient()).await.expect_err("never").to_string();
    assert!(e.contains("400") && e.contains("MANIFEST_BLOB_UNKNOWN"), "{e}");
    proxy.set(|_| Fault::None);
    from.push(&second, &web).await.expect("the same command again");
    Home::new().pull(&format!("{web}:1.1.0")).await.expect("it is there");
}

#[tokio::test]
async fn uploads_that_are_cut_200_times_are_begun_anew() {
    let Some(registry) = Registry::start("cut uploads") else { return };
    let from = Home::new();
    let path = from.path().join("disk");
    std::fs::write(&path, bytes(5, 6_000_000)).expect("written");
    let image = from.add("web", "1.0.0", &path);
    let proxy = Proxy::start(registry.port).await;
    let cuts = Arc::new(AtomicUsize::new(0));
    let (mut seed, mut pushes) = (0, 0);
    while cuts.load(Ordering::Relaxed) < CUTS as usize {
        seed += 1;
        let (mut below, counted) = (numbers(seed * 77), cuts.clone());
        proxy.set(move |asked| {
            let fault = match (asked.method, below(3)) {
                ("PUT", 0) => Fault::CutSent(below(200_000) as usize),
                // Of what was done.
                (_, 1) => Fault::NoAnswer,
                _ => return Fault::None,
            };
            counted.fetch_add(1, Ordering::Relaxed);
            fault
        });
        let name = format!("web{seed}");
        let pushed = loop {
            pushes += 1;
            match from.push(&image, &proxy.repository(&name)).await {
                Ok(pushed) => break pushed,
                Err(e) => {
                    assert!(e.to_string().contains("run the same command again"), "{e}");
                    // A tag that is there means a box that is there.
                    let (to, name) = (Home::new(), registry.repository(&name));
                    if let Err(e) = to.pull(&format!("{name}:1.0.0")).await {
                        assert!(e.to_string().contains("there is no box"), "{e}");
                    }
                }
            }
            assert!(pushes < 200, "it does not come to an end");
        };
        let to = Home::new();
        let pulled = to.pull(&format!("{}:1.0.0", registry.repository(&name))).await;
        let pulled = pulled.expect("pulls");
        assert_eq!((pulled.manifest, pulled.outcome), (pushed.manifest, Outcome::New));
        to.store.verify(&pulled.image).expect("whole");
        to.is_clean();
    }
    eprintln!("{} cuts in {pushes} pushes", cuts.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_folder_behind_a_web_server_that_is_cut_200_times_comes_whole() {
    let from = Home::new();
    let (_, second) = two_versions(&from);
    let folder = from.path().join("boxes");
    from.push(&second, &format!("dir:{}", folder.display())).await.expect("pushes");
    let site = crate::server::Site::start(&folder);
    let port = site.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let proxy = Proxy::start(port).await;
    let address = format!("http://127.0.0.1:{}/:1.1.0", proxy.port);
    let cuts = Arc::new(AtomicUsize::new(0));
    let (mut seed, mut pulls) = (0, 0);
    while cuts.load(Ordering::Relaxed) < CUTS as usize {
        seed += 1;
        let (mut below, counted) = (numbers(seed * 991), cuts.clone());
        proxy.set(move |_| {
            if below(3) == 0 {
                return Fault::None;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            Fault::Cut(below(120_000) as usize + 1)
        });
        let to = Home::new();
        pull_through(&to, &address, &second, &mut pulls, 200).await;
    }
    eprintln!("{} cuts in {pulls} pulls", cuts.load(Ordering::Relaxed));
}

#[tokio::test]
async fn wrong_bytes_are_never_believed() {
    let Some(registry) = Registry::start("wrong bytes") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    from.push(&first, &registry.repository("web")).await.expect("pushes");
    let proxy = Proxy::start(registry.port).await;
    let address = format!("{}:1.0.0", proxy.repository("web"));
    // Once, on the way, in a pack: the third blob and later ones.
    let mut count = 0;
    proxy.set(move |asked| {
        count += usize::from(is_blob(asked));
        if is_blob(asked) && count == 5 { Fault::Flip(3000) } else { Fault::None }
    });
    let to = Home::new();
    let pulled = to.pull(&address).await.expect("pulls");
    to.store.verify(&pulled.image).expect("whole");
    // Always.
    for (part, word) in [("/manifests/", "other bytes"), ("/blobs/", "other bytes")] {
        proxy.set(
            move |asked| if asked.path.contains(part) { Fault::Flip(999) } else { Fault::None },
        );
        let to = Home::new();
        let e = to.pull(&address).await.expect_err("wrong");
        assert!(e.to_string().contains(word), "{part}: {e}");
        assert_eq!(e.kind(), Kind::Undetermined);
        to.is_clean();
        assert!(to.store.list().expect("lists").is_empty());
    }
    let mut count = 0;
    proxy.set(move |asked| {
        count += usize::from(is_blob(asked));
        if is_blob(asked) && count > 3 { Fault::Flip(2000) } else { Fault::None }
    });
    let to = Home::new();
    let e = to.pull(&address).await.expect_err("wrong").to_string();
    assert!(e.contains("wrong bytes where it comes from"), "{e}");
    to.is_clean();
    // What came is kept, and the next attempt goes on with it.
    proxy.set(|_| Fault::None);
    let pulled = to.pull(&address).await.expect("pulls");
    to.store.verify(&pulled.image).expect("whole");
}

#[tokio::test]
async fn a_damaged_box_in_the_store_damages_no_other() {
    let Some(registry) = Registry::start("a damaged box") else { return };
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let web = registry.repository("web");
    from.push(&first, &web).await.expect("pushes");
    from.push(&second, &web).await.expect("pushes");
    let to = Home::new();
    let old = to.pull(&format!("{web}:1.0.0")).await.expect("pulls").image;
    let mut content = std::fs::read(old.disk_path()).expect("reads");
    let middle = content.len() / 2;
    for at in (0..content.len()).step_by(300_000) {
        content[at] ^= 0x55;
    }
    content[middle] ^= 0x55;
    std::fs::remove_file(old.disk_path()).expect("removed");
    std::fs::write(old.disk_path(), content).expect("damaged");
    let pulled = to.pull(&format!("{web}:1.1.0")).await.expect("pulls");
    to.store.verify(&pulled.image).expect("whole");
    assert_eq!(pulled.image.disk_digest(), second.disk_digest());
    let e = to.push(&old, &registry.repository("again")).await.expect_err("damaged");
    assert!(e.to_string().contains("is damaged"), "{e}");
}

#[tokio::test]
async fn a_killed_pull_goes_on_where_it_was() {
    let Some(registry) = Registry::start("a killed pull") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    from.push(&first, &registry.repository("web")).await.expect("pushes");
    let address = format!("{}:1.0.0", registry.repository("web"));
    let plain = Home::new().pull(&address).await.expect("pulls").moved.received;
    let to = Home::new();
    let run = |point: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(["box", "pull", "--json", &address]).env("DEVBOX_HOME", to.path());
        command.env("DEVBOX_CRASH", point).env_remove("REGISTRY_AUTH_FILE").output()
    };
    let points: &[&str] = match cfg!(feature = "crash-points") {
        true => &[
            "pull.part-written",
            "pull.part-written",
            "pull.whole",
            "store.blob-staged",
            "store.blob-published",
        ],
        false => &[],
    };
    for point in points {
        let out = run(point).await.expect("runs");
        assert!(!out.status.success(), "{point}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(to.store.list().expect("lists").is_empty(), "{point}");
    }
    let out = run("").await.expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let moved = value["moved"]["received"].as_u64().expect("a number");
    if !points.is_empty() {
        assert!(moved * 4 < plain, "{moved} of {plain}");
    }
    let image = to.store.find("web", "1.0.0").expect("finds").expect("there");
    to.store.verify(&image).expect("whole");
    let partial = std::fs::read_dir(to.path().join("store/partial")).expect("reads").count();
    assert_eq!(partial, 0);
    to.is_clean();
}

#[tokio::test]
async fn a_tag_that_moves_between_two_calls_gives_one_of_both() {
    let Some(registry) = Registry::start("a tag that moves") else { return };
    let web = registry.repository("web");
    let from = Home::new();
    let add = |version: &str, seed: u64| {
        let path = from.path().join("disk");
        std::fs::write(&path, bytes(seed, 3_000_000)).expect("written");
        from.add("web", version, &path)
    };
    let (old, new) = (add("1.0.0", 1), add("1.1.0", 2));
    from.push(&old, &format!("{web}:stable")).await.expect("pushes");
    let to = Home::new();
    let address = format!("{web}:stable");
    let (pulled, pushed) = tokio::join!(to.pull(&address), from.push(&new, &address));
    pushed.expect("pushes");
    let image = pulled.expect("pulls").image;
    to.store.verify(&image).expect("whole");
    assert!([old.disk_digest(), new.disk_digest()].contains(&image.disk_digest()));
    to.is_clean();
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_named_before_anything_moves() {
    let Some(registry) = Registry::start("a small disk") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    from.push(&first, &registry.repository("web")).await.expect("pushes");
    let home = tempfile::tempdir().expect("folder");
    let script = "mount -t tmpfs -o size=20m none \"$DEVBOX_HOME\" && \"$@\"; code=$?; ls \"$DEVBOX_HOME/store/blobs/sha256\"; exit $code";
    let out = tokio::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_devbox"), "box", "pull"])
        .arg(format!("{}:1.0.0", registry.repository("web")))
        .env("DEVBOX_HOME", home.path())
        .output()
        .await
        .expect("runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if said.contains("Operation not permitted") {
        eprintln!("not run: a small disk: no user namespace ({said})");
        return;
    }
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("not enough free space") && said.contains("box prune"), "{said}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "", "no blob");
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_killed_push_is_done_by_the_next_one() {
    let Some(registry) = Registry::start("a killed push") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    for point in ["push.own-tag", "push.before-channel"] {
        let place = registry.repository(&point.replace('.', "-"));
        let push = |point: &str| {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_devbox"));
            command.args(["box", "push", "web:1.0.0", &place, "--channel", "stable"]);
            command.env("DEVBOX_HOME", from.path()).env_remove("REGISTRY_AUTH_FILE");
            command.env("DEVBOX_CRASH", point).output()
        };
        let out = push(point).await.expect("runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{point} was not passed: {said}");
        let out = push("").await.expect("runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        for tag in ["1.0.0", "stable"] {
            let to = Home::new();
            let pulled = to.pull(&format!("{place}:{tag}")).await.expect("pulls");
            assert_eq!(pulled.image.manifest_digest(), first.manifest_digest());
            to.is_clean();
        }
        from.is_clean();
    }
}
