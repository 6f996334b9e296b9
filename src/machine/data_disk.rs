//! Disks besides the one with the system: they are no part of a template, so a machine that was restored
//! from one is given them while it runs, each in a slot of its own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hotplug::{self, NETWORK_SLOT};
use super::qmp::{COMMAND_TIMEOUT, Qmp};
use crate::error::Result;

/// Most data disks of one machine: the slots below that of the network's card; the rest is for folders.
pub const MOST: u8 = 3;
/// The nodes of data disks begin with it; [`super::snapshot`] takes them along.
pub(super) const NODE_PREFIX: &str = "data-";

/// A disk besides the one with the system: a qcow2 without a backing file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDisk {
    /// Its serial number in the guest, `/dev/disk/by-id/virtio-<name>`; at most 20 bytes (virtio 1.2,
    /// section 5.2.6.1: `VIRTIO_BLK_T_GET_ID`).
    pub name: String,
    /// The file, absolute.
    pub path: PathBuf,
}

/// The name of the file of the disk `name`.
#[must_use]
pub fn file_name(name: &str) -> String {
    format!("data-{name}.qcow2")
}

/// Whether `path` is named as such a file is.
pub(super) fn is_one(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("data-") && name.ends_with(".qcow2"))
}

impl DataDisk {
    pub(super) fn node(&self) -> String {
        format!("{NODE_PREFIX}{}", self.name)
    }

    /// What `-blockdev` takes.
    pub(super) fn block(&self) -> Value {
        json!({
            "driver": "qcow2", "node-name": self.node(), "read-only": false,
            "discard": "unmap", "detect-zeroes": "unmap",
            "file": {
                "driver": "file", "filename": self.path.to_string_lossy(), "discard": "unmap",
            },
        })
    }

    /// What `device_add` takes, without its bus.
    pub(super) fn device(&self) -> Value {
        let node = self.node();
        json!({
            "driver": "virtio-blk-pci", "id": format!("{node}-dev"), "drive": node,
            "serial": self.name,
        })
    }
}

/// The slot of the data disk number `n`: the same at each start, since saved memory knows it there.
pub(super) fn slot(n: usize) -> u8 {
    NETWORK_SLOT - 1 - u8::try_from(n).unwrap_or(u8::MAX).min(MOST - 1)
}

/// Gives them to a machine that runs without them.
///
/// # Errors
/// QEMU cannot open one, or the slots are taken.
pub(super) async fn plug(qmp: &Qmp, disks: &[DataDisk]) -> Result<()> {
    for (n, disk) in disks.iter().enumerate() {
        let what = || format!("cannot give the machine its disk `{}`", disk.name);
        let added = qmp.raw("blockdev-add", disk.block(), COMMAND_TIMEOUT).await;
        added.map_err(|e| e.of(what()))?;
        let plugged = hotplug::plug_into(qmp, slot(n), &disk.device()).await;
        plugged.map_err(|e| e.of(what()))?;
    }
    Ok(())
}
