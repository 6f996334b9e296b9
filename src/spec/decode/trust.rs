//! `[trust]`.

use std::path::Path;

use base64ct::{Base64, Encoding as _};

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::keys;
use crate::spec::problem::shown;
use crate::spec::reader::{At, Collector, Reader};
use crate::spec::types::{Trust, TrustKey, TrustRule};

/// The one type of keys that sign.
const KIND: &str = "ssh-ed25519";

pub(crate) fn trust(top: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Trust> {
    let table = top.has(&keys::TRUST).then(|| top.table(&keys::TRUST, c)).flatten()?;
    let required = table.boolean(&keys::TRUST_REQUIRED, c).unwrap_or(false);
    let mut rules = vec![];
    if table.has(&keys::TRUST_RULES) {
        for rule in table.tables(&keys::TRUST_RULES, c) {
            let before = c.problems.len();
            let names = rule.set(&keys::TRUST_NAMES, c).unwrap_or_default();
            let given = rule.has(&keys::TRUST_NAMES) && c.problems.len() == before;
            if names.is_empty() && given {
                let at = rule.place_of(&keys::TRUST_NAMES);
                c.report(&at.path, at.span, "the rule covers nothing").hint =
                    Some("Name a place, as in `[\"oci://registry.example/team/*\"]`.".to_owned());
            }
            let keys = rule.set(&keys::TRUST_KEYS, c).unwrap_or_default();
            let keys = keys.into_iter().filter_map(|at| key(&at, dir, c)).collect();
            rules.push(TrustRule { names: names.into_iter().map(|at| at.value).collect(), keys });
        }
    }
    Some(Trust { required, rules })
}

fn key(at: &At<String>, dir: &Path, c: &mut Collector) -> Option<TrustKey> {
    let text = at.value.trim();
    if !text.starts_with("ssh-") && !text.starts_with("ecdsa-") && !text.starts_with("sk-") {
        return Some(TrustKey::File(resolve(at, dir, Expect::File, c)));
    }
    let what = match wrong(text) {
        None => return Some(TrustKey::Text(text.to_owned())),
        Some(what) => what,
    };
    c.report(&at.path, at.span.clone(), what).hint = Some(
        "Copy the whole line of the `.pub` file that `ssh-keygen -t ed25519` makes.".to_owned(),
    );
    None
}

/// What a line is instead of a public ed25519 key (RFC 8709, section 4: the name and 32 bytes, each behind its length).
fn wrong(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let (kind, text) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if kind != KIND {
        return Some(format!("the key is of type {}, not {KIND}", shown(kind)));
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [&length(KIND.as_bytes())[..], KIND.as_bytes(), &32u32.to_be_bytes()].concat();
    let bytes = Base64::decode_vec(text).unwrap_or_default();
    let whole = bytes.len() == head.len() + 32 && bytes.starts_with(&head);
    (!whole).then(|| "the text is no whole SSH key".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8709's format, with bytes that count up.
    fn key() -> String {
        let bytes: Vec<u8> = (0..32).collect();
        let blob = [b"\0\0\0\x0bssh-ed25519\0\0\0 ", &bytes[..]].concat();
        format!("ssh-ed25519 {}", Base64::encode_string(&blob))
    }

    #[test]
    fn a_key_is_a_whole_one_of_its_type() {
        assert_eq!(wrong(&key()), None);
        assert_eq!(wrong(&format!("{} me at home", key())), None);
        let rsa = key().replace("ssh-ed25519 ", "ssh-rsa ");
        assert!(wrong(&rsa).is_some_and(|what| what.contains("of type ssh-rsa")));
        for bad in [&key()[..40], "ssh-ed25519", "ssh-ed25519 AAAA", &format!("{}AAAA", key())] {
            assert!(wrong(bad).is_some_and(|what| what.contains("no whole SSH key")), "{bad}");
        }
    }
}
