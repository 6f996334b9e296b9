//! Lines of a manifest with their numbers, and a running hash of all that was read.

use std::io::{BufRead, Read as _};

use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::parity::spelling;

/// Longest line in bytes. The longest honest ones name all paths of a file with 65,000 hard links.
const MAX_LINE: u64 = 64 << 20;

/// Lines between two looks at the clock.
const LOOK: u64 = 1024;

/// What is read, one line ahead.
pub(super) struct Lines<R> {
    input: R,
    /// Number of the line in `line`, from 1.
    number: u64,
    /// The next line without its end; none at the end of the file.
    line: Option<Vec<u8>>,
    /// Of all lines before `line`.
    hash: Sha256,
    limits: Limits,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, limits: &Limits) -> Result<Self> {
        let (hash, limits) = (Sha256::new(), *limits);
        let mut lines = Lines { input, number: 0, line: None, hash, limits };
        lines.fill()?;
        Ok(lines)
    }

    fn fill(&mut self) -> Result<()> {
        if self.number.is_multiple_of(LOOK) {
            self.limits.check_time()?;
        }
        self.number += 1;
        let mut line = self.line.take().unwrap_or_default();
        line.clear();
        let len = (&mut self.input)
            .take(MAX_LINE + 1)
            .read_until(b'\n', &mut line)
            .map_err(|e| self.wrong("it cannot be read").cause(e))?;
        if len == 0 {
            return Ok(());
        }
        if line.pop() != Some(b'\n') {
            let long = len as u64 > MAX_LINE;
            return Err(self.wrong(if long { "it is too long" } else { "it is cut off" }));
        }
        self.line = Some(line);
        Ok(())
    }

    /// The number of the next line.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// An error about the next line.
    pub(super) fn wrong(&self, why: impl std::fmt::Display) -> Error {
        wrong(self.number, why)
    }

    /// The next line, if there is one.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        self.line.as_deref()
    }

    /// Goes on to the line after the next one.
    pub(super) fn advance(&mut self) -> Result<()> {
        if let Some(line) = &self.line {
            self.hash.update(line);
            self.hash.update(b"\n");
        }
        self.fill()
    }

    /// The next line, which is then done with.
    pub(super) fn take(&mut self) -> Result<Vec<u8>> {
        let line = self.line.clone().ok_or_else(|| self.wrong("the manifest ends too early"))?;
        self.advance()?;
        Ok(line)
    }

    /// The next line if it is one of a block, without its indentation.
    pub(super) fn indented(&self) -> Option<&[u8]> {
        self.peek()?.strip_prefix(b"  ")
    }

    /// The tag line and all lines of a block, as they are hashed.
    pub(super) fn block(&mut self, tag: &[u8]) -> Result<Vec<u8>> {
        let mut text = tag.to_vec();
        while let Some(line) = self.indented() {
            text.extend_from_slice(line);
            text.push(b'\n');
            self.advance()?;
        }
        Ok(text)
    }

    /// The digest of all lines before the next one.
    pub(super) fn sum(&self) -> FileDigest {
        FileDigest::from_bytes(self.hash.clone().finish())
    }
}

/// An error about one line.
pub(super) fn wrong(number: u64, why: impl std::fmt::Display) -> Error {
    Error::undetermined(format!("line {number}: {why}"))
}

/// The fields of a line. None of these checks the spelling of numbers: whoever reads a line writes
/// it again and compares.
pub(super) struct Fields<'a>(std::slice::Split<'a, u8, fn(&u8) -> bool>);

impl<'a> Fields<'a> {
    pub(super) fn of(line: &'a [u8]) -> Self {
        Fields(line.split(|b| *b == b' '))
    }

    /// The next field as it is.
    pub(super) fn raw(&mut self) -> Option<&'a [u8]> {
        self.0.next()
    }

    /// The next field, which says exactly this.
    pub(super) fn word(&mut self, word: &str) -> Option<()> {
        (self.raw()? == word.as_bytes()).then_some(())
    }

    /// The next field as something that is parsed.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Option<T> {
        std::str::from_utf8(self.raw()?).ok()?.parse().ok()
    }

    /// The next field as a byte string.
    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        spelling::read(self.raw()?)
    }

    /// The next field as a byte string in UTF-8.
    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    /// A sentence of the rest.
    pub(super) fn sentence(self) -> Option<String> {
        let words: Option<Vec<_>> = self.0.map(spelling::read).collect();
        String::from_utf8(words?.join(&b' ')).ok()
    }

    /// Nothing is left.
    pub(super) fn end(&mut self) -> Option<()> {
        self.raw().is_none().then_some(())
    }
}
