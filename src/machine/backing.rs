//! What is below a machine's disk layer while its box arrives: the same bytes, read over NBD from a server on this host.

use std::path::Path;
use std::time::Duration;

use qapi::qmp as schema;
use serde_json::{Value, json};

use super::argv::ROOT_NODE;
use super::files::Files;
use super::qmp::{COMMAND_TIMEOUT, Qmp};
use crate::error::{Error, Result};

/// The file below the disk's own layer, as a node that can be named when the rest is taken away.
pub(super) const FILE_NODE: &str = "disk0-file";
/// The box while it arrives.
pub(super) const ARRIVING_NODE: &str = "box0-arriving";
/// The box, as it is once it is whole.
const BOX_NODE: &str = "box0";
/// What QEMU waits for a server that went away before the guest stands still. Another one is there in a moment; longer, and
/// QEMU itself waits with all that it should do meanwhile.
const RECONNECT: u32 = 5;
/// For a connection to a QEMU that works.
const WAIT: Duration = Duration::from_secs(3);

/// The node of a box that is read from the server at `socket`.
pub(super) fn block(socket: &Path) -> Value {
    json!({
        "driver": "qcow2", "node-name": ARRIVING_NODE, "read-only": true, "backing": null,
        "file": {
            "driver": "nbd", "read-only": true, "reconnect-delay": RECONNECT,
            "server": {"type": "unix", "path": socket.to_string_lossy()},
        },
    })
}

/// Lets a guest go on that stands still since its disk could not be read. True if it did stand still.
///
/// (QEMU's QMP reference, "`RunState`", `io-error`.)
///
/// # Errors
/// QEMU does not answer, or the guest cannot go on.
pub async fn go_on(files: &Files) -> Result<bool> {
    let qmp = Qmp::connect(&files.watch_socket(), WAIT).await?;
    let status = qmp.execute(schema::query_status {}).await.map_err(|e| e.of("cannot ask QEMU"))?;
    if status.status != schema::RunState::io_error {
        return Ok(false);
    }
    qmp.execute(schema::cont {}).await.map_err(|e| e.of("cannot let the guest go on"))?;
    Ok(true)
}

/// Puts the file of the box, which is whole now, in the place of the server. The guest goes on meanwhile.
///
/// (QEMU's QMP reference, "blockdev-reopen".)
///
/// # Errors
/// QEMU does not answer or refuses: the machine reads from the server still.
pub async fn switch(files: &Files, disk: &Path) -> Result<()> {
    let qmp = Qmp::connect(&files.watch_socket(), WAIT).await?;
    let failed = |what: &str, e: &super::qmp::Failure| e.of(format!("cannot {what}"));
    let file = json!({
        "driver": "qcow2", "node-name": BOX_NODE, "read-only": true, "backing": null,
        "file": {"driver": "file", "filename": disk.to_string_lossy(), "read-only": true},
    });
    // One that is there is of an attempt that got no further.
    if !has_node(&qmp, BOX_NODE).await? {
        let added = qmp.raw("blockdev-add", file, COMMAND_TIMEOUT).await;
        added.map_err(|e| failed("open the box for QEMU", &e))?;
    }
    let layer = json!({"options": [{
        "driver": "qcow2", "node-name": ROOT_NODE, "read-only": false,
        "discard": "unmap", "detect-zeroes": "unmap", "file": FILE_NODE, "backing": BOX_NODE,
    }]});
    let reopened = qmp.raw("blockdev-reopen", layer, COMMAND_TIMEOUT).await;
    reopened.map_err(|e| failed("move the disk over to the box", &e))?;
    let gone = json!({"node-name": ARRIVING_NODE});
    let gone = qmp.raw("blockdev-del", gone, COMMAND_TIMEOUT).await;
    gone.map_err(|e| failed("let go of the server of the box", &e))?;
    fs_err::write(files.on_file(), "").map_err(Error::from)
}

async fn has_node(qmp: &Qmp, name: &str) -> Result<bool> {
    let nodes = qmp.raw("query-named-block-nodes", json!({"flat": true}), COMMAND_TIMEOUT).await;
    let nodes = nodes.map_err(|e| e.of("cannot ask QEMU for its disks"))?;
    let mut nodes = nodes.as_array().into_iter().flatten();
    Ok(nodes.any(|node| node["node-name"].as_str() == Some(name)))
}
