//! Whether an attestation holds: signature, trust, type, statement, time, files; in this order, so that
//! nothing is understood that nobody signed.

use jiff::{SignedDuration, Timestamp};

use super::envelope::Envelope;
use super::statement::{PAYLOAD_TYPE, Statement};
use super::trust::Trust;
use super::{refused, shown, sshsig};
use crate::error::{Error, Result};

/// How far the clock of the signer may be ahead.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// An attestation that holds.
#[derive(Debug)]
pub struct Verified {
    /// What was signed.
    pub statement: Statement,
    /// Whose key it is, as the list of trusted keys says.
    pub principals: String,
    /// The key's fingerprint.
    pub keyid: String,
}

/// A file that is at hand.
#[derive(Debug, Clone)]
pub struct Present {
    /// What people call it.
    pub name: String,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// Verifies the text of an attestation at the time `now`. With `signer`, the key has to be of that
/// principal.
///
/// # Errors
/// Kind `Trust`: it does not hold, and why.
pub fn verify(
    text: &[u8],
    trust: &Trust,
    signer: Option<&str>,
    now: Timestamp,
) -> Result<Verified> {
    let envelope = Envelope::parse(text)?;
    let (principals, keyid) = signed(&envelope, trust, signer, now)?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(refused("its payload type is not known")
            .cause(format!("it is {:?}, not `{PAYLOAD_TYPE}`", shown(&envelope.payload_type)))
            .hint("It may be of a newer devbox, or not of devbox at all."));
    }
    let statement = Statement::parse(&envelope.payload)?;
    let (created, expires) = (statement.predicate.created, statement.predicate.expires);
    if created.duration_since(now) > SKEW {
        return Err(refused(format!("it is of the future: signed at {created}"))
            .hint("Check the clocks of this host and of the one that signed it."));
    }
    if now >= expires {
        return Err(refused(format!("it expired at {expires}"))
            .hint("Compare the images again, and sign a new one with `devbox parity --attest`."));
    }
    Ok(Verified { statement, principals, keyid })
}

/// Why no signature is good enough; what comes later is nearer to a good one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Unknown(String),
    Changed(String),
    Refused(String, String),
}

/// Who signed: the first signature that holds, by a key that is trusted.
fn signed(
    envelope: &Envelope,
    trust: &Trust,
    signer: Option<&str>,
    now: Timestamp,
) -> Result<(String, String)> {
    let message = envelope.pae();
    let mut best = None;
    for one in &envelope.signatures {
        let mut reason = Reason::Unknown(shown(&one.keyid));
        for line in trust.of(&one.keyid) {
            let refused = line.refuses(now).or_else(|| {
                let name = signer.filter(|name| !line.is_of(name))?;
                Some(format!("it is of `{}`, not of `{name}`", line.principals))
            });
            let found = match refused {
                _ if !sshsig::holds(&line.key, sshsig::NAMESPACE, &one.sig, &message) => {
                    Reason::Changed(one.keyid.clone())
                }
                None => return Ok((line.principals.clone(), line.keyid.clone())),
                Some(why) => Reason::Refused(one.keyid.clone(), why),
            };
            reason = reason.max(found);
        }
        best = best.max(Some(reason));
    }
    Err(why(best))
}

fn why(reason: Option<Reason>) -> Error {
    match reason {
        None => refused("it has no signature"),
        Some(Reason::Unknown(keyid)) => refused(format!(
            "it is signed by a key that is not trusted: `{keyid}`"
        ))
        .hint("If you know that this is the signer's key, add it to the list of trusted keys."),
        Some(Reason::Changed(keyid)) => refused(format!("its signature by `{keyid}` does not fit"))
            .cause("it was changed after it was signed, or it is not of this key")
            .hint("Fetch it again, or have the images compared and signed again."),
        Some(Reason::Refused(keyid, why)) => {
            refused(format!("its key `{keyid}` is not trusted for it"))
                .cause(why)
                .hint("Correct the list of trusted keys, or have it signed by another key.")
        }
    }
}

/// Which subject each file is, by its SHA-256 alone. Two files have to be the two subjects.
///
/// # Errors
/// Kind `Trust`: a file is not what was compared.
pub fn subjects<'a>(statement: &'a Statement, files: &[Present]) -> Result<Vec<&'a str>> {
    let mut left: Vec<_> = statement.subject.iter().collect();
    let mut names = vec![];
    for file in files {
        let is_it = |digest: Option<&String>| digest == Some(&file.sha256);
        let found = left.iter().position(|one| is_it(one.digest.get("sha256")));
        let Some(found) = found else {
            return Err(statement
                .subject
                .iter()
                .fold(
                    match statement.subject.iter().any(|one| is_it(one.digest.get("sha256"))) {
                        true => refused(format!("`{}` is there twice", file.name))
                            .cause("two files are to be the two that were compared"),
                        false => {
                            refused(format!("`{}` is not one of the files it is about", file.name))
                                .cause(format!("its sha256 is {}", file.sha256))
                        }
                    },
                    |e, one| match one.digest.get("sha256") {
                        Some(hex) => e.detail(format!("`{}` has sha256 {hex}", one.name)),
                        None => e,
                    },
                )
                .hint("Fetch the file again, or look for the attestation of this one."));
        };
        names.push(left.remove(found).name.as_str());
    }
    Ok(names)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
