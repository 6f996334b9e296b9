//! Which boxes are taken from where: those that a trusted key has signed, as `[trust]` of the spec and of the user's own file
//! demand it. Each of both holds for itself, so neither can loosen the other.

mod judge;

use std::io::Read as _;
use std::path::Path;

use fs_err as fs;
use ssh_key::{Algorithm, PublicKey};

use super::address::Place;
use crate::attest::MAX_BYTES;
use crate::attest::sign::fingerprint;
use crate::attest::trust::fits;
use crate::error::{Error, Kind, Result};
use crate::spec::types::{Spec, Trust, TrustKey, TrustRule};
use crate::spec::{FILE_NAME, Wish, personal};

pub(super) use judge::Given;
pub use judge::{Accepts, is_release_tag};

/// Media type of a signature of a box: a DSSE envelope.
pub const SIGNATURE: &str = "application/vnd.devbox.signature.v1+json";

/// What has to be signed by whom.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    demands: Vec<Demand>,
    /// Whether a channel or a range may give an older version than before.
    pub allow_downgrade: bool,
    /// What was asked for, where the address is only what was found by it.
    pub wish: Option<Wish>,
}

/// A `[trust]`.
#[derive(Debug, Clone)]
struct Demand {
    /// The file that it stands in.
    from: String,
    required: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    names: Vec<String>,
    keys: Vec<Key>,
}

/// A key that may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    fingerprint: String,
    comment: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fingerprint)?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " ({})", self.comment) }
    }
}

impl Policy {
    /// Nothing has to be signed.
    #[must_use]
    pub fn none() -> Self {
        Policy::default()
    }

    /// What the user's own file demands, and the spec of the project, if there is one.
    ///
    /// # Errors
    /// Kind `Usage`: the user's file is wrong, or a file of keys cannot be read.
    pub fn load(spec: Option<&Spec>, user: &Path) -> Result<Self> {
        let own = personal::trust(user)?;
        let of_spec = spec.and_then(|spec| {
            Some((spec.trust.as_ref()?, spec.dir.join(FILE_NAME).display().to_string()))
        });
        let of_user = own.as_ref().map(|trust| (trust, user.display().to_string()));
        let mut policy = Policy::default();
        for (trust, from) in of_user.into_iter().chain(of_spec) {
            policy.demands.push(Demand::of(trust, from)?);
        }
        Ok(policy)
    }

    /// Whether what comes from `place` has to be signed.
    #[must_use]
    pub fn covers(&self, place: &Place) -> bool {
        self.demands
            .iter()
            .any(|demand| demand.required || demand.rules_for(place).next().is_some())
    }

    /// Refuses what cannot be signed, from a place whose boxes have to be.
    ///
    /// # Errors
    /// Kind `Trust`.
    pub fn refuse_foreign(&self, place: &Place, shown: &str) -> Result<()> {
        if !self.covers(place) {
            return Ok(());
        }
        let from: Vec<&str> = self.demands.iter().map(|demand| demand.from.as_str()).collect();
        Err(Error::new(
            Kind::Trust,
            format!("`{shown}` comes from a place whose boxes have to be signed"),
        )
        .detail(format!(
            "expected: a box of devbox with a signature, as `trust` demands it in {}",
            from.join(" or ")
        ))
        .detail("found:    something that is to be imported, which nobody can sign as a box")
        .hint("Fetch it by another way, verify it, and import the file."))
    }

    /// Why a key is trusted for `place`: the names of the rule, and its file. None if no rule trusts it.
    #[must_use]
    pub fn trusts(&self, place: &Place, key: &PublicKey) -> Option<String> {
        let id = fingerprint(key);
        self.demands.iter().find_map(|demand| {
            let has = |rule: &&Rule| rule.keys.iter().any(|key| key.fingerprint == id);
            let rule = demand.rules_for(place).find(has)?;
            Some(format!("{} in {}", rule.names.join(", "), demand.from))
        })
    }
}

impl Demand {
    fn of(trust: &Trust, from: String) -> Result<Self> {
        let rules = trust.rules.iter().map(Rule::of).collect::<Result<_>>()?;
        Ok(Demand { from, required: trust.required, rules })
    }

    fn rules_for(&self, place: &Place) -> impl Iterator<Item = &Rule> {
        let names = place.names();
        self.rules.iter().filter(move |rule| {
            rule.names
                .iter()
                .any(|pattern| names.iter().any(|name| fits(pattern.as_bytes(), name.as_bytes())))
        })
    }
}

impl Rule {
    fn of(rule: &TrustRule) -> Result<Self> {
        let mut keys = vec![];
        for key in &rule.keys {
            match key {
                TrustKey::Text(text) => keys.push(Key::parse(text).map_err(Error::usage)?),
                TrustKey::File(path) => keys.extend(keys_of(path)?),
            }
        }
        Ok(Rule { names: rule.names.iter().map(|name| canonical(name)).collect(), keys })
    }
}

