//! A digest that grows with its bytes, of the kind that is expected.

use aws_lc_rs::digest::{Context, SHA512};

use crate::digest::{Sha256, hex};

/// Hex digits of a SHA-512.
const SHA512_DIGITS: usize = 128;

#[derive(Clone)]
pub(super) enum Running {
    Sha256(Sha256),
    Sha512(Context),
}

impl Running {
    /// Of the kind that these hex digits are: 128 are a SHA-512.
    pub(super) fn like(expected: &str) -> Self {
        match expected.len() {
            SHA512_DIGITS => Running::Sha512(Context::new(&SHA512)),
            _ => Running::Sha256(Sha256::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::Sha256(hash) => hash.update(bytes),
            Running::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest in hex.
    pub(super) fn finish(self) -> String {
        match self {
            Running::Sha256(hash) => hex(&hash.finish()),
            Running::Sha512(hash) => hex(hash.finish().as_ref()),
        }
    }
}

/// What a digest of these hex digits is called.
#[must_use]
pub fn kind(expected: &str) -> &'static str {
    if expected.len() == SHA512_DIGITS { "sha512" } else { "sha256" }
}
