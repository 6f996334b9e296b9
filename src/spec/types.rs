//! The resolved spec: plain data, every default filled in, every value possible.
//!
//! Made by the parser only; whoever holds a [`Spec`] need not check it again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::subnet::Subnet;

mod boxed;
mod iso;
mod steps;

pub use boxed::{BoxPlace, BoxSource, PinnedBox, Wish};
pub use iso::{Answer, Boot, End, IsoSource, Place};
pub use steps::{
    Action, Ansible, Checks, Chef, Images, Puppet, Salt, Script, Secret, Step, Template, Values,
};

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
    /// `tested`: whether whoever wrote the file has built it. No part of the image.
    pub tested: bool,
    /// `registry`: the place where this box lives, as `registry::Address` reads it; folders are absolute. No part of
    /// the image.
    pub registry: Option<String>,
    /// `updates` of personal settings: whether somebody is asked for newer boxes beside `up`. No key of devbox.toml.
    pub updates: bool,
    /// `[source]`: what the image starts from.
    pub source: Source,
    /// `[[steps]]`: what is done in the guest, in order.
    pub steps: Vec<Step>,
    /// `[seal]`.
    pub seal: Seal,
    /// `outputs`: the formats that `devbox build` writes beside the stored box.
    pub outputs: Vec<OutputFormat>,
    /// `[deploy]`: what else `devbox build` writes, for those who bring the outputs to production.
    pub deploy: Option<Deploy>,
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
    /// `[parity]`: what may differ between two images. No part of the image.
    pub parity: Option<Parity>,
    /// `[trust]`: who has to have signed boxes that are pulled. No part of the image.
    pub trust: Option<Trust>,
}

/// `[trust]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// `required`: whether a box from a place that no rule covers is refused.
    pub required: bool,
    /// `[[trust.rules]]`.
    pub rules: Vec<TrustRule>,
}

/// One entry of `[[trust.rules]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRule {
    /// `names`: patterns of places.
    pub names: Vec<String>,
    /// `keys`: who may sign for them.
    pub keys: Vec<TrustKey>,
}

/// A key, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustKey {
    /// `ssh-ed25519 AAAA…`, with a comment if there is one.
    Text(String),
    /// A file with such lines.
    File(PathBuf),
}

impl Spec {
    /// The box that this one is: its source, where nothing changes that. Then nothing is built.
    #[must_use]
    pub fn is_box(&self) -> Option<&BoxSource> {
        match &self.source {
            Source::Box(source)
                if self.steps.is_empty()
                    && self.seal.epoch.is_none()
                    && self.seal.hostname == self.name =>
            {
                Some(source)
            }
            _ => None,
        }
    }
}

/// `[parity]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parity {
    /// `require`: `content` or `tree`.
    pub require: String,
    /// `[[parity.delta]]`.
    pub deltas: Vec<Delta>,
}

/// One entry of `[[parity.delta]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// `only`: whether it is the developers' side that differs.
    pub only_dev: bool,
    /// What differs there.
    pub op: DeltaOp,
    /// `path` in the guest; empty for a package.
    pub path: String,
    /// `protected`.
    pub protected: bool,
    /// `why`.
    pub why: String,
    /// `until`: the last day on which it holds, as `2027-06-30`.
    pub until: Option<String>,
}

/// What a side has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// A file with the bytes of this one on the host.
    File(PathBuf),
    /// A link with this target.
    Link(String),
    /// A folder.
    Folder,
}

/// `op` with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeltaOp {
    /// This side alone has it.
    Add(Stands, DeltaMeta),
    /// The other side alone has the file with this SHA-256 (hex).
    Remove(String),
    /// This side has a file, the other one the file with this SHA-256 (hex).
    Replace(PathBuf, DeltaMeta, String),
    /// This side has this mode and owner, the other one those.
    Meta(DeltaMeta, DeltaMeta),
    /// This side alone has a folder of this `tree1`.
    Subtree(String, DeltaMeta),
    /// This side alone has the package of this name and version.
    Package(String, String),
}

/// Permission bits and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaMeta {
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
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
    /// The folder itself, shown by virtiofsd.
    Virtiofs,
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
    /// Arm, 64 bits.
    Arm64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Arch; 2] = [Arch::Amd64, Arch::Arm64];

    /// This host's, if guests can have it.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Arch::Amd64),
            "aarch64" => Some(Arch::Arm64),
            _ => None,
        }
    }

    /// Debian's name, as written in the spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// The kernel's name of the serial port under QEMU and in the clouds.
    #[must_use]
    pub fn console(self) -> &'static str {
        match self {
            Arch::Amd64 => "ttyS0",
            Arch::Arm64 => "ttyAMA0",
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
    /// `type = "iso"`: an installer that runs unattended.
    Iso(IsoSource),
    /// `type = "box"`: another box.
    Box(BoxSource),
}

impl Source {
    /// Size of the disk in bytes, where the spec says it.
    #[must_use]
    pub fn disk_size(&self) -> Option<u64> {
        match self {
            Source::Packages(packages) => Some(packages.disk_size),
            Source::Iso(iso) => Some(iso.disk_size),
            Source::Image(_) | Source::Box(_) => None,
        }
    }

