//! What a template and the machines that are restored from it must agree in.

use serde::{Deserialize, Serialize};

use crate::digest::{hex, sha256};
use crate::error::Result;
use crate::guest::identity::TEMPLATE_NAME;
use crate::guest::keys::KeyPair;
use crate::guest::seed::Seed;
use crate::machine::accel;
use crate::machine::argv::MACHINE_TYPE;
use crate::machine::config::{Accelerator, Config, Firmware, NAT_MAC};
use crate::machine::record::BaseImage;

/// The version of a template's files, and of everything that is not in the key by itself: another
/// one makes no template fit.
const FORMAT: u32 = 3;
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
    /// `bios` or `uefi`.
    pub firmware: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The host's processor, which the guest sees under KVM.
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
        let qemu = crate::exec::tools::QEMU_X86.find()?;
        let told = seed(user, "", None).files();
        let told: Vec<u8> = told.into_iter().flat_map(|f| f.bytes).collect();
        Ok(Key {
            format: FORMAT,
            manifest: base.manifest.clone(),
            disk,
            cpus: config.cpus,
            memory: config.memory,
            firmware: match config.firmware {
                Firmware::Bios => "bios".to_owned(),
                Firmware::Uefi => "uefi".to_owned(),
            },
            accelerator: match config.accelerator {
                Accelerator::Kvm => "kvm".to_owned(),
                Accelerator::Tcg => "tcg".to_owned(),
            },
            processor: match config.accelerator {
                Accelerator::Kvm => processor(),
                Accelerator::Tcg => "emulated".to_owned(),
            },
            qemu: accel::version_of(&qemu),
            hardware: format!("{MACHINE_TYPE}, {} spare slots", config.spare_slots),
            user: user.to_owned(),
            user_data: hex(&sha256(&told)),
        })
    }

    /// Whether a machine of this host could have this key: the same QEMU, hardware and processor.
    #[must_use]
    pub fn fits_this_host(&self) -> bool {
        let qemu = crate::exec::tools::QEMU_X86.find().map(|qemu| accel::version_of(&qemu));
        let same_processor = self.accelerator != "kvm" || self.processor == processor();
        self.format == FORMAT
            && qemu.is_ok_and(|qemu| qemu == self.qemu)
            && self.hardware.starts_with(MACHINE_TYPE)
            && same_processor
    }

    /// A short name for folders.
    #[must_use]
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex(&sha256(&text)[..8])
    }
}

/// Model and features of the host's first processor (proc(5), `/proc/cpuinfo`).
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key));
        line.and_then(|l| l.split_once(':')).map_or("", |(_, v)| v.trim()).to_owned()
    };
    format!("{}, features {}", of("model name"), &hex(&sha256(of("flags").as_bytes()))[..16])
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
