//! What belongs to a manifest: in a registry without a list of its own, in one with it, in a folder, behind a web server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use devbox::digest::FileDigest;
use devbox::error::Kind;
use devbox::event::Events;
use devbox::registry::manifest::Blob;
use devbox::registry::{Access, Address, Remote};
use tokio_util::sync::CancellationToken;

use crate::boxes::{Home, bytes, options, run};
use crate::proxy::{Fault, Proxy};
use crate::server::{Registry, Site};

const KIND: &str = "application/vnd.example.note.v1+json";

async fn open(address: &str, access: Access) -> Remote {
    let place = Address::parse(address).expect("address").place;
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    Remote::open(&place, access, &options(), &events, &cancel).await.expect("opens")
}

/// Pushes a box; its manifest.
async fn pushed(home: &Home, address: &str) -> Blob {
    let path = home.path().join("disk");
    std::fs::write(&path, bytes(1, 300_000)).expect("written");
    let image = home.add("web", "1.0.0", &path);
    let digest = home.push(&image, address).await.expect("pushes").manifest;
    let which = devbox::registry::address::Which::Digest(digest);
    let text = open(address, Access::Pull).await.manifest(&which).await.expect("reads");
    Blob { digest, size: text.expect("there").0.len() as u64 }
}

/// Puts two of one kind and one of another there, and reads them.
async fn put_and_read(address: &str, subject: &Blob) {
    let remote = open(address, Access::Push).await;
    for (kind, text) in [(KIND, "one"), ("a/b", "other"), (KIND, "two"), (KIND, "one")] {
        remote.attach(subject, kind, text.into()).await.expect("attaches");
    }
    read(address, subject.digest).await;
    let other = FileDigest::of(b"other");
    assert!(remote.attached(other, KIND).await.expect("reads").is_empty());
    let e = remote.attach(subject, KIND, vec![0; (4 << 20) + 1]).await.expect_err("too large");
    assert!(e.to_string().contains("the limit is"), "{e}");
}

async fn read(address: &str, subject: FileDigest) {
    let remote = open(address, Access::Pull).await;
    let found = remote.attached(subject, KIND).await.expect("reads");
    assert_eq!(found, [b"one", b"two"], "{address}");
}

#[tokio::test]
async fn what_belongs_to_a_box_is_found_at_every_kind_of_place() {
    let home = Home::new();
    let folder = home.path().join("boxes");
    let at = format!("dir:{}", folder.display());
    let subject = pushed(&home, &at).await;
    put_and_read(&at, &subject).await;
    let site = Site::start(&folder);
    read(&site.url, subject.digest).await;
    // The box is one among other entries, and comes as before.
    Home::new().pull(&format!("{at}:1.0.0")).await.expect("pulls");
    let Some(registry) = Registry::start("what belongs to a box") else { return };
    let home = Home::new();
    let web = registry.repository("team/web");
    let subject = pushed(&home, &web).await;
    put_and_read(&web, &subject).await;
    let hex = subject.digest.hex();
    let list = format!("docker://127.0.0.1:{}/team/web:sha256-{hex}", registry.port);
    let raw = run(home.path(), "skopeo", &["inspect", "--raw", "--tls-verify=false", &list]);
    assert_eq!(raw.matches("\"artifactType\"").count(), 3, "{raw}");
}

#[tokio::test]
async fn a_registry_that_keeps_the_list_itself_is_asked_page_by_page() {
    let Some(registry) = Registry::start("a list of referrers") else { return };
    let home = Home::new();
    let subject = pushed(&home, &registry.repository("web")).await;
    let remote = open(&registry.repository("web"), Access::Push).await;
    let mut entries = vec![];
    for text in ["one", "two"] {
        let digest = remote.attach(&subject, KIND, text.into()).await.expect("attaches");
        let which = devbox::registry::address::Which::Digest(digest);
        let size = remote.manifest(&which).await.expect("reads").expect("there").0.len();
        entries.push(format!(
            r#"{{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{digest}", "size": {size}, "artifactType": "{KIND}"}}"#
        ));
    }
    let page = |entry: &str| -> &'static str {
        let index = "application/vnd.oci.image.index.v1+json";
        format!(r#"{{"schemaVersion": 2, "mediaType": "{index}", "manifests": [{entry}]}}"#).leak()
    };
    let junk = r#"{"digest": 7}, {"mediaType": "x", "digest": "sha512:00", "size": 1, "artifactType": "application/vnd.example.note.v1+json"}"#;
    let (first, second) = (page(&entries[0]), page(&format!("{junk}, {}", entries[1])));
    let proxy = Proxy::start(registry.port).await;
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = asked.clone();
    proxy.set(move |request| {
        if !request.path.contains("/referrers/") {
            return Fault::None;
        }
        seen.lock().expect("lock").push(request.path.to_owned());
        match request.path.contains("page=2") {
            true => Fault::Says("", second),
            false => Fault::Says("Link: <?page=2>; rel=\"next\"\r\n", first),
        }
    });
    read(&proxy.repository("web"), subject.digest).await;
    let asked = asked.lock().expect("lock").clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].contains("artifactType=application%2Fvnd.example.note.v1%2Bjson"),
        "{asked:?}"
    );

    // One that takes the subject needs no tag.
    let tags = Arc::new(AtomicUsize::new(0));
    let counted = tags.clone();
    proxy.set(move |request| {
        if request.method == "PUT" && request.path.contains("/manifests/sha256:") {
            return Fault::Answer(201, "OCI-Subject: x");
        }
        counted
            .fetch_add(usize::from(request.path.contains("/manifests/sha256-")), Ordering::Relaxed);
        Fault::None
    });
    let remote = open(&proxy.repository("web"), Access::Push).await;
    remote.attach(&subject, KIND, "three".into()).await.expect("attaches");
    assert_eq!(tags.load(Ordering::Relaxed), 0);

    // A server that answers every address with a page, and one that damages what it sends.
    proxy.set(|request| match request.path.contains("/referrers/") {
        true => Fault::Says("", "<html>"),
        false => Fault::None,
    });
    read(&proxy.repository("web"), subject.digest).await;
    proxy.set(|request| match request.path.contains("/manifests/sha256:") {
        true => Fault::Flip(800),
        false => Fault::None,
    });
    let remote = open(&proxy.repository("web"), Access::Pull).await;
    let e = remote.attached(subject.digest, KIND).await.expect_err("damaged");
    assert_eq!(e.kind(), Kind::Undetermined);
    assert!(e.to_string().contains("other bytes"), "{e}");
    proxy.set(|request| match request.path.contains("/referrers/") {
        true => Fault::Answer(403, ""),
        false => Fault::None,
    });
    remote.attached(subject.digest, KIND).await.expect_err("one who may not read the list");
}
