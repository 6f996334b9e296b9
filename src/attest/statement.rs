//! The in-toto Statement v1 that is signed: which two files, at which level, and the level's digests.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{json, refused, shown};
use crate::error::{Error, Result};

/// DSSE's payload type of a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The schema of the statement.
pub const TYPE: &str = "https://in-toto.io/Statement/v1";
/// The schema of the predicate: a name, not an address. Another one, when a field changes its meaning.
pub const PREDICATE_TYPE: &str = "urn:devbox:parity-attestation:v1";

/// Longest text of a statement that is shown to people.
const MAX_TEXT: usize = 4096;

/// Which digests a level is about. Level `file` has the plain SHA-256 alone.
const DIGESTS: [(&str, &[&str]); 6] = [
    ("file", &["sha256"]),
    ("disk", &["bytes1"]),
    ("content", &["box1"]),
    ("tree", &["tree1", "links1"]),
    ("times", &["tree1t", "links1"]),
    ("packages", &["pkgs1"]),
];

/// The statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The two files.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said of them.
    pub predicate: Predicate,
}

/// A file that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name, without the folder, or a box's name.
    pub name: String,
    /// `sha256` of the file as it is, and the level's digests as `devboxBox1` and so on; lower-case hex.
    pub digest: BTreeMap<String, String>,
}

/// What is said of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicate {
    /// The level, as after `parity --level`.
    pub level: String,
    /// The answer.
    pub verdict: Verdict,
    /// Both sides, in the order of the subjects.
    pub sides: Vec<Side>,
    /// Digest of the declared differences under which the answer holds; none if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What both sides are without the declared differences, as `base1:hex`; if they are equivalent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What compared them.
    pub tool: Tool,
    /// When it was signed, by the signer's clock.
    #[serde(with = "instant")]
    pub created: Timestamp,
    /// From when on it does not hold any more.
    #[serde(with = "instant")]
    pub expires: Timestamp,
}

/// The answers that can be attested. A difference cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The digests of both sides are the same.
    Equal,
    /// They differ in exactly what the policy declares.
    Equivalent,
}

/// The policy under which two sides are equivalent.
#[derive(Debug, Clone)]
pub struct Declared {
    /// `policy1:` and its digest.
    pub policy: String,
    /// `base1:` and what both sides are without what it declares.
    pub base: String,
}

/// One side of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The subject's name.
    pub name: String,
    /// `image` or `box`.
    pub of: String,
    /// The level's digests, each `name:hex`.
    pub digests: Vec<String>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A side with the SHA-256 of its file, from which a statement is made.
#[derive(Debug, Clone)]
pub struct Compared {
    /// As in the statement.
    pub side: Side,
    /// 64 hex digits.
    pub sha256: String,
}

/// Since when and until when it is to hold.
#[derive(Debug, Clone, Copy)]
pub struct Period {
    /// Now.
    pub created: Timestamp,
    /// The end.
    pub expires: Timestamp,
}

impl Statement {
    /// Says that both sides are equal at `level`, or equivalent under what is declared.
    ///
    /// # Errors
    /// Kind `Trust`: it would be refused, as [`Statement::parse`] does.
    pub fn new(
        level: &str,
        sides: [Compared; 2],
        declared: Option<Declared>,
        period: Period,
    ) -> Result<Self> {
        let verdict = if declared.is_some() { Verdict::Equivalent } else { Verdict::Equal };
        let (policy, base) = declared.map(|one| (one.policy, one.base)).unzip();
        let subject = sides.iter().map(Compared::subject).collect();
        let made = Statement {
            kind: TYPE.to_owned(),
            subject,
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate {
                level: level.to_owned(),
                verdict,
                sides: sides.into_iter().map(|one| one.side).collect(),
                policy,
                base,
                tool: Tool {
                    name: env!("CARGO_PKG_NAME").to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                },
                created: period.created,
                expires: period.expires,
            },
        };
        made.check().map_err(wrong)?;
        Ok(made)
    }

