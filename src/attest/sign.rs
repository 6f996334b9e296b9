//! Who signs: a private key in OpenSSH's format, or an agent that holds it.

use std::path::{Path, PathBuf};

use ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey};

use super::envelope::{Envelope, Signed};
use super::statement::{PAYLOAD_TYPE, Statement};
use super::{agent, sshsig};
use crate::error::{Error, Result};

/// A key that can sign.
pub struct Signer {
    public: PublicKey,
    hand: Hand,
}

enum Hand {
    Key(Box<PrivateKey>),
    /// The agent's socket.
    Agent(PathBuf),
}

impl std::fmt::Debug for Signer {
    /// Shows the public half only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.keyid()).finish()
    }
}

impl Signer {
    /// Reads the text of the key file at `path`, which messages name: a private key, or a public one whose
    /// private half the agent at `agent` holds.
    ///
    /// # Errors
    /// Kind `Usage`: it is no ed25519 key, or it is encrypted or public and there is no agent.
    pub fn parse(text: &[u8], path: &Path, agent: Option<&Path>) -> Result<Self> {
        let name = path.display();
        let text = std::str::from_utf8(text).unwrap_or_default();
        let (public, private) = if text.starts_with("ssh-") {
            let key = PublicKey::from_openssh(text.trim()).map_err(|e| no_key(path).cause(e))?;
            (key, None)
        } else {
            let key = PrivateKey::from_openssh(text).map_err(|e| no_key(path).cause(e))?;
            (key.public_key().clone(), Some(key))
        };
        if public.algorithm() != Algorithm::Ed25519 {
            return Err(Error::usage(format!("the key `{name}` is not of type ed25519"))
                .cause(format!("it is of type {}", public.algorithm()))
                .hint(MAKE));
        }
        let hand = match (private, agent) {
            (Some(key), _) if !key.is_encrypted() => Hand::Key(Box::new(key)),
            (_, Some(agent)) => Hand::Agent(agent.to_owned()),
            (Some(_), None) => {
                return Err(Error::usage(format!("the key `{name}` is encrypted"))
                    .cause("devbox asks for no passphrase, and there is no SSH agent")
                    .hint(format!("Run `eval $(ssh-agent)` and `ssh-add {name}`, then try again."))
                    .hint("In CI, take a key of its own without a passphrase."));
            }
            (None, None) => {
                return Err(Error::usage(format!("`{name}` is a public key"))
                    .cause("there is no SSH agent that could hold its private half")
                    .hint("Name the private key, or start an agent and `ssh-add` it."));
            }
        };
        Ok(Signer { public, hand })
    }

    /// The fingerprint, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn keyid(&self) -> String {
        fingerprint(&self.public)
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// Kind `Trust`: the agent does not sign, or what it gives does not verify.
    pub fn sign(&self, statement: &Statement) -> Result<Envelope> {
        self.sign_for(sshsig::NAMESPACE, statement.to_json())
    }

    /// Signs the JSON of a statement for the purpose `namespace`.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub fn sign_for(&self, namespace: &str, payload: Vec<u8>) -> Result<Envelope> {
        let mut envelope =
            Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures: vec![] };
        let message = envelope.pae();
        let signature = match &self.hand {
            Hand::Key(key) => sshsig::sign(key, namespace, &message)?,
            Hand::Agent(socket) => {
                agent::sign(socket, &self.public, &sshsig::signed_data(namespace, &message)?)?
            }
        };
        let sig = sshsig::assemble(&self.public, namespace, signature, &message)?;
        envelope.signatures.push(Signed { keyid: self.keyid(), sig });
        Ok(envelope)
    }
}

/// `SHA256:…`.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// How to come by a key.
pub const MAKE: &str = "Make one with `ssh-keygen -t ed25519 -f devbox-signing`.";

fn no_key(path: &Path) -> Error {
    Error::usage(format!("`{}` holds no SSH key", path.display())).hint(MAKE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::keys::KeyPair;

    #[test]
    fn what_is_no_key_says_how_to_make_one() {
        let path = Path::new("id");
        for text in ["", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "ssh-ed25519 AAAA"]
        {
            let e = Signer::parse(text.as_bytes(), path, None).expect_err("no key");
            assert!(e.to_string().contains("`id` holds no SSH key"), "{e}");
            assert!(e.to_string().contains("ssh-keygen -t ed25519"), "{e}");
        }
        Signer::parse(b"\xff", path, None).expect_err("no text");
    }

    #[test]
    fn a_public_key_needs_an_agent_and_a_private_one_does_not() {
        let pair = KeyPair::generate("test").expect("a key");
        let path = Path::new("id");
        let ours = Signer::parse(pair.private().as_bytes(), path, None).expect("a signer");
        assert!(ours.keyid().starts_with("SHA256:"));
        assert!(!format!("{ours:?}").contains("PRIVATE"));
        let e = Signer::parse(pair.public().as_bytes(), path, None).expect_err("public");
        assert!(e.to_string().contains("`id` is a public key"), "{e}");
        let agent = Signer::parse(pair.public().as_bytes(), path, Some(Path::new("socket")));
        assert_eq!(agent.expect("by the agent").keyid(), ours.keyid());
    }
}
