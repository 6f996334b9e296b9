//! The words of a spec for hardware as [`crate::machine`] has them.

use crate::host::Arch;
use crate::machine::config::Firmware;
use crate::spec;

/// The guest's architecture.
#[must_use]
pub(crate) fn arch(arch: spec::Arch) -> Arch {
    match arch {
        spec::Arch::Amd64 => Arch::X86_64,
        spec::Arch::Arm64 => Arch::Aarch64,
    }
}

/// The guest's firmware.
#[must_use]
pub(crate) fn firmware(firmware: spec::Firmware) -> Firmware {
    match firmware {
        spec::Firmware::Bios => Firmware::Bios,
        spec::Firmware::Uefi => Firmware::Uefi,
        spec::Firmware::SecureBoot => Firmware::SecureBoot,
    }
}
