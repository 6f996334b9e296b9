//! One seed, all ids: the same inputs give the same partition table, filesystems and boot loader.

use std::fmt;

use aws_lc_rs::hmac;

use crate::digest;

/// Where every id of an image comes from. Two disks with the same seed have the same ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed from anything that names the image: its spec's name, say.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut preimage = b"devbox/seed/1\n".to_vec();
        preimage.extend_from_slice(text.as_bytes());
        Seed(digest::sha256(&preimage))
    }

    /// The id for `role` (`root-filesystem`): the first 16 bytes of HMAC-SHA256(seed, role), with
    /// the version and variant bits of a version 8 UUID (RFC 9562, section 5.8).
    #[must_use]
    pub fn uuid(&self, role: &str) -> Uuid {
        let mac = self.mac(role);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&mac[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }

    /// The volume id of a FAT filesystem for `role`; never 0, which `mkfs.vfat` takes for "none".
    #[must_use]
    pub fn volume_id(&self, role: &str) -> u32 {
        let mac = self.mac(role);
        u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]).max(1)
    }

    /// The seed as 64 hex digits, for cache keys.
    #[must_use]
    pub fn hex(&self) -> String {
        digest::hex(&self.0)
    }

    fn mac(&self, role: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, role.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed({})", self.hex())
    }
}

/// A UUID; [`fmt::Display`] writes it in the usual lower-case form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Parses nothing: wraps 16 bytes in the order in which the text form shows them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Uuid(bytes)
    }

    /// The bytes in the order of the text form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes as GPT stores them: the first three fields little-endian (UEFI 2.10, appendix A).
    #[must_use]
    pub const fn to_gpt(self) -> [u8; 16] {
        let b = self.0;
        [
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
            b[14], b[15],
        ]
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = digest::hex(&self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2: the HMAC itself is the published one.
    #[test]
    fn hmac_is_the_published_one() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let tag = hmac::sign(&key, b"what do ya want for nothing?");
        assert_eq!(
            digest::hex(tag.as_ref()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn ids_depend_on_seed_and_role_alone() {
        let a = Seed::from_text("hello");
        assert_eq!(a.uuid("disk"), Seed::from_text("hello").uuid("disk"));
        assert_ne!(a.uuid("disk"), a.uuid("root"));
        assert_ne!(a.uuid("disk"), Seed::from_text("hullo").uuid("disk"));
    }

    #[test]
    fn a_uuid_is_marked_as_version_8() {
        let text = Seed::from_text("x").uuid("y").to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "8");
        assert!("89ab".contains(&text[19..20]), "{text}");
    }

    #[test]
    fn gpt_stores_the_first_three_fields_little_endian() {
        let uuid = Uuid::from_bytes(core::array::from_fn(|i| i as u8));
        assert_eq!(uuid.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(uuid.to_gpt(), [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
    }
}
