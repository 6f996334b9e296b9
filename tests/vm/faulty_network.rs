//! Downloads that break: a real server on loopback that drops, cuts and disappears.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, image_spec, insist, tiny_disk};

/// What the server does with the body of one request.
#[derive(Debug, Clone, Copy)]
enum Body {
    /// All that was asked for.
    Whole,
    /// This many bytes, then the connection ends.
    Cut(usize),
}

/// Serves the tiny disk; each request takes the next behaviour, then connections are refused.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
    thread: thread::JoinHandle<()>,
}

impl Server {
    fn start(listener: TcpListener, behaviours: Vec<Body>) -> Server {
        let address = format!("http://{}/tiny.qcow2", listener.local_addr().expect("bound"));
        let asked = Arc::new(Mutex::new(vec![]));
        let log = Arc::clone(&asked);
        let thread = thread::spawn(move || {
            for body in behaviours {
                let Ok((stream, _)) = listener.accept() else { return };
                let start = serve(stream, body);
                log.lock().expect("not poisoned").push(start);
            }
        });
        Server { address, asked, thread }
    }
}

/// Answers one request; returns where its range starts.
fn serve(mut stream: TcpStream, body: Body) -> Option<u64> {
    let mut start = None;
    for line in BufReader::new(stream.try_clone().expect("a second handle")).lines() {
        let line = line.unwrap_or_default().to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let all = std::fs::read(tiny_disk().0).expect("the image");
    let from = start.unwrap_or(0) as usize;
    let rest = &all[from.min(all.len())..];
    let head = if start.is_some() {
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n",
            all.len() - 1,
            all.len()
        )
    } else {
        "HTTP/1.1 200 OK\r\n".to_owned()
    };
    let sent = match body {
        Body::Whole => rest,
        Body::Cut(n) => &rest[..n.min(rest.len())],
    };
    let _ = write!(
        stream,
        "{head}Content-Length: {}\r\nETag: \"one\"\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    let _ = stream.write_all(sent);
    start
}

fn project(name: &str, url: &str, sha256: &str) -> Project {
    let source = format!("url = \"{url}\"\nsha256 = \"{sha256}\"");
    Project::new(name, &format!("{}{TINY_MACHINE}", image_spec(name, &source, ""))).alone()
}

const CUT: usize = 3_000_000;

#[test]
fn a_server_that_disappears_is_said_and_the_next_run_goes_on_where_it_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("bound");
    let gone = Server::start(listener, vec![Body::Cut(CUT)]);
    let project = project("gone", &gone.address, tiny_disk().1);
    let said = exits(&mut project.devbox(&["build"]), 1);
    insist(&said, &["tiny.qcow2", "again"]);
    gone.thread.join().expect("the server ended");
    assert_eq!(project.outputs(), Vec::<PathBuf>::new());

    let back = Server::start(TcpListener::bind(address).expect("the same port"), vec![Body::Whole]);
    run(&mut project.devbox(&["build"]));
    back.thread.join().expect("the server ended");
    let asked = back.asked.lock().expect("not poisoned").clone();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].is_some_and(|at| at > 0 && at <= CUT as u64), "{asked:?}");
    assert_eq!(project.outputs().len(), 1);
}

#[test]
fn a_truncated_download_is_resumed_in_the_same_run() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let server = Server::start(listener, vec![Body::Cut(CUT), Body::Whole]);
    let project = project("cut", &server.address, tiny_disk().1);
    run(&mut project.devbox(&["build"]));
    server.thread.join().expect("the server ended");
    assert_eq!(project.outputs().len(), 1);
}

#[test]
fn a_wrong_sha256_names_both_and_keeps_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let server = Server::start(listener, vec![Body::Whole]);
    let wrong = "ab".repeat(32);
    let project = project("wrong", &server.address, &wrong);
    let said = exits(&mut project.devbox(&["build"]), 1);
    insist(&said, &[&wrong, tiny_disk().1, "tiny.qcow2"]);
    server.thread.join().expect("the server ended");
    let left: u64 = walkdir::WalkDir::new(project.devbox_home())
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(|e| e.metadata().map_or(0, |m| m.len()))
        .sum();
    assert!(left < 100_000, "{left} bytes of an unverified download were kept");
}

#[test]
fn a_local_image_with_a_wrong_sha256_is_refused() {
    let wrong = "cd".repeat(32);
    let source = format!("path = \"{}\"\nsha256 = \"{wrong}\"", tiny_disk().0.display());
    let project = Project::new("wrong-path", &image_spec("wrong-path", &source, ""));
    let said = exits(&mut project.devbox(&["build"]), 1);
    insist(&said, &[&wrong, tiny_disk().1]);
}
