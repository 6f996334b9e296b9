//! What is recorded about one machine: what it is made of, and what belongs to it. Whether it runs is
//! never recorded.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::config::{Accelerator, Config, Firmware, Forward, Protocol};
use super::data_disk::DataDisk;
use super::ports::BoundForward;
use super::process::Process;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::guest::folder::{Folder, Ids};
use crate::host::Arch;

/// The version of the record's shape.
pub(super) const FORMAT: u32 = 2;
/// The guest's port of ssh.
pub const SSH_PORT: u16 = 22;

/// The sealed image that a machine runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// `name:version`.
    pub reference: String,
    /// The manifest's digest: which build of that version.
    pub manifest: String,
    /// The disk, a qcow2 that is never written.
    pub disk: PathBuf,
    /// Its guest-visible size in bytes.
    pub size: u64,
}

/// What a machine is made of: `machine.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(crate) format: u32,
    /// The machine's name, which is its host name.
    pub name: String,
    /// The folder of its devbox.toml.
    pub project: PathBuf,
    /// How its QEMU is recognised.
    pub uuid: String,
    /// The account in the guest.
    pub user: String,
    /// How devbox enters it: its seed was written for that.
    #[serde(default, skip_serializing_if = "Login::is_ssh")]
    pub login: Login,
    /// The image below its disk.
    pub base: BaseImage,
    /// Where the box comes from, for a machine that was started before it was here; none once it was started with the box
    /// in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<Arriving>,
    /// The forwards of the last start, and what was added or removed since: the same ports are tried
    /// again.
    pub forwards: Vec<BoundForward>,
    /// The forwards that `devbox port add` made, which each start makes again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<BoundForward>,
    /// The process that was last seen ready; means nothing for another one.
    pub ready: Option<Ready>,
    /// It is being restored from a template and has the template's identity still: what crashed
    /// then is thrown away and made anew.
    #[serde(default)]
    pub unfinished: bool,
    /// It was cloned from the machine of this name and has not been given a machine id and random
    /// state of its own yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_of: Option<String>,
    /// Its address in the project's private network.
    #[serde(default)]
    pub address: Option<Address>,
    /// The hardware of its last start.
    #[serde(default)]
    pub shape: Option<Shape>,
    /// In what its last start followed somebody's own settings and not the spec, in words.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// What was done in it by `[[provision]]`: its name, and the digest of script and variables.
    #[serde(default)]
    pub provisioned: BTreeMap<String, String>,
    /// The data disks of its last start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DataDisk>,
    /// The digest of what it has of its host's settings; none if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_settings: Option<String>,
    /// The folders of the host that it was last started with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<Folder>,
    /// The ids of its account in the guest, once they were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Ids>,
    /// Its memory is saved in its disk as [`SUSPENDED`], and it goes on from there.
    #[serde(default)]
    pub suspended: Option<Saved>,
    /// Its snapshots, by name.
    #[serde(default)]
    pub snapshots: BTreeMap<String, Saved>,
}

/// A box that is not here yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// Its address, with the digest of its manifest there.
    pub address: String,
    /// Whether HTTP without TLS is spoken to its registry.
    #[serde(default)]
    pub plain_http: bool,
    /// SHA-256 of its disk, which is the name of [`BaseImage::disk`].
    pub disk: FileDigest,
}

/// How devbox enters a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// By its SSH server.
    #[default]
    Ssh,
    /// By its guest agent alone.
    Agent,
}

impl Login {
    /// As in files and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Login::Ssh => "ssh",
            Login::Agent => "agent",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    fn is_ssh(&self) -> bool {
        *self == Login::Ssh
    }
}

/// The name of the snapshot that a suspended machine goes on from; no name that people can give.
pub const SUSPENDED: &str = "devbox suspended";

/// The part of a machine's configuration that only a restart can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The guest's architecture.
    #[serde(default = "x86_64")]
    pub arch: Arch,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Firmware.
    pub firmware: Firmware,
    /// Whether it has a TPM.
    #[serde(default)]
    pub tpm: bool,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Empty slots for devices.
    pub spare_slots: u8,
    /// Whether it has a card on the private network.
    #[serde(default)]
    pub card: bool,
}

