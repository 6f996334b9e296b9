//! One header of 512 bytes.

use crate::image::field::sum_holds;

/// Bytes in a block: headers are one, contents are padded to whole ones.
pub(in crate::image::container::packed) const BLOCK: usize = 512;

/// What an entry is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Regular,
    /// A sparse file in GNU tar's old form.
    GnuSparse,
    /// The name of the next entry, in GNU tar's form.
    LongName,
    /// The link target of the next entry, in GNU tar's form.
    LongLink,
    /// Attributes of the next entry.
    Pax,
    /// Attributes of all further entries.
    PaxGlobal,
    /// A directory or a volume's label: without contents.
    Folder,
    /// A link, a device, a pipe, which is never followed or made: without contents.
    Special(&'static str),
}

/// One entry's header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    pub(super) kind: Type,
}

impl Header {
    /// Decodes a block (POSIX.1-2017, pax, "ustar Interchange Format").
    pub(super) fn parse(block: &[u8]) -> Result<Self, String> {
        let Some(block) = block.first_chunk::<BLOCK>() else {
            return Err("is cut short".to_owned());
        };
        let stored = number(&block[148..156]).ok_or("has no checksum")?;
        // The sum of all bytes, the checksum's own eight taken as spaces.
        let own: u64 = block[148..156].iter().map(|b| u64::from(*b)).sum();
        let all: u64 = block.iter().map(|b| u64::from(*b)).sum();
        if !sum_holds(stored, all - own + 8 * u64::from(b' ')) {
            return Err("does not have the checksum that it claims".to_owned());
        }
        let mut name = field(&block[..100]).to_vec();
        // GNU tar has other things where ustar has the first part of a long name.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            name = [field(&block[345..500]), b"/", &name[..]].concat();
        }
        let kind = match block[156] {
            // Before ustar, a directory was a file whose name ends in a slash.
            0 if name.ends_with(b"/") => Type::Folder,
            0 | b'0' | b'7' => Type::Regular,
            b'5' | b'V' => Type::Folder,
            b'1' => Type::Special("hard link"),
            b'2' => Type::Special("symbolic link"),
            b'3' | b'4' => Type::Special("device"),
            b'6' => Type::Special("named pipe"),
            b'S' => Type::GnuSparse,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            b'x' => Type::Pax,
            b'g' => Type::PaxGlobal,
            b'M' => return Err("continues a file of another archive".to_owned()),
            other => {
                let shown = char::from(other).escape_debug().to_string();
                return Err(format!("has the type `{shown}`, which is not read"));
            }
        };
        let size = number(&block[124..136]).ok_or("has no size")?;
        Ok(Header { name, size, kind })
    }
}

/// Up to the first NUL.
fn field(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number in octal digits, or with the first bit set in base 256 (GNU tar manual, "Extensions").
pub(super) fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first == 0x80 {
        return rest.iter().try_fold(0u64, |sum, b| Some(sum.checked_mul(256)? | u64::from(*b)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0"), Some(0o644));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        for bad in [
            &b""[..],
            b"\0\0\0",
            b"8",
            b"-1",
            b"+7",
            b"0x7",
            &[0xff; 12],
            &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
