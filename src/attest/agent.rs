//! Signing by an SSH agent, which holds keys that devbox cannot read: encrypted ones, forwarded ones.
//!
//! One request and one answer of draft-ietf-sshm-ssh-agent: a length, a type, fields.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use ssh_key::{Algorithm, PublicKey, Signature};

use super::refused;
use crate::error::{Error, Result};
use crate::os;

/// How long an agent may take: it may ask a person first.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest answer; a signature has some hundred bytes.
const MAX_ANSWER: u32 = 1 << 16;

const REQUEST: u8 = 13;
const RESPONSE: u8 = 14;
const FAILURE: u8 = 5;

/// Has the agent at `socket` sign `data` with `key`.
///
/// # Errors
/// Kind `Trust`: there is no agent, it does not hold the key, or somebody said no.
pub fn sign(socket: &Path, key: &PublicKey, data: &[u8]) -> Result<Signature> {
    let stream = os::connect_blocking(socket, PATIENCE).map_err(|e| {
        cannot(e).hint("Start one with `eval $(ssh-agent)`, and load the key with `ssh-add`.")
    })?;
    exchange(stream, key, data)
}

fn exchange(mut stream: impl Read + Write, key: &PublicKey, data: &[u8]) -> Result<Signature> {
    let blob = key.to_bytes().map_err(cannot)?;
    let mut request = vec![REQUEST];
    for field in [&blob, data] {
        request.extend_from_slice(&length(field)?);
        request.extend_from_slice(field);
    }
    // No flags.
    request.extend_from_slice(&[0; 4]);
    let head = length(&request)?;
    stream.write_all(&head).and_then(|()| stream.write_all(&request)).map_err(cannot)?;
    let answer = answer(stream).map_err(cannot)?;
    match answer.split_first() {
        Some((&RESPONSE, rest)) => signature(rest).ok_or_else(|| cannot("its answer is damaged")),
        Some((&FAILURE, _)) => Err(cannot("it does not hold the key, or somebody said no")
            .hint("`ssh-add -l` shows which keys it holds; `ssh-add FILE` loads one.")),
        _ => Err(cannot("its answer is none that is known")),
    }
}

fn answer(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head);
    if length > MAX_ANSWER {
        return Err(io::Error::other("its answer is too long"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// A string that holds two: the algorithm and 64 bytes.
fn signature(answer: &[u8]) -> Option<Signature> {
    let (inner, rest) = field(answer)?;
    let (name, left) = field(inner)?;
    let (bytes, end) = field(left)?;
    let whole = name == b"ssh-ed25519" && rest.is_empty() && end.is_empty();
    whole.then(|| Signature::new(Algorithm::Ed25519, bytes).ok()).flatten()
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*head)).ok()?)
}

fn length(field: &[u8]) -> Result<[u8; 4]> {
    let length =
        u32::try_from(field.len()).map_err(|_| cannot("what is to be signed is too long"))?;
    Ok(length.to_be_bytes())
}

fn cannot(why: impl std::fmt::Display) -> Error {
    refused("the SSH agent does not sign").cause(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::keys::KeyPair;

    /// Answers whatever is asked.
    struct Says(io::Cursor<Vec<u8>>);

    impl Read for Says {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf)
        }
    }

    impl Write for Says {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_agent_may_answer_anything() {
        let pair = KeyPair::generate("test").expect("a key");
        let key = PublicKey::from_openssh(pair.public()).expect("public");
        let of = |text: &[u8]| {
            [&u32::try_from(text.len()).expect("short").to_be_bytes()[..], text].concat()
        };
        let named = |name: &[u8], sig: &[u8]| {
            of(&[&[RESPONSE][..], &of(&[of(name), of(sig)].concat())].concat())
        };
        let good = named(b"ssh-ed25519", &[7; 64]);
        let asked = |answer: &[u8]| exchange(Says(io::Cursor::new(answer.to_vec())), &key, b"data");
        assert_eq!(asked(&good).expect("a signature").as_bytes(), [7; 64]);
        for length in 0..good.len() {
            asked(&good[..length]).expect_err("cut short");
        }
        let cases: [(&[u8], &str); 6] = [
            (&of(&[FAILURE]), "does not hold the key"),
            (&of(&[]), "none that is known"),
            (&of(&[9, 9]), "none that is known"),
            (&[0xff; 64], "too long"),
            (&named(b"ssh-rsa", &[7; 64]), "damaged"),
            (&named(b"ssh-ed25519", &[7; 63]), "damaged"),
        ];
        for (answer, why) in cases {
            let e = asked(answer).expect_err("refused");
            assert!(e.to_string().contains(why), "{e}");
        }
    }
}
