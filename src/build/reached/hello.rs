//! The name of the host that a client says it wants: TLS's server name (RFC 8446, section 4.1.2; RFC 6066, section 3), and
//! HTTP's `Host` (RFC 9110, section 7.2).

use super::packet::half;

/// Bytes from the beginning of a connection that are looked at. A hello with keys against quantum computers has 2 KiB.
pub(crate) const MOST: usize = 8 << 10;

/// What the beginning of a connection says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The name by TLS.
    Tls(String),
    /// The name by HTTP, without a port.
    Http(String),
    /// Nothing.
    Nothing,
    /// Too little came so far.
    More,
}

/// What a client said so far.
pub(crate) fn said(data: &[u8]) -> Said {
    let whole = data.len() >= MOST;
    let said = match data.first() {
        None => Said::More,
        Some(0x16) => server_name(data).unwrap_or(Said::More),
        Some(b) if b.is_ascii_uppercase() => host(data),
        Some(_) => Said::Nothing,
    };
    if said == Said::More && whole { Said::Nothing } else { said }
}

/// `None` where the data ends before it is told.
fn server_name(data: &[u8]) -> Option<Said> {
    // A record of the handshake, and in it the message that begins one.
    if *data.get(1)? != 3 || *data.get(5)? != 1 {
        return Some(Said::Nothing);
    }
    let skip = |at: usize, width: usize| -> Option<usize> {
        let length = match width {
            1 => usize::from(*data.get(at)?),
            _ => usize::from(half(data, at)?),
        };
        at.checked_add(width)?.checked_add(length)
    };
    // Record and message headers, version and random number; then session, ciphers, compressions.
    let at = skip(skip(skip(5 + 4 + 2 + 32, 1)?, 2)?, 1)?;
    let end = skip(at, 2)?;
    let mut at = at + 2;
    while at < end {
        let next = skip(at + 2, 2)?;
        if half(data, at)? == 0 {
            let name = data.get(at + 9..)?.get(..usize::from(half(data, at + 7)?))?;
            return Some(plain(name).map_or(Said::Nothing, Said::Tls));
        }
        at = next;
    }
    Some(Said::Nothing)
}

fn host(data: &[u8]) -> Said {
    let mut lines = data.split(|b| *b == b'\n');
    let first = lines.next().unwrap_or_default();
    let method = first.iter().take_while(|b| b.is_ascii_uppercase()).count();
    if method == 0 || first.get(method).is_some_and(|b| *b != b' ') || method > 16 {
        return Said::Nothing;
    }
    for line in lines {
        let Some(line) = line.strip_suffix(b"\r") else { return Said::More };
        if line.is_empty() {
            return Said::Nothing;
        }
        let (name, value) = line.split_at(line.iter().position(|b| *b == b':').unwrap_or(0));
        if name.eq_ignore_ascii_case(b"host") {
            let value = value[1..].trim_ascii();
            let port = value.iter().rposition(|b| *b == b':');
            let digits = |at: usize| value[at + 1..].iter().all(u8::is_ascii_digit);
            let value = port.filter(|at| digits(*at)).map_or(value, |at| &value[..at]);
            return plain(value).map_or(Said::Nothing, Said::Http);
        }
    }
    Said::More
}

/// A host's name in lower case; an address or nonsense is none.
fn plain(name: &[u8]) -> Option<String> {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let named = name.iter().any(u8::is_ascii_alphabetic);
    if name.len() > 253 || !named || !name.iter().all(fits) {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase().trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with an unknown extension, then the name.
    fn hello(name: &[u8]) -> Vec<u8> {
        let length = |n: usize| u16::try_from(n).expect("short").to_be_bytes();
        let list = [&[0][..], &length(name.len()), name].concat();
        let sni = [&[0, 0][..], &length(list.len() + 2), &length(list.len()), &list].concat();
        let extensions = [&[0xaa, 0xaa, 0, 1, 0][..], &sni].concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[2, 9, 9],
            &[0, 2, 0x13, 1],
            &[1, 0],
            &length(extensions.len()),
            &extensions,
        ]
        .concat();
        let message = [&[1, 0][..], &length(body.len()), &body].concat();
        [&[0x16, 3, 1][..], &length(message.len()), &message].concat()
    }

    #[test]
    fn the_name_is_known_as_soon_as_it_came() {
        let hello = hello(b"Files.Example");
        assert_eq!(said(&hello), Said::Tls("files.example".to_owned()));
        for cut in 0..hello.len() {
            assert_eq!(said(&hello[..cut]), Said::More, "{cut}");
        }
        let get = b"GET / HTTP/1.1\r\nAccept: */*\r\nhost: a.example:8080\r\n\r\n";
        assert_eq!(said(get), Said::Http("a.example".to_owned()));
        assert_eq!(said(&get[..30]), Said::More);
    }

    #[test]
    fn who_says_no_name_says_nothing() {
        for data in [
            &b"SSH-2.0-x\r\n"[..],
            b"\x00\x01",
            b"GET / HTTP/1.0\r\n\r\nHost: x.example\r\n",
            b"GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n",
        ] {
            assert_eq!(said(data), Said::Nothing, "{}", String::from_utf8_lossy(data));
        }
        assert_eq!(said(&hello(b"192.0.2.1")), Said::Nothing);
        let endless = [b"GET /".to_vec(), vec![b'a'; MOST]].concat();
        assert_eq!(said(&endless), Said::Nothing);
    }
}
