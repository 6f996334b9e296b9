//! `[source]` with `type = "box"`.

use std::fmt;

use semver::{Version, VersionReq};

use crate::digest::FileDigest;

/// `[source]` with `type = "box"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxSource {
    /// `box`, without a digest: where it comes from.
    pub from: BoxPlace,
    /// `version`, `channel`, or the digest behind `box`: which one.
    pub wish: Wish,
    /// The one that a lock names; what fits best if absent.
    pub pinned: Option<PinnedBox>,
}

/// Where a box comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoxPlace {
    /// The user's own store: the name of the box.
    Store(String),
    /// A registry, a folder or a web server, as `registry::Address` reads it; folders are absolute.
    At(String),
}

/// `oci://registry.example/team/base`, or `base` of the own store.
impl fmt::Display for BoxPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoxPlace::Store(text) | BoxPlace::At(text) => f.write_str(text),
        }
    }
}

/// Which box is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// This version.
    Exact(Version),
    /// The newest version in this range; pre-releases only where the range names one of the same version (SemVer ranges
    /// as Cargo has them).
    Range(VersionReq),
    /// What a tag that moves means now.
    Channel(String),
    /// The one whose manifest has this digest.
    Digest(FileDigest),
}

impl Wish {
    /// `1.2.0` is this version, `^1.2` and `1.2` are ranges.
    ///
    /// # Errors
    /// Why it is neither.
    pub fn version(text: &str) -> Result<Self, String> {
        match Version::parse(text) {
            Ok(version) => Ok(Wish::Exact(version)),
            Err(_) => VersionReq::parse(text).map(Wish::Range).map_err(|e| e.to_string()),
        }
    }

    /// Whether a version may be the one that is meant.
    #[must_use]
    pub fn fits(&self, version: &Version) -> bool {
        match self {
            Wish::Exact(exact) => exact == version,
            Wish::Range(range) => range.matches(version),
            Wish::Channel(_) | Wish::Digest(_) => true,
        }
    }
}

/// In words: `version ^1.2`, `channel stable`.
impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Exact(version) => write!(f, "version {version}"),
            Wish::Range(range) => write!(f, "version {range}"),
            Wish::Channel(channel) => write!(f, "channel {channel}"),
            Wish::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// A box that a lock names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedBox {
    /// Its version.
    pub version: String,
    /// The digest of its manifest where it comes from.
    pub manifest: FileDigest,
    /// SHA-256 of its disk's file.
    pub disk: FileDigest,
}
