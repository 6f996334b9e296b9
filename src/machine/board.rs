//! What guests of each architecture have for a mainboard: the names that QEMU gives its parts.

use crate::host::Arch;

/// What differs from one architecture to another, as words of QEMU's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// The pinned machine type: the guest sees the same hardware whatever newer QEMU runs it.
    ///
    /// 7.2 is the oldest QEMU that devbox is tested with (Debian 12); QEMU keeps a machine type for six
    /// years.
    pub machine: &'static str,
    /// Its options, apart from memory and firmware.
    pub(super) options: &'static str,
    /// How the firmware's descriptors begin the name of such a machine.
    pub(super) family: &'static str,
    /// The display's device.
    pub(super) video: &'static str,
    /// The serial port is a device of its own; else the board has one.
    pub(super) serial: Option<&'static str>,
    /// It can have a device that tells the guest that it was copied.
    pub(super) generation_id: bool,
    /// Whether UEFI needs System Management Mode to keep its variables from the guest (EDK II on x86).
    pub(super) smm: bool,
    /// It has a disk controller and a keyboard of its own, as a PC.
    pub(super) ide: bool,
    /// How a TPM is attached.
    pub(super) tpm: &'static str,
}

impl Board {
    /// The board of this architecture's guests.
    #[must_use]
    pub const fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Board {
                machine: "pc-q35-7.2",
                options: "usb=off,vmport=off",
                family: "pc-q35-",
                video: "VGA",
                serial: Some("isa-serial"),
                generation_id: true,
                smm: true,
                ide: true,
                tpm: "tpm-crb",
            },
            Arch::Aarch64 => Board {
                machine: "virt-7.2",
                options: "usb=off,gic-version=max",
                family: "virt-",
                video: "virtio-gpu-pci",
                serial: None,
                generation_id: false,
                smm: false,
                ide: false,
                tpm: "tpm-tis-device",
            },
        }
    }
}
