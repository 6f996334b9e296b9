//! The card on the project's private network: every frame is one datagram between QEMU and the switch.
//! Without a switch frames are lost and nothing else happens; one that starts later goes on at once.
//! (QEMU's manual, `-netdev dgram`.)

use serde_json::{Value, json};

use super::Machine;
use super::config::Card;
use super::files::Files;
use super::hotplug::{NETWORK_SLOT, occupied, plug_into};
use super::qmp::{COMMAND_TIMEOUT, Failure};
use crate::digest::sha256;
use crate::error::Result;
use std::path::Path;

/// QEMU's name of the host's end.
const NETDEV: &str = "private0";
/// QEMU's name of the card.
const DEVICE: &str = "private0-dev";

/// The address of the card of the machine `name` in the project in the folder `project`: the same each
/// time it is made anew, so that the others need not forget it.
#[must_use]
pub fn mac(project: &Path, name: &str) -> [u8; 6] {
    let project = sha256(project.as_os_str().as_encoded_bytes());
    let hash = sha256(&[&project[..], name.as_bytes()].concat());
    // Locally administered, of one card (IEEE 802, 8.2).
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// Six bytes in hex.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn netdev(card: &Card, files: &Files) -> Value {
    let unix = |path: &Path| json!({"type": "unix", "path": path.to_string_lossy()});
    json!({
        "type": "dgram", "id": NETDEV,
        "local": unix(&files.card_socket()), "remote": unix(&card.switch),
    })
}

pub(super) fn device(card: &Card) -> Value {
    json!({
        "driver": "virtio-net-pci", "id": DEVICE, "netdev": NETDEV, "mac": card.mac,
        // No network boot: nobody on this network has anything to boot.
        "romfile": "",
    })
}

impl Machine {
    /// Gives the machine a card while it runs; false if it has one.
    ///
    /// # Errors
    /// QEMU refuses it: a machine that was started by an older devbox has no slot for it.
    pub async fn plug_card(&self, card: &Card) -> Result<bool> {
        let work = async {
            if occupied(&self.qmp, NETWORK_SLOT).await? {
                return Ok(false);
            }
            // Of a time that was interrupted between the two commands.
            let _ = self.qmp.raw("netdev_del", json!({"id": NETDEV}), COMMAND_TIMEOUT).await;
            self.qmp.raw("netdev_add", netdev(card, &self.files), COMMAND_TIMEOUT).await?;
            plug_into(&self.qmp, NETWORK_SLOT, &device(card)).await?;
            Ok::<_, Failure>(true)
        };
        work.await.map_err(|e| {
            let error = self.undone("cannot give a card on the private network to", &e);
            match e {
                Failure::Rejected { .. } => {
                    error.hint(format!("Restart it with `devbox reload {}`.", self.name))
                }
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_one_machine_of_one_project() {
        let one = mac(Path::new("/a"), "web");
        assert_eq!(one, mac(Path::new("/a"), "web"));
        assert_ne!(one, mac(Path::new("/a"), "db"));
        assert_ne!(one, mac(Path::new("/b"), "web"));
        // Neither a group's nor a maker's.
        assert_eq!(one[0] & 3, 2);
        assert_eq!(mac_text([2, 0, 0xab, 1, 2, 3]), "02:00:ab:01:02:03");
    }
}
