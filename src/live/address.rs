//! `ssh://[USER@]HOST[:PORT][/ROOT]`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What every address begins with.
pub const SCHEME: &str = "ssh://";

/// A directory of a host that ssh reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As the user wrote it.
    text: String,
    /// Who logs in; `None`: as ssh is configured.
    pub user: Option<String>,
    /// A name of `ssh_config`, of the DNS, or an address.
    pub host: String,
    /// `None`: as ssh is configured.
    pub port: Option<u16>,
    /// The directory that is looked at: `/` for the whole host.
    pub root: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("`{text}` is not the address of a host")).cause(why).hint(
                "Write it as `ssh://user@host`, `ssh://user@host:2222` or `ssh://host/srv/root`.",
            )
        };
        let rest =
            text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with `ssh://`"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port),
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => {
                let port = port.parse().ok().filter(|port| *port > 0);
                Some(port.ok_or_else(|| wrong("the port is not a number from 1 to 65535"))?)
            }
            None if port.is_empty() => None,
            None => return Err(wrong("what follows `]` is not a port")),
        };
        // ssh puts these into commands of its configuration (`ProxyCommand`, `Match exec`).
        let plain = |word: &str, more: &str| {
            !word.is_empty()
                && !word.starts_with('-')
                && word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !plain(host, "-_.:%") {
            return Err(wrong("the host is missing, or has a character that no host has"));
        }
        if user.is_some_and(|user| user.contains(':')) {
            return Err(wrong("a password has no place in an address; ssh asks for it"));
        }
        if user.is_some_and(|user| !plain(user, "-_.+@$\\")) {
            return Err(wrong("the user is empty, or has a character that no user has"));
        }
        let root = decoded(path).ok_or_else(|| {
            wrong("the path is not UTF-8 behind its `%`, or has a control character")
        })?;
        Ok(Address {
            text: text.to_owned(),
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            root: if root.is_empty() { "/".to_owned() } else { root },
        })
    }
}

/// A path without `%XX`; `None` if it is no text of one line, or would lose a space at its end.
fn decoded(path: &str) -> Option<String> {
    let mut out = vec![];
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?].map(|d| char::from(d).to_digit(16));
                u8::try_from(digits[0]? * 16 + digits[1]?).ok()?
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(out).ok()?;
    (!text.contains(char::is_control) && !text.ends_with(' ')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<String>, String, Option<u16>, String) {
        let at: Address = text.parse().expect(text);
        assert_eq!(at.to_string(), text);
        (at.user, at.host, at.port, at.root)
    }

    #[test]
    fn what_ssh_reaches_is_an_address() {
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(parsed("ssh://web1"), (None, "web1".into(), None, "/".into()));
        assert_eq!(parsed("ssh://a@web1:22/"), (own("a"), "web1".into(), Some(22), "/".into()));
        assert_eq!(
            parsed("ssh://root@[::1]:2222/srv/my%20root"),
            (own("root"), "::1".into(), Some(2222), "/srv/my root".into())
        );
        assert_eq!(parsed("ssh://[fe80::1%eth0]"), (None, "fe80::1%eth0".into(), None, "/".into()));
    }

    #[test]
    fn what_ssh_or_a_shell_would_misread_is_none() {
        for text in [
            "ssh://",
            "ssh://@host",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://a b",
            "ssh://host;id",
            "ssh://$(id)@host",
            "ssh://user:secret@host",
            "ssh://host:0",
            "ssh://host:70000",
            "ssh://[::1]22",
            "ssh://host/a%0ab",
            "ssh://host/%ff",
            "ssh://host/%2",
        ] {
            let e = text.parse::<Address>().expect_err(text);
            assert_eq!(e.kind().exit_code(), 2, "{text}");
        }
    }
}
