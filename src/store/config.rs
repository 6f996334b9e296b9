//! What a box says of itself: the config blob. No time of the build stands in it, so that the same
//! inputs give the same bytes.

use serde::{Deserialize, Serialize};

use super::layout;
use crate::digest::{BoxDigest, BytesDigest, SpecDigest};
use crate::error::Result;

/// The `seal` of a box whose disk somebody else made: nothing was removed from it, and nothing of it was checked.
pub const UNSEALED: &str = "none";

/// The config blob of a box, written as JSON with sorted keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoxConfig {
    /// The spec's name.
    pub name: String,
    /// The spec's version.
    pub version: String,
    /// Debian's name of the guest's architecture.
    pub arch: String,
    /// Firmware that the spec asked for: `bios` or `uefi`.
    pub firmware: String,
    /// What was asked for.
    pub spec1: SpecDigest,
    /// The guest-visible bytes of the disk.
    pub bytes1: BytesDigest,
    /// The system on the disk.
    pub box1: BoxDigest,
    /// Guest-visible size of the disk in bytes.
    pub disk_size: u64,
    /// Kernel command line of the default boot entry.
    pub cmdline: String,
    /// Seconds since 1970 UTC; no file time in the image is later.
    pub epoch: i64,
    /// Version of the seal's rules (`seal/1`), or [`UNSEALED`].
    pub seal: String,
    /// Version of devbox that built or imported it.
    pub devbox: String,
}

impl BoxConfig {
    /// `name:version`.
    #[must_use]
    pub fn reference(&self) -> String {
        layout::reference(&self.name, &self.version)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        layout::encode(self)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        layout::parse(bytes)
    }
}

#[cfg(test)]
pub(super) fn example(name: &str, version: &str, content: &[u8]) -> BoxConfig {
    BoxConfig {
        name: name.into(),
        version: version.into(),
        arch: "amd64".into(),
        firmware: "bios".into(),
        spec1: SpecDigest::of(name.as_bytes()),
        bytes1: BytesDigest::of(content),
        box1: BoxDigest::of(content),
        disk_size: 1 << 20,
        cmdline: "root=UUID=x ro".into(),
        epoch: 1_790_000_000,
        seal: "seal/1".into(),
        devbox: "0.1.0".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the config are part of the manifest's digest: a change of their form is a
    /// change of format.
    #[test]
    fn encoding_has_sorted_keys_and_no_space() {
        let config = example("web", "1.0.0", b"x");
        let text = String::from_utf8(config.encode().expect("encodes")).expect("text");
        assert!(text.starts_with(r#"{"arch":"amd64","box1":"box1:"#), "{text}");
        assert!(text.contains(r#","diskSize":1048576,"epoch":1790000000,"firmware":"bios","#));
        assert!(text.ends_with(r#","version":"1.0.0"}"#), "{text}");
        assert_eq!(BoxConfig::parse(text.as_bytes()).expect("parses"), config);
    }
}
