//! Servers that send on: in circles, to what is no web, and to others who want to know who asks.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devbox::registry::{Options, Retry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::boxes::{Home, bytes, options};
use crate::proxy::{Fault, Proxy};
use crate::server::Registry;

/// More than a circle may take to be told, on a busy host; asking again would take longer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A server that says the same to all; what it was asked.
struct Other {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Other {
    async fn start(answer: impl Fn(u16) -> String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("port");
        let port = listener.local_addr().expect("address").port();
        let (answer, asked) = (answer(port), Arc::new(Mutex::new(vec![])));
        let heard = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut buf = vec![0; 8192];
                let n = client.read(&mut buf).await.unwrap_or(0);
                heard.lock().expect("lock").push(String::from_utf8_lossy(&buf[..n]).into_owned());
                let _ = client.write_all(answer.as_bytes()).await;
                let _ = client.shutdown().await;
            }
        });
        Other { port, asked, task }
    }

    fn heard(&self) -> String {
        self.asked.lock().expect("lock").join("\n")
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// With the pauses that people have, so that a further attempt shows in the time.
fn as_usual() -> Options {
    Options { retry: Retry::default(), ..options() }
}

#[tokio::test]
async fn circles_and_addresses_that_are_none_are_told_at_once() {
    let Some(registry) = Registry::start("redirects") else { return };
    let from = Home::new();
    let path = from.path().join("disk");
    std::fs::write(&path, bytes(1, 500_000)).expect("written");
    let image = from.add("web", "1.0.0", &path);
    from.push(&image, &registry.repository("web")).await.expect("pushes");
    let proxy = Proxy::start(registry.port).await;
    let address = format!("{}:1.0.0", proxy.repository("web"));
    let away = Other::start(|port| {
        let to = format!("http://127.0.0.1:{port}/more");
        format!(
            "HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    })
    .await;
    for (part, location, said) in [
        ("/manifests/", "/v2/web/manifests/1.0.0".to_owned(), "in a circle"),
        ("/blobs/", "/v2/web/manifests/1.0.0?x=1".to_owned(), "in a circle"),
        ("/blobs/", format!("http://127.0.0.1:{}/", away.port), "in a circle"),
        ("/manifests/", "file:///etc/passwd".to_owned(), "of the kind `file:`"),
        ("/blobs/", "gopher://h.example/".to_owned(), "of the kind `gopher:`"),
    ] {
        let header = leaked(format!("Location: {location}"));
        proxy.set(move |asked| match asked.path.contains(part) || asked.path.contains("?x=1") {
            true => Fault::Answer(307, header),
            false => Fault::None,
        });
        let (to, begun) = (Home::new(), Instant::now());
        let e = to.pull_with(&address, as_usual()).await.expect_err("refused").to_string();
        assert!(e.contains("from one address to the next") && e.contains(said), "{location}: {e}");
        assert!(begun.elapsed() < AT_ONCE, "{location}: {:?}", begun.elapsed());
        to.is_clean();
        let e = from.push_with(&image, &proxy.repository("new"), as_usual()).await;
        let e = e.expect_err("refused").to_string();
        assert!(e.contains(said), "{location}: {e}");
    }
}

#[tokio::test]
async fn a_password_does_not_follow_to_another_server() {
    let Some(registry) = Registry::start("passwords and redirects") else { return };
    let from = Home::new();
    let path = from.path().join("disk");
    std::fs::write(&path, bytes(1, 500_000)).expect("written");
    let image = from.add("web", "1.0.0", &path);
    from.push(&image, &registry.repository("web")).await.expect("pushes");
    let asks = |challenge: &'static str| {
        move |port: u16| {
            let challenge = challenge.replace("PORT", &port.to_string());
            format!(
                "HTTP/1.1 401 X\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
    };
    for challenge in ["Basic realm=x", "Bearer realm=\"http://127.0.0.1:PORT/token\""] {
        let thief = Other::start(asks(challenge)).await;
        let proxy = Proxy::start(registry.port).await;
        let to_thief = leaked(format!("Location: http://127.0.0.1:{}/blob", thief.port));
        let mut count = 0;
        proxy.set(move |asked| {
            count += 1;
            match asked.path.contains("/blobs/") {
                // So that the password is shown to the registry.
                false if count == 1 => Fault::Answer(401, "WWW-Authenticate: Basic realm=x"),
                true => Fault::Answer(307, to_thief),
                false => Fault::None,
            }
        });
        let to = Home::new();
        let auths = to.path().join("auth.json");
        let text =
            format!(r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "bWU6cHc="}}}}}}"#, proxy.port);
        std::fs::write(&auths, text).expect("written");
        let with = Options { credentials: vec![auths], ..as_usual() };
        let address = format!("{}:1.0.0", proxy.repository("web"));
        let e = to.pull_with(&address, with).await.expect_err("refused").to_string();
        assert!(e.contains("sent on to a server that wants to know who asks"), "{e}");
        let heard = thief.heard().to_lowercase();
        assert!(heard.contains("get /blob") && !heard.contains("authorization"), "{heard}");
        assert!(!heard.contains("/token"), "{heard}");
        to.is_clean();
    }
}

#[tokio::test]
async fn a_refresh_token_is_for_the_server_that_was_named() {
    let Some(registry) = Registry::start("refresh tokens") else { return };
    let thief = Other::start(|_| {
        let said = r#"{"access_token": "tok"}"#;
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
            said.len()
        )
    })
    .await;
    let to_thief = thief.port;
    let tokens = Other::start(|_| {
        format!("HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{to_thief}/token\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    })
    .await;
    let proxy = Proxy::start(registry.port).await;
    let challenge = leaked(format!(
        "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/token\"",
        tokens.port
    ));
    proxy.set(move |_| Fault::Answer(401, challenge));
    let to = Home::new();
    let auths = to.path().join("auth.json");
    let text = format!(
        r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "", "identitytoken": "sesame"}}}}}}"#,
        proxy.port
    );
    std::fs::write(&auths, text).expect("written");
    let with = Options { credentials: vec![auths], ..as_usual() };
    let address = format!("{}:1.0.0", proxy.repository("web"));
    let e = to.pull_with(&address, with).await.expect_err("refused").to_string();
    assert!(e.contains("who asks for a token on to"), "{e}");
    assert!(tokens.heard().contains("sesame"), "asked as it should be: {}", tokens.heard());
    assert_eq!(thief.heard(), "");
}

#[tokio::test]
async fn a_download_in_a_circle_is_told_at_once() {
    let circle = Other::start(|_| {
        "HTTP/1.1 302 X\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_owned()
    })
    .await;
    let home = Home::new();
    let (url, digest) = (format!("http://127.0.0.1:{}/a.box", circle.port), "0".repeat(64));
    for more in [&["--sha256", digest.as_str()][..], &[]] {
        let begun = Instant::now();
        let out = tokio::process::Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(["box", "import", &url, "--name", "x:1.0.0"])
            .args(more)
            .env("DEVBOX_HOME", home.path())
            .output()
            .await
            .expect("runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("in a circle, back to"), "{said}");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        home.is_clean();
    }
}
