//! Fresh ed25519 keys: one for the user of a machine, one as the machine's host key.

use std::io::Write as _;
use std::path::Path;

use fs_err as fs;
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use crate::error::{Error, Result};
use crate::os;

/// A key pair in OpenSSH's formats.
#[derive(Clone)]
pub struct KeyPair {
    private: String,
    public: String,
}

impl std::fmt::Debug for KeyPair {
    /// Shows the public half only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Makes a new pair; `comment` says what it is for.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(comment: &str) -> Result<Self> {
        let fail = |e: ssh_key::Error| Error::failed("cannot make an ssh key").cause(e);
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(fail)?;
        key.set_comment(comment);
        Ok(KeyPair {
            private: key.to_openssh(LineEnding::LF).map_err(fail)?.to_string(),
            public: key.public_key().to_openssh().map_err(fail)?,
        })
    }

    /// Reads a pair from a private key file.
    ///
    /// # Errors
    /// The file is not there or holds no private key.
    pub fn read(path: &Path) -> Result<Self> {
        let private = fs::read_to_string(path)?;
        let key = PrivateKey::from_openssh(&private).map_err(|e| {
            Error::failed(format!("`{}` holds no ssh key", path.display())).cause(e)
        })?;
        let public = key.public_key().to_openssh().map_err(|e| {
            Error::failed(format!("`{}` holds a damaged ssh key", path.display())).cause(e)
        })?;
        Ok(KeyPair { private, public })
    }

    /// The private half, PEM.
    #[must_use]
    pub fn private(&self) -> &str {
        &self.private
    }

    /// The public half on one line: `ssh-ed25519 AAAA… comment`.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Writes the private half to `path`, mode 0600, and the public one beside it with `.pub`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut private = fs::OpenOptions::new();
        private.write(true).create(true).truncate(true);
        os::private_file(&mut private).open(path)?.write_all(self.private.as_bytes())?;
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        fs::write(Path::new(&public), format!("{}\n", self.public))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_reads_our_private_key_and_agrees_on_the_public_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("id");
        let pair = KeyPair::generate("devbox test").expect("key");
        pair.write(&path).expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let out = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output();
        let out = out.expect("ssh-keygen is part of openssh-client");
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), pair.public());
        assert_eq!(KeyPair::read(&path).expect("read").public(), pair.public());
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
