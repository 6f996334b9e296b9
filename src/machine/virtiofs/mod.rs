//! Serves a folder to a guest by virtiofsd, one process for each folder of a machine.
//!
//! Nothing of it has to be found or ended later. The server's socket listens before there is a server, and
//! what is to become it waits at a gate; QEMU connects to the socket, whose name is removed then; the gate is opened last.
//! So the server ends with QEMU, which holds the only connection to it, and where devbox dies on the way, the
//! gate closes and there never is a server.
//!
//! The server runs in namespaces that are made here ([`ids`], [`inside`]): a user namespace in which the
//! host's user has the ids of the guest's account, and mounts of its own, where a folder that the guest
//! may only read is read-only for the server, too.

mod daemon;
mod ids;
pub mod inside;
mod waiting;

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::json;

use super::Machine;
use super::folder::tag;
use super::qmp::COMMAND_TIMEOUT;
use crate::error::{Error, Result};
use crate::guest::folder::{Folder, Ids};
use daemon::Daemon;
use waiting::Waiting;

/// Fails where this host cannot serve folders so: before a guest is started for it.
///
/// # Errors
/// There is no virtiofsd, or this user has no ids to give to the guest's other accounts.
pub fn check() -> Result<PathBuf> {
    let daemon = Daemon::find()?;
    ids::Ranges::of_this_user()?;
    Ok(daemon.path)
}

impl Machine {
    /// Gives the guest the device of the `n`th folder and starts its server, if the device is not there.
    /// Files of the host's user belong to `owner` in the guest.
    ///
    /// # Errors
    /// The folder cannot be served, or QEMU refuses: it was started without this folder. No server is left.
    pub async fn serve_folder(&self, n: usize, folder: &Folder, owner: Ids) -> Result<()> {
        if self.has_folder(n).await? {
            return Ok(());
        }
        let id = tag(n);
        // Of a devbox that was killed in the middle of this.
        self.disconnect_folder(&id).await?;
        let server = Waiting::start(folder, owner, &self.files)?;
        let connected = self.connect(&id, &server).await;
        crate::crash::point("folder.connected");
        server.forget_name();
        let added = match connected.and_then(|()| server.open()) {
            Ok(()) => {
                crate::crash::point("folder.served");
                let device =
                    json!({"driver": "vhost-user-fs-pci", "id": id, "chardev": id, "tag": id});
                self.plug_folder(folder, &device).await
            }
            Err(e) => Err(e),
        };
        if let Err(e) = added {
            let _ = self.disconnect_folder(&id).await;
            return Err(server.explain(e));
        }
        Ok(())
    }

    /// Fails if the `n`th folder has a device and its server has ended: the guest waits for answers that
    /// never come, and nothing but its end helps.
    ///
    /// # Errors
    /// It has; or QEMU does not answer.
    pub async fn insist_on_server(&self, n: usize, folder: &Folder) -> Result<()> {
        // Without a device nobody waits: a devbox that was killed had come as far as the connection.
        if !self.has_folder(n).await? {
            return Ok(());
        }
        let all = self.qmp.raw("query-chardev", json!({}), COMMAND_TIMEOUT).await;
        let all = all.map_err(|e| self.undone("cannot ask QEMU for the servers of", &e))?;
        let id = json!(tag(n));
        let mut all = all.as_array().into_iter().flatten();
        let connection = all.find(|connection| connection["label"] == id);
        let name = connection.and_then(|connection| connection["filename"].as_str());
        if !name.is_some_and(|name| name.starts_with("disconnected")) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "the server of `{}` in `{}` has ended, and its guest waits for it",
            folder.target, self.name
        ))
        .detail(format!("what it said: {}", self.files.folders_log().display()))
        .hint(format!(
            "Switch the machine off with `devbox halt -f {0}`, then start it with `devbox up {0}`.",
            self.name
        )))
    }

    async fn connect(&self, id: &str, server: &Waiting) -> Result<()> {
        let address = json!({"type": "unix", "data": {"path": server.socket()}});
        let backend = json!({"type": "socket", "data": {"addr": address, "server": false}});
        let arguments = json!({"id": id, "backend": backend});
        let added = self.qmp.raw("chardev-add", arguments, COMMAND_TIMEOUT).await;
        added.map(drop).map_err(|e| e.of("cannot connect QEMU with the server of a folder"))
    }
}

/// Words of options, as they go to a program.
fn words<const N: usize>(all: [&str; N]) -> Vec<OsString> {
    all.map(OsString::from).into()
}
