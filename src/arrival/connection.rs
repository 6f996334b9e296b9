//! One client of the server: it reads, and may ask for much at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::nbd::{self, Command, MOST_OPTION, MOST_READ, Next, REQUEST, Refused, Request};

/// For a client to say what it wants; QEMU takes a millisecond.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Most options of one client.
const OPTIONS: usize = 64;
/// Requests of one client that are answered at once; QEMU has up to 16.
const AT_ONCE: usize = 32;
/// Bytes that are in memory for each of them.
const PIECE: usize = 256 << 10;

/// A disk that can be read.
pub(super) trait Export: Send + Sync + 'static {
    /// Its bytes.
    fn size(&self) -> u64;

    /// Returns when these bytes are here and verified, or will not come in time.
    fn ready(&self, range: Range<u64>) -> impl Future<Output = Result<(), NotHere>> + Send;

    /// Reads bytes that are here.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Bytes did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotHere;

/// Serves one client until it goes.
///
/// # Errors
/// It went without a word, or said what no client says.
pub(super) async fn serve<E: Export>(stream: UnixStream, export: Arc<E>) -> io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let begun = tokio::time::timeout(HANDSHAKE, handshake(&mut from, &mut to, export.size()));
    if !begun.await.map_err(|_| io::ErrorKind::TimedOut)?? {
        return Ok(());
    }
    let to = Arc::new(Mutex::new(to));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    // Dropped with this: what nobody waits for any more is not answered.
    let mut answers = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        while answers.try_join_next().is_some() {}
        let mut header = [0; REQUEST];
        from.read_exact(&mut header).await?;
        let Some(request) = Request::parse(&header) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let refused = match request.command {
            Command::Disconnect => return Ok(()),
            Command::Read => {
                let (export, to) = (export.clone(), to.clone());
                answers.spawn(async move {
                    let _ = answer_read(request, &*export, &to).await;
                    drop(place);
                });
                continue;
            }
            Command::Flush => None,
            Command::Write => {
                skip(&mut from, request.length).await?;
                Some(Refused::ReadOnly)
            }
            Command::Change => Some(Refused::ReadOnly),
            Command::Other => Some(Refused::Invalid),
        };
        to.lock().await.write_all(&nbd::answer(request.cookie, refused)).await?;
    }
}

/// True if requests follow.
async fn handshake(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    size: u64,
) -> io::Result<bool> {
    to.write_all(&nbd::greeting()).await?;
    let mut flags = [0; 4];
    from.read_exact(&mut flags).await?;
    let Some(no_zeroes) = nbd::client_flags(flags) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    for _ in 0..OPTIONS {
        let mut head = [0; 16];
        from.read_exact(&mut head).await?;
        let Some((number, length)) = nbd::option_head(head) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let data = if length > MOST_OPTION {
            skip(from, length).await?;
            None
        } else {
            let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
            from.read_exact(&mut data).await?;
            Some(data)
        };
        match nbd::option(number, data.as_deref(), size, no_zeroes) {
            Next::Option(said) => to.write_all(&said).await?,
            Next::Requests(said) => {
                to.write_all(&said).await?;
                return Ok(true);
            }
            Next::End(said) => {
                to.write_all(&said).await?;
                return Ok(false);
            }
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Reads past what a client should not have sent, unless that is more than any client sends.
async fn skip(from: &mut OwnedReadHalf, length: u32) -> io::Result<()> {
    if length > MOST_READ {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let skipped =
        tokio::io::copy(&mut from.take(u64::from(length)), &mut tokio::io::sink()).await?;
    if skipped == u64::from(length) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn answer_read<E: Export>(
    request: Request,
    export: &E,
    to: &Mutex<OwnedWriteHalf>,
) -> io::Result<()> {
    let range = match request.range(export.size()) {
        Ok(range) => {
            export.ready(range.clone()).await.map(|()| range).map_err(|_| Refused::NotHere)
        }
        Err(refused) => Err(refused),
    };
    let range = match range {
        Ok(range) => range,
        Err(refused) => {
            let answer = nbd::answer(request.cookie, Some(refused));
            return to.lock().await.write_all(&answer).await;
        }
    };
    let mut piece = vec![0; PIECE.min(usize::try_from(range.end - range.start).unwrap_or(PIECE))];
    let mut at = range.start;
    let mut first = true;
    // An answer is one piece for the client, so nobody else may write in between.
    let mut to = to.lock().await;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(PIECE).min(piece.len());
        let read = tokio::task::block_in_place(|| export.read(at, &mut piece[..length]));
        if let Err(e) = read {
            if first {
                let answer = nbd::answer(request.cookie, Some(Refused::NotHere));
                return to.write_all(&answer).await;
            }
            // Its head has gone out: the client hears of it by the end of the connection.
            let _ = to.shutdown().await;
            return Err(e);
        }
        if std::mem::take(&mut first) {
            to.write_all(&nbd::answer(request.cookie, None)).await?;
        }
        to.write_all(&piece[..length]).await?;
        at += length as u64;
    }
    Ok(())
}