    /// The payload.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a payload. Members that are not known are ignored, as in-toto wants it.
    ///
    /// # Errors
    /// Kind `Trust`: it is no statement of this type, or it contradicts itself.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let value = json::parse(payload).map_err(wrong)?;
        let text = |name: &str| value.get(name).and_then(|v| v.as_str()).unwrap_or_default();
        for (name, known) in [("_type", TYPE), ("predicateType", PREDICATE_TYPE)] {
            if text(name) != known {
                return Err(refused(format!("its `{name}` is not known"))
                    .cause(format!("it is {:?}, not `{known}`", shown(text(name))))
                    .hint("It may be of a newer devbox, or not of devbox at all."));
            }
        }
        let read: Statement = json::read(payload).map_err(wrong)?;
        read.check().map_err(wrong)?;
        Ok(read)
    }

    /// Whether the parts fit together. A signer that is trusted can still be wrong.
    fn check(&self) -> Result<(), String> {
        let Predicate { level, verdict, sides, policy, base, tool, .. } = &self.predicate;
        let [a, b] = sides.as_slice() else {
            return Err(format!("{} sides were compared, not two", sides.len()));
        };
        let names = DIGESTS.iter().find(|(known, _)| known == level);
        let (_, names) = names.ok_or_else(|| format!("the level {level:?} is not known"))?;
        let texts = [&tool.name, &tool.version, &a.of, &b.of, &a.name, &b.name];
        for text in texts.into_iter().chain(policy).chain(base) {
            if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                return Err("a text is too long or has characters that terminals obey".to_owned());
            }
        }
        if a.name == b.name {
            return Err(format!("both subjects are `{}`", a.name));
        }
        for side in sides {
            if !is_digests(&side.digests, names) {
                return Err(format!("`{}` has no digests of the level `{level}`", side.name));
            }
        }
        let is = |text: &Option<String>, name: &str| {
            let hex = text.as_deref().and_then(|text| text.strip_prefix(name)?.strip_prefix(':'));
            hex.is_some_and(is_hex)
        };
        match verdict {
            Verdict::Equal if a.digests != b.digests => {
                return Err("the digests of the two sides differ".to_owned());
            }
            Verdict::Equal if policy.is_some() || base.is_some() => {
                return Err("equal sides have no declared differences".to_owned());
            }
            Verdict::Equivalent if !is(policy, "policy1") || !is(base, "base1") => {
                return Err("equivalent sides have a `policy1` and a `base1`".to_owned());
            }
            Verdict::Equivalent if a.digests == b.digests => {
                return Err("equivalent sides differ in something".to_owned());
            }
            _ => {}
        }
        if self.subject.len() != sides.len() {
            return Err(format!("it has {} subjects, not two", self.subject.len()));
        }
        for (subject, side) in self.subject.iter().zip(sides) {
            let sha256 = subject.digest.get("sha256").filter(|hex| is_hex(hex));
            let sha256 = sha256.ok_or_else(|| format!("`{}` has no sha256", side.name))?;
            let expected = Compared { side: side.clone(), sha256: sha256.clone() }.subject();
            let held =
                expected.digest.iter().all(|(key, hex)| subject.digest.get(key) == Some(hex));
            if subject.name != side.name || !held {
                return Err(format!("the subject `{}` is not the side", side.name));
            }
        }
        Ok(())
    }
}

impl Compared {
    /// The side as in-toto's resource descriptor.
    fn subject(&self) -> Subject {
        let mut digest = BTreeMap::from([("sha256".to_owned(), self.sha256.clone())]);
        for one in &self.side.digests {
            if let Some((name, hex)) = one.split_once(':') {
                digest.insert(key(name), hex.to_owned());
            }
        }
        Subject { name: self.side.name.clone(), digest }
    }
}

/// `box1` is `devboxBox1`: an algorithm of in-toto's has a name of its own.
fn key(name: &str) -> String {
    let mut letters = name.chars();
    match letters.next() {
        Some(first) if name != "sha256" => {
            format!("devbox{}{}", first.to_ascii_uppercase(), letters.as_str())
        }
        _ => name.to_owned(),
    }
}

fn is_digests(digests: &[String], names: &[&str]) -> bool {
    let found: BTreeSet<&str> = digests
        .iter()
        .filter_map(|one| {
            let (name, hex) = one.split_once(':')?;
            is_hex(hex).then_some(name)
        })
        .collect();
    digests.len() == names.len() && found == names.iter().copied().collect()
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn wrong(why: impl std::fmt::Display) -> Error {
    refused("it is not an attestation of two equal images")
        .cause(shown(why))
        .hint("Have the images compared and signed again, by the newest devbox of both sides.")
}

/// RFC 3339 in UTC, with a `Z`, as in-toto wants it.
mod instant {
    use jiff::Timestamp;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        let time = text.ends_with('Z').then(|| text.parse::<Timestamp>().ok()).flatten();
        time.ok_or_else(|| D::Error::custom("expected a time such as `2030-01-31T12:00:00Z`"))
    }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
