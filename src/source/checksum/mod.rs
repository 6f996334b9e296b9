//! Checksum files: the SHA-256 or SHA-512 of one file by its name.
//!
//! Read are the forms of GNU `sha256sum` (`<hex>  name`, `<hex> *name`, with a `\` in front where the
//! name is escaped), of BSD (`SHA256 (name) = <hex>`), and a file that holds nothing but one digest.
//! Around them may be comments, and the frame of an OpenPGP clear-signed text, whose signature is not
//! checked here.

pub(crate) mod clearsigned;

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Hex digits of a SHA-256.
const HEX: usize = 64;
/// Hex digits of a SHA-512.
const HEX_512: usize = 128;

/// What one line says.
struct Line<'a> {
    digest: &'a str,
    /// None for a bare digest.
    name: Option<Cow<'a, str>>,
    kind: Kind,
}

/// What a digest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sha256,
    Sha512,
    /// One that is not used: too weak, or too rare.
    Other,
}

/// The SHA-256 of `name` as `text` lists it, in lower case; its SHA-512, of twice as many digits, where only that is
/// listed. `origin` names the checksum file in messages.
///
/// # Errors
/// A line that is none of the known forms; `name` is not listed, or with neither, or with two different ones.
pub fn find(text: &str, name: &str, origin: &str) -> Result<String> {
    let unreadable = |why: String| {
        Error::failed(format!("the checksum file `{origin}` cannot be read"))
            .cause(why)
            .hint("Give the image's digest as `sha256` instead.")
    };
    let framed = clearsigned::framed(text).map_err(unreadable)?;
    let mut lines = vec![];
    for (number, line) in (1..).zip(framed.as_deref().unwrap_or(text).lines()) {
        let line = line.trim_end();
        if !line.is_empty() && !line.starts_with('#') {
            let unknown =
                || unreadable(format!("line {number} has an unknown form: `{}`", shown(line)));
            lines.push(parse(line).ok_or_else(unknown)?);
        }
    }
    if let [Line { digest, name: None, kind: Kind::Sha256 | Kind::Sha512 }] = &lines[..] {
        return Ok(digest.to_ascii_lowercase());
    }
    let mut found: [Option<String>; 2] = [None, None];
    let mut other = false;
    for line in lines.iter().filter(|line| line.name.as_deref().is_some_and(|n| same_name(n, name)))
    {
        let digest = line.digest.to_ascii_lowercase();
        let found = match line.kind {
            Kind::Sha256 => &mut found[0],
            Kind::Sha512 => &mut found[1],
            Kind::Other => {
                other = true;
                continue;
            }
        };
        if found.as_ref().is_some_and(|found| *found != digest) {
            return Err(Error::failed(format!(
                "the checksum file `{origin}` lists two different digests of `{name}`"
            ))
            .hint("Give the image's digest as `sha256` instead."));
        }
        *found = Some(digest);
    }
    let [sha256, sha512] = found;
    sha256.or(sha512).ok_or_else(|| {
        let e = Error::failed(format!("the checksum file `{origin}` does not list `{name}`"));
        let listed: Vec<_> =
            lines.iter().filter_map(|l| l.name.as_deref()).take(5).map(shown).collect();
        if other {
            e.cause("it lists the name with another kind of digest only")
                .hint("Name a checksum file with SHA-256 or SHA-512, or give the image's digest as `sha256`.")
        } else if listed.is_empty() {
            e.hint("Check that `checksums` names the right file.")
        } else {
            e.detail(format!("it lists: {}", listed.join(", ")))
                .hint("Check that `checksums` and the image belong together.")
        }
    })
}

/// The beginning of a text of the file, for a message: a line can be as long as the file.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

fn same_name(listed: &str, name: &str) -> bool {
    listed.strip_prefix("./").unwrap_or(listed) == name
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn parse(line: &str) -> Option<Line<'_>> {
    // BSD: `SHA256 (name) = hex`. A name may hold parentheses, so the last `) = ` counts.
    if let Some((algorithm, rest)) = line.split_once(" (")
        && let Some((name, digest)) = rest.rsplit_once(") = ")
        && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'/')
    {
        let is = |name: &str| algorithm.eq_ignore_ascii_case(name);
        let (kind, fits) = match () {
            () if is("sha256") => (Kind::Sha256, digest.len() == HEX),
            () if is("sha512") => (Kind::Sha512, digest.len() == HEX_512),
            () => (Kind::Other, true),
        };
        let fits = fits && is_hex(digest);
        return fits.then_some(Line { digest, name: Some(Cow::Borrowed(name)), kind });
    }
    let escaped = line.strip_prefix('\\');
    let line = escaped.unwrap_or(line);
    let (digest, rest) = line.split_once(' ').unwrap_or((line, ""));
    // Digests of MD5, SHA-1, SHA-224, SHA-256, SHA-384 and SHA-512.
    let kind = match digest.len() {
        HEX => Kind::Sha256,
        HEX_512 => Kind::Sha512,
        32 | 40 | 56 | 96 => Kind::Other,
        _ => return None,
    };
    if !is_hex(digest) {
        return None;
    }
    let name = match rest.strip_prefix([' ', '*']) {
        Some(name) if !name.is_empty() && escaped.is_some() => Some(Cow::Owned(unescaped(name)?)),
        Some(name) if !name.is_empty() => Some(Cow::Borrowed(name)),
        None if rest.is_empty() && escaped.is_none() => None,
        _ => return None,
    };
    Some(Line { digest, name, kind })
}

