//! Numbers in as few bytes as they need (LEB128), and a reader that never goes beyond its bytes.

use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// Appends `number`.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The low seven bits.
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What is left to read.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next number. Each number has one spelling.
    pub(super) fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().ok_or_else(short)?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 || shift > 0 && byte == 0 {
                break;
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::undetermined("a number in it is not written as it should be"))
    }

    /// The next number, at most `most`.
    pub(super) fn at_most(&mut self, most: u64, what: &str) -> Result<u64> {
        let number = self.number()?;
        if number > most {
            return Err(Error::undetermined(format!(
                "{what} {number} is above the limit of {most}"
            )));
        }
        Ok(number)
    }

    pub(super) fn digest(&mut self) -> Result<FileDigest> {
        let bytes = self.take(32)?.try_into().map_err(|_| short())?;
        Ok(FileDigest::from_bytes(bytes))
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error::undetermined(format!("{} bytes follow its end", self.0.len())))
    }
}

fn short() -> Error {
    Error::undetermined("it ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = vec![];
            put(&mut out, number);
            let mut bytes = Bytes(&out);
            assert_eq!(bytes.number().expect("reads"), number);
            bytes.end().expect("all of it");
        }
        for bad in [&[0x80][..], &[0x80, 0], &[0xff; 9], &[0xff; 10], &[]] {
            assert!(Bytes(bad).number().is_err(), "{bad:?}");
        }
    }
}
