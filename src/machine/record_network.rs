//! A record of all frames of a guest's network.

use std::path::Path;

use serde_json::json;

use super::Machine;
use super::qmp::COMMAND_TIMEOUT;
use crate::error::Result;

impl Machine {
    /// Lets QEMU write every frame of the network behind user-mode NAT into `file` from now on, the first `longest`
    /// bytes of each, as a classic capture file (QEMU's manual, "-object filter-dump").
    ///
    /// # Errors
    /// QEMU refuses, or does not answer.
    pub async fn record_network(&self, file: &Path, longest: u32) -> Result<()> {
        let object = json!({
            "qom-type": "filter-dump", "id": "network", "netdev": "net0",
            "file": file.to_string_lossy(), "maxlen": longest,
        });
        let added = self.qmp.raw("object-add", object, COMMAND_TIMEOUT).await;
        added.map(drop).map_err(|e| self.undone("cannot record the network of", &e))
    }
}
