//! Attestations: one small signed file that says two images are equal at a level.
//!
//! It is an in-toto Statement v1 ([`statement`]) in a DSSE envelope ([`envelope`]). The signature over the
//! envelope's PAE is an SSHSIG, as `ssh-keygen -Y sign` makes it ([`sshsig`], [`sign`], [`agent`]), so that
//! `ssh-keygen -Y verify` can check it without devbox. [`trust`] reads OpenSSH's list of allowed signers,
//! and [`verify`] says whether an attestation holds, offline and before any image is parsed. [`expiry`]
//! reads how long it is to hold; [`json`] refuses what two readers could understand differently. [`placed`] is another statement,
//! in the same envelope: that a manifest is a box of this name and version at a place.
//!
//! Nothing here reads a clock, a file or the environment: who calls gives bytes and the time. Only
//! [`agent`] talks to somebody.

pub mod agent;
pub mod envelope;
pub mod expiry;
pub mod json;
pub mod placed;
pub mod sign;
pub mod sshsig;
pub mod statement;
pub mod trust;
pub mod verify;

use crate::error::{Error, Kind};

/// Most bytes of an attestation and of a list of trusted keys; real ones have some two thousand.
pub const MAX_BYTES: u64 = 1 << 20;

/// Most characters of hostile text that a message repeats.
const MAX_SHOWN: usize = 200;

/// What a message repeats of text that may be of any length.
fn shown(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A failure of a signature, or of the trust in it.
fn refused(what: impl Into<String>) -> Error {
    Error::new(Kind::Trust, what)
}
