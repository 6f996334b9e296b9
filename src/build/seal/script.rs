//! The seal's script: the steps of `steps/`, in order, behind the values that they need.

use super::VERSION;
use crate::build::steps::secrets::Trace;

/// The script's parts by name. `values` and `begin` come first; `times` last of those that change
/// files, since each change sets a time.
pub(super) const PARTS: &[(&str, &str)] = &[
    ("values", include_str!("steps/values.sh")),
    ("begin", include_str!("steps/begin.sh")),
    ("filesystems", include_str!("steps/filesystems.sh")),
    ("account", include_str!("steps/account.sh")),
    ("identity", include_str!("steps/identity.sh")),
    ("ssh", include_str!("steps/ssh.sh")),
    ("cloud-init", include_str!("steps/cloud_init.sh")),
    ("network", include_str!("steps/network.sh")),
    ("logs", include_str!("steps/logs.sh")),
    ("packages", include_str!("steps/packages.sh")),
    ("caches", include_str!("steps/caches.sh")),
    ("state", include_str!("steps/state.sh")),
    ("homes", include_str!("steps/homes.sh")),
    ("temporary", include_str!("steps/temporary.sh")),
    ("times", include_str!("steps/times.sh")),
    ("end", include_str!("steps/end.sh")),
];

/// A raw disk's block in bytes.
const BLOCK: usize = 512;

/// What the script needs to know of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// Seconds since 1970 UTC; no file time is later afterwards.
    pub epoch: i64,
    /// Content of `/etc/hostname`.
    pub hostname: String,
    /// Whether a machine of the spec is entered by its guest agent alone, which the image has to bring then.
    pub by_agent: bool,
    /// The build's account, which is removed.
    pub user: String,
    /// The public keys that the build logged in with: their base64 parts.
    pub keys: Vec<String>,
    /// Texts that must occur in no file of the image: the host's mirror.
    pub forbidden: Vec<String>,
    /// Texts that must occur nowhere on the disk: the values of the steps' secrets.
    pub secrets: Vec<Trace>,
}

/// The assignments in front of the steps.
pub(super) fn header(values: &Values) -> String {
    let word = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    format!(
        "SEAL={}\nEPOCH={}\nHOST={}\nUSER={}\nKEYS={}\n",
        word(VERSION),
        values.epoch,
        word(&values.hostname),
        word(&values.user),
        word(&values.keys.join(" ")),
    )
}

/// The whole script as a raw disk: filled up with line ends, which a shell skips.
pub(super) fn disk(values: &Values) -> Vec<u8> {
    let mut text = header(values);
    for (_, part) in PARTS {
        text.push_str(part);
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), b'\n');
    bytes
}
