//! A machine whose disk begins as a copy of another one's.

use fs_err as fs;

use super::instance::{Instance, alone};
use super::record::{Record, SUSPENDED};
use crate::error::Result;
use crate::exec::{self, tools};
use crate::guest::seed::instance_id;

impl Instance {
    /// Makes this machine with the disk of `source` as it lies there, on the same sealed image, with keys
    /// and a seed of its own. Snapshots and saved memory stay with the source. The record comes last,
    /// so that an interrupted making leaves nothing that counts. Both locks are held, and no QEMU
    /// writes to the disk: it has ended or stands still.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create_clone(&self, source: &Instance, original: &Record) -> Result<Record> {
        self.clear()?;
        let uuid = crate::host::new_uuid()?;
        // Another instance: cloud-init gives it its name and keys at its first boot.
        let id = instance_id(&original.base.manifest, &uuid);
        self.write_seed(id, &original.user, original.login)?;
        let overlay = self.files().overlay();
        fs::copy(source.files().overlay(), &overlay)?;
        let suspended = original.suspended.as_ref().map(|_| SUSPENDED);
        for snapshot in original.snapshots.keys().map(String::as_str).chain(suspended) {
            let mut command = tools::QEMU_IMG.command()?;
            command.args(["snapshot", "-d", snapshot]).arg(alone(&overlay));
            exec::output(&mut command)?;
        }
        crate::crash::point("clone.before-record");
        let record = Record {
            name: self.name().to_owned(),
            project: self.project().to_owned(),
            uuid,
            forwards: vec![],
            added: vec![],
            ready: None,
            address: None,
            shape: None,
            overrides: vec![],
            // Its own begin empty.
            disks: vec![],
            identity_of: Some(original.name.clone()),
            suspended: None,
            snapshots: std::collections::BTreeMap::new(),
            ..original.clone()
        };
        self.save(&record)?;
        Ok(record)
    }
}
