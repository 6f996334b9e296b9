//! One Debian, built with all that configures machines: the host's ansible and the guest's, puppet, a
//! template, a script of `provisioners/`, tests and secrets; and one by salt. The real programs, each of them twice.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::people::{exits, not_run, run};
use crate::workbench::{Project, small_debian};

/// Values that occur nowhere but where this test puts them.
const PASSWORD: &str = "planted-3d9e0c7715fa4b62";
const VAULT: &str = "planted vault 88c1f04e";

const STEPS: &str = r#"
[[steps]]
type = "ansible"
name = "host"
source = "ansible"
playbook = "site.yml"
groups = ["web"]
extra_vars = { http_port = 8080 }
skip_tags = ["broken"]
secrets = { DB_PASSWORD = { env = "CI_PASSWORD" }, VAULT = { file = "vault-password" } }
vault_password = "VAULT"
idempotent = true

[[steps]]
type = "ansible"
name = "guest"
where = "guest"
source = "ansible"
playbook = "site.yml"
groups = ["web"]
extra_vars = { http_port = 8080 }
skip_tags = ["broken"]
secrets = { DB_PASSWORD = { env = "CI_PASSWORD" }, VAULT = { file = "vault-password" } }
vault_password = "VAULT"

[[steps]]
type = "puppet"
name = "puppet"
source = "puppet"
hiera = "hiera.yaml"
idempotent = true

[[steps]]
type = "template"
source = "app.conf"
target = "/etc/app.conf"
vars = { port = 8080 }

[[steps]]
type = "shell"
name = "hardening"
script = "hardening.sh"

[[steps]]
type = "shell"
name = "again"
script = "hardening.sh"

[[steps]]
type = "images"
archives = ["image.tar"]

[[steps]]
type = "test"
name = "checks"
packages = ["puppet-agent"]
services = ["ssh"]
ports = ["22"]
files = ["/etc/password.sha256"]
commands = [
    "grep -qx 'listen 8080' /etc/ansible-app.conf",
    "id app",
    "test \"$(cat /etc/password.sha256)\" = \"$(printf %s \"$DB_PASSWORD\" | sha256sum | cut -d' ' -f1)\"",
    "grep -qx welcome /etc/puppet-motd",
    "grep -qx 'port 8080' /etc/app.conf",
    "podman image exists localhost/small:1",
    "sshd -T | grep -qx 'passwordauthentication no'",
    "test ! -e /tmp/.devbox-work && test ! -e /root/.ansible && test ! -e /var/lib/puppet/state",
]
secrets = { DB_PASSWORD = { env = "CI_PASSWORD" } }
"#;

const SALT: &str = r#"
[[steps]]
type = "file"
source = "wheels"
target = "/opt/wheels"

[[steps]]
type = "shell"
name = "salt of PyPI"
timeout = "30m"
inline = """
python3 -m venv /opt/salt
/opt/salt/bin/pip install --no-index --find-links /opt/wheels salt
ln -s /opt/salt/bin/salt-call /usr/local/bin/
rm -r /opt/wheels
"""

[[steps]]
type = "salt"
name = "salt"
source = "states"
pillar = "pillar"
grains = { role = "web" }
idempotent = true
timeout = "20m"
secrets = { DB_PASSWORD = { env = "CI_PASSWORD" } }

[[steps]]
type = "test"
name = "checks"
commands = [
    "grep -qx 'listen 8080' /etc/salt-app.conf",
    "id app",
    "test \"$(cut -d' ' -f1 /etc/salt-password.sha256)\" = \"$(printf %s \"$DB_PASSWORD\" | sha256sum | cut -d' ' -f1)\"",
    "test ! -e /tmp/.devbox-work && test ! -e /etc/salt && test ! -e /var/cache/salt && test ! -e /var/log/salt",
]
secrets = { DB_PASSWORD = { env = "CI_PASSWORD" } }
"#;

