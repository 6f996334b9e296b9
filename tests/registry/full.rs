//! Disks that become full while a box comes or goes: on a small filesystem of its own, in a mount namespace of its own.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::boxes::{Home, bytes, options, two_versions};
use crate::proxy::{Asked, Fault, Proxy};
use crate::server::Registry;

/// Mounts `$SMALL` with some space, calls devbox, and fills the disk once `$SIGNS/asked` is there; then makes room and calls devbox
/// again. Between both the outcome, what it said and what is in the store.
const PULL: &str = r#"
mount -t tmpfs -o size=160m none "$SMALL"
export DEVBOX_HOME="$SMALL"
"$@" --json > "$SIGNS/first" 2> "$SIGNS/said" & first=$!
while [ ! -e "$SIGNS/asked" ] && kill -0 $first; do sleep 0.02; done
dd if=/dev/zero of="$SMALL/filler" bs=1M 2> /dev/null || true
: > "$SIGNS/full"
code=0; wait $first || code=$?
echo "$code"
ls "$SMALL/store/blobs/sha256" "$SMALL/store/tmp"
rm "$SMALL/filler"
"$@" --json
"$1" box verify > "$SIGNS/verified"
ls "$SMALL/store/partial" "$SMALL/store/tmp" > "$SIGNS/left"
"#;

/// Runs `script` with devbox and `args`; none, with a word, where this host gives no such namespace.
async fn in_namespace(
    test: &str,
    script: &str,
    small: &Path,
    signs: &Path,
    args: &[&str],
) -> Option<String> {
    let out = tokio::process::Command::new("unshare")
        .args(["-Urm", "sh", "-eu", "-c", script, "sh", env!("CARGO_BIN_EXE_devbox")])
        .args(args)
        .env("SMALL", small)
        .env("SIGNS", signs)
        .env_remove("REGISTRY_AUTH_FILE")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if said.contains("Operation not permitted") {
        eprintln!("not run: {test}: no user namespace ({said})");
        return None;
    }
    let first = std::fs::read_to_string(signs.join("said")).unwrap_or_default();
    assert!(out.status.success(), "{said}\nfirst: {first}");
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[tokio::test]
async fn a_disk_that_fills_up_in_a_pull_costs_nothing_that_arrived() {
    let Some(registry) = Registry::start("a disk that fills up") else { return };
    let from = Home::new();
    let (first, _) = two_versions(&from);
    from.push(&first, &registry.repository("web")).await.expect("pushes");
    let proxy = Proxy::start(registry.port).await;
    let address = format!("{}:1.0.0", proxy.repository("web"));
    let is_blob = |asked: &Asked<'_>| asked.method == "GET" && asked.path.contains("/blobs/");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    proxy.set(move |asked| {
        counted.fetch_add(usize::from(is_blob(asked)), Ordering::Relaxed);
        Fault::None
    });
    let all = Home::new().pull(&address).await.expect("pulls").moved.received;
    let last = count.load(Ordering::Relaxed);

    let (small, signs) =
        (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let (mut blobs, at) = (0, signs.path().to_owned());
    proxy.set(move |asked| {
        blobs += usize::from(is_blob(asked));
        // What else is under way has come when it is asked for again.
        if blobs == last {
            return Fault::Answer(503, "Retry-After: 4");
        }
        // The proxy does nothing else until the disk is full.
        if blobs == last + 1 {
            std::fs::write(at.join("asked"), "").expect("written");
            let begun = Instant::now();
            while !at.join("full").exists() && begun.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Fault::None
    });
    let args = ["box", "pull", &address];
    let Some(out) = in_namespace("a full disk", PULL, small.path(), signs.path(), &args).await
    else {
        return;
    };
    let said = std::fs::read_to_string(signs.path().join("said")).expect("said");
    let (code, rest) = out.split_once('\n').expect("a code");
    assert_eq!(code, "1", "{said}");
    for word in
        ["not enough free space", "bytes are needed and", "box prune", "what arrived is kept"]
    {
        assert!(said.contains(word), "`{word}`: {said}");
    }
    let json = rest.find('{').expect("JSON");
    let names: Vec<&str> =
        rest[..json].lines().filter(|l| !l.is_empty() && !l.ends_with(':')).collect();
    assert_eq!(names, [""; 0], "neither a blob nor a temporary file");
    let moved: Value = serde_json::from_str(&rest[json..]).expect("JSON");
    let moved = moved["moved"]["received"].as_u64().expect("a number");
    assert!(moved * 2 < all, "{moved} of {all} in {last} requests");
    let left = std::fs::read_to_string(signs.path().join("left")).expect("listed");
    let left: Vec<&str> = left.lines().filter(|l| !l.is_empty() && !l.ends_with(':')).collect();
    assert_eq!(left, [""; 0]);
}

/// As before, for a folder to push to.
const PUSH: &str = r#"
mount -t tmpfs -o size=6m none "$SMALL"
code=0; "$@" 2> "$SIGNS/said" || code=$?
echo "$code"
[ -z "$(ls "$SMALL/boxes/tmp")" ] || echo "wrong: temporary files"
for blob in "$SMALL/boxes/blobs/sha256/"*; do
    [ "$(sha256sum < "$blob")" = "$(basename "$blob")  -" ] || echo "wrong: $blob"
done
mount -o remount,size=60m "$SMALL"
"$@" 2> "$SIGNS/again"
"#;

#[tokio::test]
async fn a_folder_on_a_full_disk_takes_the_rest_later() {
    let from = Home::new();
    let (first, _) = two_versions(&from);
    assert_eq!(first.config().reference(), "web:1.0.0");
    let (small, signs) =
        (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let to = format!("dir:{}", small.path().join("boxes").display());
    let script = format!("export DEVBOX_HOME='{}'\n{PUSH}", from.path().display());
    let args = ["box", "push", "web:1.0.0", &to];
    let Some(out) = in_namespace("a full folder", &script, small.path(), signs.path(), &args).await
    else {
        return;
    };
    let said = std::fs::read_to_string(signs.path().join("said")).expect("said");
    assert!(out.starts_with("1\n"), "{out}{said}");
    assert!(said.contains("No space left") && said.contains("Free some space"), "{said}");
    assert!(!out.contains("wrong:"), "{out}");
    let again = std::fs::read_to_string(signs.path().join("again")).expect("said");
    assert!(again.contains("packs were there"), "{again}");
}

#[tokio::test]
async fn a_registry_without_space_is_told_with_its_own_words() {
    let Some(registry) = Registry::start("a registry without space") else { return };
    let from = Home::new();
    let path = from.path().join("disk");
    std::fs::write(&path, bytes(1, 500_000)).expect("written");
    let image = from.add("web", "1.0.0", &path);
    let proxy = Proxy::start(registry.port).await;
    let full = r#"{"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": {"Err": "no space left on device"}}]}"#;
    for (status, said) in
        [(500, "no space left on device"), (507, "Have space made on the registry")]
    {
        proxy.set(move |asked| match asked.method {
            "PUT" => Fault::Refuse(status, full),
            _ => Fault::None,
        });
        let e = from.push_with(&image, &proxy.repository("web"), options()).await;
        let e = e.expect_err("full").to_string();
        assert!(e.contains(said) && e.contains("no space left"), "{status}: {e}");
    }
    proxy.set(|_| Fault::None);
    from.push(&image, &proxy.repository("web")).await.expect("pushes");
}
