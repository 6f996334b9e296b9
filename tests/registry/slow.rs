//! Lines that are slow, and servers that say nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devbox::registry::{Options, Retry};

use crate::boxes::{Home, bytes, options, two_versions};
use crate::proxy::{Asked, Fault, Proxy};
use crate::server::Registry;

/// How long an answer may stand still here.
const STALL: Duration = Duration::from_millis(800);

/// As usual, but for that time, and for how long a server may be silent in all.
fn hasty(patience: Duration) -> Options {
    let options = options();
    let retry = Retry { stall: STALL, patience, ..options.retry };
    Options { retry, ..options }
}

/// Two attempts.
fn short() -> Options {
    hasty(2 * STALL)
}

/// As many as usual: this host may be busy itself.
fn long() -> Options {
    hasty(100 * STALL)
}

#[tokio::test]
async fn what_is_sent_has_the_time_that_a_slow_line_needs() {
    let Some(registry) = Registry::start("a slow line") else { return };
    let from = Home::new();
    let path = from.path().join("disk");
    std::fs::write(&path, bytes(11, 1_500_000)).expect("written");
    let image = from.add("web", "1.0.0", &path);
    let proxy = Proxy::start(registry.port).await;
    let slow = Arc::new(AtomicUsize::new(0));
    let counted = slow.clone();
    proxy.set(move |asked| {
        if asked.method != "PUT" || !asked.path.contains("digest=") {
            return Fault::None;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Fault::Slow(3 * STALL.as_millis() as u64)
    });
    from.push_with(&image, &proxy.repository("web"), long()).await.expect("it is pushed");
    assert!(slow.load(Ordering::Relaxed) > 2);
    let boxes = registry.repository("web");
    Home::new().pull(&format!("{boxes}:1.0.0")).await.expect("it is there");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_soon() {
    let Some(registry) = Registry::start("silent servers") else { return };
    let from = Home::new();
    let (first, second) = two_versions(&from);
    let proxy = Proxy::start(registry.port).await;
    let web = proxy.repository("web");
    from.push(&first, &web).await.expect("pushes");
    let silent = |e: devbox::error::Error, begun: Instant| {
        let (e, took) = (e.to_string(), begun.elapsed());
        assert!(e.contains("does not answer in time") && e.contains("the same command"), "{e}");
        assert!(took >= 2 * STALL, "it had two attempts: {took:?}");
    };

    let to = Home::new();
    for part in ["/manifests/", "/blobs/"] {
        let asked_for = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let counts = asked_for.clone();
        proxy.set(move |asked| {
            if !asked.path.contains(part) {
                return Fault::None;
            }
            *counts.lock().expect("lock").entry(asked.path.to_owned()).or_default() += 1;
            Fault::Silent
        });
        let begun = Instant::now();
        let pulled = to.pull_with(&format!("{web}:1.0.0"), short()).await;
        silent(pulled.expect_err("nothing came"), begun);
        let counts = asked_for.lock().expect("lock");
        assert_eq!(counts.values().max(), Some(&2), "{counts:?}");
        to.is_clean();
    }
    let is_upload = |asked: &Asked<'_>| asked.method == "POST" && asked.path.contains("/uploads/");
    proxy.set(move |asked| if is_upload(asked) { Fault::Silent } else { Fault::None });
    let begun = Instant::now();
    let pushed = from.push_with(&second, &web, short()).await;
    silent(pushed.expect_err("nothing is there"), begun);

    // One whose answers stand still goes on where it was.
    let mut count = 0;
    proxy.set(move |asked| {
        count += usize::from(asked.path.contains("/blobs/"));
        if count % 3 == 1 { Fault::Stall(2000) } else { Fault::None }
    });
    to.pull_with(&format!("{web}:1.0.0"), long()).await.expect("it comes in pieces");
    to.is_clean();
    from.push_with(&second, &web, long()).await.expect("it is pushed");
}
