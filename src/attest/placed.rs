//! The signed word that a manifest is the box NAME:VERSION for an architecture at a place: an in-toto Statement v1.
//!
//! It names all that a box is asked for by, so that it holds nowhere else and for nothing else. It has no time: it holds as
//! long as the key is trusted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use super::envelope::Envelope;
use super::sign::Signer;
use super::statement::{PAYLOAD_TYPE, Subject, TYPE};
use super::{json, refused, shown, sshsig};
use crate::digest::FileDigest;
use crate::error::Result;

/// The schema of the predicate: a name, not an address. Another one, when a field changes its meaning.
pub const PREDICATE_TYPE: &str = "urn:devbox:box-signature:v1";
/// Longest text of it in bytes.
const MAX_TEXT: usize = 1024;

/// A box at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// SHA-256 of its manifest there.
    pub manifest: FileDigest,
    /// What else is said of it.
    pub of: Predicate,
}

/// What is said of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicate {
    /// The place: `oci://HOST/REPOSITORY`, or that of a folder or a web server.
    pub place: String,
    /// The box's name.
    pub name: String,
    /// Its version, which the tag need not be.
    pub version: String,
    /// Its architecture, by Debian's name.
    pub arch: String,
    /// SHA-256 of what the box says of itself.
    pub config: FileDigest,
    /// SHA-256 of the disk's file.
    pub disk: FileDigest,
}

/// What an envelope says, and the keys that signed it.
#[derive(Debug, Clone)]
pub struct Signed {
    /// What is signed.
    pub placed: Placed,
    /// The keys whose signatures hold, whoever's they are; never empty.
    pub keys: Vec<PublicKey>,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

impl Placed {
    fn statement(&self) -> Statement {
        let digest = BTreeMap::from([("sha256".to_owned(), self.manifest.hex())]);
        Statement {
            kind: TYPE.to_owned(),
            subject: vec![Subject { name: self.of.reference(), digest }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: self.of.clone(),
        }
    }

    /// Signs it. The bytes of the envelope.
    ///
    /// # Errors
    /// Kind `Trust`: the signer does not sign.
    pub fn sign(&self, signer: &Signer) -> Result<Vec<u8>> {
        let payload = serde_json::to_vec(&self.statement()).unwrap_or_default();
        Ok(signer.sign_for(sshsig::BOX, payload)?.to_json().into_bytes())
    }
}

impl Predicate {
    /// `NAME:VERSION`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }
}

impl Signed {
    /// Reads an envelope and verifies its signatures; whether a key is trusted is not asked.
    ///
    /// # Errors
    /// Kind `Trust`: it is none, no signature of it holds, or it says something else.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let envelope = Envelope::parse(text)?;
        let message = envelope.pae();
        let keys: Vec<PublicKey> = envelope
            .signatures
            .iter()
            .filter_map(|one| sshsig::signer(sshsig::BOX, &one.sig, &message))
            .collect();
        if keys.is_empty() {
            return Err(refused("its signature does not fit")
                .cause("it was changed after it was signed, or signed for another purpose"));
        }
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(wrong(format!("its payload type is {:?}", envelope.payload_type)));
        }
        let read: Statement = json::read(&envelope.payload).map_err(wrong)?;
        for (found, known) in [(&read.kind, TYPE), (&read.predicate_type, PREDICATE_TYPE)] {
            if found != known {
                return Err(wrong(format!("it is a {found:?}, not a `{known}`")));
            }
        }
        let of = read.predicate;
        if [&of.place, &of.name, &of.version, &of.arch]
            .iter()
            .any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return Err(wrong("a text is too long or has characters that terminals obey"));
        }
        let [subject] = &read.subject[..] else {
            return Err(wrong(format!("it has {} subjects, not one", read.subject.len())));
        };
        let hex = subject.digest.get("sha256").map(|hex| format!("sha256:{hex}"));
        let manifest = hex.and_then(|digest| digest.parse().ok());
        let manifest = manifest.ok_or_else(|| wrong("its subject has no sha256"))?;
        if subject.name != of.reference() {
            return Err(wrong("its subject has another name than the box"));
        }
        Ok(Signed { placed: Placed { manifest, of }, keys })
    }
}

fn wrong(why: impl std::fmt::Display) -> crate::error::Error {
    refused("it is not the signature of a box").cause(shown(why))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Kind;
    use crate::guest::keys::KeyPair;

    fn placed() -> Placed {
        let digest = |text: &str| FileDigest::of(text.as_bytes());
        Placed {
            manifest: digest("manifest"),
            of: Predicate {
                place: "oci://r.example/team/web".into(),
                name: "web".into(),
                version: "1.2.0".into(),
                arch: "amd64".into(),
                config: digest("config"),
                disk: digest("disk"),
            },
        }
    }

    fn signer() -> Signer {
        let pair = KeyPair::generate("test").expect("a key");
        Signer::parse(pair.private().as_bytes(), Path::new("id"), None).expect("a signer")
    }

    #[test]
    fn what_was_signed_is_read_and_names_its_signers() {
        let signer = signer();
        let text = placed().sign(&signer).expect("signs");
        let read = Signed::parse(&text).expect("holds");
        assert_eq!(read.placed, placed());
        let ids: Vec<String> = read.keys.iter().map(super::super::sign::fingerprint).collect();
        assert_eq!(ids, [signer.keyid()]);
        // One signature that does not fit beside one that does.
        let mut both = Envelope::parse(&text).expect("an envelope");
        let mut bad = both.signatures[0].clone();
        bad.sig[90] ^= 1;
        both.signatures.insert(0, bad);
        assert_eq!(Signed::parse(both.to_json().as_bytes()).expect("holds").keys.len(), 1);
    }

    #[test]
    fn what_says_something_else_is_refused() {
        let signer = signer();
        let good = serde_json::to_string(&placed().statement()).expect("JSON");
        for (from, to) in [
            (PREDICATE_TYPE, "urn:devbox:parity-attestation:v1"),
            (TYPE, "https://in-toto.io/Statement/v0.1"),
            ("\"name\":\"web:1.2.0\"", "\"name\":\"web:1.3.0\""),
            ("\"sha256\":", "\"sha512\":"),
            ("\"arch\":\"amd64\"", "\"arch\":\"amd64\",\"arch\":\"arm64\""),
            ("\"arch\":\"amd64\"", "\"arch\":\"amd\\u001b64\""),
            ("\"disk\":\"sha256:", "\"disk\":\"sha256:0"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            let envelope = signer.sign_for(sshsig::BOX, bad.into_bytes()).expect("signs");
            let e = Signed::parse(envelope.to_json().as_bytes()).expect_err(from);
            assert_eq!(e.kind(), Kind::Trust, "{e}");
        }
        let other = signer.sign_for(sshsig::NAMESPACE, good.clone().into_bytes()).expect("signs");
        let e = Signed::parse(other.to_json().as_bytes()).expect_err("for another purpose");
        assert!(e.to_string().contains("another purpose"), "{e}");
        let mut changed = signer.sign_for(sshsig::BOX, good.clone().into_bytes()).expect("signs");
        changed.payload = good.replace("1.2.0", "1.3.0").into_bytes();
        Signed::parse(changed.to_json().as_bytes()).expect_err("changed");
    }
}
