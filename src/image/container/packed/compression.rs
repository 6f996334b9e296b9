//! Compressed files: gzip, xz, zstd.
//!
//! Sources: RFC 1952 (gzip), "The .xz File Format" 1.2.1, RFC 8878 (zstd).

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, mpsc};

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::MtStreamBuilder;

use super::scratch::{Budget, Scratch};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::source::Source;

/// Bytes unpacked at a time; a whole number of the scratch file's blocks.
const PIECE: usize = 1 << 20;
/// Pieces on their way from the decoder to the scratch file.
const AHEAD: usize = 4;
/// Compressed bytes read at a time.
const READ: usize = 256 << 10;
/// How many bytes may be read that have not become as many: a decoder of several threads holds blocks,
/// and a frame may be skipped. A stream can also be all blocks of nothing, as the zeros of a sparse
/// file of terabytes behind four bytes of zstd are (RFC 8878, section 3.1.1.2).
const IDLE: u64 = 256 << 20;
/// Largest window of a zstd frame, as a power of two: 128 MiB, what `zstd -d` takes without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Memory of the xz decoder: `xz -9` needs 65 MiB. Beyond [`XZ_THREADED`] it uses fewer threads.
const XZ_MEMORY: u64 = 256 << 20;
const XZ_THREADED: u64 = 80 << 20;

const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";
const GZIP_MAGIC: [u8; 3] = *b"\x1f\x8b\x08";
const ZSTD_MAGIC: [u8; 4] = *b"\x28\xb5\x2f\xfd";

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// What the first bytes of a file say.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        // A file of several zstd frames can begin with a skippable one (RFC 8878, section 3.1.2).
        let skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match head {
            _ if head.starts_with(&GZIP_MAGIC) => Some(Compression::Gzip),
            _ if head.starts_with(&XZ_MAGIC) => Some(Compression::Xz),
            _ if head.starts_with(&ZSTD_MAGIC) || skippable => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// What people call it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        }
    }
}

/// Unpacks all of `source` into a scratch file.
///
/// # Errors
/// Kind `Undetermined`: the stream is damaged, cut short or followed by something else, needs too
/// much memory, or goes beyond the budget.
pub(super) fn unpack(
    source: &Source,
    compression: Compression,
    budget: &mut Budget,
) -> Result<Arc<dyn ReadAt>> {
    let mut scratch = Scratch::new(source, budget)?;
    // The decoder on this thread, zeros and writing on another one.
    let (to_disk, pieces) = sync_channel::<Vec<u8>>(AHEAD);
    let (back, empty) = mpsc::channel();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for piece in pieces {
                scratch.append(&piece)?;
                let _ = back.send(piece);
            }
            scratch.finish()
        });
        let unpacked = Cell::new(0);
        let mut pieces = Pieces { to_disk, empty, now: vec![], filled: 0, unpacked: &unpacked };
        let decoded = decode(source, compression, &mut pieces).and_then(|()| pieces.flush());
        drop(pieces);
        let written = writer
            .join()
            .map_err(|_| Error::failed(format!("unpacking `{}` stopped early", source.name())))?;
        // A writer that failed is why the decoder could not go on.
        let bytes = written?;
        decoded.map_err(|e| damaged(source, compression, &e))?;
        Ok(bytes)
    })
}

fn damaged(source: &Source, compression: Compression, e: &io::Error) -> Error {
    let name = compression.as_str();
    // Both libraries say it in words alone: liblzma `Memlimit`, zstd `frameParameter_windowTooLarge`.
    let why = e.to_string().to_ascii_lowercase();
    let most = match compression {
        Compression::Xz if why.contains("memory") => Some(XZ_MEMORY >> 20),
        Compression::Zstd if why.contains("memory") => Some((1 << ZSTD_WINDOW_LOG) >> 20),
        _ => None,
    };
    if let Some(most) = most {
        let needs = format!("needs more than {most} MiB of memory to be unpacked");
        return Error::undetermined(format!("the {name} stream `{}` {needs}", source.name()))
            .cause(e)
            .hint(format!("Unpack it with `{name}`, if you trust it, and use the result."));
    }
    let what = format!("the {name} stream `{}` is damaged or cut short", source.name());
    Error::undetermined(what)
        .cause(e)
        .hint("Fetch the image again, and check it against its published digest.")
}