#[test]
fn ansible_and_puppet_converge_and_no_secret_is_in_what_stays() {
    if std::env::var_os("DEVBOX_PROVISIONERS").is_none() {
        not_run("ansible and puppet on a Debian", "set DEVBOX_PROVISIONERS=1");
        return;
    }
    let debian = small_debian("configured")
        .replace("disk = ", "packages = [\"ansible-core\", \"puppet-agent\", \"podman\"]\ndisk = ")
        .replace("outputs = [\"qcow2\"]", "outputs = [\"qcow2\", \"raw\"]");
    let home = tempfile::tempdir().expect("a folder");
    // What a user may have, and what must have no part in it.
    let mine = home.path().join("mine.cfg");
    fs::write(&mine, "[defaults]\nremote_user = nobody\nstdout_callback = none\n")
        .expect("written");
    fs::copy(&mine, home.path().join(".ansible.cfg")).expect("copied");
    let project = Project::new("configured", &format!("{debian}\n{STEPS}"))
        .alone()
        .with_env("HOME", &home.path().to_string_lossy())
        .with_env("ANSIBLE_CONFIG", &mine.to_string_lossy())
        .with_env("ANSIBLE_REMOTE_USER", "nobody")
        .with_env("CI_PASSWORD", PASSWORD);
    let dir = project.dir();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/provisioners");
    run(Command::new("cp").arg("-r").arg(sources.join(".")).arg(dir));
    let script = sources.join("../../../provisioners/hardening.sh");
    fs::copy(script, dir.join("hardening.sh")).expect("copied");
    fs::write(dir.join("app.conf"), "port {{ port }}\n").expect("written");
    fs::write(dir.join("vault-password"), format!("{VAULT}\n")).expect("written");
    fs::write(dir.join("image.tar"), image()).expect("written");
    let vars = dir.join("ansible/group_vars/web");
    fs::create_dir_all(&vars).expect("made");
    fs::write(vars.join("vault.yml"), "vaulted: opened\n").expect("written");
    let mut vault = Command::new("ansible-vault");
    vault.args(["encrypt", "--vault-password-file"]).arg(dir.join("vault-password"));
    run(vault.arg(vars.join("vault.yml")));

    let said = exits(&mut project.devbox(&["build", "--verbose"]), 0);
    let told = format!("{}{}", said.out, said.err);
    for line in [
        "ansible changed nothing the second time",
        "puppet changed nothing the second time",
        // The guest's ansible finds what the host's did.
        "ansible found nothing to change",
        "the password is [secret DB_PASSWORD]",
        "step 5 hardening: wrote /etc/sysctl.d/60-hardening.conf",
        "step 6 again: hardened",
        "all 12 hold",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    assert!(!told.contains("step 6 again: wrote"), "{told}");
    for secret in [PASSWORD, VAULT] {
        assert!(!told.contains(secret), "{told}");
    }
    // Boxes, outputs, layers, caches, logs: byte by byte, by a program that knows nothing of devbox.
    fs::remove_file(dir.join("vault-password")).expect("removed");
    refuse_secrets(dir);
    project.clear();
}

#[test]
fn salt_converges_and_its_secret_is_in_nothing_that_stays() {
    // Debian 12 has no Salt, so it comes from PyPI: `pip download salt`, for Python 3.11 where that is not the host's.
    let Some(wheels) = std::env::var_os("DEVBOX_SALT") else {
        not_run("salt on a Debian", "set DEVBOX_SALT to a folder with the wheels of `salt`");
        return;
    };
    let debian = small_debian("salted")
        .replace("disk = ", "packages = [\"python3-venv\"]\ndisk = ")
        .replace("outputs = [\"qcow2\"]", "outputs = [\"qcow2\", \"raw\"]");
    let project = Project::new("salted", &format!("{debian}\n{SALT}"))
        .alone()
        .with_env("CI_PASSWORD", PASSWORD);
    let dir = project.dir();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/provisioners/salt");
    run(Command::new("cp").arg("-r").arg(sources.join(".")).arg(dir));
    run(Command::new("cp").arg("-rT").arg(wheels).arg(dir.join("wheels")));

    let said = exits(&mut project.devbox(&["build", "--verbose"]), 0);
    let told = format!("{}{}", said.out, said.err);
    for line in [
        "salt changed nothing the second time",
        "the password is [secret DB_PASSWORD]",
        "all 4 hold",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    assert!(!told.contains(PASSWORD), "{told}");
    refuse_secrets(dir);
    project.clear();
}

/// Nothing in the folder holds a secret: outputs, store, cache, layers and logs.
fn refuse_secrets(dir: &Path) {
    let mut grep = Command::new("grep");
    grep.args(["-r", "-l", "-a", "-F", "-e", PASSWORD, "-e", VAULT]).arg(dir);
    let found = exits(&mut grep, 1);
    assert_eq!(found.out, "");
}

/// An archive as `docker save` writes it (Docker Image Specification 1.2): an image of one file.
fn image() -> Vec<u8> {
    let layer = archive(&[("hello", b"hello from an image")]);
    let diff = devbox::digest::FileDigest::of(&layer);
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let manifest = serde_json::json!([{
        "Config": "config.json",
        "RepoTags": ["localhost/small:1"],
        "Layers": ["layer.tar"],
    }]);
    archive(&[
        ("layer.tar", &layer),
        ("config.json", config.to_string().as_bytes()),
        ("manifest.json", manifest.to_string().as_bytes()),
    ])
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(vec![]);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).expect("packed");
    }
    archive.into_inner().expect("packed")
}
