//! Digests as types: each identity level has its own, and two different ones do not compare.
//!
//! A digest is written `<name>:<64 lower-case hex digits>`. The name carries the version of the
//! rules; a new rule set gets a new name. What each one covers: `docs/identity.md`.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `{expected}:` and 64 lower-case hex digits")]
pub struct ParseDigestError {
    expected: &'static str,
}

macro_rules! digests {
    ($($(#[$doc:meta])* $type:ident = $name:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type([u8; 32]);

        impl $type {
            /// The name before the colon.
            pub const NAME: &'static str = $name;

            /// Wraps the 32 bytes of a finished SHA-256.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                $type(bytes)
            }

            /// The digest of `preimage` as it is; the caller has put the domain tag in.
            #[must_use]
            pub fn of(preimage: &[u8]) -> Self {
                $type(sha256(preimage))
            }

            /// The 64 hex digits without the name.
            #[must_use]
            pub fn hex(&self) -> String {
                hex(&self.0)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", $name, self.hex())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = ParseDigestError;

            fn from_str(s: &str) -> Result<Self, ParseDigestError> {
                s.strip_prefix($name)
                    .and_then(|s| s.strip_prefix(':'))
                    .and_then(unhex)
                    .map($type)
                    .ok_or(ParseDigestError { expected: $name })
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

digests! {
    /// Level `file`: the bytes of one file, as `sha256sum` gives them.
    FileDigest = "sha256";
    /// Level `disk`: the guest-visible bytes of a whole disk.
    BytesDigest = "bytes1";
    /// Level `content`: the system, over all its disks.
    BoxDigest = "box1";
    /// One disk: boot code, partition identities, filesystems.
    DiskDigest = "disk1";
    /// One filesystem: identity, root directory, file tree, hard links.
    FsDigest = "fs1";
    /// One LVM volume group: identity, physical and logical volumes.
    GroupDigest = "vg1";
    /// One directory and all below it.
    TreeDigest = "tree1";
    /// One directory and all below it, with modification times.
    TimedTreeDigest = "tree1t";
    /// The installed packages, as the package manager's database names them.
    PackagesDigest = "pkgs1";
    /// The hard links of one filesystem.
    LinksDigest = "links1";
    /// The files of a root filesystem without what a policy declares.
    BaseDigest = "base1";
    /// What may differ between two images, with the contents of all files that it names.
    PolicyDigest = "policy1";
    /// One step of a spec, with the contents of all files that it reads.
    StepDigest = "step1";
    /// What was asked for: the resolved spec with the contents of all that it names.
    SpecDigest = "spec1";
}

/// SHA-256 of a byte string.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut h = Sha256::new();
    h.update(bytes);
    h.finish()
}

/// A running SHA-256 (FIPS 180-4).
///
/// aws-lc picks the fastest code for this CPU at run time (SHA extensions, AVX2, NEON); it is in
/// the tree for TLS already. Where a CPU has no SHA extensions it is about twice as fast as `sha2`,
/// which stands in for it where no C is compiled.
#[derive(Clone)]
pub struct Sha256(
    #[cfg(feature = "images")] aws_lc_rs::digest::Context,
    #[cfg(not(feature = "images"))] sha2::Sha256,
);

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// Starts.
    #[must_use]
    pub fn new() -> Self {
        #[cfg(feature = "images")]
        return Sha256(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
        #[cfg(not(feature = "images"))]
        Sha256(sha2::Digest::new())
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        #[cfg(feature = "images")]
        self.0.update(bytes);
        #[cfg(not(feature = "images"))]
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// Ends.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        #[cfg(feature = "images")]
        let digest = self.0.finish();
        #[cfg(not(feature = "images"))]
        let digest = sha2::Digest::finalize(self.0);
        let mut out = [0; 32];
        out.copy_from_slice(digest.as_ref());
        out
    }
}

/// Lower-case hex of any bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut s = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        s.push(char::from(DIGITS[usize::from(b >> 4)]));
        s.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    s
}

/// 32 bytes from exactly 64 lower-case hex digits.
fn unhex(s: &str) -> Option<[u8; 32]> {
    let s = s.as_bytes();
    if s.len() != 64 {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(s.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, the one-block example; and `sha2` as a second implementation.
    #[test]
    fn sha256_is_the_published_one() {
        assert_eq!(
            FileDigest::of(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        use sha2::Digest as _;
        let data: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        for len in [0, 1, 55, 56, 63, 64, 65, 4096, 99_999] {
            assert_eq!(sha256(&data[..len])[..], sha2::Sha256::digest(&data[..len])[..]);
        }
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        let d = TreeDigest::of(b"x");
        assert_eq!(d.to_string().parse(), Ok(d));
        assert!(d.to_string().to_uppercase().parse::<TreeDigest>().is_err());
        assert!(d.to_string().parse::<FileDigest>().is_err());
        assert!("tree1:00".parse::<TreeDigest>().is_err());
    }
}
