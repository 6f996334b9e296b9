//! Disks of a guest that the host can no longer write or read: QEMU stops the guest at such a write, and it would wait for
//! ever.

use qapi::qmp as schema;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Machine;
use super::qmp::{Qmp, RawEvent};
use crate::error::Error;

/// Hears of failures of a machine's disks.
#[derive(Debug)]
pub struct DiskErrors {
    name: String,
    qmp: Qmp,
    events: Receiver<RawEvent>,
    /// What cannot be read may come later.
    may_wait: bool,
}

impl Machine {
    /// Listens to failures of its disks; borrows nothing of it.
    #[must_use]
    pub fn disk_errors(&self) -> DiskErrors {
        let (name, qmp) = (self.name.clone(), self.qmp.clone());
        DiskErrors { name, events: qmp.events(), qmp, may_wait: self.disk_may_wait }
    }
}

impl DiskErrors {
    /// Returns when the guest's disk has failed, at once if it has already, with what a person should know; never if it
    /// does not fail.
    ///
    /// (QEMU's QMP reference, "`BLOCK_IO_ERROR`", "`RunState`".)
    pub async fn next(&mut self) -> Error {
        let status = self.qmp.execute(schema::query_status {}).await;
        let stopped_now = schema::RunState::io_error;
        if !self.may_wait && status.is_ok_and(|status| status.status == stopped_now) {
            return stopped(&self.name);
        }
        loop {
            match self.events.recv().await {
                Ok(event) if self.may_wait && waits(&event) => {}
                Ok(event) if event.name == "BLOCK_IO_ERROR" => {
                    if let Some(error) = failure(&self.name, &event.data) {
                        return error;
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                // That QEMU ended is for those to say who wait for its answers.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// What `work` brings, unless the disk fails meanwhile.
    ///
    /// # Errors
    /// Those of `work`; the disk failed.
    pub async fn beside<T, E: From<Error>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            error = self.next() => Err(error.into()),
            done = work => done,
        }
    }
}

/// Whether it is what of a box has not arrived that could not be read, and not the host's disk that is full.
fn waits(event: &RawEvent) -> bool {
    let is = |key: &str| event.data.get(key).and_then(Value::as_bool) == Some(true);
    event.data.get("action").and_then(Value::as_str) == Some("stop") && !is("nospace")
}

fn stopped(name: &str) -> Error {
    Error::failed(format!("`{name}` stands still since the host could not write or read its disk"))
        .hint("Look for space on the host's disk (`df`); `devbox box prune` and `devbox cache prune` remove what is not needed.")
}

fn failure(name: &str, data: &Value) -> Option<Error> {
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("action") == "ignore" {
        return None;
    }
    let error = Error::failed(format!(
        "the host could not {} the disk of `{name}`",
        if text("operation") == "read" { "read" } else { "write" }
    ));
    Some(match data.get("nospace").and_then(Value::as_bool) {
        Some(true) => error.cause("no space is left on the host's disk").hint(
            "Free some space (`devbox box prune` and `devbox cache prune` remove what is not needed), or choose another disk with `DEVBOX_HOME`.",
        ),
        _ => error
            .cause(match text("reason") {
                "" => "QEMU does not say why",
                reason => reason,
            })
            .hint("Look at the host's own log (`dmesg`) for a disk that fails."),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_full_disk_and_a_broken_one_are_told_apart() {
        let full = json!({"operation": "write", "action": "stop", "nospace": true, "reason": "No space left on device"});
        let text = failure("web", &full).expect("a failure").to_string();
        assert!(text.contains("write the disk of `web`") && text.contains("no space"), "{text}");
        let broken = json!({"operation": "read", "action": "report", "nospace": false, "reason": "Input/output error"});
        let text = failure("web", &broken).expect("a failure").to_string();
        assert!(text.contains("read the disk") && text.contains("Input/output error"), "{text}");
        assert!(failure("web", &json!({"action": "ignore"})).is_none());
    }
}
