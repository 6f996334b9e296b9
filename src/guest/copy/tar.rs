//! A tar stream from a guest, entry by entry, within bounds (POSIX.1-2017, pax, "ustar Interchange
//! Format" and "pax Extended Header"; GNU tar manual, "Extensions").

use std::io::Read;

use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// The longest path that Linux takes (`PATH_MAX`, limits.h).
const LONGEST_PATH: usize = 4096;
/// Names and attributes in front of an entry; a path and some dates are far below.
const LONGEST_HEADER: u64 = 1 << 20;
/// No file is larger on Linux; above it, sums of sizes could overflow.
const LARGEST: u64 = i64::MAX as u64;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    /// A further name of an entry before it.
    HardLink,
    /// A device, a pipe or a socket.
    Other,
}

/// One entry; its contents are read by [`Reader::content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
    /// Seconds since 1970 UTC.
    pub(super) mtime: i64,
    /// Bytes of contents.
    pub(super) size: u64,
    /// Where a link leads to.
    pub(super) link: Vec<u8>,
}

/// Reads a stream.
#[derive(Debug)]
pub(super) struct Reader<R> {
    from: R,
    /// What is left of the current entry's contents, and of the zeros behind them.
    left: u64,
    padding: u64,
}

/// What stands in front of an entry and belongs to it.
#[derive(Debug, Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<i64>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Reader { from, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive. What was not read of the one before is skipped.
    ///
    /// # Errors
    /// The stream ends early, or is no archive (kind `Undetermined`).
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut ahead = Ahead::default();
        loop {
            self.skip()?;
            let block = self.block()?;
            if block.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            check_sum(&block)?;
            let size = number(&block[124..136]).filter(|size| *size <= LARGEST);
            let size = size.ok_or_else(|| bad("an entry has no size that a file can have"))?;
            match block[156] {
                b'L' => ahead.path = Some(until_nul(&self.text(size)?).to_vec()),
                b'K' => ahead.link = Some(until_nul(&self.text(size)?).to_vec()),
                b'x' => records(&self.text(size)?, &mut ahead)?,
                b'g' => drop(self.text(size)?),
                kind => return self.entry(&block, kind, size, ahead).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], kind: u8, size: u64, ahead: Ahead) -> Result<Entry> {
        let mut path = until_nul(&block[..100]).to_vec();
        // GNU tar has other things where ustar has the first part of a long name.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            path = [until_nul(&block[345..500]), b"/", &path[..]].concat();
        }
        let path = ahead.path.unwrap_or(path);
        let link = ahead.link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        if path.len() > LONGEST_PATH || link.len() > LONGEST_PATH {
            return Err(bad("a path is longer than Linux takes"));
        }
        let kind = match kind {
            // Before ustar, a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Folder,
            b'3' | b'4' | b'6' => Kind::Other,
            _ => return Err(bad("an entry is of a kind that is not known")),
        };
        let size = if kind == Kind::File { ahead.size.unwrap_or(size) } else { 0 };
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64).saturating_sub(size);
        let mode = number(&block[100..108]).unwrap_or(0o644);
        let mtime = number(&block[136..148]).and_then(|n| i64::try_from(n).ok());
        Ok(Entry {
            path,
            kind,
            mode: u32::try_from(mode & 0o777).unwrap_or(0o644),
            mtime: ahead.mtime.or(mtime).unwrap_or(0),
            size,
            link,
        })
    }

    /// The contents of the current entry.
    pub(super) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Reads to the end of the stream, which whoever sends it may need. More than the zeros that fill
    /// the last record is not waited for.
    pub(super) fn drain(&mut self) {
        let _ = std::io::copy(&mut (&mut self.from).take(LONGEST_HEADER), &mut std::io::sink());
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = std::io::copy(&mut (&mut self.from).take(rest), &mut std::io::sink())?;
        if skipped == rest { Ok(()) } else { Err(bad("it ends in the middle of a file")) }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        match self.from.read_exact(&mut block) {
            Ok(()) => Ok(block),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(bad("it ends before its end mark"))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_HEADER {
            return Err(bad("a name is longer than 1 MiB"));
        }
        let mut text = vec![];
        (&mut self.from).take(size).read_to_end(&mut text)?;
        if text.len() as u64 != size {
            return Err(bad("it ends in the middle of a name"));
        }
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(text)
    }
}

/// See [`Reader::content`].
#[derive(Debug)]
pub(super) struct Content<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let Reader { from, left, .. } = &mut *self.0;
        let n = from.take(*left).read(buf)?;
        *left -= n as u64;
        if n == 0 && *left > 0 && !buf.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(n)
    }
}

/// The failure of a stream that is no archive.
pub(super) fn bad(why: &str) -> Error {
    Error::undetermined(format!("what the guest sent is no whole archive: {why}"))
        .hint("Look whether `tar` works in the guest, with `devbox ssh`.")
}

fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    // The sum of all bytes, the checksum's own eight taken as spaces.
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let own: u64 = block[148..156].iter().map(|b| u64::from(*b)).sum();
    // Every checksum holds where a fuzzer looks for what is behind it.
    if cfg!(fuzzing) || number(&block[148..156]) == Some(sum - own + 8 * u64::from(b' ')) {
        Ok(())
    } else {
        Err(bad("a header does not have its checksum"))
    }
}

/// `LENGTH KEY=VALUE` records; unknown keys count for nothing.
fn records(mut text: &[u8], ahead: &mut Ahead) -> Result<()> {
    let damaged = || bad("an extended header is damaged");
    while !text.is_empty() {
        let space = text.iter().position(|b| *b == b' ').ok_or_else(damaged)?;
        let length = std::str::from_utf8(&text[..space]).ok().and_then(|n| n.parse().ok());
        let length: usize = length.ok_or_else(damaged)?;
        let Some((b'\n', record)) = text.get(space + 1..length).and_then(<[u8]>::split_last) else {
            return Err(damaged());
        };
        text = &text[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(damaged)?;
        let value = &record[equals + 1..];
        let digits = || std::str::from_utf8(value).ok();
        match &record[..equals] {
            b"path" => ahead.path = Some(value.to_vec()),
            b"linkpath" => ahead.link = Some(value.to_vec()),
            b"size" => {
                let size = digits().and_then(|n| n.parse().ok());
                ahead.size = Some(size.filter(|size| *size <= LARGEST).ok_or_else(damaged)?);
            }
            // With a fraction, which is cut off.
            b"mtime" => {
                let whole = digits().and_then(|n| n.split('.').next()?.parse().ok());
                ahead.mtime = Some(whole.ok_or_else(damaged)?);
            }
            _ => {}
        }
    }
    Ok(())
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number in octal digits, or with the first bit set in base 256.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first == 0x80 {
        return rest.iter().try_fold(0u64, |sum, b| Some(sum.checked_mul(256)? | u64::from(*b)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| u64::from_str_radix(text, 8).ok()).flatten()
}
