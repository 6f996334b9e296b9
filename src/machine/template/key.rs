//! What a template and the machines that are restored from it must agree in.

use serde::{Deserialize, Serialize};

use crate::digest::{hex, sha256};
use crate::error::Result;
use crate::guest::identity::TEMPLATE_NAME;
use crate::guest::keys::KeyPair;
use crate::guest::seed::Seed;
use crate::host::Arch;
use crate::machine::accel;
use crate::machine::board::Board;
use crate::machine::config::{Accelerator, Config, NAT_MAC};
use crate::machine::record::BaseImage;

/// The version of a template's files, and of everything that is not in the key by itself: another
/// one makes no template fit.
const FORMAT: u32 = 4;
/// Everything in which a machine must agree with the one that was saved. The names of its fields are
/// what people read when a template does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    format: u32,
    /// The manifest's digest of the box.
    pub manifest: String,
    /// Bytes of the disk.
    pub disk: u64,
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// The guest's architecture.
    pub arch: Arch,
    /// `bios`, `uefi` or `secure-boot`.
    pub firmware: String,
    /// QEMU's name of it (`kvm`).
    pub accelerator: String,
    /// The host's processor, which the guest sees unless it is emulated.
    pub processor: String,
    /// QEMU's program: path, size and time of change.
    pub qemu: String,
    /// QEMU's machine type and the devices that are not in this list.
    pub hardware: String,
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
        let qemu = crate::exec::tools::qemu(config.arch).find()?;
        let told = seed(user, "", None).files();
        let told: Vec<u8> = told.into_iter().flat_map(|f| f.bytes).collect();
        Ok(Key {
            format: FORMAT,
            manifest: base.manifest.clone(),
            disk,
            cpus: config.cpus,
            memory: config.memory,
            firmware: config.firmware.as_str().to_owned(),
            accelerator: config.accelerator.as_str().to_owned(),
            processor: match config.accelerator {
                Accelerator::Tcg => "emulated".to_owned(),
                Accelerator::Kvm | Accelerator::Hvf | Accelerator::Whpx => processor(),
            },
            qemu: accel::version_of(&qemu),
            arch: config.arch,
            hardware: format!(
                "{}, {} spare slots",
                Board::of(config.arch).machine,
                config.spare_slots
            ),
            user: user.to_owned(),
            user_data: hex(&sha256(&told)),
        })
    }

    /// Whether a machine of this host could have this key: the same QEMU, hardware and processor.
    #[must_use]
    pub fn fits_this_host(&self) -> bool {
        let qemu = crate::exec::tools::qemu(self.arch).find().map(|qemu| accel::version_of(&qemu));
        let same_processor =
            self.accelerator == Accelerator::Tcg.as_str() || self.processor == processor();
        self.format == FORMAT
            && qemu.is_ok_and(|qemu| qemu == self.qemu)
            && self.hardware.starts_with(Board::of(self.arch).machine)
            && same_processor
    }

    /// A short name for folders.
    #[must_use]
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex(&sha256(&text)[..8])
    }
}

/// Model and features of the host's first processor.
fn processor() -> String {
    let (model, features) = crate::os::processor();
    format!("{model}, features {}", &hex(&sha256(features.as_bytes()))[..16])
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
