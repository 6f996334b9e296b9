//! Who may, and who one talks to.

use std::os::unix::fs::PermissionsExt as _;

use base64ct::{Base64, Encoding as _};
use devbox::registry::Options;

use crate::boxes::{Home, bytes, options, run};
use crate::proxy::{Fault, Proxy};
use crate::server::Registry;

fn with(text: &str, dir: &std::path::Path) -> Options {
    let path = dir.join("config.json");
    std::fs::write(&path, text).expect("written");
    Options { credentials: vec![path], ..options() }
}

fn image(home: &Home) -> devbox::store::BoxRef {
    let path = home.path().join("disk");
    std::fs::write(&path, bytes(1, 500_000)).expect("written");
    home.add("web", "1.0.0", &path)
}

#[tokio::test]
async fn a_password_is_shown_to_who_asks_for_it() {
    let dir = tempfile::tempdir().expect("folder");
    // `me` and `pw`, by crypt(3) of Debian 12.
    let accounts = dir.path().join("accounts");
    let script = "import crypt; print('me:' + crypt.crypt('pw', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))";
    let line = std::process::Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", script])
        .output();
    let line = match line {
        Ok(out) if out.status.success() => out.stdout,
        _ => {
            eprintln!("not run: a password: python3 without `crypt`");
            return;
        }
    };
    std::fs::write(&accounts, line).expect("written");
    let Some(registry) = Registry::with("a password", "", Some(&accounts)) else { return };
    let web = registry.repository("team/web");
    let home = Home::new();
    let image = image(&home);
    let e = home.push(&image, &web).await.expect_err("nobody").to_string();
    assert!(e.contains("wants to know who asks") && e.contains("docker login"), "{e}");
    let host = format!("127.0.0.1:{}", registry.port);
    let auth = |text: &str| Base64::encode_string(text.as_bytes());
    let good = format!(r#"{{"auths": {{"{host}": {{"auth": "{}"}}}}}}"#, auth("me:pw"));
    let push = async |text: &str| {
        let described = devbox::registry::Described::new(&home.path().join("cache"));
        let address = devbox::registry::Address::parse(&web).expect("address");
        let (events, cancel) =
            (devbox::event::Events::silent(), tokio_util::sync::CancellationToken::new());
        devbox::registry::push(
            &home.store,
            &image,
            &address,
            &described,
            &with(text, dir.path()),
            &events,
            &cancel,
        )
        .await
    };
    let wrong = format!(r#"{{"auths": {{"{host}": {{"auth": "{}"}}}}}}"#, auth("me:wrong"));
    let e = push(&wrong).await.expect_err("wrong").to_string();
    assert!(e.contains("wants to know who asks") && !e.contains("wrong\""), "{e}");
    push(&good).await.expect("pushes");

    // The same from a helper, as docker runs it.
    let helper = dir.path().join("docker-credential-devbox-test");
    let script = "#!/bin/sh\nread host\necho \"$host\" >> \"$0.asked\"\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"pw\"}'\n";
    std::fs::write(&helper, script).expect("written");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let config = dir.path().join("docker");
    std::fs::create_dir(&config).expect("folder");
    let text = format!(r#"{{"credHelpers": {{"{host}": "devbox-test"}}}}"#);
    std::fs::write(config.join("config.json"), text).expect("written");
    let to = Home::new();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").expect("set"));
    let out = tokio::process::Command::new(env!("CARGO_BIN_EXE_devbox"))
        .args(["box", "pull", &format!("{web}:1.0.0")])
        .env("DEVBOX_HOME", to.path())
        .env("DOCKER_CONFIG", &config)
        .env("PATH", path)
        .output()
        .await
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let asked = std::fs::read_to_string(dir.path().join("docker-credential-devbox-test.asked"));
    assert_eq!(asked.expect("asked"), format!("{host}\n"));
    to.is_clean();
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says() {
    let Some(registry) = Registry::start("a token") else { return };
    let home = Home::new();
    let image = image(&home);
    home.push(&image, &registry.repository("web")).await.expect("pushes");
    // The proxy wants one token; a server beside it gives it to those that know the password.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let token_port = listener.local_addr().expect("address").port();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
    let heard = asked.clone();
    let task = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buf = vec![0; 4096];
            let n = client.read(&mut buf).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&buf[..n]).into_owned();
            let body = match head.contains("Basic bWU6cHc=") {
                true => r#"{"token": "tok"}"#,
                false => "{}",
            };
            heard.lock().expect("lock").push(head.lines().next().unwrap_or_default().to_owned());
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    let proxy = Proxy::start(registry.port).await;
    let header: &'static str = Box::leak(
        format!(
            "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{token_port}/token\",service=\"r\""
        )
        .into_boxed_str(),
    );
    let mut refused = 0;
    proxy.set(move |_| {
        // The first one, and later one whose token has expired.
        refused += 1;
        if refused == 1 || refused == 3 { Fault::Answer(401, header) } else { Fault::None }
    });
    let dir = tempfile::tempdir().expect("folder");
    let text = format!(r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "bWU6cHc="}}}}}}"#, proxy.port);
    let to = Home::new();
    let address = format!("{}:1.0.0", proxy.repository("web"));
    to.pull_with(&address, with(&text, dir.path())).await.expect("pulls");
    let lines = asked.lock().expect("lock").clone();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "GET /token?service=r&scope=repository%3Aweb%3Apull HTTP/1.1");
    let nobody = Home::new();
    proxy.set(move |_| Fault::Answer(401, header));
    let e = nobody.pull(&address).await.expect_err("nobody").to_string();
    assert!(e.contains("gives none"), "{e}");
    task.abort();
}

#[tokio::test]
async fn a_registry_with_an_authority_of_its_own_is_trusted_when_one_says_so() {
    let dir = tempfile::tempdir().expect("folder");
    let key =
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
    let authority =
        ["req", "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"];
    run(dir.path(), "openssl", &[&authority[..], &key].concat());
    let server = [
        "req",
        "-x509",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-subj",
        "/CN=registry",
        "-keyout",
        "server.key",
        "-out",
        "server.pem",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    run(dir.path(), "openssl", &[&server[..], &key].concat());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("server.pem"), at("server.key"));
    let Some(registry) = Registry::with("TLS", &tls, None) else { return };
    let home = Home::new();
    let image = image(&home);
    let web = registry.repository("web");
    let e = home.push(&image, &web).await.expect_err("unknown").to_string();
    assert!(e.contains("is not who it should be") && e.contains("certs.d"), "{e}");
    let trusting = Options { certificates: Some(vec![dir.path().to_owned()]), ..options() };
    let described = devbox::registry::Described::new(&home.path().join("cache"));
    let address = devbox::registry::Address::parse(&web).expect("address");
    let (events, cancel) =
        (devbox::event::Events::silent(), tokio_util::sync::CancellationToken::new());
    devbox::registry::push(&home.store, &image, &address, &described, &trusting, &events, &cancel)
        .await
        .expect("pushes");
    let to = Home::new();
    let pulled = to.pull_with(&format!("{web}:1.0.0"), trusting).await.expect("pulls");
    to.store.verify(&pulled.image).expect("whole");
}
