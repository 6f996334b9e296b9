//! `type = "ansible"`: a playbook, by the host's ansible over the build's SSH, or by the guest's on
//! itself. What configuration either has is left aside: the spec alone decides.

mod words;

use std::ffi::OsString;
use std::path::Path;

use fs_err as fs;
use serde_json::json;

use super::Running;
use super::tree::{TREE, shell_line};
use crate::error::Result;
use crate::exec::{shell_word, tools};
use crate::spec::Ansible;
use words::{Places, changed, environment, galaxy, inventory, vault, words};

/// Of the host's environment, what reaches ansible: where programs are, and the way out for
/// `ansible-galaxy`.
const KEPT: &[&str] =
    &["PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

impl Running<'_> {
    pub(super) async fn ansible(&self, ansible: &Ansible) -> Result<()> {
        if ansible.in_guest { self.inside(ansible).await } else { self.over_ssh(ansible).await }
    }

    async fn over_ssh(&self, ansible: &Ansible) -> Result<()> {
        let program = tools::ANSIBLE.find()?;
        let config = self.guest.client.config_path();
        // Beside the build's key, and gone with it.
        let dir = tempfile::tempdir_in(config.parent().unwrap_or(Path::new("/tmp")))?;
        let work = dir.path();
        for name in ["home", "galaxy/roles", "galaxy/collections"] {
            fs::create_dir_all(work.join(name))?;
        }
        fs::write(work.join("ansible.cfg"), "")?;
        fs::write(work.join("inventory"), inventory(&ansible.groups, ""))?;
        fs::write(work.join("vars.json"), json!(ansible.extra_vars).to_string())?;
        if let Some(name) = &ansible.vault_password {
            executable(&work.join("vault"), &vault(name))?;
        }
        let places = Places {
            source: ansible.source.clone().into(),
            roles: ansible.roles.iter().map(|path| path.clone().into()).collect(),
            work: work.into(),
        };
        let mut ssh = OsString::from("-F ");
        ssh.push(shell_word(config.as_os_str()));
        let command = |words: &[OsString], program: &Path| {
            let mut command = std::process::Command::new(program);
            command.args(words).current_dir(&ansible.source).env_clear();
            command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
            command.envs(environment(&places)).env("ANSIBLE_SSH_ARGS", &ssh);
            command.env("ANSIBLE_BECOME", "True");
            command.envs(&self.step.env).envs(self.secrets.of(self.step));
            command
        };
        if let Some(requirements) = &ansible.requirements {
            let words = galaxy(requirements.as_os_str());
            let mut fetch = command(&words, &tools::ANSIBLE_GALAXY.find()?);
            fetch.env("ANSIBLE_ROLES_PATH", work.join("galaxy/roles"));
            self.on_host(fetch).await?;
        }
        let words = words(ansible, &places);
        let lines = self.on_host(command(&words, &program)).await?;
        self.say(changed(&lines), "ansible");
        if ansible.idempotent {
            let lines = self.on_host(command(&words, &program)).await?;
            self.converged(changed(&lines), "ansible")?;
        }
        Ok(())
    }

    async fn inside(&self, ansible: &Ansible) -> Result<()> {
        self.program(&["ansible-playbook"], "Install it in the guest, by an earlier step or `source.packages` (Debian: `ansible`), or leave `where` out: the host's is used then.").await?;
        self.make_tree(&["galaxy/roles", "galaxy/collections"]).await?;
        self.put_tree(&ansible.source, "source").await?;
        let mut roles = vec![];
        for (n, folder) in ansible.roles.iter().enumerate() {
            self.put_tree(folder, &format!("roles-{n}")).await?;
            roles.push(format!("{TREE}/roles-{n}").into());
        }
        self.write_tree("ansible.cfg", "").await?;
        let local = " ansible_connection=local";
        self.write_tree("inventory", inventory(&ansible.groups, local)).await?;
        self.write_tree("vars.json", json!(ansible.extra_vars).to_string()).await?;
        if let Some(name) = &ansible.vault_password {
            self.write_tree("vault", vault(name)).await?;
            self.ask(&format!("chmod 0700 {TREE}/vault")).await?;
        }
        let source = format!("{TREE}/source");
        let places = Places { source: source.clone().into(), roles, work: TREE.into() };
        let text = |word: OsString| word.to_string_lossy().into_owned();
        let environment: Vec<(&str, String)> =
            environment(&places).into_iter().map(|(name, value)| (name, text(value))).collect();
        if let Some(requirements) = &ansible.requirements {
            self.write_tree("requirements.yml", fs::read(requirements)?).await?;
            let words = galaxy(format!("{TREE}/requirements.yml").as_ref());
            let line = shell_line(&words.into_iter().map(text).collect::<Vec<_>>());
            let mut environment = environment.clone();
            environment.push(("ANSIBLE_ROLES_PATH", format!("{TREE}/galaxy/roles")));
            self.in_guest(&source, &format!("exec ansible-galaxy {line}"), &environment).await?;
        }
        let words: Vec<String> = words(ansible, &places).into_iter().map(text).collect();
        let line = format!("exec ansible-playbook {}", shell_line(&words));
        let lines = self.in_guest(&source, &line, &environment).await?;
        self.say(changed(&lines), "ansible");
        if ansible.idempotent {
            let lines = self.in_guest(&source, &line, &environment).await?;
            self.converged(changed(&lines), "ansible")?;
        }
        self.remove_tree().await
    }
}

fn executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vaults_password_is_in_the_environment_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("vault");
        executable(&path, &vault("VAULT")).expect("written");
        let out = std::process::Command::new(&path).env("VAULT", "it's -n \\ secret").output();
        assert_eq!(out.expect("runs").stdout, b"it's -n \\ secret\n");
    }
}
