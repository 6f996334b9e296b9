//! `[source]` with `type = "iso"`.

use std::path::PathBuf;
use std::time::Duration;

use super::{Checksum, Location, Signing};

/// An installation medium, and all that makes it install without a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoSource {
    /// `path` or `url`.
    pub location: Location,
    /// `sha256` or `checksums`.
    pub checksum: Checksum,
    /// `keys`, `fingerprints` and `signature`: who has to have signed `checksums`; nobody if absent.
    pub signing: Option<Signing>,
    /// `disk`: size in bytes of the disk that the installer finds, a whole number of MiB.
    pub disk_size: u64,
    /// `answers`: files that tell the installer what to do.
    pub answers: Vec<Answer>,
    /// `boot`: how it is started; from the CD alone if absent.
    pub boot: Boot,
    /// `end`; `power-off` by default.
    pub end: End,
    /// `reboots`: how often the guest may reboot before its end; 3 by default.
    pub reboots: u32,
    /// `start_timeout`: until the installer shows that it works; 20 minutes by default.
    pub start_timeout: Duration,
    /// `timeout`: of all of it; 2 hours by default.
    pub timeout: Duration,
}

impl IsoSource {
    /// Whether the build serves files by HTTP.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.answers.iter().any(|answer| answer.place == Place::Http)
    }
}

/// One entry of `source.answers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `type`.
    pub place: Place,
    /// `source`: the file on the host.
    pub source: PathBuf,
    /// `name`: what it is called there; its own name by default.
    pub name: String,
}

/// Where an answer file goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On a CD with this label, together with the others of the same label.
    Cd(String),
    /// Served by HTTP while the installation runs.
    Http,
    /// On a floppy disk.
    Floppy,
    /// An entry of QEMU's firmware configuration device.
    FwCfg,
    /// Appended to the initial RAM disk, in its root.
    Initrd,
}

impl Place {
    /// The value of `type`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Place::Cd(_) => "cd",
            Place::Http => "http",
            Place::Floppy => "floppy",
            Place::FwCfg => "fw-cfg",
            Place::Initrd => "initrd",
        }
    }
}

/// `[source.boot]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// The CD's own boot loader, to which nothing is typed.
    Cd,
    /// `type = "kernel"`: a kernel of the CD, without its boot loader.
    Kernel {
        /// `kernel`: a path on the CD.
        kernel: String,
        /// `initrd`: a path on the CD.
        initrd: Option<String>,
        /// `cmdline`, before variables are replaced.
        cmdline: String,
    },
    /// `type = "command"`: keys that are typed.
    Command {
        /// `wait`: before the first key.
        wait: Duration,
        /// `command`, before variables are replaced.
        command: String,
    },
}

/// `source.end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The guest powers itself off.
    PowerOff,
    /// The guest reboots.
    Reboot,
}
