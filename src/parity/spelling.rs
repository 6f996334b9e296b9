//! The one spelling of byte strings in preimages: printable ASCII as it is, the rest as `\xhh`.

/// Whether `byte` stands for itself.
fn plain(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'\\' | b'=' | b'#')
}

/// Appends the spelling of `bytes`; the empty string is `\e`.
pub fn spell_into(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if bytes.is_empty() {
        out.extend_from_slice(b"\\e");
    }
    for &byte in bytes {
        if plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(b"\\x");
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
    }
}

/// The spelling of `bytes`: printable ASCII without blanks, so it is safe on a terminal too.
#[must_use]
pub fn spell(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    spell_into(bytes, &mut out);
    out.into_iter().map(char::from).collect()
}

/// The bytes behind a spelling; `None` for any text that [`spell`] does not write.
#[must_use]
pub fn read(text: &[u8]) -> Option<Vec<u8>> {
    match text {
        b"" => return None,
        b"\\e" => return Some(vec![]),
        _ => {}
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = if plain(first) {
            out.push(first);
            tail
        } else {
            let [b'x', high, low, tail @ ..] = tail else { return None };
            let byte = digit(*high)? << 4 | digit(*low)?;
            if first != b'\\' || plain(byte) {
                return None;
            }
            out.push(byte);
            tail
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Debian's certificate store holds such a name.
    #[test]
    fn a_name_with_equals_signs_and_utf8_is_spelled_in_ascii() {
        let name = "NetLock_Arany_=Class_Gold=_Főtanúsítvány.crt";
        assert_eq!(
            spell(name.as_bytes()),
            r"NetLock_Arany_\x3dClass_Gold\x3d_F\xc5\x91tan\xc3\xbas\xc3\xadtv\xc3\xa1ny.crt"
        );
    }

    #[test]
    fn other_spellings_are_rejected() {
        for text in [
            r"", r"\x41", r"\xC3", r"\X00", r"\xg0", r"\x0", r"\", r"\e\e", r"a\e", "a b", "é",
            "a=b", "#", "\n", r"\\", "\u{7f}",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(bytes: Vec<u8>) {
            let text = spell(&bytes);
            prop_assert!(text.bytes().all(|b| matches!(b, 0x21..=0x7e)));
            prop_assert_eq!(read(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn what_is_read_has_one_spelling(text in r"(\\(x[0-9a-fA-F]{2}|e)|[ -~])*") {
            if let Some(bytes) = read(text.as_bytes()) {
                prop_assert_eq!(spell(&bytes), text);
            }
        }
    }
}
