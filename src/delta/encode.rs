//! Writes one disk as its difference from another one.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use twox_hash::XxHash64;

use super::{BLOCK, Kind, PIECE};
use crate::chunks::is_zero;
use crate::error::{Error, Result};

/// Blocks of their own that are written at a time.
const OWN: usize = PIECE / BLOCK;

/// The other disk, with its blocks by what they hold.
pub(super) struct Base<'a> {
    file: &'a File,
    blocks: HashMap<u64, u32>,
}

impl<'a> Base<'a> {
    /// Reads all of it.
    ///
    /// # Errors
    /// It cannot be read, is above 16 TiB, or `check` says so, which is asked before each MiB.
    pub(super) fn read(file: &'a File, check: &dyn Fn() -> Result<()>) -> Result<Self> {
        let mut blocks = HashMap::new();
        super::pieces(file, &mut |at, piece| {
            check()?;
            for (number, block) in (at / BLOCK as u64..).zip(piece.chunks(BLOCK)) {
                // A short one at the end is not looked for.
                if block.len() == BLOCK && !is_zero(block) {
                    let number = u32::try_from(number)
                        .map_err(|_| Error::failed("a disk of more than 16 TiB"))?;
                    blocks.entry(hash(block)).or_insert(number);
                }
            }
            Ok(())
        })?;
        Ok(Base { file, blocks })
    }

    /// Whether its block `number` holds these bytes.
    fn is(&self, number: u64, block: &[u8]) -> bool {
        let mut bytes = [0; BLOCK];
        self.file.read_exact_at(&mut bytes, number * BLOCK as u64).is_ok() && bytes[..] == *block
    }
}

/// Takes the blocks of a disk, and writes what has to be known of them.
pub(super) struct Encoder<'a, W> {
    base: &'a Base<'a>,
    out: W,
    /// The run that grows: what it is, where it begins in the other disk, and its blocks.
    run: (Kind, u64, u64),
    own: Vec<u8>,
    written: u64,
}

impl<'a, W: Write> Encoder<'a, W> {
    pub(super) fn new(base: &'a Base<'a>, out: W) -> Self {
        Encoder { base, out, run: (Kind::Zeros, 0, 0), own: vec![], written: 0 }
    }

    /// How many bytes stand there as they are.
    pub(super) fn own(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes: whole blocks, or the last ones.
    ///
    /// # Errors
    /// Those of what it writes to.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut filled = [0; BLOCK];
        for block in bytes.chunks(BLOCK) {
            let block = match block.len() {
                BLOCK => block,
                length => {
                    filled[..length].copy_from_slice(block);
                    &filled
                }
            };
            self.block(block)?;
        }
        Ok(())
    }

    /// Takes so many blocks of zeros.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn zeros(&mut self, blocks: u64) -> Result<()> {
        self.extend(Kind::Zeros, 0, blocks)
    }

    fn block(&mut self, block: &[u8]) -> Result<()> {
        if is_zero(block) {
            return self.zeros(1);
        }
        // What follows there is what follows here, mostly; the same bytes may stand in many places.
        let (kind, from, blocks) = self.run;
        if kind == Kind::Copy && blocks > 0 && self.base.is(from + blocks, block) {
            return self.extend(Kind::Copy, from, 1);
        }
        let found = self.base.blocks.get(&hash(block)).map(|number| u64::from(*number));
        if let Some(number) = found.filter(|number| self.base.is(*number, block)) {
            self.flush()?;
            return self.extend(Kind::Copy, number, 1);
        }
        self.extend(Kind::Own, 0, 1)?;
        self.own.extend_from_slice(block);
        match self.own.len() >= OWN * BLOCK {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn extend(&mut self, kind: Kind, from: u64, blocks: u64) -> Result<()> {
        if self.run.0 != kind {
            self.flush()?;
        }
        if self.run.2 == 0 {
            self.run = (kind, from, 0);
        }
        self.run.2 += blocks;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (kind, from, blocks) = std::mem::replace(&mut self.run, (Kind::Zeros, 0, 0));
        if blocks == 0 {
            return Ok(());
        }
        let mut head = vec![kind as u8];
        head.extend_from_slice(&blocks.to_le_bytes());
        if kind == Kind::Copy {
            head.extend_from_slice(&from.to_le_bytes());
        }
        let own = std::mem::take(&mut self.own);
        self.written += own.len() as u64;
        let mut write = || {
            self.out.write_all(&head)?;
            self.out.write_all(&own)
        };
        write().map_err(|e| Error::failed("cannot write the difference of two disks").cause(e))
    }

    /// What it wrote to, once the last run is written.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn finish(mut self) -> Result<W> {
        self.flush()?;
        Ok(self.out)
    }
}

fn hash(block: &[u8]) -> u64 {
    XxHash64::oneshot(0, block)
}
