//! Lets a guest that runs write into a new layer of its disk: what the disk was so far stays as it is.

use std::path::Path;

use serde_json::json;

use super::Machine;
use super::argv::ROOT_NODE;
use super::migrate::{self, Scope};
use super::qmp::{COMMAND_TIMEOUT, Failure};
use crate::error::Result;

impl Machine {
    /// Puts `layer` on top of the system's disk, a qcow2 whose header names the file that is on top now. `number` is
    /// that of the layer, from 1: it is the second disk file of this machine, then the third, and so on. The guest
    /// stands still for some milliseconds; who wants its files in the layer below lets it write them (sync(1)) first.
    ///
    /// Where a file is named for it, devices and memory as they are between the layers are saved there
    /// ([`super::config::Incoming::Memory`]), which takes a second or more; how that went is the inner result, and
    /// the guest goes on in any case.
    ///
    /// (QEMU's QMP reference, "blockdev-snapshot".)
    ///
    /// # Errors
    /// QEMU refuses, or does not answer. The guest goes on with the disk that it had.
    pub async fn put_layer(
        &self,
        number: usize,
        layer: &Path,
        memory: Option<&Path>,
    ) -> Result<Result<()>> {
        let node = |number: usize| match number {
            0 => ROOT_NODE.to_owned(),
            n => format!("{ROOT_NODE}-layer{n}"),
        };
        let (below, above) = (node(number - 1), node(number));
        let block = json!({
            "driver": "qcow2", "node-name": above, "discard": "unmap", "detect-zeroes": "unmap",
            // It comes by `blockdev-snapshot`: opened twice, the file would be locked twice.
            "backing": null,
            "file": {"driver": "file", "filename": layer.to_string_lossy(), "discard": "unmap"},
        });
        self.pause().await?;
        let put = async {
            self.qmp.raw("blockdev-add", block, COMMAND_TIMEOUT).await?;
            let both = json!({"node": below, "overlay": above});
            let put = self.qmp.raw("blockdev-snapshot", both, COMMAND_TIMEOUT).await;
            if put.is_err() {
                let _ = self
                    .qmp
                    .raw("blockdev-del", json!({"node-name": above}), COMMAND_TIMEOUT)
                    .await;
            }
            put
        };
        let put = put
            .await
            .map_err(|e: Failure| self.undone("cannot begin a new layer of the disk of", &e));
        let saved = match memory {
            Some(file) if put.is_ok() => migrate::save(&self.qmp, Scope::All, file).await,
            _ => Ok(()),
        };
        let going = self.go_on().await;
        put?;
        going?;
        Ok(saved)
    }
}
