//! What a machine is made of: plain data, no paths of the machine's own files.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// One virtual machine, complete: the same config gives the same command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name in messages and in QEMU's process title.
    pub name: String,
    /// RFC 4122 text; how the process is recognised, and the guest's SMBIOS UUID. See [`new_uuid`].
    pub uuid: String,
    /// Virtual processors, at least 1.
    pub cpus: u32,
    /// Memory in bytes, a whole number of MiB.
    pub memory: u64,
    /// The guest's firmware.
    pub firmware: Firmware,
    /// What runs the guest's instructions; [`crate::machine::accel::choose`] finds it.
    pub accelerator: Accelerator,
    /// Disks in the order of the guest's names (`vda`, `vdb`, …); the first one boots.
    pub disks: Vec<Disk>,
    /// An image to show as one more read-only disk: the cloud-init seed.
    pub seed: Option<PathBuf>,
    /// Boots this kernel instead of the disk's own boot loader. The machine then ends on a reboot
    /// (`-no-reboot`), since a direct boot is for one piece of work.
    pub kernel: Option<DirectKernel>,
    /// The guest's network.
    pub network: Network,
    /// What the guest's clock shows at start, in seconds since 1970 UTC; the real time if absent.
    pub rtc: Option<i64>,
    /// Who the machine outlives.
    pub lifetime: Lifetime,
    /// A virtio-serial port for the QEMU guest agent.
    pub agent: bool,
}

/// The guest's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// UEFI (EDK II) without Secure Boot, with its own copy of the variable store.
    Uefi,
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The Linux kernel's virtual machine: the guest runs on the processor.
    Kvm,
    /// QEMU's translator: works everywhere, ten to thirty times slower.
    Tcg,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

impl Config {
    /// The network card's address: QEMU's prefix 52:54:00 and three bytes of the UUID, so that it
    /// stays the same for a machine. Every machine has a network of its own, so a clash does no harm.
    #[must_use]
    pub fn mac(&self) -> String {
        mac(&self.uuid)
    }
}

/// The network card's address of the machine with this UUID, see [`Config::mac`].
#[must_use]
pub fn mac(uuid: &str) -> String {
    let hex: Vec<u8> = uuid.bytes().filter(u8::is_ascii_hexdigit).take(6).collect();
    let pairs: Vec<String> =
        hex.chunks(2).map(|p| String::from_utf8_lossy(p).to_lowercase()).collect();
    let mut pairs = pairs.into_iter().chain(std::iter::repeat("00".to_owned()));
    let mut next = || pairs.next().unwrap_or_default();
    format!("52:54:00:{}:{}:{}", next(), next(), next())
}

/// A new random UUID (version 4, RFC 4122) as text.
///
/// # Errors
/// The kernel's random source cannot be read.
pub fn new_uuid() -> crate::error::Result<String> {
    use std::io::Read as _;
    let mut b = [0u8; 16];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut b)?;
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_uuid_is_version_4_and_never_the_same() {
        let (a, b) = (new_uuid().expect("urandom"), new_uuid().expect("urandom"));
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert_eq!(a.as_bytes()[14], b'4');
        assert!(matches!(a.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }

    #[test]
    fn the_mac_follows_the_uuid_and_survives_a_short_one() {
        assert_eq!(mac("A1b2c3d4-0000-4000-8000-000000000000"), "52:54:00:a1:b2:c3");
        assert_eq!(mac("a1"), "52:54:00:a1:00:00");
    }
}
