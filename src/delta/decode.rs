//! Reads a disk from its difference from another one.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use super::{BLOCK, Kind, PIECE};
use crate::error::{Error, Result};

/// The next bytes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// So many zeros.
    Zeros(u64),
    /// These.
    Bytes(&'a [u8]),
}

/// Gives the `size` bytes of the disk to `sink`, in order. What `delta` says is not believed further than that: whether they are
/// the right ones shows when they are hashed.
///
/// # Errors
/// It does not say so many bytes, kind `Undetermined`; `base` cannot be read; the error of `sink`.
pub(super) fn read(
    delta: impl Read,
    base: &File,
    size: u64,
    sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    let damaged = || Error::undetermined("the difference of two disks is damaged");
    let mut delta = zstd::Decoder::new(delta).map_err(|e| damaged().cause(e))?;
    let number = |delta: &mut dyn Read| {
        let mut bytes = [0; 8];
        delta.read_exact(&mut bytes).map_err(|e| damaged().cause(e))?;
        Ok::<_, Error>(u64::from_le_bytes(bytes))
    };
    let (mut left, mut bytes) = (size, vec![0; PIECE]);
    while left > 0 {
        let mut kind = [0];
        delta.read_exact(&mut kind).map_err(|e| damaged().cause(e))?;
        let kind = Kind::of(kind[0]).ok_or_else(damaged)?;
        let blocks = number(&mut delta)?;
        // Zeros fill up the last block.
        if blocks == 0 || blocks > left.div_ceil(BLOCK as u64) {
            return Err(damaged());
        }
        let mut at = match kind {
            Kind::Copy => number(&mut delta)?.checked_mul(BLOCK as u64).ok_or_else(damaged)?,
            Kind::Zeros | Kind::Own => 0,
        };
        let mut stored = blocks * BLOCK as u64;
        if kind == Kind::Zeros {
            let zeros = stored.min(left);
            sink(Piece::Zeros(zeros))?;
            left -= zeros;
            continue;
        }
        while stored > 0 {
            let piece = usize::try_from(stored).map_or(PIECE, |stored| stored.min(PIECE));
            let piece = &mut bytes[..piece];
            match kind {
                Kind::Copy => base.read_exact_at(piece, at).map_err(|e| {
                    Error::failed("cannot read the disk that another one is a difference from")
                        .cause(e)
                })?,
                Kind::Zeros | Kind::Own => {
                    delta.read_exact(piece).map_err(|e| damaged().cause(e))?;
                }
            }
            at = at.checked_add(piece.len() as u64).ok_or_else(damaged)?;
            stored -= piece.len() as u64;
            let counts = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            sink(Piece::Bytes(&piece[..counts]))?;
            left -= counts as u64;
        }
    }
    match delta.read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err(damaged()),
    }
}