impl Key {
    /// `ssh-ed25519 AAAA… COMMENT`.
    fn parse(line: &str) -> std::result::Result<Self, String> {
        let (key, comment) = public(line)?;
        Ok(Key { fingerprint: fingerprint(&key), comment })
    }
}

/// Reads `ssh-ed25519 AAAA… COMMENT`, of which the comment may be any words.
///
/// # Errors
/// What it is instead.
pub fn public(line: &str) -> std::result::Result<(PublicKey, String), String> {
    let mut words = line.split_ascii_whitespace();
    let text = [words.next().unwrap_or_default(), words.next().unwrap_or_default()].join(" ");
    let key = PublicKey::from_openssh(&text).map_err(|e| format!("it is no SSH key: {e}"))?;
    if key.algorithm() != Algorithm::Ed25519 {
        return Err(format!("it is a key of type {}, not ssh-ed25519", key.algorithm()));
    }
    Ok((key, words.collect::<Vec<_>>().join(" ")))
}

/// The keys in a file, one a line.
fn keys_of(path: &Path) -> Result<Vec<Key>> {
    let shown = path.display();
    let wrong = |what: String| {
        Error::usage(what).hint("A line of it is as in a `.pub` file: `ssh-ed25519 AAAA… COMMENT`.")
    };
    let mut text = vec![];
    let file = fs::File::open(path).map_err(|e| Error::from(e).with_kind(Kind::Usage))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("the file of keys `{shown}` is larger than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(text)
        .map_err(|_| wrong(format!("the file of keys `{shown}` is no text")))?;
    let mut keys = vec![];
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if !line.is_empty() && !line.starts_with('#') {
            let key = Key::parse(line);
            keys.push(key.map_err(|why| {
                wrong(format!("line {number} of the file of keys `{shown}` is wrong")).cause(why)
            })?);
        }
    }
    if keys.is_empty() {
        return Err(wrong(format!("the file of keys `{shown}` holds none")));
    }
    Ok(keys)
}

/// A pattern in the spelling of [`Place::names`]: hosts in lower case, without the port that `https` has anyway.
fn canonical(pattern: &str) -> String {
    if let Some(path) = pattern.strip_prefix("file://") {
        return format!("dir:{path}");
    }
    let Some((scheme, rest)) = pattern.split_once("://") else { return pattern.to_owned() };
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = host.to_ascii_lowercase();
    format!(
        "{scheme}://{}{}",
        host.strip_suffix(":443").unwrap_or(&host),
        path.trim_end_matches('/')
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Address;

    #[test]
    fn a_place_is_covered_however_it_is_spelled() {
        let rule = |name: &str| Rule { names: vec![canonical(name)], keys: vec![] };
        let policy = |name: &str| Policy {
            demands: vec![Demand { from: "x".into(), required: false, rules: vec![rule(name)] }],
            ..Policy::none()
        };
        let covers =
            |name: &str, at: &str| policy(name).covers(&Address::parse(at).expect("address").place);
        for (name, at) in [
            ("oci://r.example/team/*", "oci://r.example/team/web:1.0.0"),
            ("oci://r.example/team/*", "oci://R.Example/team/web"),
            ("oci://r.example/team/*", "oci://r.example.:443/team/a/b"),
            ("oci://R.example:443/*", "oci://r.example/web"),
            ("oci://r.example:5000/*", "oci://r.example:5000/web"),
            ("oci://*", "oci://127.0.0.1:5000/web"),
            ("*", "dir:boxes"),
            ("dir:/srv/boxes", "file:///srv/./boxes:stable"),
            ("file:///srv/*", "dir:/srv/boxes"),
            ("dir:/srv/boxes", "dir:/srv/other/../boxes/"),
            ("https://w.example/*", "https://W.example:443/boxes:1.0.0"),
            ("https://w.example/boxes/", "https://w.example/boxes"),
        ] {
            assert!(covers(name, at), "{name} {at}");
        }
        for (name, at) in [
            ("oci://r.example/team/*", "oci://r.example/teams/web"),
            ("oci://r.example/team/*", "oci://s.example/team/web"),
            ("oci://r.example/web", "oci://r.example:5000/web"),
            ("https://w.example/*", "oci://w.example/web"),
        ] {
            assert!(!covers(name, at), "{name} {at}");
        }
        let required = Demand { from: "x".into(), required: true, rules: vec![] };
        let all = Policy { demands: vec![required], ..Policy::none() };
        assert!(all.covers(&Address::parse("dir:x").expect("address").place));
    }

    #[test]
    fn a_link_to_a_folder_is_the_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().canonicalize().expect("there");
        std::fs::create_dir(root.join("boxes")).expect("made");
        std::os::unix::fs::symlink(root.join("boxes"), root.join("link")).expect("linked");
        let names = Place::Folder(root.join("link")).names();
        assert_eq!(names[0], format!("dir:{}/link", root.display()));
        assert!(names.contains(&format!("dir:{}/boxes", root.display())), "{names:?}");
    }
}
