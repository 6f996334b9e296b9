//! OpenPGP packets (RFC 9580, section 4.2): what a file of keys holds, and the fingerprints of its keys.

use sha1::{Digest as _, Sha1};

use crate::digest;

/// Packet types (section 5).
const SECRET_KEY: u8 = 5;
const PUBLIC_KEY: u8 = 6;

/// The fingerprints of the primary keys in `packets`, in upper-case hex, in their order.
///
/// # Errors
/// They are no transferable public keys: why.
pub(super) fn fingerprints(packets: &[u8]) -> Result<Vec<String>, String> {
    let mut found = vec![];
    let mut rest = packets;
    while !rest.is_empty() {
        let (tag, body, after) = split(rest).ok_or("it has a damaged packet")?;
        match tag {
            SECRET_KEY => return Err("it holds a secret key".to_owned()),
            PUBLIC_KEY => found.push(fingerprint(body)?),
            // A key comes first; what follows belongs to it.
            _ if found.is_empty() => return Err("it does not begin with a public key".to_owned()),
            _ => {}
        }
        rest = after;
    }
    if found.is_empty() { Err("it holds no key".to_owned()) } else { Ok(found) }
}

/// The first packet's type and body, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let (tag, length, rest) = if first & 0x40 == 0 {
        let width = match first & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            // Of undetermined length: no key is.
            _ => return None,
        };
        let (length, rest) = rest.split_at_checked(width)?;
        ((first >> 2) & 0x0f, number(length), rest)
    } else {
        let (&one, after) = rest.split_first()?;
        let (length, rest) = match one {
            0..=191 => (usize::from(one), after),
            192..=223 => {
                let (&two, after) = after.split_first()?;
                ((usize::from(one) - 192) * 256 + usize::from(two) + 192, after)
            }
            255 => {
                let (length, after) = after.split_at_checked(4)?;
                (number(length), after)
            }
            // In parts: only data may be.
            _ => return None,
        };
        (first & 0x3f, length, rest)
    };
    let (body, after) = rest.split_at_checked(length)?;
    Some((tag, body, after))
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, byte| (n << 8) | usize::from(*byte))
}

/// Of version 4 (section 5.5.4.2), the only one that GnuPG makes and reads of those that are still trusted.
fn fingerprint(body: &[u8]) -> Result<String, String> {
    match body.first() {
        Some(4) => {
            let length = u16::try_from(body.len()).map_err(|_| "it has a key that is too long")?;
            let hash = Sha1::new().chain_update([0x99]).chain_update(length.to_be_bytes());
            Ok(digest::hex(&hash.chain_update(body).finalize()).to_ascii_uppercase())
        }
        Some(version) => Err(format!("it has a key of version {version}, which is not read")),
        None => Err("it has an empty key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_packets_and_other_packets_are_refused() {
        let cases: [(&[u8], &str); 7] = [
            (&[], "no key"),
            (&[0x06, 1, 4], "damaged"),
            (&[0xc6, 9, 4], "damaged"),
            (&[0xc6, 224, 4], "damaged"),
            (&[0xc5, 1, 4], "secret key"),
            (&[0xcd, 1, b'x'], "begin with a public key"),
            (&[0xc6, 1, 3], "version 3"),
        ];
        for (bytes, why) in cases {
            assert!(fingerprints(bytes).expect_err(why).contains(why), "{why}");
        }
        assert_eq!(
            fingerprints(&[0xc6, 1, 4, 0xb4, 1, b'x', 0x99, 0, 1, 4]).expect("keys").len(),
            2
        );
    }
}
