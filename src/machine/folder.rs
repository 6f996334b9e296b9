//! Folders of the host that a guest sees through a device.
//!
//! What shows a folder by 9p (`-fsdev`) stands on the command line, since the monitor cannot add one; the
//! server of virtiofs is another process, which comes with the device. The device comes and goes
//! while the guest runs, in a spare slot. So a template has none of them and serves every
//! project, and a snapshot is taken without them: QEMU cannot save a guest that has one mounted.

use serde_json::{Value, json};

use super::qmp::{COMMAND_TIMEOUT, Failure};
use super::{Machine, hotplug};
use crate::error::Result;
use crate::guest::folder::Folder;

/// What the `n`th folder is called: its device, what serves it, and the tag that the guest mounts.
#[must_use]
pub fn tag(n: usize) -> String {
    format!("devbox{n}")
}

impl Machine {
    /// Whether the device of the `n`th folder is there.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub async fn has_folder(&self, n: usize) -> Result<bool> {
        let arguments = json!({"path": "/machine/peripheral"});
        let found = self.qmp.raw("qom-list", arguments, COMMAND_TIMEOUT).await;
        let found = found.map_err(|e| self.undone("cannot ask QEMU for the devices of", &e))?;
        let id = json!(tag(n));
        Ok(found.as_array().is_some_and(|all| all.iter().any(|device| device["name"] == id)))
    }

    /// Gives the guest the device of the `n`th folder, which QEMU itself serves, if it is not there.
    ///
    /// # Errors
    /// QEMU refuses: it was started without this folder.
    pub async fn add_folder(&self, n: usize, folder: &Folder) -> Result<()> {
        if self.has_folder(n).await? {
            return Ok(());
        }
        let id = tag(n);
        let device = json!({"driver": "virtio-9p-pci", "id": id, "fsdev": id, "mount_tag": id});
        self.plug_folder(folder, &device).await
    }

    pub(super) async fn plug_folder(&self, folder: &Folder, device: &Value) -> Result<()> {
        hotplug::plug(&self.qmp, device).await.map_err(|e| {
            let (source, name) = (folder.source.display(), &self.name);
            e.context(format!("QEMU does not show `{source}` to `{name}`"))
        })?;
        Ok(())
    }

    /// Takes the device of the `n`th folder from the guest, which has it mounted no more.
    ///
    /// # Errors
    /// The guest does not let go of it.
    pub async fn remove_folder(&self, n: usize) -> Result<()> {
        let id = tag(n);
        hotplug::unplug(&self.qmp, &id).await?;
        self.disconnect_folder(&id).await
    }

    /// Ends the connection to a folder's server, and so the server; no fault if it has none.
    pub(super) async fn disconnect_folder(&self, id: &str) -> Result<()> {
        let removed = self.qmp.raw("chardev-remove", json!({"id": id}), COMMAND_TIMEOUT).await;
        match removed {
            Ok(_) | Err(Failure::Rejected { .. }) => Ok(()),
            Err(e) => Err(self.undone(&format!("cannot take the connection `{id}` from"), &e)),
        }
    }
}
