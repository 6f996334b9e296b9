//! ASCII armour (RFC 9580, section 6): the packets behind the text form of keys.

use base64ct::{Base64, Encoding as _};

/// First and last line of a block of public keys.
const FRAME: [&str; 2] =
    ["-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"];

/// The packets of all blocks of public keys in `text`; what stands around them is for people.
///
/// The checksum of a block is not looked at: a reader has to take one that is wrong (section 6.1).
///
/// # Errors
/// There is none, or one is damaged: why.
pub(super) fn keys(text: &str) -> Result<Vec<u8>, String> {
    let mut packets = vec![];
    let mut blocks = 0;
    let mut lines = text.lines().map(str::trim_end);
    while lines.by_ref().any(|line| line == FRAME[0]) {
        blocks += 1;
        let wrong = |why: &str| format!("block {blocks} of its keys {why}");
        // Headers, `Name: value`, end with an empty line.
        let headed = lines.by_ref().find(|line| !line.contains(": "));
        if headed != Some("") {
            return Err(wrong("has no empty line before its data"));
        }
        let mut data = String::new();
        loop {
            match lines.next() {
                None => return Err(wrong("is cut off")),
                Some(line) if line == FRAME[1] => break,
                // The checksum, which follows the data.
                Some(line) if line.starts_with('=') => {}
                Some(line) => data.push_str(line),
            }
        }
        packets.extend(Base64::decode_vec(&data).map_err(|_| wrong("is no base64"))?);
    }
    if blocks == 0 { Err("it has no block of public keys".to_owned()) } else { Ok(packets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(data: &str) -> String {
        format!("{}\n{data}\n{}\n", FRAME[0], FRAME[1])
    }

    #[test]
    fn blocks_are_joined_and_a_checksum_is_no_part_of_them() {
        let text =
            format!("a key\n{}and\r\n{}", block("Version: 1\n\nAQ\nID\n=abcd"), block("\r\nBA=="));
        assert_eq!(keys(&text), Ok(vec![1, 2, 3, 4]));
    }

    #[test]
    fn what_is_no_block_of_keys_is_refused() {
        for (text, why) in [
            (String::new(), "no block"),
            (block("\nA"), "no base64"),
            (block("AQID"), "no empty line"),
            (format!("{}\n\nAQID\n", FRAME[0]), "cut off"),
        ] {
            assert!(keys(&text).expect_err(why).contains(why), "{why}");
        }
    }
}
