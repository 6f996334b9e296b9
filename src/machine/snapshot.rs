//! Snapshots of a machine with its memory: QEMU writes memory, devices and the state of the disk into
//! the disk's own file, under a name.
//! (QEMU's QMP reference, "snapshot-save", "snapshot-load", "snapshot-delete"; a job each.)

use std::time::Duration;

use serde_json::{Value, json};

use super::Machine;
use super::argv::ROOT_NODE;
use super::data_disk::NODE_PREFIX;
use super::qmp::{Failure, Qmp};
use crate::error::Result;
use crate::host;

/// Free bytes, after a failure, that speak for a full disk: the memory of a small machine.
const LITTLE: u64 = 1 << 30;
/// The ids of our jobs begin with it.
const JOB_PREFIX: &str = "devbox-";
/// Between two looks whether a job has ended.
const POLL: Duration = Duration::from_millis(10);
/// For one answer while a job runs: QEMU's main loop is busy writing memory and answers after it.
const ANSWER: Duration = Duration::from_secs(1800);

impl Machine {
    /// Saves memory, devices and disk as `tag`; the guest stands still meanwhile and goes on after.
    ///
    /// # Errors
    /// QEMU refuses: a device cannot be saved, or there is no space. The guest goes on.
    pub async fn save_snapshot(&self, tag: &str) -> Result<()> {
        let saved = async {
            let devices = nodes(&self.qmp).await?;
            let arguments = json!({"tag": tag, "vmstate": ROOT_NODE, "devices": devices});
            job(&self.qmp, "snapshot-save", arguments).await
        };
        saved.await.map_err(|e| {
            let error = self.undone("cannot save a snapshot of", &e);
            // QEMU calls a disk that is full an input/output error.
            match host::free_bytes(self.files.dir()) {
                Ok(free) if free < LITTLE && e != Failure::Disconnected => error.hint(format!(
                    "Free some space: the disk with `{}` has {} MiB left, and memory is saved there.",
                    self.files.dir().display(),
                    free >> 20
                )),
                _ => error,
            }
        })
    }

    /// Goes back to `tag`. The guest runs after it if it ran before.
    ///
    /// # Errors
    /// There is no such snapshot with memory, or it is of a machine of another shape.
    pub async fn load_snapshot(&self, tag: &str) -> Result<()> {
        let loaded = load(&self.qmp, tag).await;
        loaded.map_err(|e| self.undone("cannot go back to a snapshot of", &e))
    }

    /// Removes `tag`; no fault if there is none.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn delete_snapshot(&self, tag: &str) -> Result<()> {
        let deleted = async {
            let devices = nodes(&self.qmp).await?;
            let arguments = json!({"tag": tag, "devices": devices});
            job(&self.qmp, "snapshot-delete", arguments).await
        };
        deleted.await.map_err(|e: Failure| self.undone("cannot delete a snapshot of", &e))
    }
}

/// Loads a snapshot into a QEMU whose guest stands still.
pub(super) async fn load(qmp: &Qmp, tag: &str) -> Result<(), Failure> {
    let devices = nodes(qmp).await?;
    let arguments = json!({"tag": tag, "vmstate": ROOT_NODE, "devices": devices});
    job(qmp, "snapshot-load", arguments).await
}

/// The machine's own disks, which are saved together: the memory belongs to all of them.
async fn nodes(qmp: &Qmp) -> Result<Vec<String>, Failure> {
    let all = qmp.raw("query-named-block-nodes", json!({"flat": true}), ANSWER).await?;
    let names = all.as_array().into_iter().flatten().filter_map(|node| node["node-name"].as_str());
    let own = |name: &&str| *name == ROOT_NODE || name.starts_with(NODE_PREFIX);
    let mut own: Vec<String> = names.filter(own).map(str::to_owned).collect();
    own.sort();
    Ok(own)
}

/// Runs a job to its end.
async fn job(qmp: &Qmp, command: &str, mut arguments: Value) -> Result<(), Failure> {
    // Of a devbox that was killed: QEMU went on with it, and nobody heard how it ended.
    for left in ours(qmp).await? {
        end(qmp, &left).await?;
    }
    let id = format!("{JOB_PREFIX}{command}");
    arguments["job-id"] = json!(id);
    qmp.raw(command, arguments, ANSWER).await?;
    match end(qmp, &id).await? {
        None => Ok(()),
        Some(text) => Err(Failure::Rejected { class: "job".to_owned(), text }),
    }
}

/// The jobs that a devbox began, by their ids.
async fn ours(qmp: &Qmp) -> Result<Vec<String>, Failure> {
    let jobs = qmp.raw("query-jobs", json!({}), ANSWER).await?;
    let ids = jobs.as_array().into_iter().flatten().filter_map(|job| job["id"].as_str());
    Ok(ids.filter(|id| id.starts_with(JOB_PREFIX)).map(str::to_owned).collect())
}

/// Waits until the job has ended, and takes it off QEMU's list; its error, if it has one.
async fn end(qmp: &Qmp, id: &str) -> Result<Option<String>, Failure> {
    loop {
        let jobs = qmp.raw("query-jobs", json!({}), ANSWER).await?;
        let job = jobs.as_array().and_then(|all| all.iter().find(|job| job["id"] == json!(id)));
        let Some(job) = job else {
            return Err(Failure::Unexpected(format!("the job `{id}` has vanished")));
        };
        if job["status"] == json!("concluded") {
            let error = job["error"].as_str().map(str::to_owned);
            qmp.raw("job-dismiss", json!({"id": id}), ANSWER).await?;
            return Ok(error);
        }
        tokio::time::sleep(POLL).await;
    }
}