impl From<&Config> for Shape {
    fn from(config: &Config) -> Self {
        Shape {
            arch: config.arch,
            cpus: config.cpus,
            memory: config.memory,
            firmware: config.firmware,
            tpm: config.tpm,
            accelerator: config.accelerator,
            spare_slots: config.spare_slots,
            card: config.card.is_some(),
        }
    }
}

/// Of records that are older than other architectures.
fn x86_64() -> Arch {
    Arch::X86_64
}

/// An address in a private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The machine's.
    pub ip: Ipv4Addr,
    /// The leading bits that all machines of the network share.
    pub prefix: u8,
}

/// A snapshot of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Seconds since 1970.
    pub made: i64,
    /// The hardware that its memory belongs to; `None` for a snapshot of the disk alone.
    pub shape: Option<Shape>,
    /// Whether the guest had been seen ready.
    pub ready: bool,
    /// Whether `push` made it, so that `pop` takes it.
    pub pushed: bool,
    /// What had been done in the machine by then.
    #[serde(default)]
    pub provisioned: BTreeMap<String, String>,
}

/// A process by its id and its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pid: i32,
    start: u64,
}

impl From<&Process> for Ready {
    fn from(process: &Process) -> Self {
        Ready { pid: process.pid(), start: process.start() }
    }
}

impl Record {
    /// What is recorded in the file `path`; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or of another devbox.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let damaged = |why: String| {
            Error::failed(format!("the machine's record `{}` is damaged", path.display()))
                .cause(why)
                .hint("Remove the machine with `devbox destroy -f`.")
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if record.format != FORMAT {
            return Err(damaged(format!("its format is {}, not {FORMAT}", record.format)));
        }
        Ok(Some(record))
    }

    /// Whether this very process was seen ready.
    #[must_use]
    pub fn was_ready(&self, process: &Process) -> bool {
        self.ready == Some(Ready::from(process))
    }

    /// Where its box comes from, if it is not here.
    #[must_use]
    pub fn awaited(&self) -> Option<&Arriving> {
        self.arriving.as_ref().filter(|_| !self.base.disk.exists())
    }

    /// Refuses what needs the whole box, while it arrives.
    ///
    /// # Errors
    /// So it is.
    pub fn refuse_arriving(&self) -> Result<()> {
        if self.awaited().is_none() {
            return Ok(());
        }
        Err(Error::failed(format!("the box of `{}` is not here yet", self.name)).hint(format!(
            "Let it arrive while the machine runs (`devbox status` says how far it is), or fetch it with `devbox box pull`, then run the same command again: {}.",
            self.base.reference
        )))
    }

    /// The host's port of ssh, once the machine was started.
    #[must_use]
    pub fn ssh_port(&self) -> Option<u16> {
        self.bound(SSH_PORT, Protocol::Tcp).map(|f| f.host)
    }

    fn bound(&self, guest: u16, protocol: Protocol) -> Option<&BoundForward> {
        self.forwards.iter().find(|f| f.guest == guest && f.protocol == protocol)
    }

    /// The forwards to ask for: ssh first, where it is entered by that, then `wanted`, then what was added by hand; what names no
    /// port gets the one it had.
    #[must_use]
    pub fn wishes(&self, wanted: &[Forward]) -> Vec<Forward> {
        let ssh = Forward {
            guest: SSH_PORT,
            host: None,
            host_ip: Ipv4Addr::LOCALHOST,
            protocol: Protocol::Tcp,
            auto_correct: true,
        };
        let mut all = if self.login == Login::Ssh { vec![ssh] } else { vec![] };
        all.extend_from_slice(wanted);
        // One that the spec has meanwhile is asked for once.
        let missing = |added: &&BoundForward| {
            wanted.iter().all(|f| f.host != Some(added.host) || f.protocol != added.protocol)
        };
        all.extend(self.added.iter().filter(missing).map(|added| Forward {
            guest: added.guest,
            host: Some(added.host),
            host_ip: added.host_ip,
            protocol: added.protocol,
            auto_correct: true,
        }));
        for forward in all.iter_mut().filter(|f| f.host.is_none()) {
            forward.host = self.bound(forward.guest, forward.protocol).map(|f| f.host);
        }
        all
    }
}
