//! Which version is meant, whatever the list of tags looks like.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use devbox::build::base;
use devbox::error::{Error, Kind, Result};
use devbox::event::Events;
use devbox::host::Paths;
use devbox::registry::{self, Address, Offered};
use devbox::spec::{BoxPlace, BoxSource, PinnedBox, Wish};
use tokio_util::sync::CancellationToken;

use crate::boxes::{Home, bytes, options};
use crate::server::Registry;

async fn choose(place: &str, wish: &str) -> Result<Offered> {
    let place = Address::parse(place).expect("address").place;
    let wish = Wish::version(wish).unwrap_or_else(|_| Wish::Channel(wish.to_owned()));
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    registry::choose(&place, &wish, &options(), &events, &cancel).await
}

fn add(home: &Home, version: &str, seed: u64) -> devbox::store::BoxRef {
    let path = home.path().join("disk");
    std::fs::write(&path, bytes(seed, 100_000)).expect("written");
    home.add("base", version, &path)
}

#[tokio::test]
async fn the_newest_that_fits_is_chosen_wherever_boxes_are() {
    let Some(registry) = Registry::start("versions") else { return };
    let home = Home::new();
    let folder = format!("dir:{}", home.path().join("boxes").display());
    let all = ["1.2.0", "1.10.0", "1.9.3", "2.0.0-rc.1", "0.9.0", "2.0.0-rc.2"];
    let boxes: Vec<_> = (0..).zip(all).map(|(n, version)| add(&home, version, n)).collect();
    for place in [registry.repository("base"), folder] {
        for image in &boxes {
            home.push(image, &place).await.expect("pushes");
        }
        // Tags that are no versions are in nobody's way.
        home.push_to(&boxes[0], &place, &["stable", "1.99", "v3"]).await.expect("pushes");
        for (wish, version) in [
            ("*", "1.10.0"),
            ("^1.2", "1.10.0"),
            ("1.9", "1.10.0"),
            ("~1.9", "1.9.3"),
            ("=1.2.0", "1.2.0"),
            ("1.2.0", "1.2.0"),
            (">=1.2, <1.10", "1.9.3"),
            ("<1", "0.9.0"),
            ("2.0.0-rc.1", "2.0.0-rc.1"),
            (">=2.0.0-rc.1", "2.0.0-rc.2"),
            ("stable", "1.2.0"),
        ] {
            let found = choose(&place, wish).await.unwrap_or_else(|e| panic!("{wish}: {e}"));
            assert_eq!(found.config.version, version, "{wish} at {place}");
        }
        let e = choose(&place, "^3").await.expect_err("none fits").to_string();
        assert!(
            e.contains("fits version ^3") && e.contains("2.0.0-rc.2, 2.0.0-rc.1, 1.10.0"),
            "{e}"
        );
        let e = choose(&place, "1.2.9").await.expect_err("absent").to_string();
        assert!(e.contains("there is no box") && e.contains("1.10.0"), "{e}");
    }
    let e = choose(&registry.repository("nothing"), "*").await.expect_err("nothing").to_string();
    assert!(e.contains("it has no versions"), "{e}");
}

#[tokio::test]
async fn a_source_is_resolved_pulled_and_pinned() {
    let Some(registry) = Registry::start("a box as a source") else { return };
    let from = Home::new();
    let place = registry.repository("base");
    let old = add(&from, "1.0.0", 1);
    let pushed = from.push_to(&old, &place, &["stable"]).await.expect("pushes");
    let to = Home::new();
    let paths = paths(&to);
    let resolve = async |source: &BoxSource, arch: &str| -> Result<base::Base> {
        let (events, cancel) = (Events::silent(), CancellationToken::new());
        base::resolve(&spec(arch), source, &paths, &events, &cancel).await
    };
    let source = |wish: Wish| BoxSource { from: BoxPlace::At(place.clone()), wish, pinned: None };
    let range = source(Wish::version("^1").expect("a range"));
    let first = resolve(&range, "amd64").await.expect("pulls");
    assert_eq!(first.manifest, pushed.manifest);
    assert_eq!(first.image.manifest_digest(), old.manifest_digest());

    let new = add(&from, "1.1.0", 2);
    from.push_to(&new, &place, &["stable"]).await.expect("pushes");
    let pin = PinnedBox {
        version: "1.0.0".to_owned(),
        manifest: pushed.manifest,
        disk: old.disk_digest(),
    };
    let pinned = BoxSource { pinned: Some(pin.clone()), ..range.clone() };
    assert_eq!(resolve(&pinned, "amd64").await.expect("here").image.config().version, "1.0.0");
    for wish in ["^1", "stable"] {
        let wish = Wish::version(wish).unwrap_or_else(|_| Wish::Channel(wish.to_owned()));
        let found = resolve(&source(wish), "amd64").await.expect("pulls");
        assert_eq!(found.image.config().version, "1.1.0");
    }
    let e = resolve(&range, "arm64").await.expect_err("for others").to_string();
    assert!(e.contains("no box for arm64") && e.contains("for amd64"), "{e}");
    // One that is pinned comes again, and no other in its place.
    let fresh = Home::new();
    let paths = self::paths(&fresh);
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    let again =
        base::resolve(&spec("amd64"), &pinned, &paths, &events, &cancel).await.expect("pulls");
    assert_eq!(again.image.config().version, "1.0.0");
    let wrong =
        BoxSource { pinned: Some(PinnedBox { disk: new.disk_digest(), ..pin }), ..range.clone() };
    let e =
        base::resolve(&spec("amd64"), &wrong, &paths, &events, &cancel).await.expect_err("another");
    assert!(e.to_string().contains("another disk than the lock says"), "{e}");
    // The registry is gone: what is pinned and here does without.
    drop(registry);
    base::resolve(&spec("amd64"), &pinned, &paths, &events, &cancel).await.expect("here");
}

