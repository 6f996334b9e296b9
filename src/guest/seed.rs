//! The cloud-init seed of one instance: whatever must not be baked into the image.
//! (cloud-init's documentation, "NoCloud" and "Networking config Version 2".)

use std::path::Path;

use serde_json::{Value, json};

use super::iso9660;
use super::keys::KeyPair;
use crate::digest::{hex, sha256};
use crate::error::Result;

/// What one instance is told at its first boot.
#[derive(Debug)]
pub struct Seed<'a> {
    /// Another id makes cloud-init run its first-boot work again; see [`instance_id`].
    pub instance_id: String,
    /// Host name.
    pub hostname: &'a str,
    /// The account that is made, with password-less sudo and the key below.
    pub user: &'a str,
    /// The public key that may log in as `user`, one line; nobody may if absent.
    pub authorized_key: Option<&'a str>,
    /// The guest's ssh host key: known here before the first connection. If absent, the guest makes one.
    pub host_key: Option<&'a KeyPair>,
    /// The network card's address; no network configuration if absent.
    pub mac: Option<&'a str>,
}

/// A short id of this machine on this box: a new box or a new machine is a new instance.
#[must_use]
pub fn instance_id(box_digest: &str, uuid: &str) -> String {
    let hash = sha256(format!("{box_digest}\n{uuid}").as_bytes());
    format!("i-{}", hex(&hash[..8]))
}

impl Seed<'_> {
    /// The files of the seed by name. JSON, which is YAML too, so that no value needs care.
    #[must_use]
    pub fn files(&self) -> Vec<iso9660::File> {
        let mut files = vec![
            file("user-data", "#cloud-config\n", &self.user_data()),
            file(
                "meta-data",
                "",
                &json!({"instance-id": self.instance_id, "local-hostname": self.hostname}),
            ),
        ];
        if let Some(mac) = self.mac {
            // By its address, since the name depends on the guest's kernel and bus.
            let nic = json!({"match": {"macaddress": mac}, "set-name": "eth0", "dhcp4": true});
            files.push(file(
                "network-config",
                "",
                &json!({"version": 2, "ethernets": {"eth0": nic}}),
            ));
        }
        files
    }

    fn user_data(&self) -> Value {
        let mut data = json!({
            "hostname": self.hostname,
            "preserve_hostname": false,
            // Else sudo complains that it cannot resolve the machine's own name.
            "manage_etc_hosts": "localhost",
            "users": [{
                "name": self.user,
                "gecos": "devbox user",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": true,
                "ssh_authorized_keys": self.authorized_key.as_slice(),
            }],
            "disable_root": true,
            "ssh_pwauth": false,
            "ssh_deletekeys": true,
            "ssh_genkeytypes": ["ed25519"],
            // The log of the serial console is evidence for people, not a place for keys.
            "ssh": {"emit_keys_to_console": false},
            "no_ssh_fingerprints": true,
            "growpart": {"mode": "auto", "devices": ["/"]},
            "resize_rootfs": true,
            // The image's locale is the image's business; cloud-init would set its own default.
            "locale": false,
            "package_update": false,
            "package_upgrade": false,
        });
        if let Some(pair) = self.host_key {
            // Where it is there, even empty, cloud-init makes no keys itself.
            data["ssh_keys"] =
                json!({"ed25519_private": pair.private(), "ed25519_public": pair.public()});
        }
        data
    }

    /// Writes the seed as an ISO image with the label `cidata`, readable by this user only: it holds
    /// the host key's private half.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        use std::io::Write as _;
        let image = iso9660::image("cidata", &self.files())?;
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        crate::os::private_file(&mut options).open(path)?.write_all(&image)?;
        Ok(())
    }
}

fn file(name: &str, first: &str, value: &Value) -> iso9660::File {
    iso9660::File { name: name.to_owned(), bytes: format!("{first}{value:#}\n").into_bytes() }
}
