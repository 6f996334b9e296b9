//! The host: where devbox keeps its files, and which architecture it is.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::os;
pub use crate::os::private_dir;

/// The architecture of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// AMD and Intel, 64 bits.
    X86_64,
    /// Arm, 64 bits.
    Aarch64,
}

impl Arch {
    /// The name that QEMU, Rust and the Linux kernel use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// The architecture of this host; `None` if it is another one.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        [Arch::X86_64, Arch::Aarch64].into_iter().find(|a| a.as_str() == std::env::consts::ARCH)
    }
}

/// The folders of one user. Everything that devbox keeps lies below these.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The box store, an OCI image layout.
    pub store: PathBuf,
    /// One folder a machine.
    pub machines: PathBuf,
    /// One folder a template, from which machines start warm.
    pub templates: PathBuf,
    /// Data disks that outlive their machine, one folder a machine.
    pub disks: PathBuf,
    /// Evidence of machines that were removed since they did not come up.
    pub bundles: PathBuf,
    /// What can be made or fetched again: downloads, package trees, probe results.
    pub cache: PathBuf,
    /// What the user wants of every machine; need not be there.
    pub settings: PathBuf,
    /// Sockets: short, because a Unix socket's path holds 107 bytes (`sun_path`, unix(7)).
    pub runtime: PathBuf,
}

impl Paths {
    /// Digests of files that nobody changed since.
    #[must_use]
    pub fn digests(&self) -> PathBuf {
        self.cache.join("digests")
    }

    /// The folders from the environment: `DEVBOX_HOME` holds all of them if it is set, else the
    /// XDG base directories.
    ///
    /// # Errors
    /// There is no home directory.
    pub fn from_env() -> Result<Self> {
        let runtime = match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !dir.is_empty() && Path::new(&dir).is_dir() => {
                PathBuf::from(dir).join("devbox")
            }
            _ => std::env::temp_dir().join(os::runtime_name()),
        };
        if let Some(home) = std::env::var_os("DEVBOX_HOME").filter(|h| !h.is_empty()) {
            let home = std::path::absolute(PathBuf::from(home))?;
            return Ok(Paths {
                store: home.join("store"),
                machines: home.join("machines"),
                templates: home.join("templates"),
                bundles: home.join("bundles"),
                disks: home.join("disks"),
                cache: home.join("cache"),
                settings: home.join("config.toml"),
                runtime,
            });
        }
        let base = etcetera::choose_base_strategy().map_err(|e| {
            Error::failed("cannot find your home directory")
                .cause(e)
                .hint("Set `HOME`, or set `DEVBOX_HOME` to a folder for devbox's files.")
        })?;
        let data = base.data_dir().join("devbox");
        Ok(Paths {
            store: data.join("store"),
            machines: data.join("machines"),
            templates: data.join("templates"),
            bundles: data.join("bundles"),
            disks: data.join("disks"),
            cache: base.cache_dir().join("devbox"),
            settings: base.config_dir().join("devbox/config.toml"),
            runtime,
        })
    }
}

/// Free bytes for this user on the filesystem that holds `path` (or its nearest existing parent).
///
/// # Errors
/// The filesystem cannot be asked.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    os::free_bytes(existing).map_err(|e| {
        Error::failed(format!("cannot ask for the free space of `{}`", existing.display())).cause(e)
    })
}

/// Bytes that a file, or a folder with all below it, takes on the disk; holes count nothing, and neither
/// does what goes away meanwhile.
#[must_use]
pub fn stored_bytes(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| os::stored_bytes(&meta)).sum()
}

/// Random bytes, fit for keys.
///
/// # Errors
/// The kernel's random source cannot be read.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    os::random(&mut bytes)?;
    Ok(bytes)
}

/// A new random UUID (version 4, RFC 4122) as text.
///
/// # Errors
/// The kernel's random source cannot be read.
pub fn new_uuid() -> Result<String> {
    let mut b: [u8; 16] = random()?;
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
}