/// A spec that says nothing but its architecture.
fn spec(arch: &str) -> devbox::spec::Spec {
    let text = format!(
        "name = \"a\"\nversion = \"1.0.0\"\narch = \"{arch}\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n"
    );
    let at = std::path::Path::new("/devbox.toml");
    devbox::spec::parse(&text, at, std::path::Path::new("/")).expect("a spec")
}

fn paths(home: &Home) -> Paths {
    let path = |name: &str| home.path().join(name);
    Paths {
        store: path("store"),
        machines: path("machines"),
        templates: path("templates"),
        disks: path("disks"),
        bundles: path("bundles"),
        cache: path("cache"),
        settings: path("config.toml"),
        runtime: path("runtime"),
    }
}

/// A server that gives what `answer` says for each path: headers, each with a line feed behind it, and a body.
fn serve(
    answer: impl Fn(&str) -> (String, String) + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("port");
    let (port, count) = (listener.local_addr().expect("address").port(), Arc::default());
    let (answer, counted) = (Arc::new(answer), Arc::<AtomicUsize>::clone(&count));
    // It ends with the process.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (answer, counted) = (answer.clone(), counted.clone());
            std::thread::spawn(move || {
                let _ = one(client, &*answer, &counted);
            });
        }
    });
    (port, count)
}

fn one(
    mut client: TcpStream,
    answer: &(dyn Fn(&str) -> (String, String) + Send + Sync),
    counted: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = vec![];
    let mut piece = [0; 4096];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = client.read(&mut piece)?;
        head.extend_from_slice(&piece[..n]);
        // The end, or somebody who speaks TLS.
        if n == 0 || head[0] == 0x16 {
            return Ok(());
        }
    }
    counted.fetch_add(1, Ordering::Relaxed);
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (headers, body) = answer(path);
    write!(
        client,
        "HTTP/1.1 200 OK\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        headers.replace('\n', "\r\n"),
        body.len()
    )
}

async fn tags(port: u16) -> Result<Vec<String>> {
    let place = Address::parse(&format!("oci://127.0.0.1:{port}/web")).expect("address").place;
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    let all = registry::versions(&place, &options(), &events, &cancel).await?;
    Ok(all.iter().map(ToString::to_string).collect())
}

fn undetermined(e: &Error, word: &str) {
    assert_eq!(e.kind(), Kind::Undetermined, "{e}");
    assert!(e.to_string().contains(word), "{e}");
}

#[tokio::test]
async fn lists_in_pages_are_read_to_their_end_and_lists_without_one_are_refused() {
    let page = |path: &str| {
        path.rsplit_once("last=").and_then(|(_, n)| n.split('&').next()?.parse::<u64>().ok())
    };
    let (port, asked) = serve(move |path| {
        let at = page(path).unwrap_or(0);
        let link = match at {
            0..=8 => format!("Link: </v2/web/tags/list?n=2&last={}>; rel=\"next\"\n", at + 1),
            _ => String::new(),
        };
        (link, format!(r#"{{"name":"web","tags":["1.{at}.0","x{at}"]}}"#))
    });
    let all = tags(port).await.expect("reads");
    assert_eq!((all.len(), &*all[0], &*all[9]), (10, "1.9.0", "1.0.0"));
    assert!(asked.load(Ordering::Relaxed) <= 12);

    // Always another page, with another tag.
    let (port, asked) = serve(move |path| {
        let at = page(path).unwrap_or(0);
        let link = format!("Link: </v2/web/tags/list?last={}>; rel=next\n", at + 1);
        (link, format!(r#"{{"tags":["1.{at}.0"]}}"#))
    });
    undetermined(&tags(port).await.expect_err("endless"), "does not come to an end");
    assert!(asked.load(Ordering::Relaxed) < 250);

    // The same page for ever.
    let same = "Link: </v2/web/tags/list?last=x>; rel=next\n";
    let (port, asked) = serve(move |_| (same.to_owned(), r#"{"tags":["1.0.0"]}"#.to_owned()));
    undetermined(&tags(port).await.expect_err("endless"), "no tag that was not on one before");
    assert!(asked.load(Ordering::Relaxed) < 6);

    // A million tags at once; a page without an end; another server; no list.
    let (port, _) = serve(|_| {
        let tags: Vec<String> = (0..110_000).map(|n| format!("\"1.{n}.0\"")).collect();
        (String::new(), format!(r#"{{"tags":[{}]}}"#, tags.join(",")))
    });
    undetermined(&tags(port).await.expect_err("many"), "more than 100000");
    let (port, _) = serve(|_| (String::new(), "x".repeat(5 << 20)));
    undetermined(&tags(port).await.expect_err("long"), "longer than");
    let link = "Link: <http://127.0.0.2:1/v2/web/tags/list>; rel=next\n";
    let (port, _) = serve(move |_| (link.to_owned(), r#"{"tags":["1.0.0"]}"#.to_owned()));
    undetermined(&tags(port).await.expect_err("elsewhere"), "at another server");
    for body in ["", r#"{"tags":[1]}"#, "<html>"] {
        let (port, _) = serve(move |_| (String::new(), body.to_owned()));
        undetermined(&tags(port).await.expect_err(body), "no list of tags");
    }
    let (port, _) = serve(|_| (String::new(), r#"{"name":"web","tags":null}"#.to_owned()));
    assert!(tags(port).await.expect("empty").is_empty());
}
