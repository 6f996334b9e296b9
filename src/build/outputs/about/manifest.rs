//! `manifest.json`: what was written, and the digests by which it is known. `docs/outputs.md`.

use serde_json::{Value, json};

use super::Listed;
use crate::build::outputs::Work;

/// Its name; there is one in a folder.
pub(super) const NAME: &str = "manifest.json";
/// Another one, when a member changes its meaning.
const SCHEMA: &str = "devbox.outputs/1";

/// The document.
pub(super) fn document(work: &Work, files: &[Listed]) -> Value {
    let config = work.image.config();
    let files: Vec<Value> = files.iter().map(|file| entry(work, file)).collect();
    json!({
        "schema": SCHEMA,
        "tool": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
        "box": {
            "name": config.name,
            "version": config.version,
            "arch": config.arch,
            "firmware": config.firmware,
            "diskSize": config.disk_size,
            "epoch": config.epoch,
            "seal": config.seal,
            "spec1": config.spec1,
            "box1": config.box1,
            "bytes1": config.bytes1,
            "manifest": work.image.manifest_digest(),
            "devbox": config.devbox,
        },
        "files": files,
    })
}

fn entry(work: &Work, file: &Listed) -> Value {
    let mut entry = json!({
        "name": file.name,
        "format": file.of,
        "size": file.size,
        "sha256": file.sha256.hex(),
    });
    if file.is_disk {
        // Read back from the file itself, or it would not have its name.
        entry["bytes1"] = json!(work.image.config().bytes1);
        entry["box1"] = json!(work.image.config().box1);
    }
    entry
}
