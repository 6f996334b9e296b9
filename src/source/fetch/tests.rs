//! Against a real HTTP server on loopback that misbehaves in the ways that servers do.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::error::Kind;
use crate::event::Sink;
use crate::image::oracle::patchwork;

/// How one request is answered.
#[derive(Clone)]
enum Reply {
    /// As a good server does, with ranges and this `ETag`.
    Good { etag: &'static str },
    /// As a good one, but the connection closes after so many bytes of the body.
    CutAfter(usize),
    /// As a good one, and then nothing more comes.
    HangAfter(usize),
    /// 200 and the whole body, whatever was asked.
    IgnoreRange,
    /// A status line and no body.
    Status(&'static str),
    /// 206 with another start than asked for.
    WrongPart,
}

/// The first byte that a request asked for, and its `If-Range`.
type Asked = (u64, Option<String>);

/// A server with one file; the last reply counts for all further requests.
struct Server {
    address: Address,
    /// Of each request, in order.
    asked: Arc<Mutex<Vec<Asked>>>,
    file: Arc<Mutex<Vec<u8>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

impl Server {
    async fn start(file: Vec<u8>, replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let text = format!("http://user:secret@127.0.0.1:{port}/disk.raw?token=secret");
        let server = Server {
            address: Address::parse(&text).expect("good"),
            asked: Arc::default(),
            file: Arc::new(Mutex::new(file)),
            replies: Arc::new(Mutex::new(replies.iter().cloned().collect())),
        };
        let (asked, file, replies) =
            (server.asked.clone(), server.file.clone(), server.replies.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (asked, file, replies) = (asked.clone(), file.clone(), replies.clone());
                tokio::spawn(async move {
                    let mut request = vec![];
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                            return;
                        }
                        request.extend(byte);
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let value = |name: &str| {
                        request.lines().find_map(|line| {
                            let (key, value) = line.split_once(": ")?;
                            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
                        })
                    };
                    let range = value("range");
                    let from = range
                        .as_deref()
                        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
                    let if_range = value("if-range");
                    asked.lock().expect("lock").push((from.unwrap_or(0), if_range.clone()));
                    let reply = {
                        let mut replies = replies.lock().expect("lock");
                        if replies.len() > 1 {
                            replies.pop_front()
                        } else {
                            replies.front().cloned()
                        }
                    };
                    let body = file.lock().expect("lock").clone();
                    answer(&mut stream, reply.expect("a reply"), &body, from, if_range).await;
                });
            }
        });
        server
    }

    fn now(&self, replies: &[Reply]) {
        *self.replies.lock().expect("lock") = replies.iter().cloned().collect();
    }

    /// The starts of all requests since the last call.
    fn starts(&self) -> Vec<u64> {
        self.asked.lock().expect("lock").drain(..).map(|(start, _)| start).collect()
    }
}

async fn answer(
    stream: &mut tokio::net::TcpStream,
    reply: Reply,
    body: &[u8],
    from: Option<u64>,
    if_range: Option<String>,
) {
    let etag = match reply {
        Reply::Good { etag } => etag,
        _ => "\"v1\"",
    };
    let fresh = if_range.is_none_or(|tag| tag == etag);
    let from =
        from.filter(|_| fresh && !matches!(reply, Reply::IgnoreRange)).map(|from| from as usize);
    let length = body.len();
    let (head, body) = match (reply.clone(), from) {
        (Reply::Status(status), _) => {
            (format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n"), &body[..0])
        }
        (Reply::WrongPart, _) => {
            let part = &body[..10];
            (
                format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/{length}\r\n"
                ),
                part,
            )
        }
        (_, Some(from)) if from >= length => (
            format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nContent-Range: bytes */{length}\r\n"
            ),
            &body[..0],
        ),
        (_, Some(from)) => (
            format!(
                "HTTP/1.1 206 Partial Content\r\nETag: {etag}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{length}\r\n",
                length - from,
                length - 1
            ),
            &body[from..],
        ),
        (_, None) => {
            (format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {length}\r\n"), body)
        }
    };
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
    let send = match reply {
        Reply::CutAfter(n) | Reply::HangAfter(n) => &body[..n.min(body.len())],
        _ => body,
    };
    let _ = stream.write_all(send).await;
    let _ = stream.flush().await;
    if matches!(reply, Reply::HangAfter(_)) {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    let _ = stream.shutdown().await;
}

fn fetcher() -> Fetcher {
    let retry = Retry { without_progress: 3, in_all: 8, pause: Duration::from_millis(5) };
    Fetcher::with(Client::builder().no_proxy(), retry).expect("a client")
}

async fn fetch(server: &Server, sha256: &str, folder: &Path) -> Result<PathBuf> {
    fetcher()
        .fetch(&server.address, sha256, folder, &Events::silent(), &CancellationToken::new())
        .await
}

fn file() -> (Vec<u8>, String) {
    let data = patchwork(3_000_000, 11);
    let hex = FileDigest::of(&data).hex();
    (data, hex)
}

const GOOD: Reply = Reply::Good { etag: "\"v1\"" };

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_whole_download_is_read_only_and_used_again_only_after_hashing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server = Server::start(data.clone(), &[GOOD]).await;
    let path = fetch(&server, &hex, dir.path()).await.expect("fetched");
    assert!(fs::read(&path).expect("read") == data);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o444);
    assert_eq!(names(dir.path()), [hex.as_str()]);
    assert_eq!(server.starts(), [0]);

    assert_eq!(fetch(&server, &hex, dir.path()).await.expect("there"), path);
    assert_eq!(server.starts(), Vec::<u64>::new());

    // Somebody changed it: it is fetched again.
    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::write(&path, b"changed").expect("write");
    fetch(&server, &hex, dir.path()).await.expect("fetched again");
    assert!(fs::read(&path).expect("read") == data);
    assert_eq!(server.starts(), [0]);
}

