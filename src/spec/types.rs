//! The resolved spec: plain data, every default filled in, every value possible.
//!
//! Made by the parser only; whoever holds a [`Spec`] need not check it again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::subnet::Subnet;

/// One `devbox.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The folder that holds the file; relative paths in it start here.
    pub dir: PathBuf,
    /// `name`: lower-case letters, digits and `-`, at most 63 bytes, as a host name label (RFC 1123).
    pub name: String,
    /// `version`: three numbers with dots (SemVer 2.0.0 without build metadata).
    pub version: String,
    /// `arch`: Debian's name of the guest's architecture.
    pub arch: Arch,
    /// `[source]`: what the image starts from.
    pub source: Source,
    /// `[[steps]]`: what is done in the guest, in order.
    pub steps: Vec<Step>,
    /// `[seal]`.
    pub seal: Seal,
    /// `outputs`: the formats that `devbox build` writes beside the stored box.
    pub outputs: Vec<OutputFormat>,
    /// `[machine]`: the defaults of all machines, and what the build's guest gets. No part of the image.
    pub machine: Machine,
    /// The machines of the project, at least one, in the order of the file: `[machines]`, or
    /// `[machine]` alone with the name of the box.
    pub machines: Vec<Machine>,
    /// `[network]`: the network between the machines. No part of the image.
    pub network: Network,
    /// `[[mounts]]`: folders of the host that machines see. No part of the image.
    pub mounts: Vec<Mount>,
    /// `[[provision]]`: what is done in machines when they come up, in this order. No part of the image.
    pub provision: Vec<Provision>,
    /// `[[hooks]]`: what is done before and after verbs. No part of the image.
    pub hooks: Vec<Hook>,
}

/// `[network]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// `private`; true by default. Means nothing for a project of one machine.
    pub private: bool,
    /// `subnet`; one that the host does not use if absent.
    pub subnet: Option<Subnet>,
}

/// One entry of `machine.disks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDisk {
    /// `name`: its serial number in the guest.
    pub name: String,
    /// `size` in bytes.
    pub size: u64,
    /// `keep`: whether it outlives `devbox destroy`; false by default.
    pub keep: bool,
    /// `target`: where the guest mounts it; it is left alone if absent.
    pub target: Option<String>,
}

/// One entry of `[[hooks]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `when`, as it is written: `before-up`.
    pub when: String,
    /// `on`: in the guest, as root; else on the host, in the spec's folder.
    pub in_guest: bool,
    /// `inline` or `script`.
    pub script: Script,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `timeout`; 10 minutes by default.
    pub timeout: Duration,
    /// `on_error`: whether its failure is the verb's; true by default.
    pub stops: bool,
    /// `machines`: names of machines; all if absent.
    pub machines: Option<Vec<String>>,
}

/// One entry of `[[mounts]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `type`; `9p` by default.
    pub kind: MountKind,
    /// `source`: a folder, absolute and without links on the way to it.
    pub source: PathBuf,
    /// `target`: absolute path in the guest, each one its own in a machine.
    pub target: String,
    /// `writable`; false by default.
    pub writable: bool,
    /// `exclude`: patterns of rsync.
    pub exclude: Vec<String>,
    /// `machines`: names of machines; all if absent.
    pub machines: Option<Vec<String>>,
}

impl Mount {
    /// Whether it is for the machine of this name.
    #[must_use]
    pub fn is_for(&self, machine: &str) -> bool {
        self.machines.as_ref().is_none_or(|names| names.iter().any(|name| name == machine))
    }
}

/// `mounts.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// The folder itself, shown by QEMU.
    NineP,
    /// A copy.
    Rsync,
}

/// One entry of `[[provision]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// `name`; each one its own.
    pub name: String,
    /// `run`; `once` by default.
    pub run: RunRule,
    /// `inline` or `script`.
    pub script: Script,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `privileged`; as root by default, else as the machine's account.
    pub privileged: bool,
    /// `timeout`; 10 minutes by default.
    pub timeout: Duration,
    /// `machines`: names of machines; all if absent.
    pub machines: Option<Vec<String>>,
}

/// `provision.run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunRule {
    /// In each machine once, until it is destroyed.
    Once,
    /// When the script or its variables are others than the last time.
    OnChange,
    /// At every `up`.
    Always,
}

/// The guest's architecture, by Debian's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    Amd64,
}

impl Arch {
    /// Debian's name, as written in the spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
        }
    }
}

/// `[source]`, told apart by `type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `type = "packages"`: a distribution's packages; nobody's image is downloaded.
    Packages(Packages),
    /// `type = "image"`: a disk image by path or URL.
    Image(ImageSource),
}

