//! Identifiers as the format stores them: the first three fields little-endian.

use std::fmt;

/// 16 bytes as they stand in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Guid(pub(super) [u8; 16]);

impl Guid {
    /// The one with these fields.
    pub(super) const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Guid([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ])
    }

    /// The one at byte `at`; the caller has read that far.
    pub(super) fn at(bytes: &[u8], at: usize) -> Self {
        Guid(std::array::from_fn(|n| bytes[at + n]))
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for at in [3, 2, 1, 0, 16, 5, 4, 16, 7, 6, 16, 8, 9, 16, 10, 11, 12, 13, 14, 15] {
            match self.0.get(at) {
                Some(byte) => write!(f, "{byte:02x}")?,
                None => f.write_str("-")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_shown_as_it_is_written() {
        let guid = Guid::new(0x2dc2_7766, 0xf623, 0x4200, *b"\x9d\x64\x11\x5e\x9b\xfd\x4a\x08");
        assert_eq!(guid.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
        assert_eq!(guid.0[..4], [0x66, 0x77, 0xc2, 0x2d]);
    }
}
