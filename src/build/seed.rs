//! The build's own cloud-init seed: a login for the build alone, and nothing else that would change
//! the image.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use crate::error::Result;
use crate::guest::iso9660;
use crate::guest::keys::KeyPair;

/// The build's account. Removed by the seal, which checks it.
pub(super) const USER: &str = "devbox-build";
/// Its user id, above those of people (adduser takes up to 59999, Debian Policy 9.2.2) and below
/// systemd's dynamic ones (from 61184), so that accounts that steps make get the ids that they
/// would have without it.
const UID: u32 = 60_900;

/// Writes the seed to `path`.
pub(super) fn write(
    path: &Path,
    instance: &str,
    hostname: &str,
    mac: &str,
    key: &KeyPair,
    host_key: &KeyPair,
) -> Result<()> {
    let file = |name: &str, first: &str, value: &Value| iso9660::File {
        name: name.to_owned(),
        bytes: format!("{first}{value:#}\n").into_bytes(),
    };
    let nic = json!({"match": {"macaddress": mac}, "set-name": "eth0", "dhcp4": true});
    let files = [
        file("user-data", "#cloud-config\n", &user_data(hostname, key, host_key)),
        file("meta-data", "", &json!({"instance-id": instance, "local-hostname": hostname})),
        file("network-config", "", &json!({"version": 2, "ethernets": {"eth0": nic}})),
    ];
    let image = iso9660::image("cidata", &files)?;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    fs::OpenOptions::from_options(options).open(path)?.write_all(&image)?;
    Ok(())
}

fn user_data(hostname: &str, key: &KeyPair, host_key: &KeyPair) -> Value {
    json!({
        "hostname": hostname,
        "users": [{
            "name": USER,
            "uid": UID,
            "shell": "/bin/sh",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": [key.public()],
        }],
        "disable_root": true,
        "ssh_deletekeys": true,
        "ssh_genkeytypes": ["ed25519"],
        "ssh_keys": {
            "ed25519_private": host_key.private(),
            "ed25519_public": host_key.public(),
        },
        "ssh": {"emit_keys_to_console": false},
        "no_ssh_fingerprints": true,
        // Only what a login needs: every other module would write to the image, and takes seconds.
        "cloud_init_modules": ["set_hostname", "users-groups", "ssh"],
        "cloud_config_modules": [],
        "cloud_final_modules": [],
    })
}
