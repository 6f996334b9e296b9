//! `[[steps]]`: what every kind of step has, and the keys of each kind.

use super::{ARCHS, TIMEOUT};
use crate::spec::grammar;
use crate::spec::shape::Presence::{Default, OneOf, Required};
use crate::spec::shape::{Key, Shape, Table, Variant};

/// Kinds of steps, for the table of each.
const TYPE_WORDS: Shape = Shape::Choice(&[
    "shell", "file", "template", "ansible", "puppet", "chef", "salt", "images", "test",
]);
const NAMES: Shape = Shape::Set(&Shape::Text(&grammar::WORD));

keys! {
    /// `steps.type`.
    STEP_TYPE: "type", TYPE_WORDS, Required, "What the step does; docs/provisioners.md shows each kind.";
    /// `steps.name`.
    STEP_NAME: "name", Shape::Text(&grammar::TITLE), Default("`step 1`, `step 2`, ..."), "Title of the step in messages; each one its own.";
    /// `steps.timeout`.
    STEP_TIMEOUT: "timeout", TIMEOUT, Default("10m"), "How long the step may take, each time that it is tried; then it failed.";
    /// `steps.retries`.
    STEP_RETRIES: "retries", Shape::Integer(0, 20), Default("0"), "How often the step is tried again when it fails; only then does the build fail.";
    /// `steps.retry_pause`.
    STEP_PAUSE: "retry_pause", TIMEOUT, Default("5s"), "The pause before it is tried again.";
    /// `steps.only`.
    STEP_ONLY: "only", Shape::Set(&Shape::Choice(ARCHS)), Default("all"), "Architectures that the step is for. For another one it is as if it did not stand here.";
    /// `steps.except`.
    STEP_EXCEPT: "except", Shape::Set(&Shape::Choice(ARCHS)), Default("none"), "Architectures that the step is not for.";
    /// `steps.env`.
    STEP_ENV: "env", Shape::Environment, Default("none"), "Environment variables of what the step runs.";
    /// `steps.secrets`.
    STEP_SECRETS: "secrets", Shape::Named(&grammar::VARIABLE, &SECRET_TABLE, &NO_DEFAULTS), Default("none"), "Environment variables of what the step runs whose values stand in no spec, and reach no log, layer or image.";
    /// `steps.idempotent`.
    STEP_IDEMPOTENT: "idempotent", Shape::Boolean, Default("false"), "Run it a second time, and fail if that changes anything.";
    /// `steps.secrets.NAME.env`.
    SECRET_ENV: "env", Shape::Text(&grammar::VARIABLE), OneOf("origin"), "The variable of devbox's own environment that holds the value.";
    /// `steps.secrets.NAME.file`.
    SECRET_FILE: "file", Shape::Text(&grammar::HOST_PATH), OneOf("origin"), "The file that holds the value; one line end at its end is no part of it.";
}

keys! {
    /// `steps.inline`.
    STEP_INLINE: "inline", Shape::Text(&grammar::SCRIPT), OneOf("text"), "The script. It runs by `sh -eu` unless it begins with `#!`.";
    /// `steps.script`.
    STEP_SCRIPT: "script", Shape::Text(&grammar::HOST_PATH), OneOf("text"), "The script, as a file.";
    /// `steps.source` of a file.
    STEP_SOURCE: "source", Shape::Text(&grammar::HOST_PATH), Required, "The file or folder on the host.";
    /// `steps.target`.
    STEP_TARGET: "target", Shape::Text(&grammar::GUEST_PATH), Required, "Where it stands in the guest.";
    /// `steps.mode`.
    STEP_MODE: "mode", Shape::Text(&grammar::MODE), Default("0755 for folders and executable files, else 0644"), "Permission bits. For a folder, those of the folder if the step makes it; in it, folders and executable files get 0755, other files 0644.";
    /// `steps.owner`.
    STEP_OWNER: "owner", Shape::Text(&grammar::OWNER), Default("root:root"), "Owner, and group after a colon.";
    /// `steps.source` of a template.
    TEMPLATE_SOURCE: "source", Shape::Text(&grammar::HOST_PATH), Required, "The template on the host: Jinja, as in `{{ name }}`.";
    /// `steps.vars` of a template.
    TEMPLATE_VARS: "vars", Shape::Values, Default("none"), "What the template's variables stand for. One that is not there fails the step.";
}

