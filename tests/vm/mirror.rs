//! A package mirror of this host's own: a relay on loopback, and an apt configuration that names it.
//! A build under that configuration must not let its name into an image, a log or the store.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::people::run;

/// A running relay; it ends with the test program.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// `127.0.0.1:<port>`.
    pub(crate) authority: String,
    /// What `APT_CONFIG` names.
    pub(crate) config: PathBuf,
}

impl Mirror {
    /// Relays to the mirror that this host's apt uses for `suite`. The error says why there is none.
    pub(crate) fn start(suite: &str, desk: &Path) -> Result<Mirror, String> {
        let format = "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)";
        let targets = run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            format,
            "Created-By: Packages",
        ]));
        let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
        let mut sources: Vec<(String, String)> = targets
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let [origin, codename, component, uri] = words[..] else { return None };
                let mine = codename == suite || codename.starts_with(&format!("{suite}-"));
                (origin == "Debian" && mine && component == "main" && uri.starts_with("http://"))
                    .then(|| (uri.trim_end_matches('/').to_owned(), codename.to_owned()))
            })
            .collect();
        sources.dedup();
        if sources.is_empty() {
            return Err(format!("this host's apt has no plain mirror of {suite}"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let authority = listener.local_addr().expect("bound").to_string();
        let mut list = String::new();
        for (n, (_, codename)) in sources.iter().enumerate() {
            list.push_str(&format!("deb http://{authority}/{n} {codename} main\n"));
        }
        let upstreams: Vec<String> = sources.into_iter().map(|(uri, _)| uri).collect();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let upstreams = upstreams.clone();
                // A client that goes away ends its own connection and nothing else.
                thread::spawn(move || relay(stream, &upstreams));
            }
        });
        let dir = desk.join("apt");
        fs::create_dir_all(dir.join("lists/partial")).expect("a folder");
        fs::create_dir_all(dir.join("cache/archives/partial")).expect("a folder");
        fs::write(dir.join("sources.list"), list).expect("written");
        let config = dir.join("apt.conf");
        let at = dir.display();
        fs::write(
            &config,
            format!(
                "Dir::Etc::SourceList \"{at}/sources.list\";\nDir::Etc::SourceParts \"-\";\n\
                 Dir::State::Lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\nAPT::Sandbox::User \"\";\n"
            ),
        )
        .expect("written");
        run(Command::new("apt-get").args(["-qq", "update"]).env("APT_CONFIG", &config));
        Ok(Mirror { authority, config })
    }

    /// What must occur nowhere: the mirror by the names that host and guest have for it.
    pub(crate) fn names(&self) -> [String; 2] {
        [self.authority.clone(), self.authority.replace("127.0.0.1", "10.0.2.2")]
    }
}

/// Passes one request on: `/<n>/rest` goes to the n-th mirror.
fn relay(mut client: TcpStream, upstreams: &[String]) -> Option<()> {
    let mut head = vec![];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16384 {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let (first, rest) = head.split_once("\r\n")?;
    let path = first.split(' ').nth(1)?.strip_prefix('/')?;
    let (n, path) = path.split_once('/')?;
    let upstream = upstreams.get(n.parse::<usize>().ok()?)?.strip_prefix("http://")?;
    let (host, prefix) = upstream.split_once('/').unwrap_or((upstream, ""));
    let mut request =
        format!("GET /{prefix}/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    let dropped = ["host:", "connection:"];
    for line in rest.lines().filter(|l| !l.is_empty()) {
        if !dropped.iter().any(|d| line.to_ascii_lowercase().starts_with(d)) {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    request.push_str("\r\n");
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut server = TcpStream::connect(address).ok()?;
    server.write_all(request.as_bytes()).ok()?;
    std::io::copy(&mut server, &mut client).ok()?;
    Some(())
}