/// Collects what a decoder gives in pieces for the writer.
struct Pieces<'a> {
    to_disk: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    now: Vec<u8>,
    filled: usize,
    /// Bytes so far.
    unpacked: &'a Cell<u64>,
}

impl Pieces<'_> {
    /// Takes all that `from` gives, to its end.
    fn fill(&mut self, from: &mut dyn Read) -> io::Result<()> {
        loop {
            if self.now.is_empty() {
                self.now = self.empty.try_recv().unwrap_or_default();
                self.now.resize(PIECE, 0);
                self.filled = 0;
            }
            match from.read(&mut self.now[self.filled..]) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    self.filled += len;
                    self.unpacked.set(self.unpacked.get() + len as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if self.filled == PIECE {
                self.flush()?;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut piece = std::mem::take(&mut self.now);
        piece.truncate(self.filled);
        self.filled = 0;
        if piece.is_empty() {
            return Ok(());
        }
        self.to_disk.send(piece).map_err(|_| io::Error::other("the scratch file failed"))
    }
}

fn decode(source: &Source, compression: Compression, out: &mut Pieces<'_>) -> io::Result<()> {
    let mut input = BufReader::with_capacity(READ, Bytes { source, at: 0, unpacked: out.unpacked });
    match compression {
        Compression::Gzip => gzip(&mut input, out),
        Compression::Xz => xz(&mut input, out),
        Compression::Zstd => {
            // Goes on over all frames to the end, and ends in an error on anything else.
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            out.fill(&mut decoder)
        }
    }
}

/// Members one behind the other, and nothing else (RFC 1952, section 2.2).
fn gzip(input: &mut BufReader<Bytes<'_>>, out: &mut Pieces<'_>) -> io::Result<()> {
    while let Some(next) = peek(input)? {
        if !next.starts_with(&GZIP_MAGIC) {
            return Err(garbage());
        }
        out.fill(&mut GzDecoder::new(&mut *input))?;
    }
    Ok(())
}

/// Streams one behind the other, with padding of whole groups of four zeros (section 2.2).
fn xz(input: &mut BufReader<Bytes<'_>>, out: &mut Pieces<'_>) -> io::Result<()> {
    while let Some(next) = peek(input)? {
        if !next.starts_with(&XZ_MAGIC) {
            return Err(garbage());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let stream = MtStreamBuilder::new()
            .threads(u32::try_from(threads).unwrap_or(1))
            .memlimit_threading(XZ_THREADED)
            .memlimit_stop(XZ_MEMORY)
            .decoder()?;
        out.fill(&mut XzDecoder::new_stream(&mut *input, stream))?;
        let mut padding = 0u64;
        loop {
            let buffered = input.fill_buf()?;
            let zeros = buffered.iter().take_while(|b| **b == 0).count();
            let more = zeros > 0 && zeros == buffered.len();
            input.consume(zeros);
            padding += zeros as u64;
            if !more {
                break;
            }
        }
        if !padding.is_multiple_of(4) {
            return Err(garbage());
        }
    }
    Ok(())
}

fn garbage() -> io::Error {
    io::Error::other("something else follows the compressed data")
}

/// The next bytes, at most as many as the longest magic; none at the end.
fn peek(input: &mut BufReader<Bytes<'_>>) -> io::Result<Option<Vec<u8>>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let buffered = input.buffer().len() as u64;
    let bytes = input.get_ref();
    let next = bytes.source.read_up_to(bytes.at - buffered, XZ_MAGIC.len());
    next.map(Some).map_err(|e| io::Error::other(e.to_string()))
}

/// A source from its beginning to its end, as long as it becomes something.
struct Bytes<'a> {
    source: &'a Source,
    at: u64,
    unpacked: &'a Cell<u64>,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let unpacked = self.unpacked.get();
        if self.at > unpacked.saturating_add(IDLE) {
            return Err(io::Error::other(format!(
                "its first {} bytes unpack to {unpacked}",
                self.at
            )));
        }
        let left = self.source.size().saturating_sub(self.at);
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let read = self.source.read_at(&mut buf[..len], self.at);
        read.map_err(|e| io::Error::other(e.to_string()))?;
        self.at += len as u64;
        Ok(len)
    }
}
