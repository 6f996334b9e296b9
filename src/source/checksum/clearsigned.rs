//! The frame of a clear-signed text (RFC 9580, section 7): what it frames, without the escapes. Nothing is verified here.

/// First line of a clear-signed text.
const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
/// First and last line of its signature.
const SIGNATURE: [&str; 2] = ["-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"];

/// Where a reader stands.
enum At {
    Before,
    Headers,
    Text,
    Signature,
    After,
}

/// The framed text with its escapes removed; `None` if `text` is not clear-signed.
///
/// # Errors
/// A frame that is damaged, or text outside of it, which nobody has signed: why, in words that follow the file's name.
pub(crate) fn framed(text: &str) -> Result<Option<String>, String> {
    if !is_framed(text) {
        return Ok(None);
    }
    let mut at = At::Before;
    let mut out = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Spaces at a line's end are not signed either (section 7.2).
        let line = line.trim_end_matches([' ', '\t', '\r']);
        at = match at {
            At::Before if line == BEGIN => At::Headers,
            At::Before | At::After if line.is_empty() => at,
            At::Before | At::After => {
                return Err(format!("line {number} stands outside of what is signed"));
            }
            At::Headers if line.is_empty() => At::Text,
            At::Headers if line.starts_with("Hash: ") => At::Headers,
            At::Headers => return Err(format!("line {number} is no header of a signed text")),
            At::Text if line == SIGNATURE[0] => At::Signature,
            At::Text => {
                let plain = line.strip_prefix("- ").unwrap_or(line);
                if line.starts_with('-') && plain.len() == line.len() {
                    return Err(format!("line {number} begins with a dash that is not escaped"));
                }
                out.push_str(plain);
                out.push('\n');
                At::Text
            }
            At::Signature if line == SIGNATURE[1] => At::After,
            At::Signature => At::Signature,
        };
    }
    match at {
        At::After => Ok(Some(out)),
        _ => Err("its signature is cut off".to_owned()),
    }
}

/// Whether a text says that it is clear-signed.
#[must_use]
pub(crate) fn is_framed(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == BEGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(head: &str, body: &str, after: &str) -> String {
        format!("{BEGIN}\n{head}\n{body}\n{}\n\nabcd\n{}\n{after}", SIGNATURE[0], SIGNATURE[1])
    }

    #[test]
    fn what_is_framed_comes_without_its_escapes() {
        let text = signed("Hash: SHA512\n", "- - a dash\none \t\n\n- -----BEGIN", "\n");
        assert_eq!(framed(&text), Ok(Some("- a dash\none\n\n-----BEGIN\n".to_owned())));
        assert_eq!(framed(&signed("", "x", "")), Ok(Some("x\n".to_owned())));
        assert_eq!(framed("no frame\n"), Ok(None));
    }

    #[test]
    fn what_nobody_signed_is_refused() {
        for (text, why) in [
            (format!("before\n{}", signed("", "x", "")), "line 1 stands outside"),
            (signed("", "x", "after\n"), "stands outside"),
            (signed("", "x", "").repeat(2), "stands outside"),
            (signed("Comment: x\n", "x", ""), "line 2 is no header"),
            (signed("", "-x", ""), "a dash that is not escaped"),
            (format!("{BEGIN}\n\nx\n"), "cut off"),
            (format!("{BEGIN}\n\nx\n{}\n\nabcd\n", SIGNATURE[0]), "cut off"),
        ] {
            let e = framed(&text).expect_err(&text);
            assert!(e.contains(why), "{why}: {e}");
        }
    }
}
