//! `[[steps]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Values for another program, by name.
pub type Values = BTreeMap<String, serde_json::Value>;

/// One entry of `[[steps]]` that is for the spec's architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its place in the file, from 1.
    pub number: usize,
    /// `name`; `step <n>` by default.
    pub name: String,
    /// `type` and its keys.
    pub action: Action,
    /// `env`; for kinds that run something.
    pub env: BTreeMap<String, String>,
    /// `secrets`: more variables, whose values are no part of the spec.
    pub secrets: BTreeMap<String, Secret>,
    /// `timeout`; 10 minutes by default, for each try.
    pub timeout: Duration,
    /// `retries`; 0 by default.
    pub retries: u32,
    /// `retry_pause`; 5 seconds by default.
    pub pause: Duration,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// `env`: a variable of our own environment.
    Env(String),
    /// `file`: absolute after resolution; need not be there before a build reads it.
    File(PathBuf),
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `type = "shell"`: runs as root in the guest, `sh -eu` unless the script has a `#!` line.
    Shell {
        /// `inline` or `script`.
        script: Script,
    },
    /// `type = "file"`: puts a file or a folder into the guest.
    File {
        /// `source`: absolute after resolution against the spec's folder.
        source: PathBuf,
        /// `target`: absolute path in the guest.
        target: String,
        /// `mode`; `0644` by default, `0755` for folders and executable sources. At most `07777`.
        mode: Option<u32>,
        /// `owner`: `user` or `user:group`; `root:root` by default.
        owner: String,
    },
    /// `type = "template"`: puts a file with variables into the guest.
    Template(Template),
    /// `type = "ansible"`.
    Ansible(Ansible),
    /// `type = "puppet"`.
    Puppet(Puppet),
    /// `type = "chef"`.
    Chef(Chef),
    /// `type = "salt"`.
    Salt(Salt),
    /// `type = "images"`.
    Images(Images),
    /// `type = "test"`.
    Test(Checks),
}

/// A shell step's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// `inline`.
    Inline(String),
    /// `script`: absolute after resolution against the spec's folder.
    File(PathBuf),
}

/// A file with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// `source`: absolute after resolution.
    pub source: PathBuf,
    /// `vars`.
    pub vars: Values,
    /// `target`: absolute path in the guest.
    pub target: String,
    /// `mode`; by default as of a file.
    pub mode: Option<u32>,
    /// `owner`.
    pub owner: String,
}

/// An Ansible playbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ansible {
    /// `source`: the folder of the playbook.
    pub source: PathBuf,
    /// `playbook`, in `source`.
    pub playbook: String,
    /// `where`: by the guest's ansible on itself; else by the host's over SSH.
    pub in_guest: bool,
    /// `roles`: folders.
    pub roles: Vec<PathBuf>,
    /// `requirements`: a file for `ansible-galaxy`.
    pub requirements: Option<PathBuf>,
    /// `extra_vars`.
    pub extra_vars: Values,
    /// `groups`.
    pub groups: Vec<String>,
    /// `tags`.
    pub tags: Vec<String>,
    /// `skip_tags`.
    pub skip_tags: Vec<String>,
    /// `vault_password`: a name in the step's secrets.
    pub vault_password: Option<String>,
    /// `idempotent`; false by default.
    pub idempotent: bool,
}

/// A run of `puppet apply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Puppet {
    /// `source`: the folder that the guest gets.
    pub source: PathBuf,
    /// `manifest`, in `source`.
    pub manifest: String,
    /// `modules`, in `source`.
    pub modules: String,
    /// `hiera`, in `source`.
    pub hiera: Option<String>,
    /// `idempotent`; false by default.
    pub idempotent: bool,
}

/// A run of `cinc-solo` or `chef-solo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chef {
    /// `source`: the folder that the guest gets.
    pub source: PathBuf,
    /// `run_list`.
    pub run_list: Vec<String>,
    /// `attributes`.
    pub attributes: Values,
}

/// A run of `salt-call --local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salt {
    /// `source`: the folder of states that the guest gets.
    pub source: PathBuf,
    /// `states`; those of `top.sls` if empty.
    pub states: Vec<String>,
    /// `pillar`: a folder.
    pub pillar: Option<PathBuf>,
    /// `grains`.
    pub grains: Values,
    /// `idempotent`; false by default.
    pub idempotent: bool,
}

/// Container images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// `engine`: `docker` or `podman`; the one that the guest has if absent.
    pub engine: Option<String>,
    /// `archives`: files.
    pub archives: Vec<PathBuf>,
    /// `pull`: names with digests.
    pub pull: Vec<String>,
}

/// What must hold in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checks {
    /// `commands`.
    pub commands: Vec<String>,
    /// `files`.
    pub files: Vec<String>,
    /// `packages`.
    pub packages: Vec<String>,
    /// `services`.
    pub services: Vec<String>,
    /// `ports`: a number, and perhaps `/tcp` or `/udp`.
    pub ports: Vec<String>,
    /// `goss`: a file.
    pub goss: Option<PathBuf>,
}
