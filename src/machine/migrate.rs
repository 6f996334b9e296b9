//! Saves the state of a paused machine to a file and restores it in another QEMU.
//! (QEMU's documentation, "Migration"; `docs/devel/migration`, capability `x-ignore-shared`.)
//!
//! That of a template's devices goes without the memory: it stays in the file that the saved machine had as its
//! memory, which the restored one maps privately. So saving costs a tenth of a second, and restoring reads only the
//! pages that the guest touches. The guest of a build has no such file, and its memory goes with the rest: pages of
//! zeroes are left out.

use std::path::Path;
use std::time::{Duration, Instant};

use qapi::qmp as schema;
use serde_json::json;

use super::qmp::{Failure, Qmp};
use crate::error::Result;
use crate::exec::quote;

/// Between two looks how far it is; device state is about 600 kB.
const POLL: Duration = Duration::from_millis(5);
/// Far above the tenth of a second that devices take, and the seconds that memory takes: a host that swaps.
const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes a second: no limit, where QEMU's own is 128 MiB.
const BANDWIDTH: u64 = 64 << 30;

/// What is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The devices' state; the memory is a file that is written through when it is saved, and mapped when it is
    /// restored.
    Devices,
    /// The memory too.
    All,
}

/// Writes the state to `file`. The guest must be stopped.
///
/// # Errors
/// QEMU refuses (a device cannot be saved), or the file cannot be written.
pub(super) async fn save(qmp: &Qmp, scope: Scope, file: &Path) -> Result<()> {
    let work = async {
        leave_memory_out(qmp, scope == Scope::Devices).await?;
        let limit = json!({"max-bandwidth": BANDWIDTH});
        qmp.raw("migrate-set-parameters", limit, DEADLINE).await?;
        let uri = format!("exec:cat > {}", quote(file.as_os_str()));
        qmp.raw("migrate", json!({"uri": uri}), DEADLINE).await?;
        finished(qmp).await
    };
    work.await.map_err(|e: Failure| e.of("cannot save the state of the machine"))
}

/// Reads the state from `file` into a QEMU that was started with `-incoming defer`. The guest is paused then.
///
/// # Errors
/// The state does not fit to this machine or this QEMU.
pub(super) async fn restore(qmp: &Qmp, scope: Scope, file: &Path) -> Result<()> {
    let work = async {
        leave_memory_out(qmp, scope == Scope::Devices).await?;
        let uri = format!("exec:cat {}", quote(file.as_os_str()));
        qmp.raw("migrate-incoming", json!({"uri": uri}), DEADLINE).await?;
        finished(qmp).await?;
        // What is saved from here on is this machine's own memory.
        leave_memory_out(qmp, false).await
    };
    work.await.map_err(|e: Failure| {
        e.of(match scope {
            Scope::Devices => "cannot restore the state of the template",
            Scope::All => "cannot restore the state of the machine",
        })
    })
}

async fn leave_memory_out(qmp: &Qmp, state: bool) -> Result<(), Failure> {
    let capability = schema::MigrationCapability::x_ignore_shared;
    let capabilities = vec![schema::MigrationCapabilityStatus { capability, state }];
    qmp.execute(schema::migrate_set_capabilities { capabilities }).await?;
    Ok(())
}

/// Waits until the migration that runs has ended well.
async fn finished(qmp: &Qmp) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        // Raw: newer versions of QEMU have statuses that the schema does not know.
        let info = qmp.raw("query-migrate", json!({}), DEADLINE).await?;
        match info["status"].as_str() {
            Some("completed") => return Ok(()),
            Some(status @ ("failed" | "cancelled")) => {
                let why = info["error-desc"].as_str().unwrap_or(status).to_owned();
                return Err(Failure::Unexpected(why));
            }
            _ if start.elapsed() > DEADLINE => return Err(Failure::TimedOut(DEADLINE)),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}