keys! {
    /// `steps.source` of ansible.
    ANSIBLE_FOLDER: "source", Shape::Text(&grammar::HOST_PATH), Required, "The folder with the playbook and all that it reads: its content decides whether the step runs again.";
    /// `steps.playbook`.
    ANSIBLE_PLAYBOOK: "playbook", Shape::Text(&grammar::RELATIVE), Default("playbook.yml"), "The playbook, in `source`.";
    /// `steps.where`.
    ANSIBLE_WHERE: "where", Shape::Choice(&["host", "guest"]), Default("host"), "`host`: ansible of the host, over the build's SSH. `guest`: ansible of the guest, on itself.";
    /// `steps.roles`.
    ANSIBLE_ROLES: "roles", Shape::Set(&Shape::Text(&grammar::HOST_PATH)), Default("`roles` in `source`"), "More folders with roles.";
    /// `steps.requirements`.
    ANSIBLE_REQUIREMENTS: "requirements", Shape::Text(&grammar::HOST_PATH), Default("none"), "Roles and collections that `ansible-galaxy` fetches first. Name exact versions: the file is what is hashed, not what comes.";
    /// `steps.extra_vars`.
    ANSIBLE_VARS: "extra_vars", Shape::Values, Default("none"), "Variables that win over all others.";
    /// `steps.groups`.
    ANSIBLE_GROUPS: "groups", NAMES, Default("none"), "Groups of the inventory that the guest is in.";
    /// `steps.tags`.
    ANSIBLE_TAGS: "tags", NAMES, Default("all"), "Run only what has one of these tags.";
    /// `steps.skip_tags`.
    ANSIBLE_SKIP_TAGS: "skip_tags", NAMES, Default("none"), "Leave out what has one of these tags.";
    /// `steps.vault_password`.
    ANSIBLE_VAULT: "vault_password", Shape::Text(&grammar::VARIABLE), Default("none"), "The name in `secrets` of the password that opens vaults.";
}

keys! {
    /// `steps.source` of puppet.
    PUPPET_FOLDER: "source", Shape::Text(&grammar::HOST_PATH), Required, "The folder with manifests, modules and data; the guest gets it while the step runs.";
    /// `steps.manifest`.
    PUPPET_MANIFEST: "manifest", Shape::Text(&grammar::RELATIVE), Default("manifests/site.pp"), "The manifest, in `source`.";
    /// `steps.modules`.
    PUPPET_MODULES: "modules", Shape::Text(&grammar::RELATIVE), Default("modules"), "The folder of modules, in `source`.";
    /// `steps.hiera`.
    PUPPET_HIERA: "hiera", Shape::Text(&grammar::RELATIVE), Default("none"), "Hiera's configuration, in `source`.";
    /// `steps.source` of chef.
    CHEF_FOLDER: "source", Shape::Text(&grammar::HOST_PATH), Required, "The folder with `cookbooks`, and perhaps `roles`, `environments` and `data_bags`; the guest gets it while the step runs.";
    /// `steps.run_list`.
    CHEF_RUN_LIST: "run_list", Shape::Set(&Shape::Text(&grammar::RUN_ITEM)), Required, "What is run, in this order.";
    /// `steps.attributes`.
    CHEF_ATTRIBUTES: "attributes", Shape::Values, Default("none"), "The node's attributes.";
    /// `steps.source` of salt.
    SALT_FOLDER: "source", Shape::Text(&grammar::HOST_PATH), Required, "The folder of states; the guest gets it while the step runs.";
    /// `steps.states`.
    SALT_STATES: "states", NAMES, Default("what `top.sls` says"), "States to apply.";
    /// `steps.pillar`.
    SALT_PILLAR: "pillar", Shape::Text(&grammar::HOST_PATH), Default("none"), "The folder of pillars.";
    /// `steps.grains`.
    SALT_GRAINS: "grains", Shape::Values, Default("none"), "Grains of the guest besides its own.";
}

keys! {
    /// `steps.engine`.
    IMAGES_ENGINE: "engine", Shape::Choice(&["docker", "podman"]), Default("the one that the guest has"), "What keeps the images.";
    /// `steps.archives`.
    IMAGES_ARCHIVES: "archives", Shape::Set(&Shape::Text(&grammar::HOST_PATH)), Default("none"), "Archives of images (`docker save`, `skopeo copy`).";
    /// `steps.pull`.
    IMAGES_PULL: "pull", Shape::Set(&Shape::Text(&grammar::IMAGE)), Default("none"), "Images of registries, each by its digest.";
    /// `steps.commands`.
    TEST_COMMANDS: "commands", Shape::Set(&Shape::Text(&grammar::SCRIPT)), Default("none"), "Shell lines that must succeed, as root.";
    /// `steps.files`.
    TEST_FILES: "files", Shape::Set(&Shape::Text(&grammar::GUEST_PATH)), Default("none"), "Paths that must be there.";
    /// `steps.packages`.
    TEST_PACKAGES: "packages", NAMES, Default("none"), "Packages (deb or rpm) that must be installed.";
    /// `steps.services`.
    TEST_SERVICES: "services", NAMES, Default("none"), "Services that must be enabled.";
    /// `steps.ports`.
    TEST_PORTS: "ports", Shape::Set(&Shape::Text(&grammar::PORT)), Default("none"), "Ports on which something must listen, such as \"80\" or \"53/udp\".";
    /// `steps.goss`.
    TEST_GOSS: "goss", Shape::Text(&grammar::HOST_PATH), Default("none"), "A file for `goss validate`, which the guest must have.";
}

