//! A connection that only blocks, as one that waits: two threads carry its bytes.

use std::io::{Read, Write};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Handle;

/// Held between the connection and its reader, and carried at once.
const BUFFER: usize = 64 << 10;

/// Joins the two halves of a connection to one stream of this runtime. `hang_up` tells the other end that
/// nothing more comes; it has to end its side then, as QEMU does, which ends the threads.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn join<W: Write + Send + 'static>(
    mut from_peer: impl Read + Send + 'static,
    mut to_peer: W,
    hang_up: impl FnOnce(&W) + Send + 'static,
) -> std::io::Result<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (mut from_us, mut to_us) = tokio::io::split(theirs);
    let (runtime, again) = (Handle::current(), Handle::current());
    std::thread::Builder::new().name("socket in".to_owned()).spawn(move || {
        let mut piece = vec![0; BUFFER];
        // A broken connection is an end like any other to the reader.
        while let Ok(n @ 1..) = from_peer.read(&mut piece) {
            if runtime.block_on(to_us.write_all(&piece[..n])).is_err() {
                break;
            }
        }
        let _ = runtime.block_on(to_us.shutdown());
    })?;
    std::thread::Builder::new().name("socket out".to_owned()).spawn(move || {
        let mut piece = vec![0; BUFFER];
        while let Ok(n @ 1..) = again.block_on(from_us.read(&mut piece)) {
            if to_peer.write_all(&piece[..n]).is_err() {
                break;
            }
        }
        hang_up(&to_peer);
    })?;
    Ok(ours)
}

#[cfg(all(test, unix))]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn joined() -> (DuplexStream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let to_peer = near.try_clone().expect("a second handle");
        let hang_up = |to: &UnixStream| to.shutdown(Shutdown::Write).expect("shut down");
        (join(near, to_peer, hang_up).expect("threads"), far)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_at_once_and_more_than_is_held() {
        const MUCH: usize = 8 * BUFFER + 7;
        let (stream, mut far) = joined();
        let echo = std::thread::spawn(move || {
            let mut back = far.try_clone().expect("a second handle");
            let copied = std::io::copy(&mut far, &mut back).expect("copied");
            back.shutdown(Shutdown::Write).expect("shut down");
            copied
        });
        let sent: Vec<u8> = (0..MUCH).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = vec![];
        let send = async {
            write.write_all(&sent).await.expect("sent");
            write.shutdown().await.expect("shut down");
        };
        let (read, ()) = tokio::join!(read.read_to_end(&mut got), send);
        assert_eq!(read.expect("read"), MUCH);
        assert!(got == sent);
        assert_eq!(echo.join().expect("no panic"), MUCH as u64);
    }

    #[tokio::test]
    async fn an_end_on_either_side_is_one_on_the_other() {
        let (mut stream, far) = joined();
        drop(far);
        assert_eq!(stream.read(&mut [0; 9]).await.expect("an end"), 0);
        let (stream, mut far) = joined();
        drop(stream);
        let end = tokio::task::spawn_blocking(move || far.read(&mut [0; 9]));
        assert_eq!(end.await.expect("no panic").expect("an end"), 0);
    }
}
