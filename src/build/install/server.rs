//! Serves the answer files to the installer by HTTP, and remembers what was asked for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Result};
use crate::event::Events;

/// Most bytes of a request that are read: installers send some hundred.
const REQUEST: u64 = 16 << 10;
/// For one request and its answer; files are small, and an emulated guest is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that are remembered; an installer that asks in a loop fills no memory.
const KEPT: usize = 1000;

type Files = Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>;

/// A server on the host's loopback address, where QEMU's user-mode NAT reaches it as 10.0.2.2. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    files: Files,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts without files on a free port.
    pub(super) async fn start(events: &Events) -> Result<Self> {
        let fail = |e| Error::failed("cannot serve the answer files by HTTP").cause(e);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(fail)?;
        let port = listener.local_addr().map_err(fail)?.port();
        let (files, asked) = (Files::default(), Arc::new(Mutex::new(vec![])));
        let task =
            tokio::spawn(accept(listener, files.clone(), Arc::clone(&asked), events.clone()));
        Ok(Server { port, files, asked, task })
    }

    /// The port on this host, and in the guest's address of it.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Serves this file from now on.
    pub(super) fn add(&self, name: &str, bytes: Vec<u8>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(name.to_owned(), Arc::new(bytes));
    }

    /// Whether anything was asked for that is served.
    pub(super) fn was_asked(&self) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().any(|name| files.contains_key(name))
    }

    /// The files that were never asked for, and what else was.
    pub(super) fn ignored(&self) -> (Vec<String>, Vec<String>) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let never = files.keys().filter(|name| !asked.contains(name)).cloned().collect();
        let mut others: Vec<String> =
            asked.iter().filter(|name| !files.contains_key(*name)).cloned().collect();
        others.sort_unstable();
        others.dedup();
        (never, others)
    }
}

async fn accept(
    listener: TcpListener,
    files: Files,
    asked: Arc<Mutex<Vec<String>>>,
    events: Events,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: later there may be some.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (files, asked, events) = (files.clone(), Arc::clone(&asked), events.clone());
        tokio::spawn(async move {
            // A client that goes away is no fault of the build.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &files, &asked, &events)).await;
        });
    }
}

/// One request (RFC 9112): the path is a name, and nothing else is looked at.
async fn answer(
    mut stream: TcpStream,
    files: &Files,
    asked: &Mutex<Vec<String>>,
    events: &Events,
) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read.take(REQUEST)).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let mut words = first.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split(['?', '#']).next().unwrap_or("");
    let name = decoded(path.trim_start_matches('/'));
    {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < KEPT {
            asked.push(name.clone());
        }
    }
    let found = files.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let (status, body) = match (method, found) {
        ("GET" | "HEAD", Some(bytes)) => ("200 OK", bytes),
        ("GET" | "HEAD", None) => ("404 Not Found", Arc::default()),
        _ => ("405 Method Not Allowed", Arc::default()),
    };
    let code = status.get(..3).unwrap_or("");
    events.program("http", format!("{code} {} {}", method.escape_debug(), target.escape_debug()));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
        body.len()
    );
    write.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        write.write_all(&body).await?;
    }
    write.shutdown().await
}

/// Without percent-encoding (RFC 3986, 2.1); what is none stays as it is.
fn decoded(path: &str) -> String {
    let mut out = vec![];
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|n| u8::try_from(n).ok());
        rest = match (first, after) {
            (b'%', [a, b, after @ ..]) if hex(a).is_some() && hex(b).is_some() => {
                out.push(hex(a).unwrap_or(0) << 4 | hex(b).unwrap_or(0));
                after
            }
            _ => {
                out.push(*first);
                after
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn request(port: u16, text: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listens");
        stream.write_all(text.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn only_the_answers_are_served_and_what_was_asked_for_is_known() {
        let server = Server::start(&Events::silent()).await.expect("started");
        server.add("preseed.cfg", b"d-i\n".to_vec());
        server.add("sub/late", b"x".to_vec());
        assert!(!server.was_asked());
        let got = request(server.port(), "GET /etc/passwd HTTP/1.0\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 404 "), "{got}");
        assert!(!server.was_asked());
        let got = request(server.port(), "GET /preseed.cfg?a=b HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\nd-i\n"), "{got}");
        let got = request(server.port(), "HEAD /sub%2Flate HTTP/1.1\r\n\r\n").await;
        assert!(got.contains("Content-Length: 1\r\n") && got.ends_with("\r\n\r\n"), "{got}");
        assert!(
            request(server.port(), "PUT /preseed.cfg HTTP/1.1\r\n\r\n").await.contains(" 405 ")
        );
        assert!(server.was_asked());
        assert_eq!(server.ignored(), (vec![], vec!["etc/passwd".to_owned()]));
    }
}
