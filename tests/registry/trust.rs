//! Who may sign what: signatures made with keys of `ssh-keygen`, rules as they stand in a person's own file.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use devbox::attest::sign::Signer;
use devbox::error::{Error, Kind, Result};
use devbox::event::Events;
use devbox::registry::{self, Address, Options, Policy, Pulled};
use devbox::store::{BoxRef, Outcome};
use tokio_util::sync::CancellationToken;

use crate::boxes::{Home, bytes, options, run};
use crate::proxy::{Fault, Proxy};
use crate::server::{Registry, Site};

/// A key of `ssh-keygen`.
struct Key {
    signer: Arc<Signer>,
    public: String,
    path: std::path::PathBuf,
}

fn key(dir: &Path, name: &str) -> Key {
    let path = dir.join(name);
    let file = path.to_str().expect("text");
    run(dir, "ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);
    let text = std::fs::read(&path).expect("a key");
    let signer = Arc::new(Signer::parse(&text, &path, None).expect("a signer"));
    let public = std::fs::read_to_string(dir.join(format!("{name}.pub"))).expect("public");
    Key { signer, public: public.trim().to_owned(), path }
}

fn add(home: &Home, version: &str, seed: u64) -> BoxRef {
    let path = home.path().join("disk");
    std::fs::write(&path, bytes(seed, 200_000)).expect("written");
    home.add("web", version, &path)
}

/// A rule of the person's own file for `names`.
fn rule(home: &Home, names: &str, key: &Key) -> Policy {
    let text = format!("[[trust.rules]]\nnames = [\"{names}\"]\nkeys = [\"{}\"]\n", key.public);
    let path = home.path().join("config.toml");
    std::fs::write(&path, text).expect("written");
    Policy::load(None, &path).expect("rules")
}

async fn pull(home: &Home, address: &str, trust: &Policy) -> Result<Pulled> {
    home.pull_with(address, Options { trust: trust.clone(), ..options() }).await
}

async fn push(home: &Home, image: &BoxRef, address: &str, key: &Key) -> registry::Pushed {
    let options = Options { signer: Some(key.signer.clone()), ..options() };
    home.push_with(image, address, options).await.expect("pushes")
}

async fn sign(
    home: &Home,
    address: &str,
    elsewhere: Option<&str>,
    key: &Key,
) -> Result<registry::SignedBox> {
    let parse = |text: &str| Address::parse(text).expect("address");
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    let place = elsewhere.map(|text| parse(text).place);
    let (store, address) = (&home.store, parse(address));
    registry::sign(store, &address, place.as_ref(), &key.signer, &options(), &events, &cancel).await
}

/// Refused for want of trust, and nothing of it is here.
fn refused(home: &Home, pulled: Result<Pulled>, words: &[&str]) -> Error {
    let e = pulled.expect_err("refused");
    assert_eq!(e.kind(), Kind::Trust, "{e}");
    for word in words {
        assert!(e.to_string().contains(word), "`{word}` is not in: {e}");
    }
    home.is_clean();
    let partial = home.path().join("store/partial");
    assert!(!partial.exists() || std::fs::read_dir(partial).expect("reads").next().is_none());
    e
}

#[tokio::test]
async fn only_what_a_trusted_key_signed_as_what_it_is_comes_in() {
    let Some(registry) = Registry::start("trusted boxes") else { return };
    let (from, to) = (Home::new(), Home::new());
    let (ours, other) = (key(from.path(), "ours"), key(from.path(), "other"));
    let web = registry.repository("team/web");
    let trust = rule(&to, &registry.repository("team/*"), &ours);
    let first = add(&from, "1.0.0", 1);
    let pushed = from.push(&first, &web).await.expect("pushes");
    let address = format!("{web}:1.0.0");
    let (keyid, otherid) = (ours.signer.keyid(), other.signer.keyid());

    // Nothing of the disk is asked for.
    let proxy = Proxy::start(registry.port).await;
    let blobs = Arc::new(AtomicUsize::new(0));
    let counted = blobs.clone();
    proxy.set(move |asked| {
        counted.fetch_add(usize::from(asked.path.contains("/blobs/")), Ordering::Relaxed);
        Fault::None
    });
    let by_proxy = rule(&to, &proxy.repository("team/*"), &ours);
    let unsigned = pull(&to, &format!("{}:1.0.0", proxy.repository("team/web")), &by_proxy).await;
    refused(&to, unsigned, &["is not signed", &keyid, &pushed.manifest.to_string()]);
    assert_eq!(blobs.load(Ordering::Relaxed), 1, "only what the box says of itself");
    assert!(to.store.list().expect("lists").is_empty());

    sign(&from, &address, None, &other).await.expect("signs");
    refused(&to, pull(&to, &address, &trust).await, &["not trusted for it", &keyid, &otherid]);
    let signed = sign(&from, &address, None, &ours).await.expect("signs");
    assert!(!signed.was_there);
    assert!(sign(&from, &address, None, &ours).await.expect("signs").was_there);
    let pulled = pull(&to, &address, &trust).await.expect("pulls");
    assert_eq!((pulled.outcome, pulled.signers.len()), (Outcome::New, 2));
    assert_eq!(to.store.signatures(&pulled.image).expect("kept").len(), 2);
    // Also where it is here already.
    assert_eq!(pull(&to, &address, &trust).await.expect("pulls").outcome, Outcome::Same);

    // The signatures go on with the box, and hold for no other place.
    let elsewhere = registry.repository("team/copy");
    to.push(&pulled.image, &elsewhere).await.expect("pushes");
    let copy = format!("{elsewhere}:1.0.0");
    let third = Home::new();
    let e = refused(&third, pull(&third, &copy, &trust).await, &["signed as something else"]);
    assert!(e.to_string().contains(&format!("at {web},")), "{e}");
    let free = pull(&third, &copy, &Policy::none()).await.expect("where nothing is demanded");
    assert_eq!(third.store.signatures(&free.image).expect("kept").len(), 2);
    assert!(free.signers.is_empty(), "nobody signed it for this place");

    // Who signs what a tag means has to have seen it.
    let stranger = Home::new();
    let e = sign(&stranger, &copy, None, &ours).await.expect_err("never seen");
    assert!(e.to_string().contains("is not a box that is in the store"), "{e}");
    let pinned = format!("{elsewhere}@{}", pushed.manifest);
    sign(&stranger, &pinned, None, &ours).await.expect("signs");
    pull(&Home::new(), &copy, &trust).await.expect("signed there, too");
    // Removed with its box.
    to.store.remove("web", "1.0.0", &devbox::store::Live::new()).expect("removes");
    let left = std::fs::read_dir(to.path().join("store/signatures")).expect("reads").count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_tag_that_was_moved_and_a_channel_that_goes_back_are_refused() {
    let Some(registry) = Registry::start("moved tags") else { return };
    let (from, to) = (Home::new(), Home::new());
    let ours = key(from.path(), "ours");
    let web = registry.repository("web");
    let trust = rule(&to, "oci://*", &ours);
    let (old, new) = (add(&from, "1.9.0", 1), add(&from, "1.10.0", 2));
    let pushed = push(&from, &old, &web, &ours).await;
    let stable = format!("{web}:stable");
    push(&from, &new, &web, &ours).await;
    push(&from, &new, &stable, &ours).await;
    let tag = |tag: &str| format!("docker://127.0.0.1:{}/web:{tag}", registry.port);
    let copy = |to: &str| {
        let flags = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let (from_tag, to_tag) = (tag("1.9.0"), tag(to));
        run(from.path(), "skopeo", &[&flags[..], &[&from_tag, &to_tag]].concat());
    };
    pull(&to, &stable, &trust).await.expect("pulls");
    // Somebody lets a version and the channel mean the old box.
    copy("1.11.0");
    copy("stable");
    let moved = pull(&to, &format!("{web}:1.11.0"), &trust).await;
    refused(&to, moved, &["expected: version 1.11.0", "found:    version 1.9.0"]);
    let words = ["older than what came from there", "1.10.0", "1.9.0", "--allow-downgrade"];
    refused(&to, pull(&to, &stable, &trust).await, &words);
    assert_eq!(to.store.list().expect("lists").len(), 1);
    let digest = format!("{web}@{}", pushed.manifest);
    pull(&to, &digest, &trust).await.expect("by its digest");
    pull(&to, &format!("{web}:1.9.0"), &trust).await.expect("by its version");
    refused(&to, pull(&to, &stable, &trust).await, &words);
    let mut back = trust.clone();
    back.allow_downgrade = true;
    pull(&to, &stable, &back).await.expect("as it was asked for");
    pull(&to, &stable, &trust).await.expect("the channel is there now");
    let fresh = Home::new();
    pull(&fresh, &stable, &trust).await.expect("a store that never had the newer one cannot know");
}

#[tokio::test]
async fn a_registry_that_hides_or_damages_signatures_gets_nothing_taken() {
    let Some(registry) = Registry::start("hidden signatures") else { return };
    let (from, to) = (Home::new(), Home::new());
    let ours = key(from.path(), "ours");
    let proxy = Proxy::start(registry.port).await;
    let web = proxy.repository("web");
    let trust = rule(&to, "oci://127.0.0.1*", &ours);
    let image = add(&from, "1.0.0", 1);
    push(&from, &image, &web, &ours).await;
    let address = format!("{web}:1.0.0");
    proxy.set(|asked| match asked.path.contains("/manifests/sha256-") {
        true => Fault::Answer(404, ""),
        false => Fault::None,
    });
    refused(&to, pull(&to, &address, &trust).await, &["is not signed"]);
    proxy.set(|asked| match asked.path.contains("/manifests/sha256-") {
        true => Fault::Says("Content-Type: text/html\r\n", "<html>"),
        false => Fault::None,
    });
    refused(&to, pull(&to, &address, &trust).await, &["is not signed"]);
    for status in [403, 401] {
        proxy.set(move |asked| match asked.path.contains("sha256-") {
            true => Fault::Answer(status, ""),
            false => Fault::None,
        });
        pull(&to, &address, &trust).await.expect_err("not read");
        to.is_clean();
    }
    for at in ["/manifests/sha256-", "/manifests/sha256:", "/manifests/1.0.0"] {
        for bit in [0, 900, 2000] {
            proxy.set(move |asked| match asked.path.contains(at) {
                true => Fault::Flip(bit),
                false => Fault::None,
            });
            pull(&to, &address, &trust).await.expect_err("damaged");
            to.is_clean();
        }
    }
    assert!(to.store.list().expect("lists").is_empty());
    // Where nobody demands them, the box comes without.
    proxy.set(|asked| match asked.path.contains("sha256-") {
        true => Fault::Answer(403, ""),
        false => Fault::None,
    });
    pull(&to, &address, &Policy::none()).await.expect("pulls");
    // An unsigned list of another kind in its place is not written over.
    let junk = from.path().join("junk");
    std::fs::create_dir_all(&junk).expect("folder");
    proxy.set(|_| Fault::None);
    pull(&Home::new(), &address, &trust).await.expect("signed as before");
}

#[tokio::test]
async fn a_folder_is_signed_for_the_web_server_that_shows_it() {
    let (from, to) = (Home::new(), Home::new());
    let ours = key(from.path(), "ours");
    let folder = from.path().join("boxes");
    let at = format!("dir:{}", folder.display());
    let image = add(&from, "1.0.0", 1);
    push(&from, &image, &at, &ours).await;
    let site = Site::start(&folder);
    let trust = rule(&to, "*", &ours);
    let address = format!("{}/:1.0.0", site.url);
    refused(&to, pull(&to, &address, &trust).await, &["signed as something else", &site.url]);
    sign(&from, &format!("{at}:1.0.0"), Some(&site.url), &ours).await.expect("signs");
    pull(&to, &address, &trust).await.expect("pulls");
    let third = Home::new();
    pull(&third, &format!("{at}:1.0.0"), &trust).await.expect("the folder itself, too");
    // The same folder by a link has the name of the link, which nobody signed.
    let link = from.path().join("link");
    std::os::unix::fs::symlink(&folder, &link).expect("linked");
    let by_link = pull(&to, &format!("dir:{}:1.0.0", link.display()), &trust).await;
    refused(&to, by_link, &["signed as something else"]);
}

fn devbox(home: &Home, dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devbox"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path())
        .env("DEVBOX_HOME", home.path())
        .output()
        .expect("runs")
}

#[tokio::test]
async fn the_spec_and_the_person_both_hold_and_the_program_ends_with_4() {
    let (from, to) = (Home::new(), Home::new());
    let (ours, other) = (key(from.path(), "ours"), key(from.path(), "other"));
    add(&from, "1.0.0", 1);
    let dir = from.path();
    let at = format!("dir:{}", dir.join("boxes").display());
    let file = |key: &Key| key.path.to_str().expect("text").to_owned();
    let out = devbox(&from, dir, &["box", "push", "web:1.0.0", &at, "--sign", &file(&other)]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let project = to.path().join("project");
    std::fs::create_dir(&project).expect("folder");
    std::fs::write(project.join("keys"), format!("# who may\n\n{}\n", other.public)).expect("keys");
    let spec =
        "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";
    let rule = |keys: &str| format!("[[trust.rules]]\nnames = [\"dir:*\"]\nkeys = [\"{keys}\"]\n");
    std::fs::write(project.join("devbox.toml"), format!("{spec}{}", rule("keys"))).expect("spec");
    let address = format!("{at}:1.0.0");
    let pull = || devbox(&to, &project, &["box", "pull", &address, "--json"]);
    // The spec allows the other key, and the person does not.
    std::fs::write(to.path().join("config.toml"), rule(&ours.public)).expect("settings");
    let out = pull();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("config.toml") && said.contains(&ours.signer.keyid()), "{said}");
    let sign = ["box", "sign", &address, "--key", &file(&ours)];
    let out = devbox(&from, dir, &sign);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let out = pull();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(json["signers"].as_array().map(Vec::len), Some(2), "{json:#}");
    let out = devbox(&to, &project, &["box", "verify", "web:1.0.0"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && text.matches("trusted for dir:* in").count() == 2, "{text}");
    // What is wrong in either file is no reason to demand less.
    std::fs::write(to.path().join("config.toml"), "[trust]\nrequierd = true\n").expect("settings");
    let out = pull();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("Did you mean `required`?"), "{said}");
    std::fs::write(to.path().join("config.toml"), "[trust]\nrequired = true\n").expect("settings");
    assert_eq!(pull().status.code(), Some(4));
}