/// `[steps.secrets.NAME]`.
pub static SECRET_TABLE: Table = Table {
    path: "steps.secrets.NAME",
    about: "Where a secret's value comes from when the box is built: at least 8 bytes of text. Its name is an input of the box, its value is not; the sealed image is searched for it.",
    keys: &[&SECRET_ENV, &SECRET_FILE],
};

/// Secrets have no defaults.
static NO_DEFAULTS: Table = Table { path: "", about: "", keys: &[] };

/// The keys of a kind of step: its own, then those that every one has.
macro_rules! step_keys {
    (runs: $($own:expr),* $(,)?) => {
        step_keys!($($own,)* &STEP_ENV, &STEP_SECRETS)
    };
    ($($own:expr),* $(,)?) => {
        &[&STEP_TYPE, &STEP_NAME, $($own,)* &STEP_TIMEOUT, &STEP_RETRIES, &STEP_PAUSE, &STEP_ONLY, &STEP_EXCEPT]
    };
}

/// Values of `steps.type`.
pub static STEP_TYPES: &[Variant] = &[
    Variant { name: "shell", table: &SHELL },
    Variant { name: "file", table: &FILE },
    Variant { name: "template", table: &TEMPLATE },
    Variant { name: "ansible", table: &ANSIBLE },
    Variant { name: "puppet", table: &PUPPET },
    Variant { name: "chef", table: &CHEF },
    Variant { name: "salt", table: &SALT },
    Variant { name: "images", table: &IMAGES },
    Variant { name: "test", table: &TEST },
];

static SHELL: Table = Table {
    path: "steps",
    about: "A script that runs as root in the guest.",
    keys: step_keys!(runs: &STEP_INLINE, &STEP_SCRIPT),
};

static FILE: Table = Table {
    path: "steps",
    about: "A file or a folder that is put into the guest.",
    keys: step_keys!(&STEP_SOURCE, &STEP_TARGET, &STEP_MODE, &STEP_OWNER),
};

static TEMPLATE: Table = Table {
    path: "steps",
    about: "A file with variables that is put into the guest.",
    keys: step_keys!(&TEMPLATE_SOURCE, &TEMPLATE_VARS, &STEP_TARGET, &STEP_MODE, &STEP_OWNER),
};

static ANSIBLE: Table = Table {
    path: "steps",
    about: "An Ansible playbook, as root, without any configuration of yours.",
    keys: step_keys!(
        runs: &ANSIBLE_FOLDER, &ANSIBLE_PLAYBOOK, &ANSIBLE_WHERE, &ANSIBLE_ROLES,
        &ANSIBLE_REQUIREMENTS, &ANSIBLE_VARS, &ANSIBLE_GROUPS, &ANSIBLE_TAGS, &ANSIBLE_SKIP_TAGS,
        &ANSIBLE_VAULT, &STEP_IDEMPOTENT
    ),
};

static PUPPET: Table = Table {
    path: "steps",
    about: "`puppet apply` in the guest, which must have puppet.",
    keys: step_keys!(
        runs: &PUPPET_FOLDER, &PUPPET_MANIFEST, &PUPPET_MODULES, &PUPPET_HIERA, &STEP_IDEMPOTENT
    ),
};

static CHEF: Table = Table {
    path: "steps",
    about: "`cinc-solo` or `chef-solo` in the guest, which must have one of them.",
    keys: step_keys!(runs: &CHEF_FOLDER, &CHEF_RUN_LIST, &CHEF_ATTRIBUTES),
};

static SALT: Table = Table {
    path: "steps",
    about: "`salt-call --local` in the guest, which must have salt.",
    keys: step_keys!(
        runs: &SALT_FOLDER, &SALT_STATES, &SALT_PILLAR, &SALT_GRAINS, &STEP_IDEMPOTENT
    ),
};

static IMAGES: Table = Table {
    path: "steps",
    about: "Container images that are there from the first boot on.",
    keys: step_keys!(runs: &IMAGES_ENGINE, &IMAGES_ARCHIVES, &IMAGES_PULL),
};

static TEST: Table = Table {
    path: "steps",
    about: "What must hold. All of it is tried, and everything that does not hold is said at once.",
    keys: step_keys!(
        runs: &TEST_COMMANDS, &TEST_FILES, &TEST_PACKAGES, &TEST_SERVICES, &TEST_PORTS, &TEST_GOSS
    ),
};
