//! An installation, as it stands in `spec1`.

use serde_json::{Value, json};

use super::{files, stated};
use crate::digest::FileDigest;
use crate::error::Result;
use crate::spec::types::{Boot, End, IsoSource, Place};

/// How long it may take, and how often it may reboot, decides nothing about what comes out.
pub(super) fn inputs(source: &IsoSource, medium: Option<&FileDigest>) -> Result<Value> {
    let mut answers = vec![];
    for answer in &source.answers {
        let mut one = json!({
            "type": answer.place.as_str(),
            "name": answer.name,
            "content": files::file(&answer.source)?,
        });
        if let Place::Cd(label) = &answer.place {
            one["label"] = json!(label);
        }
        answers.push(one);
    }
    Ok(json!({
        "type": "iso",
        "sha256": stated(&source.checksum, medium)?,
        "disk": source.disk_size,
        "answers": answers,
        "boot": match &source.boot {
            Boot::Cd => Value::Null,
            Boot::Kernel { kernel, initrd, cmdline } => json!({
                "type": "kernel", "kernel": kernel, "initrd": initrd, "cmdline": cmdline,
            }),
            Boot::Command { command, .. } => json!({"type": "command", "command": command}),
        },
        "end": match source.end {
            End::PowerOff => "power-off",
            End::Reboot => "reboot",
        },
    }))
}
