//! The words, files and variables of ansible's programs.

use std::ffi::OsString;
use std::path::Path;

use crate::spec::Ansible;

/// The guest's name in the inventory, and in the build's SSH configuration.
const GUEST: &str = "build";
/// Where a run has its files.
pub(super) struct Places {
    /// The playbook's folder.
    pub(super) source: OsString,
    /// More folders of roles.
    pub(super) roles: Vec<OsString>,
    /// A folder for what is generated: `inventory`, `vars.json`, `ansible.cfg`, `home`, `galaxy`.
    pub(super) work: OsString,
}

/// An inventory of the guest alone, in these groups.
pub(super) fn inventory(groups: &[String], variables: &str) -> String {
    let mut text = format!("{GUEST}{variables}\n");
    for group in groups {
        text.push_str(&format!("\n[{group}]\n{GUEST}\n"));
    }
    text
}

/// Gives ansible the vault's password, which stands in its environment alone.
pub(super) fn vault(name: &str) -> String {
    format!("#!/bin/sh\nprintf '%s\\n' \"${name}\"\n")
}

/// All that would otherwise come from a configuration of the user or of the system.
pub(super) fn environment(places: &Places) -> Vec<(&'static str, OsString)> {
    let within = |folder: &OsString, name: &str| Path::new(folder).join(name).into_os_string();
    let joined = |folders: Vec<OsString>| folders.join(OsString::from(":").as_os_str());
    let mut roles = vec![within(&places.source, "roles")];
    roles.extend(places.roles.iter().cloned());
    roles.push(within(&places.work, "galaxy/roles"));
    let collections =
        vec![within(&places.work, "galaxy/collections"), within(&places.source, "collections")];
    let mut all = vec![
        ("ANSIBLE_CONFIG", within(&places.work, "ansible.cfg")),
        ("HOME", within(&places.work, "home")),
        ("ANSIBLE_HOME", within(&places.work, "home")),
        ("ANSIBLE_LOCAL_TEMP", within(&places.work, "home")),
        ("ANSIBLE_ROLES_PATH", joined(roles)),
        ("ANSIBLE_COLLECTIONS_PATH", joined(collections.clone())),
        // Its name up to version 2.9, and still read in 2.14.
        ("ANSIBLE_COLLECTIONS_PATHS", joined(collections)),
    ];
    let fixed = [
        // In memory: what modules are told may be secret.
        ("ANSIBLE_REMOTE_TEMP", "/dev/shm/.devbox-ansible"),
        ("ANSIBLE_HOST_KEY_CHECKING", "True"),
        ("ANSIBLE_PIPELINING", "True"),
        ("ANSIBLE_SSH_TRANSFER_METHOD", "piped"),
        ("ANSIBLE_PYTHON_INTERPRETER", "auto_silent"),
        ("ANSIBLE_NOCOLOR", "1"),
        ("ANSIBLE_NOCOWS", "1"),
        ("ANSIBLE_RETRY_FILES_ENABLED", "False"),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
    ];
    all.extend(fixed.map(|(name, value)| (name, value.into())));
    all
}

pub(super) fn galaxy(requirements: &std::ffi::OsStr) -> Vec<OsString> {
    vec!["install".into(), "--role-file".into(), requirements.to_owned()]
}

/// The words of `ansible-playbook`.
pub(super) fn words(ansible: &Ansible, places: &Places) -> Vec<OsString> {
    let work = Path::new(&places.work);
    let mut words: Vec<OsString> = vec!["--inventory".into(), work.join("inventory").into()];
    let mut extra = OsString::from("@");
    extra.push(work.join("vars.json"));
    words.extend(["--extra-vars".into(), extra]);
    for (option, names) in [("--tags", &ansible.tags), ("--skip-tags", &ansible.skip_tags)] {
        if !names.is_empty() {
            words.extend([option.into(), names.join(",").into()]);
        }
    }
    if ansible.vault_password.is_some() {
        words.extend(["--vault-password-file".into(), work.join("vault").into()]);
    }
    words.push(Path::new(&places.source).join(&ansible.playbook).into());
    words
}

/// The number of changes in the recap: `build : ok=3 changed=1 unreachable=0 ...`.
pub(super) fn changed(lines: &[String]) -> Option<u64> {
    let recap = lines.iter().rev().find(|line| {
        line.starts_with(GUEST) && line.contains(" changed=") && line.contains("unreachable=")
    })?;
    let (_, rest) = recap.split_once(" changed=")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_alone_in_the_inventory_and_in_its_groups() {
        assert_eq!(inventory(&[], ""), "build\n");
        assert_eq!(
            inventory(&["web".to_owned(), "db".to_owned()], " ansible_connection=local"),
            "build ansible_connection=local\n\n[web]\nbuild\n\n[db]\nbuild\n"
        );
    }

    #[test]
    fn the_command_line_holds_names_of_files_and_no_value() {
        let ansible = Ansible {
            source: "/p/ansible".into(),
            playbook: "site.yml".to_owned(),
            in_guest: false,
            roles: vec!["/r".into()],
            requirements: None,
            extra_vars: [("password".to_owned(), "no".into())].into(),
            groups: vec![],
            tags: vec!["a".to_owned(), "b".to_owned()],
            skip_tags: vec!["c".to_owned()],
            vault_password: Some("VAULT".to_owned()),
            idempotent: false,
        };
        let places =
            Places { source: "/p/ansible".into(), roles: vec!["/r".into()], work: "/w".into() };
        let line = words(&ansible, &places).join(OsString::from(" ").as_os_str());
        assert_eq!(
            line,
            "--inventory /w/inventory --extra-vars @/w/vars.json --tags a,b --skip-tags c \
             --vault-password-file /w/vault /p/ansible/site.yml"
        );
        let environment = environment(&places);
        let of = |name: &str| {
            environment
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.to_string_lossy().into_owned())
        };
        assert_eq!(of("ANSIBLE_CONFIG").as_deref(), Some("/w/ansible.cfg"));
        assert_eq!(
            of("ANSIBLE_ROLES_PATH").as_deref(),
            Some("/p/ansible/roles:/r:/w/galaxy/roles")
        );
        assert_eq!(of("HOME").as_deref(), Some("/w/home"));
    }

    #[test]
    fn changes_are_read_in_the_recap() {
        let recap = "build                      : ok=4    changed=2    unreachable=0    failed=0";
        let lines = ["changed: [build]", "PLAY RECAP ****", recap, ""].map(str::to_owned);
        assert_eq!(changed(&lines), Some(2));
        assert_eq!(changed(&lines[..2]), None);
    }
}
