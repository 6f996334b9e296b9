//! Who signed a publisher's checksum file: OpenPGP signatures, checked by `gpgv` against the keys that the spec names
//! and no others.

mod armor;
mod packet;
mod status;

use fs_err as fs;

use self::status::{Signature, Verdict};
use super::checksum::clearsigned;
use crate::error::{Error, Kind, Result};
use crate::exec::tools;

/// Magic of GnuPG's own database of keys, and where it stands (GnuPG's kbx/keybox-blob.c).
const KEYBOX: (usize, &[u8]) = (8, b"KBXf");

/// The keys that may sign.
#[derive(Debug)]
pub struct Keys {
    packets: Vec<u8>,
    fingerprints: Vec<String>,
    /// Of these, those that may sign; all where the spec names none.
    trusted: Vec<String>,
}

/// A file of public keys, armoured or not.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// What the file is called in messages.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A signed text as it came.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The file; clear-signed unless `signature` is there.
    pub text: &'a str,
    /// What the file is called in messages.
    pub origin: &'a str,
    /// The signature that comes beside the file, and what it is called.
    pub signature: Option<(&'a [u8], &'a str)>,
}

impl Keys {
    /// Reads files of public keys. `only`: fingerprints of those that may sign, all if empty.
    ///
    /// # Errors
    /// A file holds no public keys; a fingerprint is that of no key in them.
    pub fn read(files: &[KeyFile], only: &[String]) -> Result<Self> {
        let mut packets = vec![];
        let mut fingerprints = vec![];
        for file in files {
            let (more, prints) = key_file(file)?;
            packets.extend(more);
            fingerprints.extend(prints);
        }
        let trusted: Vec<String> = match only {
            [] => fingerprints.clone(),
            only => only.iter().map(|print| print.to_ascii_uppercase()).collect(),
        };
        if let Some(missing) = trusted.iter().find(|print| !fingerprints.contains(print)) {
            return Err(Error::usage(format!("no key in `keys` has the fingerprint `{missing}`"))
                .detail(listed("keys there", &fingerprints))
                .hint("Correct `fingerprints`, or name the file that holds the key."));
        }
        Ok(Keys { packets, fingerprints, trusted })
    }

    /// The text that one of the keys signed.
    ///
    /// # Errors
    /// Kind `Trust`: it is not signed, or not by one of the keys; names the file and what was found. `gpgv` is missing.
    pub fn verified(&self, signed: Signed<'_>) -> Result<String> {
        let Signed { text, origin, signature } = signed;
        let refused = |why: String| {
            Error::new(Kind::Trust, format!("the signature of `{origin}` is not accepted"))
                .cause(why)
                .detail(listed("trusted", &self.trusted))
        };
        if signature.is_none() {
            let framed = clearsigned::framed(text).map_err(refused)?;
            if framed.is_none() {
                return Err(refused("the file is not signed".to_owned()).hint(
                    "Name its signature with `signature`, or a clear-signed file with `checksums`.",
                ));
            }
        }
        let (status, plain) = self.gpgv(text, signature.map(|(bytes, _)| bytes))?;
        let found = status::signatures(&status);
        let good =
            found.iter().any(|s| s.verdict == Verdict::Good && self.trusted.contains(&s.key));
        // Whoever changed a file that two have signed breaks both signatures.
        let unbroken = found.iter().all(|s| s.verdict != Verdict::Bad);
        if let (true, Some(text)) = (good && unbroken, plain) {
            return Ok(text);
        }
        let by = signature.map_or(origin, |(_, name)| name);
        if found.is_empty() {
            return Err(refused(format!("`{by}` holds no signature that can be read"))
                .hint("Check that the signature and the file belong together."));
        }
        let error = found
            .iter()
            .fold(refused(format!("`{by}` does not prove who made the file")), |e, s| {
                e.detail(format!("found: {}", told(s, &self.fingerprints)))
            });
        Err(error.hint("Compare the fingerprint with the one that the publisher shows on a page of its own. If it is right, add the key to `keys`; if not, do not use this image."))
    }

    /// The status lines, and the text that they are about: of a clear-signed file, what was signed.
    fn gpgv(&self, text: &str, signature: Option<&[u8]>) -> Result<(String, Option<String>)> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("keys.gpg"), &self.packets)?;
        fs::write(at("text"), text)?;
        let mut command = tools::GPGV.command()?;
        // Nobody's own keys, and no setting of theirs.
        command.env_clear().env("LC_ALL", "C.UTF-8").env("GNUPGHOME", dir.path());
        command.args(["--quiet", "--status-fd", "1", "--weak-digest", "SHA1"]);
        command.arg("--homedir").arg(dir.path()).arg("--keyring").arg(at("keys.gpg"));
        match signature {
            Some(bytes) => {
                fs::write(at("signature"), bytes)?;
                command.arg(at("signature")).arg(at("text"));
            }
            None => {
                command.arg("--output").arg(at("plain")).arg(at("text"));
            }
        }
        // Not the exit code: of several signatures one that is trusted is enough.
        let out = command.output().map_err(|e| Error::failed("cannot start `gpgv`").cause(e))?;
        let status = String::from_utf8_lossy(&out.stdout).into_owned();
        let plain = match signature {
            Some(_) => Some(text.to_owned()),
            None => fs::read_to_string(at("plain")).ok(),
        };
        Ok((status, plain))
    }
}

/// Whether status lines of `gpgv` prove a text: a signature is good, and none is of something else. Keys that
/// have expired or were revoked prove nothing.
///
/// # Errors
/// They do not; what was found of each signature.
pub(super) fn proven(status: &str) -> std::result::Result<(), Vec<String>> {
    let found = status::signatures(status);
    let has = |verdict| found.iter().any(|signature| signature.verdict == verdict);
    if has(Verdict::Good) && !has(Verdict::Bad) {
        return Ok(());
    }
    Err(found.iter().map(|signature| told(signature, &[])).collect())
}

/// The keys of one file, as packets, and their fingerprints.
fn key_file(file: &KeyFile) -> Result<(Vec<u8>, Vec<String>)> {
    let wrong = |why: String| {
        Error::failed(format!("`{}` is no file of public keys", file.name))
            .cause(why)
            .hint("Write one with `gpg --export --armor FINGERPRINT`.")
    };
    let bytes = &file.bytes;
    if bytes.get(KEYBOX.0..).is_some_and(|rest| rest.starts_with(KEYBOX.1)) {
        return Err(wrong("it is a keybox of GnuPG".to_owned()));
    }
    let packets = match std::str::from_utf8(bytes) {
        // The first byte of a packet is none of ASCII.
        Ok(text) => armor::keys(text).map_err(wrong)?,
        Err(_) if bytes.first().is_some_and(|byte| byte & 0x80 != 0) => bytes.clone(),
        Err(_) => armor::keys(&String::from_utf8_lossy(bytes)).map_err(wrong)?,
    };
    let fingerprints = packet::fingerprints(&packets).map_err(wrong)?;
    Ok((packets, fingerprints))
}

fn told(signature: &Signature, known: &[String]) -> String {
    let Signature { key, verdict } = signature;
    let verdict = match verdict {
        Verdict::Good if known.contains(key) => {
            "a good signature of a key that `fingerprints` leaves out"
        }
        other => other.as_str(),
    };
    format!("{verdict}, key {key}")
}

/// The first of many.
fn listed(what: &str, all: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = all.len().saturating_sub(SHOWN);
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match more {
        0 => format!("{what}: {shown}"),
        more => format!("{what}: {shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
