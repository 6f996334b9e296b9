//! What a template and the machines that are restored from it must agree in.

use serde::{Deserialize, Serialize};

use crate::digest::{hex, sha256};
use crate::error::Result;
use crate::guest::identity::TEMPLATE_NAME;
use crate::guest::keys::KeyPair;
use crate::guest::seed::Seed;
use crate::machine::config::{Config, NAT_MAC};
use crate::machine::fit::Fit;
use crate::machine::record::BaseImage;

/// The version of a template's files, and of everything that is not in the key by itself: another
/// one makes no template fit.
const FORMAT: u32 = 5;

/// Everything in which a machine must agree with the one that was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    format: u32,
    /// The manifest's digest of the box.
    pub manifest: String,
    /// Bytes of the disk.
    pub disk: u64,
    /// The hardware.
    #[serde(flatten)]
    pub fit: Fit,
    /// The account in the guest.
    pub user: String,
    /// SHA-256 of what cloud-init was told, without keys.
    pub user_data: String,
}

impl Key {
    /// The key of machines with this config on this image.
    ///
    /// # Errors
    /// QEMU is not installed.
    pub fn new(base: &BaseImage, disk: u64, config: &Config, user: &str) -> Result<Self> {
        let told = seed(user, "", None).files();
        let told: Vec<u8> = told.into_iter().flat_map(|f| f.bytes).collect();
        Ok(Key {
            format: FORMAT,
            manifest: base.manifest.clone(),
            disk,
            fit: Fit::of(config)?,
            user: user.to_owned(),
            user_data: hex(&sha256(&told)),
        })
    }

    /// Whether a machine of this host could have this key.
    #[must_use]
    pub fn fits_this_host(&self) -> bool {
        self.format == FORMAT && self.fit.is_of_this_host()
    }

    /// A short name for folders.
    #[must_use]
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex(&sha256(&text)[..8])
    }
}

/// What cloud-init is told in a template: no key that opens anything.
#[must_use]
pub fn seed<'a>(user: &'a str, instance_id: &str, host_key: Option<&'a KeyPair>) -> Seed<'a> {
    Seed {
        instance_id: instance_id.to_owned(),
        hostname: TEMPLATE_NAME,
        user,
        authorized_key: None,
        host_key,
        mac: Some(NAT_MAC),
    }
}
