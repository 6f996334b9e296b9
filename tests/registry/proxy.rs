//! A proxy before a registry that does to its answers what networks and servers do.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that a slow proxy takes at a time.
const SLOW_PIECE: usize = 16 << 10;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// No answer, and the connection stays.
    Silent,
    /// The request's body is taken in so many milliseconds, piece by piece.
    Slow(u64),
    /// The connection ends behind so many bytes of the answer's body.
    Cut(usize),
    /// The same, and nothing more comes, and the connection stays.
    Stall(usize),
    /// The connection ends behind so many bytes of the request's body.
    CutSent(usize),
    /// The request arrives, and the connection ends without an answer.
    NoAnswer,
    /// This bit of the answer's body is another one, if it has it.
    Flip(usize),
    /// An answer with this status, and this header.
    Answer(u16, &'static str),
    /// An answer with this status and this body, once the request is read.
    Refuse(u16, &'static str),
    /// An answer with 200, these headers and this body.
    Says(&'static str, &'static str),
    /// The answer comes from another repository's name.
    Elsewhere,
}

/// Method and path of a request.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
}

type Choose = dyn FnMut(&Asked<'_>) -> Fault + Send;

/// A proxy that runs; it ends with the test.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    choose: Arc<Mutex<Box<Choose>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("port");
        let port = listener.local_addr().expect("address").port();
        let choose: Arc<Mutex<Box<Choose>>> =
            Arc::new(Mutex::new(Box::new(|_: &Asked<'_>| Fault::None)));
        let shared = choose.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let choose = shared.clone();
                tokio::spawn(async move {
                    let _ = serve(client, to, &choose).await;
                });
            }
        });
        Proxy { port, choose, task }
    }

    /// From now on.
    pub(crate) fn set(&self, choose: impl FnMut(&Asked<'_>) -> Fault + Send + 'static) {
        *self.choose.lock().expect("lock") = Box::new(choose);
    }

    pub(crate) fn repository(&self, name: &str) -> String {
        format!("oci://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request on one connection.
async fn serve(mut client: TcpStream, to: u16, choose: &Mutex<Box<Choose>>) -> std::io::Result<()> {
    let (head, mut body) = read_head(&mut client).await?;
    let Some((method, path)) = head.lines().next().and_then(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    }) else {
        // A TLS client tried.
        return Ok(());
    };
    if !path.starts_with('/') {
        return Ok(());
    }
    let fault = (choose.lock().expect("lock"))(&Asked { method: &method, path: &path });
    let length = field(&head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    if fault == Fault::Silent {
        return stay(client).await;
    }
    if let Fault::Answer(status, header) = fault {
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        let answer = format!(
            "HTTP/1.1 {status} X\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        read_body(&mut client, &mut body, length).await?;
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    if let Fault::Refuse(status, said) = fault {
        let (sent, length) = (length, said.len());
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{said}"
        );
        read_body(&mut client, &mut body, sent).await?;
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    if let Fault::Says(headers, said) = fault {
        let length = said.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{said}"
        );
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
    let lines = head
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:") && !line.is_empty());
    let mut request: String = lines.map(|line| format!("{line}\r\n")).collect();
    if fault == Fault::Elsewhere {
        request = request.replacen("/v2/", "/v2/elsewhere/", 1);
    }
    request.push_str("Connection: close\r\n\r\n");
    server.write_all(request.as_bytes()).await?;
    if let Fault::Slow(milliseconds) = fault {
        let pieces = length.div_ceil(SLOW_PIECE) as u64;
        while body.len() < length {
            let to = (body.len() + SLOW_PIECE).min(length);
            read_body(&mut client, &mut body, to).await?;
            tokio::time::sleep(Duration::from_millis(milliseconds / pieces)).await;
        }
    }
    read_body(&mut client, &mut body, length).await?;
    if let Fault::CutSent(at) = fault
        && length > 0
    {
        server.write_all(&body[..at.min(body.len())]).await?;
        return Ok(());
    }
    server.write_all(&body).await?;
    let (head, mut rest) = read_head(&mut server).await?;
    if fault == Fault::NoAnswer {
        return Ok(());
    }
    client.write_all(head.as_bytes()).await?;
    let mut passed = 0;
    loop {
        if let Fault::Flip(bit) = fault
            && let Some(byte) = (bit / 8).checked_sub(passed).and_then(|at| rest.get_mut(at))
        {
            *byte ^= 1 << (bit % 8);
        }
        if let Fault::Cut(at) | Fault::Stall(at) = fault
            && passed + rest.len() >= at
            && method != "HEAD"
        {
            client.write_all(&rest[..at - passed]).await?;
            return match fault {
                Fault::Stall(_) => stay(client).await,
                _ => Ok(()),
            };
        }
        client.write_all(&rest).await?;
        passed += rest.len();
        rest.resize(64 << 10, 0);
        let n = server.read(&mut rest).await?;
        if n == 0 {
            return client.shutdown().await;
        }
        rest.truncate(n);
    }
}

/// Until the client goes.
async fn stay(mut client: TcpStream) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    while client.read(&mut piece).await? > 0 {}
    Ok(())
}

/// The head with its empty line, and what came behind it.
async fn read_head(from: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut all, mut piece) = (vec![], [0; 4096]);
    loop {
        if let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&all).into_owned(), rest));
        }
        let n = from.read(&mut piece).await?;
        if n == 0 || all.len() > 64 << 10 || (all.is_empty() && piece[0] == 0x16) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        all.extend_from_slice(&piece[..n]);
    }
}

async fn read_body(from: &mut TcpStream, body: &mut Vec<u8>, length: usize) -> std::io::Result<()> {
    let there = body.len();
    body.resize(length.max(there), 0);
    from.read_exact(&mut body[there..]).await.map(drop)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line =
        head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim())
}