/// A name as `sha256sum` escapes it (GNU coreutils manual, "md5sum invocation").
fn unescaped(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digit: char) -> String {
        String::from(digit).repeat(HEX)
    }

    #[test]
    fn every_published_form_gives_the_digest() {
        let (a, b) = (hex('a'), hex('B'));
        let cases = [
            format!("{b}  other.iso\n{a}  disk.qcow2\n"),
            format!("{a} *disk.qcow2\r\n{b} *other.iso\r\n"),
            format!("{a}  ./disk.qcow2\n"),
            format!(
                "# disk.qcow2: 3 bytes\nSHA256 (disk.qcow2) = {a}\nSHA512 (disk.qcow2) = {b}{b}\n"
            ),
            format!(
                "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 (disk.qcow2) = {a}\n-----BEGIN PGP SIGNATURE-----\n\nxyz\n-----END PGP SIGNATURE-----\n"
            ),
            format!("{}\n", a.to_uppercase()),
            format!("{b}{b}  disk.qcow2\n{a}  disk.qcow2\n"),
        ];
        for text in cases {
            assert_eq!(find(&text, "disk.qcow2", "SUMS").expect(&text), a);
        }
        let long = format!("{a}{b}");
        for text in [
            format!("{long}  disk.qcow2\n"),
            format!("SHA512 (disk.qcow2) = {long}\n"),
            long.clone(),
        ] {
            assert_eq!(find(&text, "disk.qcow2", "SUMS").expect(&text), long.to_ascii_lowercase());
        }
        let escaped = format!("\\{a}  a\\\\b.img\n");
        assert_eq!(find(&escaped, "a\\b.img", "SUMS").expect("listed"), a);
        let upper = format!("SHA256 (a (1).img) = {b}");
        assert_eq!(find(&upper, "a (1).img", "SUMS").expect("listed"), hex('b'));
    }

    #[test]
    fn a_message_is_short_whatever_the_file_lists() {
        let long = format!("{}  {}\n", hex('a'), "\u{10ffff}".repeat(1 << 20));
        let e = find(&long, "disk.qcow2", "SUMS").expect_err("not listed").to_string();
        assert!(e.contains("it lists: \\u{10ffff}") && e.len() < 2000, "{} bytes", e.len());
    }

    #[test]
    fn what_is_not_a_listing_of_the_name_is_refused() {
        let (a, b) = (hex('a'), hex('b'));
        let cases = [
            (String::new(), "does not list"),
            (format!("{a}  other.qcow2\n"), "it lists: other.qcow2"),
            (format!("{a}  sub/disk.qcow2\n"), "does not list"),
            (format!("{a}  disk.qcow2.old\n"), "does not list"),
            (format!("{a}\n{b}\n"), "does not list"),
            (format!("{a}  disk.qcow2\n{b}  disk.qcow2\n"), "two different digests"),
            (format!("{}  disk.qcow2\n", &a[..40]), "another kind of digest"),
            (format!("{a}{a}  disk.qcow2\n{b}{b}  disk.qcow2\n"), "two different digests"),
            (format!("SHA512 (disk.qcow2) = {a}"), "unknown form"),
            (format!("{}  disk.qcow2\n", &a[1..]), "line 1 has an unknown form"),
            (format!("{a} disk.qcow2\n"), "unknown form"),
            (format!("SHA256 (disk.qcow2) = {}", &a[1..]), "unknown form"),
            (format!("\\{a}  disk\\x.qcow2\n"), "unknown form"),
            (
                format!("{a}  disk.qcow2\n-----BEGIN PGP SIGNED MESSAGE-----\n\n{b}  disk.qcow2\n"),
                "line 1 stands outside of what is signed",
            ),
            ("<html>404</html>".to_owned(), "unknown form"),
        ];
        for (text, word) in cases {
            let e = find(&text, "disk.qcow2", "SUMS").expect_err(&text).to_string();
            assert!(e.contains(word) && e.contains("SUMS"), "{word}: {e}");
        }
    }
}