#[tokio::test]
async fn a_lost_connection_goes_on_at_the_next_byte() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server =
        Server::start(data.clone(), &[Reply::CutAfter(1_000_000), Reply::CutAfter(500_000), GOOD])
            .await;
    let path = fetch(&server, &hex, dir.path()).await.expect("fetched");
    assert!(fs::read(path).expect("read") == data);
    let asked = server.asked.lock().expect("lock").clone();
    let starts: Vec<u64> = asked.iter().map(|(start, _)| *start).collect();
    assert_eq!(starts, [0, 1_000_000, 1_500_000]);
    assert_eq!(asked[1].1.as_deref(), Some("\"v1\""));
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_a_part_that_the_next_run_uses() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server =
        Server::start(data.clone(), &[Reply::CutAfter(1_200_000), Reply::CutAfter(0)]).await;
    let e = fetch(&server, &hex, dir.path()).await.expect_err("gone");
    assert!(e.what().contains("stopped after 1200000 of 3000000 bytes"), "{e}");
    assert!(e.hints()[0].contains("goes on where it stopped"), "{e}");
    assert!(!e.to_string().contains("secret"), "{e}");
    assert_eq!(names(dir.path()), [format!("{hex}.part"), format!("{hex}.part.json")]);
    let note = fs::read_to_string(dir.path().join(format!("{hex}.part.json"))).expect("note");
    assert!(!note.contains("secret"), "{note}");
    server.starts();

    server.now(&[GOOD]);
    let path = fetch(&server, &hex, dir.path()).await.expect("fetched");
    assert!(fs::read(path).expect("read") == data);
    assert_eq!(server.starts(), [1_200_000]);
    assert_eq!(names(dir.path()), [hex.as_str()]);
}

#[tokio::test]
async fn a_server_without_ranges_or_with_a_new_file_starts_again() {
    let (data, hex) = file();
    for second in [Reply::IgnoreRange, Reply::Good { etag: "\"v2\"" }, Reply::WrongPart] {
        let dir = tempfile::tempdir().expect("tempdir");
        let server = Server::start(data.clone(), &[Reply::CutAfter(700_000), second, GOOD]).await;
        let path = fetch(&server, &hex, dir.path()).await.expect("fetched");
        assert!(fs::read(path).expect("read") == data);
        assert_eq!(server.starts()[..2], [0, 700_000]);
    }
}

#[tokio::test]
async fn parts_of_two_versions_are_noticed_and_fetched_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let mut old = data.clone();
    old[5] ^= 1;
    // The old version under the same ETag, cut; then the new one.
    let server = Server::start(old, &[Reply::CutAfter(700_000), Reply::CutAfter(0)]).await;
    fetch(&server, &hex, dir.path()).await.expect_err("gone");
    *server.file.lock().expect("lock") = data.clone();
    server.now(&[GOOD]);
    server.starts();
    let path = fetch(&server, &hex, dir.path()).await.expect("fetched");
    assert!(fs::read(path).expect("read") == data);
    assert_eq!(server.starts(), [700_000, 0]);
}

#[tokio::test]
async fn a_wrong_digest_names_both_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server = Server::start(data, &[GOOD]).await;
    let wrong = "0".repeat(64);
    let e = fetch(&server, &wrong, dir.path()).await.expect_err("refused");
    let text = e.to_string();
    assert!(text.contains(&format!("expected sha256:{wrong}")), "{text}");
    assert!(text.contains(&format!("found    sha256:{hex}")), "{text}");
    assert_eq!((e.kind(), names(dir.path())), (Kind::Failed, vec![]));
    assert!(text.contains("/disk.raw?…") && !text.contains("secret"), "{text}");
    let e = fetch(&server, &"0".repeat(128), dir.path()).await.expect_err("refused").to_string();
    assert!(e.contains("expected sha512:00") && e.contains("found    sha512:"), "{e}");
}

