//! The keys that are trusted: OpenSSH's list of allowed signers (ssh-keygen(1), ALLOWED SIGNERS).
//!
//! devbox and `ssh-keygen -Y verify` read one file and have to agree on it. What would be an error there
//! is one here; keys of other types than ed25519 and certificate authorities are passed over, since no
//! attestation is signed by one.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::{Algorithm, PublicKey};

use super::sign::fingerprint;
use super::sshsig::NAMESPACE;
use super::{MAX_BYTES, refused};
use crate::error::{Error, Result};

/// A list of keys.
#[derive(Debug)]
pub struct Trust {
    keys: Vec<Trusted>,
}

/// A line of it.
#[derive(Debug)]
pub struct Trusted {
    /// Who has the key: patterns with commas between them.
    pub principals: String,
    /// The key.
    pub key: PublicKey,
    /// Its fingerprint, `SHA256:…`.
    pub keyid: String,
    /// What it may sign.
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Trust {
    /// Reads a list; times without a `Z` are of the time zone `local`.
    ///
    /// # Errors
    /// Kind `Trust`: a line is wrong, or no line has an ed25519 key.
    pub fn parse(text: &[u8], local: &TimeZone) -> Result<Self> {
        if text.len() as u64 > MAX_BYTES {
            return Err(refused(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let text = std::str::from_utf8(text).map_err(|e| refused("it is no text").cause(e))?;
        let mut keys = vec![];
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let found = Trusted::parse(line, local)
                .map_err(|why| wrong(format!("line {number} of it is wrong")).cause(why))?;
            keys.extend(found);
        }
        if keys.is_empty() {
            return Err(wrong("it holds no ed25519 key"));
        }
        Ok(Trust { keys })
    }

    /// The lines of a key.
    pub fn of<'a>(&'a self, keyid: &'a str) -> impl Iterator<Item = &'a Trusted> {
        self.keys.iter().filter(move |one| one.keyid == keyid)
    }
}

impl Trusted {
    fn parse(line: &str, local: &TimeZone) -> Result<Option<Self>, String> {
        let (principals, rest) = word(line)?;
        let principals = principals.trim_matches('"').to_owned();
        if principals.is_empty() {
            return Err("it names nobody".to_owned());
        }
        let (options, key) = if is_type(rest) { ("", rest) } else { word(rest)? };
        let options = Options::parse(options, local)?;
        if !is_type(key) {
            return Err("there is no key".to_owned());
        }
        if options.authority || !key.starts_with(&format!("{} ", Algorithm::Ed25519)) {
            return Ok(None);
        }
        // A comment may be any words; the reader of keys wants none or one.
        let words: Vec<&str> = key.split_ascii_whitespace().take(2).collect();
        let key = PublicKey::from_openssh(&words.join(" ")).map_err(|e| e.to_string())?;
        let Options { namespaces, valid_after, valid_before, .. } = options;
        let keyid = fingerprint(&key);
        Ok(Some(Trusted { principals, key, keyid, namespaces, valid_after, valid_before }))
    }

    /// Why the key is not to be trusted for an attestation at `now`; `None` if it is.
    #[must_use]
    pub fn refuses(&self, now: Timestamp) -> Option<String> {
        if let Some(namespaces) = &self.namespaces
            && !matches(namespaces, NAMESPACE)
        {
            return Some(format!("it is trusted for `{namespaces}`, not for `{NAMESPACE}`"));
        }
        match (self.valid_after, self.valid_before) {
            (Some(after), _) if now < after => Some(format!("it is not valid before {after}")),
            (_, Some(before)) if now > before => Some(format!("it was valid until {before}")),
            _ => None,
        }
    }

    /// Whether `name` is one of the principals.
    #[must_use]
    pub fn is_of(&self, name: &str) -> bool {
        matches(&self.principals, name)
    }
}

#[derive(Default)]
struct Options {
    authority: bool,
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Options {
    fn parse(mut text: &str, local: &TimeZone) -> Result<Self, String> {
        let mut options = Options::default();
        while !text.is_empty() {
            let name: &str = &text[..text.find(['=', ',']).unwrap_or(text.len())];
            text = &text[name.len()..];
            let lower = name.to_ascii_lowercase();
            let value = match text.strip_prefix('=') {
                None => None,
                Some(rest) => {
                    let (value, rest) =
                        quoted(rest).ok_or_else(|| format!("`{name}` has no \"…\""))?;
                    text = rest;
                    Some(value)
                }
            };
            let twice = match (lower.as_str(), value) {
                ("cert-authority", None) => std::mem::replace(&mut options.authority, true),
                ("namespaces", Some(value)) => options.namespaces.replace(value).is_some(),
                ("valid-after", Some(value)) => {
                    options.valid_after.replace(time(&value, local)?).is_some()
                }
                ("valid-before", Some(value)) => {
                    options.valid_before.replace(time(&value, local)?).is_some()
                }
                _ => return Err(format!("the option `{name}` is not known")),
            };
            if twice {
                return Err(format!("the option `{name}` is there twice"));
            }
            text = match text.strip_prefix(',') {
                Some("") => return Err("an option is missing behind the last comma".to_owned()),
                Some(rest) => rest,
                None if text.is_empty() => text,
                None => return Err(format!("there is no comma behind the option `{name}`")),
            };
        }
        match (options.valid_after, options.valid_before) {
            (Some(after), Some(before)) if before <= after => {
                Err("it ends to be valid before it begins".to_owned())
            }
            _ => Ok(options),
        }
    }
}

/// The first word, in which spaces may stand between quotes, and what comes behind it.
fn word(text: &str) -> Result<(&str, &str), String> {
    let mut inside = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => inside = !inside,
            ' ' | '\t' if !inside => return Ok((&text[..at], text[at..].trim_start())),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    Err(if inside { "a quote does not end" } else { "there is no key" }.to_owned())
}

/// What stands in quotes at the beginning, in which `\"` is a quote, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' if letters.peek().is_some_and(|(_, next)| *next == '"') => {
                letters.next();
                value.push('"');
            }
            _ => value.push(c),
        }
    }
    None
}

fn is_type(text: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|one| text.starts_with(one))
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, in UTC if a `Z` follows.
fn time(text: &str, local: &TimeZone) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is no time such as `20300131` or `203001311200Z`");
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, &TimeZone::UTC),
        None => (text, local),
    };
    let format = match digits.len() {
        8 | 12 | 14 if digits.bytes().all(|b| b.is_ascii_digit()) => "%Y%m%d%H%M%S",
        _ => return Err(wrong()),
    };
    let whole = format!("{digits:0<14}");
    let at = DateTime::strptime(format, whole).map_err(|_| wrong())?;
    at.to_zoned(zone.clone()).map(|at| at.timestamp()).map_err(|_| wrong())
}

/// Whether a list of patterns (ssh_config(5), PATTERNS) has `text`: one fits, and none with a `!`.
fn matches(list: &str, text: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits(pattern.as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => found |= fits(pattern.as_bytes(), text.as_bytes()),
        }
    }
    found
}

/// Whether a pattern has `text`: `*` is any characters, `?` is any one. Goes back to the last `*` alone, so it is fast for any pattern.
pub(crate) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match last {
                Some((star, from)) => {
                    last = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn wrong(what: impl Into<String>) -> Error {
    refused(what)
        .hint("A line is `NAME ssh-ed25519 AAAA…`; see ALLOWED SIGNERS in `man ssh-keygen`.")
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
