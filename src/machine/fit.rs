//! What a saved state and the machine that goes on from it must agree in.

use serde::{Deserialize, Serialize};

use super::accel;
use super::board::Board;
use super::config::{Accelerator, Config};
use crate::digest::{hex, sha256};
use crate::error::Result;
use crate::exec::tools;
use crate::host::Arch;

/// The hardware of a machine, and what runs it. The names of the fields are what people read where two do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
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
}

impl Fit {
    /// That of machines with this config on this host.
    ///
    /// # Errors
    /// QEMU is not installed.
    pub fn of(config: &Config) -> Result<Self> {
        let qemu = tools::qemu(config.arch).find()?;
        Ok(Fit {
            cpus: config.cpus,
            memory: config.memory,
            arch: config.arch,
            firmware: config.firmware.as_str().to_owned(),
            accelerator: config.accelerator.as_str().to_owned(),
            processor: match config.accelerator {
                Accelerator::Tcg => "emulated".to_owned(),
                Accelerator::Kvm | Accelerator::Hvf | Accelerator::Whpx => processor(),
            },
            qemu: accel::version_of(&qemu),
            hardware: format!(
                "{}, {} spare slots",
                Board::of(config.arch).machine,
                config.spare_slots
            ),
        })
    }

    /// Whether a machine of this host could have it: the same QEMU, hardware and processor.
    #[must_use]
    pub fn is_of_this_host(&self) -> bool {
        let qemu = tools::qemu(self.arch).find().map(|qemu| accel::version_of(&qemu));
        let same_processor =
            self.accelerator == Accelerator::Tcg.as_str() || self.processor == processor();
        qemu.is_ok_and(|qemu| qemu == self.qemu)
            && self.hardware.starts_with(Board::of(self.arch).machine)
            && same_processor
    }
}

/// Model and features of the host's first processor.
fn processor() -> String {
    let (model, features) = crate::os::processor();
    format!("{model}, features {}", &hex(&sha256(features.as_bytes()))[..16])
}