/// `[source]` with `type = "packages"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    /// `suite`: Debian's code name (`bookworm`).
    pub suite: String,
    /// `packages`: what to install besides what an image needs to boot and be reached.
    pub packages: Vec<String>,
    /// `mirror`: what the image's own apt sources name; Debian's public mirror by default. The
    /// host's mirror serves the build and leaves no trace.
    pub mirror: String,
    /// `security_mirror`: the same for the security suite.
    pub security_mirror: String,
    /// `components`: `["main"]` by default.
    pub components: Vec<String>,
    /// `disk`: size of the image in bytes, a whole number of MiB; 2 GiB by default. The root grows into a bigger disk at boot.
    pub disk_size: u64,
}

/// `[source]` with `type = "image"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSource {
    /// `path` or `url`.
    pub location: Location,
    /// `sha256` or `checksums`.
    pub checksum: Checksum,
    /// `format`; found by content if absent.
    pub format: Option<InputFormat>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file, absolute after resolution against the spec's folder.
    Path(PathBuf),
    /// An `http://`, `https://` address.
    Url(String),
}

/// What an image must match before any of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// 64 lower-case hex digits.
    Sha256(String),
    /// A checksum file (GNU or BSD form) that lists the image by its file name.
    File(Location),
}

/// Formats that an image source can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// Plain bytes of the disk.
    Raw,
    /// QEMU's qcow2, version 2 or 3.
    Qcow2,
    /// Microsoft VHD, fixed or dynamic.
    Vhd,
}

/// One entry of `[[steps]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `name`; `step <n>` by default.
    pub name: String,
    /// `type` and its keys.
    pub action: Action,
    /// `timeout`; 10 minutes by default.
    pub timeout: Duration,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `type = "shell"`: runs as root in the guest, `sh -eu` unless the script has a `#!` line.
    Shell {
        /// `inline` or `script`.
        script: Script,
        /// `env`.
        env: BTreeMap<String, String>,
    },
    /// `type = "file"`: puts a file or a folder into the guest.
    File {
        /// `source`: absolute after resolution against the spec's folder.
        source: PathBuf,
        /// `target`: absolute path in the guest.
        target: String,
        /// `mode`; `0644` by default, `0755` for folders and executable sources. At most `07777`.
        mode: Option<u32>,
        /// `owner`: `user` or `user:group`; `root:root` by default.
        owner: String,
    },
}

/// A shell step's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// `inline`.
    Inline(String),
    /// `script`: absolute after resolution against the spec's folder.
    File(PathBuf),
}

/// `[seal]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// `hostname`: content of `/etc/hostname` in the image; the spec's name by default. An instance gets its own at boot.
    pub hostname: String,
    /// `epoch`: seconds since 1970 UTC; no file time in the image is later. For `packages` the
    /// date of the suite's Release file by default, else the time of the source image's newest file.
    pub epoch: Option<i64>,
}

/// An output of `devbox build`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// QEMU's qcow2, version 3.
    Qcow2,
    /// Plain bytes, sparse.
    Raw,
    /// Fixed VHD of a whole number of MiB, as Azure wants.
    Vhd,
}

impl OutputFormat {
    /// The name in the spec, which is the file's extension too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OutputFormat::Qcow2 => "qcow2",
            OutputFormat::Raw => "raw",
            OutputFormat::Vhd => "vhd",
        }
    }
}

/// `[machine]`, or one of `[machines]` with the defaults of `[machine]` filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The name of its table in `[machines]`, or that of the box; its host name.
    pub name: String,
    /// `depends_on`: other machines of the same spec, which together make no cycle.
    pub depends_on: Vec<String>,
    /// `cpus`; 2 by default.
    pub cpus: u32,
    /// `memory` in bytes, a whole number of MiB; 1 GiB by default.
    pub memory: u64,
    /// `disk` in bytes; the image's size if absent. Never smaller than the image.
    pub disk: Option<u64>,
    /// `firmware`; `bios` by default.
    pub firmware: Firmware,
    /// `user`: the account that cloud-init makes; `dev` by default.
    pub user: String,
    /// `timeout` of `up`, until the machine is ready; 10 minutes by default, since an emulated guest is slow.
    pub timeout: Duration,
    /// `proxy`: whether it takes over the host's proxies; false by default.
    pub proxy: bool,
    /// `certificates`: whether it trusts the certificates that were added to the host; false by default.
    pub certificates: bool,
    /// `disks`: more disks; at most 3.
    pub disks: Vec<DataDisk>,
    /// `[[machine.ports]]`.
    pub ports: Vec<PortForward>,
}

/// `firmware`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// UEFI (EDK II, package `ovmf`), without Secure Boot.
    Uefi,
}

/// One entry of `[[machine.ports]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortForward {
    /// `guest`: port in the guest.
    pub guest: u16,
    /// `host`: wished port on the host; a free one if absent.
    pub host: Option<u16>,
    /// `host_ip`: `127.0.0.1` by default.
    pub host_ip: std::net::Ipv4Addr,
    /// `protocol`; `tcp` by default.
    pub protocol: Protocol,
    /// `auto_correct`; true by default: take the next free port when the wished one is in use, and say so.
    pub auto_correct: bool,
}

/// `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