#[tokio::test]
async fn a_sha512_is_as_good() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, _) = file();
    let copy = dir.path().join("copy");
    fs::write(&copy, &data).expect("written");
    let sum = std::process::Command::new("sha512sum").arg(&copy).output().expect("sha512sum runs");
    let sum = String::from_utf8(sum.stdout).expect("text")[..128].to_owned();
    let server = Server::start(data, &[GOOD, GOOD]).await;
    let got = fetch(&server, &sum, dir.path()).await.expect("fetched");
    assert_eq!(got, dir.path().join(&sum));
    fetch(&server, &sum, dir.path()).await.expect("there already");
    assert_eq!(server.starts().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_final_and_a_busy_server_is_asked_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server = Server::start(data, &[Reply::Status("404 Not Found")]).await;
    let e = fetch(&server, &hex, dir.path()).await.expect_err("not there");
    assert!(e.what().contains("404 Not Found"), "{e}");
    assert_eq!(server.starts().len(), 1);
    server.now(&[Reply::Status("503 Service Unavailable"), GOOD]);
    fetch(&server, &hex, dir.path()).await.expect("the second time");
    assert_eq!(server.starts().len(), 2);
    server.now(&[Reply::Status("500 Internal Server Error")]);
    let e = fetch(&server, &"1".repeat(64), dir.path()).await.expect_err("never");
    assert!(e.to_string().contains("500 Internal Server Error"), "{e}");
    assert_eq!(server.starts().len(), 3);
}

#[tokio::test]
async fn nobody_there_is_said_without_secrets() {
    let dir = tempfile::tempdir().expect("tempdir");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let address =
        Address::parse(&format!("http://u:secret@127.0.0.1:{port}/x?secret")).expect("good");
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    let e = fetcher()
        .fetch(&address, &"2".repeat(64), dir.path(), &events, &cancel)
        .await
        .expect_err("refused");
    assert!(e.to_string().contains("efused") && !e.to_string().contains("secret"), "{e}");
}

/// Sets the token at the first progress beyond a number of bytes.
struct CancelAt(CancellationToken, u64);

impl Sink for CancelAt {
    fn emit(&self, event: Event) {
        if let Event::Progress { done, .. } = event
            && done >= self.1
        {
            self.0.cancel();
        }
    }
}

#[tokio::test]
async fn an_interruption_stops_at_once_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server = Server::start(data.clone(), &[Reply::HangAfter(400_000)]).await;
    let cancel = CancellationToken::new();
    let events = Events::new(CancelAt(cancel.clone(), 1));
    let fetching = fetcher();
    let waiting = fetching.fetch(&server.address, &hex, dir.path(), &events, &cancel);
    // Progress is told at most every 200 ms, so the interruption may have to come from here.
    let ended = tokio::select! {
        ended = waiting => ended,
        () = async { tokio::time::sleep(Duration::from_secs(2)).await; cancel.cancel(); std::future::pending().await } => unreachable!(),
    };
    assert_eq!(ended.expect_err("interrupted").kind(), Kind::Interrupted);
    let kept = fs::metadata(dir.path().join(format!("{hex}.part"))).expect("kept").len();
    assert!(kept > 0 && kept <= 400_000, "{kept}");
    server.starts();
    server.now(&[GOOD]);
    let path = fetch(&server, &hex, dir.path()).await.expect("fetched");
    assert!(fs::read(path).expect("read") == data);
    assert_eq!(server.starts(), [kept]);
}

#[tokio::test]
async fn two_at_once_fetch_it_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (data, hex) = file();
    let server = Server::start(data, &[GOOD]).await;
    let (a, b) = tokio::join!(fetch(&server, &hex, dir.path()), fetch(&server, &hex, dir.path()));
    assert_eq!(a.expect("first"), b.expect("second"));
    assert_eq!(server.starts(), [0]);
}

#[tokio::test]
async fn a_checksum_file_is_bounded_text() {
    let server = Server::start(b"0123456789".to_vec(), &[GOOD]).await;
    let cancel = CancellationToken::new();
    assert_eq!(fetcher().small(&server.address, 10, &cancel).await.expect("text"), b"0123456789");
    let e = fetcher().small(&server.address, 9, &cancel).await.expect_err("too long");
    assert!(e.what().contains("longer than 9 bytes"), "{e}");
}