    /// The file that it begins with, and what that must match; none for packages and for a box.
    #[must_use]
    pub fn file(&self) -> Option<(&Location, &Checksum)> {
        match self {
            Source::Packages(_) | Source::Box(_) => None,
            Source::Image(image) => Some((&image.location, &image.checksum)),
            Source::Iso(iso) => Some((&iso.location, &iso.checksum)),
        }
    }

    /// Lets the file have this SHA-256 (hex), whatever was said of it; nothing for packages and for a box.
    pub fn pin(&mut self, sha256: &str) {
        let (checksum, signing) = match self {
            Source::Packages(_) | Source::Box(_) => return,
            Source::Image(image) => (&mut image.checksum, &mut image.signing),
            Source::Iso(iso) => (&mut iso.checksum, &mut iso.signing),
        };
        *checksum = Checksum::Sha256(sha256.to_owned());
        *signing = None;
    }
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
    /// `keys`, `signature` and `fingerprints`: who has to have signed the checksum file; nobody if absent.
    pub signing: Option<Signing>,
}

/// Who has to have signed a checksum file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// `keys`: files of OpenPGP public keys, at least one.
    pub keys: Vec<Location>,
    /// `fingerprints`: upper-case hex; all keys of the files may sign if empty, and then all are files of the host.
    pub fingerprints: Vec<String>,
    /// `signature`: the file beside the checksum file; that one is clear-signed if absent.
    pub signature: Option<Location>,
}

impl Packages {
    /// The packages that bring boot loaders which firmware with Secure Boot starts.
    #[must_use]
    pub fn signed_loaders(arch: Arch) -> [&'static str; 2] {
        match arch {
            Arch::Amd64 => ["shim-signed", "grub-efi-amd64-signed"],
            Arch::Arm64 => ["shim-signed", "grub-efi-arm64-signed"],
        }
    }

    /// Those of them that are not asked for.
    pub fn missing_loaders(&self, arch: Arch) -> impl Iterator<Item = &'static str> {
        let has = |wanted: &str| self.packages.iter().any(|package| package == wanted);
        Self::signed_loaders(arch).into_iter().filter(move |wanted| !has(wanted))
    }

    /// Whether the disk gets signed boot loaders.
    #[must_use]
    pub fn is_signed(&self, arch: Arch) -> bool {
        self.missing_loaders(arch).next().is_none()
    }
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
    /// The same with its clusters compressed by zstd.
    Qcow2Zstd,
    /// Plain bytes, sparse.
    Raw,
    /// Stream-optimised VMDK, as ESXi takes it.
    Vmdk,
    /// The same with a description of the machine, in a tar archive.
    Ova,
    /// Fixed VHD of a whole number of MiB, as Azure wants.
    Vhd,
    /// Dynamic VHDX, for Hyper-V.
    Vhdx,
    /// `disk.raw` in a tar.gz, as Google's cloud imports it.
    Gce,
    /// Plain bytes, and what Amazon's VM import is told about them.
    Aws,
    /// Plain bytes, and a configuration for Xen.
    Xen,
    /// A box of Vagrant's provider libvirt.
    Vagrant,
    /// An OCI image with the disk in it, and a manifest of a machine of KubeVirt.
    Containerdisk,
}

impl OutputFormat {
    /// All of them, in the order of the reference.
    pub const ALL: [OutputFormat; 12] = [
        OutputFormat::Qcow2,
        OutputFormat::Qcow2Zstd,
        OutputFormat::Raw,
        OutputFormat::Vmdk,
        OutputFormat::Ova,
        OutputFormat::Vhd,
        OutputFormat::Vhdx,
        OutputFormat::Gce,
        OutputFormat::Aws,
        OutputFormat::Xen,
        OutputFormat::Vagrant,
        OutputFormat::Containerdisk,
    ];

    /// The name in the spec.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OutputFormat::Qcow2 => "qcow2",
            OutputFormat::Qcow2Zstd => "qcow2-zstd",
            OutputFormat::Raw => "raw",
            OutputFormat::Vmdk => "vmdk",
            OutputFormat::Ova => "ova",
            OutputFormat::Vhd => "vhd",
            OutputFormat::Vhdx => "vhdx",
            OutputFormat::Gce => "gce",
            OutputFormat::Aws => "aws",
            OutputFormat::Xen => "xen",
            OutputFormat::Vagrant => "vagrant",
            OutputFormat::Containerdisk => "containerdisk",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

/// `[deploy]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// `terraform`: the folder of a Terraform module, absolute after resolution against the spec's folder;
    /// that of the outputs if absent.
    pub terraform: Option<PathBuf>,
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
    /// The spec's `arch`.
    pub arch: Arch,
    /// `firmware` and `secure_boot`; `bios` by default, where there is one.
    pub firmware: Firmware,
    /// `tpm`; false by default.
    pub tpm: bool,
    /// `user`: the account that cloud-init makes; `dev` by default.
    pub user: String,
    /// `login`: how devbox enters it; `ssh` by default.
    pub login: Login,
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

/// `login`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// By its SSH server, as [`Machine::user`].
    Ssh,
    /// By its QEMU guest agent alone; it need not have an SSH server.
    Agent,
}

/// `firmware` and `secure_boot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, for amd64.
    Bios,
    /// UEFI (EDK II, packages `ovmf` and `qemu-efi-aarch64`), without Secure Boot.
    Uefi,
    /// The same with Secure Boot.
    SecureBoot,
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
