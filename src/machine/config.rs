//! What a machine is made of: plain data, no paths of the machine's own files.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::data_disk::DataDisk;
pub use super::installer::Installer;
use crate::guest::folder::{Folder, Ids};
pub use crate::host::Arch;

/// One virtual machine, complete: the same config gives the same command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name in messages and in QEMU's process title.
    pub name: String,
    /// RFC 4122 text; how the process is recognised, and the guest's SMBIOS UUID. See [`crate::host::new_uuid`].
    pub uuid: String,
    /// The guest's processor architecture.
    pub arch: Arch,
    /// Virtual processors, at least 1.
    pub cpus: u32,
    /// Memory in bytes, a whole number of MiB.
    pub memory: u64,
    /// The guest's firmware.
    pub firmware: Firmware,
    /// A TPM 2.0 of the machine's own.
    pub tpm: bool,
    /// What runs the guest's instructions; [`crate::machine::accel::choose`] finds it.
    pub accelerator: Accelerator,
    /// Disks in the order of the guest's names (`vda`, `vdb`, …); the first one boots.
    pub disks: Vec<Disk>,
    /// More disks, which come behind these; at most [`super::data_disk::MOST`].
    pub data: Vec<DataDisk>,
    /// An image to show as one more read-only disk: the cloud-init seed.
    pub seed: Option<PathBuf>,
    /// Boots this kernel instead of the disk's own boot loader. The machine then ends on a reboot
    /// (`-no-reboot`), since a direct boot is for one piece of work.
    pub kernel: Option<DirectKernel>,
    /// What only a machine has in which an installer runs. It ends on a reboot too (`-no-reboot`).
    pub installer: Option<Installer>,
    /// The guest's network.
    pub network: Network,
    /// What the guest's clock shows at start, in seconds since 1970 UTC; the real time if absent.
    pub rtc: Option<i64>,
    /// Who the machine outlives.
    pub lifetime: Lifetime,
    /// A virtio-serial port for the QEMU guest agent.
    pub agent: bool,
    /// Empty slots (PCI Express root ports) for devices that come later; at most 8.
    pub spare_slots: u8,
    /// A card on a private network, in the slot [`super::hotplug::NETWORK_SLOT`].
    pub card: Option<Card>,
    /// Folders of the host that a device can show to the guest; at most as many as spare slots.
    pub folders: Vec<Folder>,
    /// Whom the guest takes for the owner of the host user's files: QEMU then runs in a user namespace
    /// where the host's user has these ids. Its own ids if absent.
    pub owner: Option<Ids>,
    /// A file as the guest's memory; anonymous memory if absent.
    pub memory_file: Option<MemoryFile>,
    /// Goes on from this saved state instead of starting the firmware.
    pub incoming: Option<Incoming>,
}

/// A saved state of a machine of the same shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The devices' state of a template; the memory is [`Config::memory_file`].
    Template(PathBuf),
    /// Devices and memory of a guest that ran a build's steps ([`super::Machine::put_layer`]).
    Memory(PathBuf),
    /// A snapshot with memory in the first disk, by its name.
    Snapshot(String),
}

/// A file as the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFile {
    /// The file, absolute; QEMU makes it if it is not there, as large as the memory.
    pub path: PathBuf,
    /// Whether the guest's writes reach the file. If not, the mapping is private: many machines
    /// share the pages that none of them has written.
    pub written: bool,
}

/// The guest's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS; x86 alone has it.
    Bios,
    /// UEFI (EDK II) without Secure Boot, with its own copy of the variable store.
    Uefi,
    /// The same with Secure Boot, and the keys in its variables by which most vendors' loaders are signed.
    SecureBoot,
}

impl Firmware {
    /// As in files and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
            Firmware::SecureBoot => "secure-boot",
        }
    }
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The Linux kernel's virtual machine: the guest runs on the processor.
    Kvm,
    /// macOS' hypervisor: the guest runs on the processor.
    Hvf,
    /// The hypervisor of Windows: the guest runs on the processor.
    Whpx,
    /// QEMU's translator: works everywhere, ten to thirty times slower.
    Tcg,
}

