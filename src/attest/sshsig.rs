//! SSHSIG, OpenSSH's signature of any bytes: as `ssh-keygen -Y sign` writes it, without its armour.
//!
//! A plain ed25519 signature would be shorter. This one says in a namespace what it was made for, so that
//! no signature of a git commit passes for one of an attestation; agents can make it; and everybody has
//! the program that checks it.

use base64ct::{Base64, Encoding as _};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, Signature, SshSig};

use super::refused;
use crate::error::{Error, Result};

/// What the signature of an attestation is for; `namespaces="…"` of a list of trusted keys and `ssh-keygen -n` name it.
pub const NAMESPACE: &str = "devbox-attestation";
/// What the signature of a box is for.
pub const BOX: &str = "devbox-box";
/// What `ssh-keygen -Y sign` takes.
const HASH: HashAlg = HashAlg::Sha512;
/// Characters of a line of armour.
const WIDTH: usize = 70;
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "\n-----END SSH SIGNATURE-----\n";

/// Signs `message` with a private key at hand, for the purpose `namespace`.
///
/// # Errors
/// Kind `Trust`: the key is encrypted.
pub fn sign(key: &PrivateKey, namespace: &str, message: &[u8]) -> Result<Signature> {
    let whole = key.sign(namespace, HASH, message).map_err(cannot_sign)?;
    Ok(whole.signature().clone())
}

/// What the key itself signs if `message` is to be signed.
///
/// # Errors
/// Never, but the crate has one.
pub fn signed_data(namespace: &str, message: &[u8]) -> Result<Vec<u8>> {
    SshSig::signed_data(namespace, HASH, message).map_err(cannot_sign)
}

/// The bytes of a signature that `key` made over [`signed_data`].
///
/// # Errors
/// Kind `Trust`: it is none of `key` over `message`.
pub fn assemble(
    key: &PublicKey,
    namespace: &str,
    signature: Signature,
    message: &[u8],
) -> Result<Vec<u8>> {
    let whole = SshSig::new(key.key_data().clone(), namespace, HASH, signature);
    let bytes = whole.ok().and_then(|whole| bytes_of(&whole));
    // What cannot be verified is not handed out, whoever signed.
    bytes
        .filter(|bytes| holds(key, namespace, bytes, message))
        .ok_or_else(|| cannot_sign("it does not verify"))
}

/// Whether `bytes` are a signature of `message` by `key` in the namespace.
#[must_use]
pub fn holds(key: &PublicKey, namespace: &str, bytes: &[u8], message: &[u8]) -> bool {
    parse(bytes).is_some_and(|whole| {
        key.algorithm() == Algorithm::Ed25519 && key.verify(namespace, message, &whole).is_ok()
    })
}

/// The key that made the signature `bytes` of `message` in the namespace, whoever's it is; none if it does not hold.
#[must_use]
pub fn signer(namespace: &str, bytes: &[u8], message: &[u8]) -> Option<PublicKey> {
    let key = PublicKey::from(parse(bytes)?.public_key().clone());
    holds(&key, namespace, bytes, message).then_some(key)
}

/// Reads what is spelled in the one possible way.
fn parse(bytes: &[u8]) -> Option<SshSig> {
    let whole = SshSig::from_pem(armoured(bytes)).ok()?;
    let canonical = whole.version() == SshSig::VERSION && bytes_of(&whole)? == bytes;
    canonical.then_some(whole)
}

/// The file that `ssh-keygen -Y verify -s` reads.
#[must_use]
pub fn armoured(bytes: &[u8]) -> String {
    let text = Base64::encode_string(bytes);
    // Base64 is ASCII: any place is between two characters.
    let lines: Vec<&str> =
        (0..text.len()).step_by(WIDTH).map(|at| &text[at..text.len().min(at + WIDTH)]).collect();
    [BEGIN, &lines.join("\n"), END].concat()
}

fn bytes_of(whole: &SshSig) -> Option<Vec<u8>> {
    let pem = whole.to_pem(LineEnding::LF).ok()?;
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    Base64::decode_vec(&text).ok()
}

fn cannot_sign(why: impl std::fmt::Display) -> Error {
    refused("cannot sign with this key").cause(why)
}

#[cfg(test)]
mod tests {
    use ssh_key::private::{Ed25519Keypair, KeypairData};

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32]));
        PrivateKey::new(pair, "test").expect("a key")
    }

    /// Without its comment, which no signature has.
    fn bare(key: &PrivateKey) -> PublicKey {
        PublicKey::from(key.public_key().key_data().clone())
    }

    fn signed(key: &PrivateKey, namespace: &str, message: &[u8]) -> Vec<u8> {
        bytes_of(&key.sign(namespace, HASH, message).expect("signed")).expect("bytes")
    }

    #[test]
    fn every_bit_counts() {
        let (ours, other) = (key(1), key(2));
        let message = b"DSSEv1 1 a 1 b";
        let good = signed(&ours, NAMESPACE, message);
        assert!(holds(ours.public_key(), NAMESPACE, &good, message));
        assert!(!holds(ours.public_key(), NAMESPACE, &good, b"DSSEv1 1 a 1 c"));
        assert!(!holds(ours.public_key(), BOX, &good, message), "for another purpose");
        assert_eq!(signer(NAMESPACE, &good, message).as_ref(), Some(&bare(&ours)));
        assert_eq!(signer(BOX, &good, message), None);
        assert_eq!(signer(NAMESPACE, &good, b"other"), None);
        assert!(!holds(other.public_key(), NAMESPACE, &good, message));
        assert!(!holds(ours.public_key(), NAMESPACE, &signed(&ours, "git", message), message));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!holds(ours.public_key(), NAMESPACE, &bad, message), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(
                !holds(ours.public_key(), NAMESPACE, &good[..length], message),
                "{length} bytes"
            );
        }
        assert!(!holds(ours.public_key(), NAMESPACE, &[&good[..], b"\0"].concat(), message));
    }

    #[test]
    fn what_does_not_verify_is_not_handed_out() {
        let (ours, message) = (key(1), b"message");
        let made = sign(&ours, NAMESPACE, message).expect("signed");
        assemble(ours.public_key(), NAMESPACE, made.clone(), message).expect("it verifies");
        assemble(ours.public_key(), NAMESPACE, made, b"other").expect_err("of another message");
        let zeros = Signature::new(Algorithm::Ed25519, vec![0; 64]).expect("a signature");
        assemble(ours.public_key(), NAMESPACE, zeros, message).expect_err("no signature");
    }
}