impl Accelerator {
    /// QEMU's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Hvf => "hvf",
            Accelerator::Whpx => "whpx",
            Accelerator::Tcg => "tcg",
        }
    }

    /// What QEMU's `-accel` and `-cpu` say for a guest of `arch`.
    #[must_use]
    pub fn words(self, arch: Arch) -> (&'static str, &'static str) {
        match (self, arch) {
            (Accelerator::Kvm, _) => ("kvm", "host"),
            (Accelerator::Hvf, _) => ("hvf", "host"),
            // WHPX loses interrupts of its own controller (QEMU's issue 346), ends guests with `max` on some
            // processors (issue 1043), and knows `host` since QEMU 11 only. Nehalem is x86-64-v2,
            // below which distributions do not start any more.
            (Accelerator::Whpx, Arch::X86_64) => ("whpx,kernel-irqchip=off", "Nehalem"),
            // There it has no other controller.
            (Accelerator::Whpx, Arch::Aarch64) => ("whpx", "max"),
            (Accelerator::Tcg, Arch::X86_64) => ("tcg,thread=multi", "max"),
            // The architecture's own algorithm of pointer authentication takes half of the time of an emulated
            // guest (QEMU's manual, "Arm CPU Features"); QEMU's is as good for one that is not attacked.
            (Accelerator::Tcg, Arch::Aarch64) => ("tcg,thread=multi", "max,pauth-impdef=on"),
        }
    }
}

/// One virtio disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image, absolute.
    pub path: PathBuf,
    /// Its format; never guessed, since a guest could write another header into a raw disk.
    pub format: DiskFormat,
    /// Opens the image read-only; the guest sees a read-only disk.
    pub read_only: bool,
    /// The socket where what is below the image is read from while it arrives, instead of the file that the image names;
    /// for the first disk, a qcow2, alone.
    pub below: Option<PathBuf>,
    /// The disk's serial number: `/dev/disk/by-id/virtio-<serial>` in the guest; at most 20 bytes.
    pub serial: String,
}

/// The container of a disk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// QEMU's copy-on-write format; its backing files are opened too.
    Qcow2,
    /// Plain bytes.
    Raw,
}

/// A kernel that QEMU loads itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectKernel {
    /// The kernel image, absolute.
    pub kernel: PathBuf,
    /// The initial RAM disk, absolute.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub append: String,
}

/// The guest's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// No network card.
    None,
    /// QEMU's user-mode NAT: no root, no bridge; the host is 10.0.2.2.
    User {
        /// Ports of the host that lead into the guest.
        forwards: Vec<Forward>,
        /// Cuts the guest off from everything but its forwards.
        restrict: bool,
    },
}

/// A network card whose frames go to a switch, each as one datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its address, six bytes in hex.
    pub mac: String,
    /// The switch's socket for this machine, which need not be there: frames are lost then.
    pub switch: PathBuf,
}

/// A wish for a port of the host that leads into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Port in the guest.
    pub guest: u16,
    /// Wished port on the host; any free one if absent.
    pub host: Option<u16>,
    /// Address on the host that the port is bound to.
    pub host_ip: Ipv4Addr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Takes another free port when the wished one is in use; an error otherwise.
    pub auto_correct: bool,
}

/// The protocol of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// QEMU's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Who the machine outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// `up`: goes on when devbox has ended.
    Detached,
    /// `build`: dies with devbox, also when devbox is killed.
    WithParent,
}

/// The spare slots of a dev box: one for each folder, disk or card that it is given while it runs.
pub const SPARE_SLOTS: u8 = 8;

/// The address of the network card behind user-mode NAT: QEMU's own default for a first card. The
/// same for all machines, since each has that network to itself, and a machine that is restored
/// from a template keeps the template's.
pub const NAT_MAC: &str = "52:54:00:12:34:56";
