//! Every table and key of devbox.toml, once: the parser, the JSON schema and the reference are made
//! from this.

use crate::spec::grammar;
use crate::spec::quantity::{GIB, MIB, TIB};
use crate::spec::shape::Presence::{Default, OneOf, Required};
use crate::spec::shape::{Key, Shape, Table, Variant};
use crate::spec::types::OutputFormat;

/// A file larger than this is no spec; bounds the work on hostile input.
pub const LONGEST_FILE: u64 = 1 << 20;

macro_rules! keys {
    ($($(#[$doc:meta])* $id:ident: $name:literal, $shape:expr, $presence:expr, $about:literal;)+) => {$(
        $(#[$doc])*
        pub static $id: Key = Key { name: $name, shape: $shape, presence: $presence, about: $about };
    )+};
}

mod iso;
mod parity;
mod steps;
mod trust;

pub use iso::{
    ANSWER_LABEL, ANSWER_NAME, ANSWER_SOURCE, ANSWER_TYPE, ANSWER_TYPES, ANSWERS, BOOT,
    BOOT_CMDLINE, BOOT_COMMAND, BOOT_INITRD, BOOT_KERNEL, BOOT_TYPE, BOOT_TYPES, BOOT_WAIT,
    FLOPPY_NAME, FW_CFG_NAME, ISO_CHECKSUMS, ISO_DISK, ISO_END, ISO_PATH, ISO_REBOOTS, ISO_SHA256,
    ISO_START_TIMEOUT, ISO_TABLE, ISO_TIMEOUT, ISO_URL,
};
pub use parity::{
    DELTA_BASE, DELTA_FILE, DELTA_GID, DELTA_LINK, DELTA_MODE, DELTA_ONLY, DELTA_OP, DELTA_PACKAGE,
    DELTA_PATH, DELTA_PROTECTED, DELTA_TREE, DELTA_UID, DELTA_UNTIL, DELTA_WHY, DELTAS,
    DELTAS_TABLE, PARITY, PARITY_REQUIRE, PARITY_TABLE,
};
pub use steps::{
    ANSIBLE_FOLDER, ANSIBLE_GROUPS, ANSIBLE_PLAYBOOK, ANSIBLE_REQUIREMENTS, ANSIBLE_ROLES,
    ANSIBLE_SKIP_TAGS, ANSIBLE_TAGS, ANSIBLE_VARS, ANSIBLE_VAULT, ANSIBLE_WHERE, CHEF_ATTRIBUTES,
    CHEF_FOLDER, CHEF_RUN_LIST, IMAGES_ARCHIVES, IMAGES_ENGINE, IMAGES_PULL, PUPPET_FOLDER,
    PUPPET_HIERA, PUPPET_MANIFEST, PUPPET_MODULES, SALT_FOLDER, SALT_GRAINS, SALT_PILLAR,
    SALT_STATES, SECRET_ENV, SECRET_FILE, SECRET_TABLE, STEP_ENV, STEP_EXCEPT, STEP_IDEMPOTENT,
    STEP_INLINE, STEP_MODE, STEP_NAME, STEP_ONLY, STEP_OWNER, STEP_PAUSE, STEP_RETRIES,
    STEP_SCRIPT, STEP_SECRETS, STEP_SOURCE, STEP_TARGET, STEP_TIMEOUT, STEP_TYPE, STEP_TYPES,
    TEMPLATE_SOURCE, TEMPLATE_VARS, TEST_COMMANDS, TEST_FILES, TEST_GOSS, TEST_PACKAGES,
    TEST_PORTS, TEST_SERVICES,
};

pub use trust::{
    TRUST, TRUST_KEYS, TRUST_NAMES, TRUST_REQUIRED, TRUST_RULES, TRUST_RULES_TABLE, TRUST_TABLE,
};

/// Values of `arch`.
pub static ARCHS: &[&str] = &["amd64", "arm64"];
/// Values of `outputs`.
pub static OUTPUT_FORMATS: &[&str] = &names();

const fn names() -> [&'static str; OutputFormat::ALL.len()] {
    let mut names = [""; OutputFormat::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = OutputFormat::ALL[at].as_str();
        at += 1;
    }
    names
}

/// Values of `source.format`.
pub static INPUT_FORMATS: &[&str] = &["raw", "qcow2", "vhd"];
/// Values of `machine.firmware`.
pub static FIRMWARES: &[&str] = &["bios", "uefi"];
/// Values of `machine.login`.
pub static LOGINS: &[&str] = &["ssh", "agent"];
/// Values of `machine.ports.protocol`.
pub static PROTOCOLS: &[&str] = &["tcp", "udp"];
/// The smallest disk that holds a boot loader and a Debian system.
pub const SMALLEST_DISK: u64 = 512 * MIB;
/// The largest disk: below what ext4 with 4 KiB blocks and 32-bit block numbers can hold (16 TiB).
pub const LARGEST_DISK: u64 = 8 * TIB;
/// The largest disk that a fixed VHD can hold: 2040 GiB, the limit that Hyper-V and Azure state.
pub const LARGEST_VHD: u64 = 2040 * GIB;
/// The earliest and latest time that FAT can hold (1980 to 2107), for the EFI system partition.
pub const EPOCHS: (i64, i64) = (315_532_800, 4_354_819_198);

const DISK: Shape = Shape::Size(SMALLEST_DISK, LARGEST_DISK);
/// A data disk may be small.
const DATA_DISK: Shape = Shape::Size(16 * MIB, 8 * TIB);
const PORT: Shape = Shape::Integer(1, 65_535);
// Below a second nothing can be done; a step that needs a week is lost.
const TIMEOUT: Shape = Shape::Duration(1, 7 * 24 * 3600);

keys! {
    /// `name`.
    NAME: "name", Shape::Text(&grammar::LABEL), Required, "Name of the box, and the host name of its image and machines.";
    /// `version`.
    VERSION: "version", Shape::Text(&grammar::VERSION), Required, "Version of the box; a sealed version never changes.";
    /// `arch`.
    ARCH: "arch", Shape::Choice(ARCHS), Default("the host's"), "Architecture of the guest, by Debian's name.";
    /// `registry`.
    REGISTRY: "registry", Shape::Text(&grammar::BOX_PLACE), Default("none; then nobody is asked"), "Where this box lives, see [boxes](boxes.md): `devbox up` pulls it from there instead of building it if it was built from the same inputs; `devbox box push` and `pull` need no address then. No part of the image.";
    /// `source`.
    SOURCE: "source", Shape::Variants(SOURCES), Required, "What the image starts from.";
    /// `steps`.
    STEPS: "steps", Shape::ListOfVariants(STEP_TYPES), Default("none"), "What is done in the guest, in this order.";
    /// `seal`.
    SEAL: "seal", Shape::Table(&SEAL_TABLE), Default("all defaults"), "How the image is sealed.";
    /// `outputs`.
    OUTPUTS: "outputs", Shape::Set(&Shape::Choice(OUTPUT_FORMATS)), Default("none"), "Formats that `devbox build` writes from the stored box; see [outputs](outputs.md).";
    /// `tested`.
    TESTED: "tested", Shape::Boolean, Default("true"), "`false` says that whoever wrote the file could not build it; `devbox validate` and `devbox build` say so too. No part of the image.";
    /// `deploy`.
    DEPLOY: "deploy", Shape::Table(&DEPLOY_TABLE), Default("nothing"), "What else `devbox build` writes, for those who bring the outputs to production.";
    /// `machine`.
    MACHINE: "machine", Shape::Table(&MACHINE_TABLE), Default("all defaults"), "How `devbox up` runs the image; no part of the image.";
    /// `machines`.
    MACHINES: "machines", Shape::Named(&grammar::LABEL, &MACHINES_TABLE, &MACHINE_TABLE), Default("one machine, with the name of the box"), "Several machines on one image, each `[machines.NAME]`; the name is the host name too.";
}

keys! {
    /// `source.type` for packages.
    SOURCE_TYPE: "type", Shape::Choice(&["packages", "image", "iso", "box"]), Required, "`packages`: a distribution's packages. `image`: a disk image. `iso`: an installer. `box`: another box.";
    /// `source.suite`.
    SUITE: "suite", Shape::Text(&grammar::SUITE), Required, "Debian's code name of the suite; `stable` and the like move and are refused.";
    /// `source.packages`.
    PACKAGES: "packages", Shape::Set(&Shape::Text(&grammar::PACKAGE)), Default("none"), "Packages besides what an image needs to boot and to be reached.";
    /// `source.mirror`.
    MIRROR: "mirror", Shape::Text(&grammar::MIRROR), Default("http://deb.debian.org/debian"), "What the image's own apt sources name. The mirror that the host uses serves the build and leaves no trace.";
    /// `source.security_mirror`.
    SECURITY_MIRROR: "security_mirror", Shape::Text(&grammar::MIRROR), Default("http://deb.debian.org/debian-security"), "The same for security updates.";
    /// `source.components`.
    COMPONENTS: "components", Shape::Set(&Shape::Text(&grammar::COMPONENT)), Default("[\"main\"]"), "Components of the archive.";
    /// `source.disk`.
    SOURCE_DISK: "disk", DISK, Default("2GiB"), "Size of the image. The root filesystem grows when a machine has a bigger disk.";
}

keys! {
    /// `source.path`.
    IMAGE_PATH: "path", Shape::Text(&grammar::HOST_PATH), OneOf("location"), "The image, as a file.";
    /// `source.url`.
    IMAGE_URL: "url", Shape::Text(&grammar::URL), OneOf("location"), "The image, as an address. The download resumes, and is verified while it streams.";
    /// `source.sha256`.
    IMAGE_SHA256: "sha256", Shape::Text(&grammar::SHA256), OneOf("checksum"), "SHA-256 of the image file.";
    /// `source.checksums`.
    IMAGE_CHECKSUMS: "checksums", Shape::Text(&grammar::HOST_PATH), OneOf("checksum"), "Path or address of a checksum file (GNU or BSD form, SHA-256 or SHA-512, clear-signed or not) that lists the image by its file name.";
    /// `source.keys`.
    IMAGE_KEYS: "keys", Shape::Set(&Shape::Text(&grammar::HOST_PATH)), Default("none; then nobody has to have signed it"), "Paths or addresses of files of OpenPGP public keys, armoured or not. One of these keys has to have signed `checksums`. With an address, `fingerprints` says which keys are meant.";
    /// `source.fingerprints`.
    IMAGE_FINGERPRINTS: "fingerprints", Shape::Set(&Shape::Text(&grammar::FINGERPRINT)), Default("all keys of `keys`"), "Fingerprints of those keys of `keys` that may sign.";
    /// `source.signature`.
    IMAGE_SIGNATURE: "signature", Shape::Text(&grammar::HOST_PATH), Default("none; then `checksums` is clear-signed itself"), "Path or address of the signature that stands beside `checksums`; needs `keys`.";
    /// `source.format`.
    IMAGE_FORMAT: "format", Shape::Choice(INPUT_FORMATS), Default("found by content"), "Format of the image.";
}

keys! {
    /// `source.box`.
    BOX_FROM: "box", Shape::Text(&grammar::BOX), Required, "Where the box is, as `devbox box pull` takes it, without a tag; or the name of a box in your own store. `@sha256:…` behind it means this one and no other.";
    /// `source.version`.
    BOX_VERSION: "version", Shape::Text(&grammar::BOX_VERSION), Default("the newest release"), "A version (`1.2.0`), or a range (`^1.2`, `1.2`, `~1.2.3`, `>=1.2, <2`) of which the newest is taken. Pre-releases only where it names one.";
    /// `source.channel`.
    BOX_CHANNEL: "channel", Shape::Text(&grammar::TAG), Default("none"), "A tag that moves, such as `stable`, in the place of `version`.";
}

/// `[source]` with `type = "box"`.
pub static BOX_TABLE: Table = Table {
    path: "source",
    about: "Another box, from a registry or the own store, see [boxes](boxes.md). `devbox lock` writes down which one it was. Without steps and `[seal]` nothing is built: the machines run that box.",
    keys: &[&SOURCE_TYPE, &BOX_FROM, &BOX_VERSION, &BOX_CHANNEL],
};

keys! {
    /// `deploy.terraform`.
    DEPLOY_TERRAFORM: "terraform", Shape::Text(&grammar::HOST_PATH), Default("the folder of the outputs"), "Folder of a Terraform module, in which `terraform.tfvars.json` is written: paths and digests of the outputs, and ids of images, which are empty until something publishes them.";
}

/// `[deploy]`.
pub static DEPLOY_TABLE: Table = Table {
    path: "deploy",
    about: "Variables for Terraform, see [outputs](outputs.md). No part of the image.",
    keys: &[&DEPLOY_TERRAFORM],
};

keys! {
    /// `seal.hostname`.
    SEAL_HOSTNAME: "hostname", Shape::Text(&grammar::LABEL), Default("the name of the box"), "Content of /etc/hostname in the image. Each machine gets its own at boot.";
    /// `seal.epoch`.
    SEAL_EPOCH: "epoch", Shape::Integer(EPOCHS.0, EPOCHS.1), Default("`packages`: the date of the suite's Release file; `image` and `iso`: the time of the newest file"), "Seconds since 1970 UTC: no file time in the image is later.";
    /// `machines.NAME.depends_on`.
    DEPENDS_ON: "depends_on", Shape::Set(&Shape::Text(&grammar::LABEL)), Default("none"), "Machines that are ready before this one is started, and stopped after it.";
    /// `machine.cpus`.
    CPUS: "cpus", Shape::Integer(1, 255), Default("2"), "Number of processors.";
    /// `machine.memory`.
    MEMORY: "memory", Shape::Size(128 * MIB, TIB), Default("1GiB"), "Memory.";
    /// `machine.disk`.
    MACHINE_DISK: "disk", DISK, Default("the image's size"), "Size of the machine's disk; never smaller than the image.";
    /// `machine.firmware`.
    FIRMWARE: "firmware", Shape::Choice(FIRMWARES), Default("bios, and uefi for arm64"), "Firmware; `uefi` needs the package `ovmf` (or `qemu-efi-aarch64`) on the host.";
    /// `machine.secure_boot`.
    SECURE_BOOT: "secure_boot", Shape::Boolean, Default("false"), "UEFI that starts only what is signed; `packages` need `shim-signed` and `grub-efi-amd64-signed` then.";
    /// `machine.tpm`.
    TPM: "tpm", Shape::Boolean, Default("false"), "A TPM 2.0 of the machine's own; needs the package `swtpm` on the host, and machines that have one start cold.";
    /// `machine.user`.
    USER: "user", Shape::Text(&grammar::USER), Default("dev"), "The account that is made at the first boot, and that `devbox ssh` enters.";
    /// `machine.login`.
    LOGIN: "login", Shape::Choice(LOGINS), Default("ssh"), "`ssh`: devbox enters the machine by its SSH server, as `user`. `agent`: the machine needs none; devbox asks its QEMU guest agent, and `devbox exec` runs programs as root. Then there is no `devbox ssh`, `cp` or `sync`, and no `provision`, `mounts` or hook in the guest.";
    /// `machine.timeout`.
    MACHINE_TIMEOUT: "timeout", TIMEOUT, Default("10m"), "How long `devbox up` waits until the machine is ready.";
    /// `machine.proxy`.
    MACHINE_PROXY: "proxy", Shape::Boolean, Default("false"), "Hand over the proxies of the environment that `devbox up` runs in; one on the host's loopback too.";
    /// `machine.certificates`.
    MACHINE_CERTIFICATES: "certificates", Shape::Boolean, Default("false"), "Let the machine trust the certificates that were added to this host.";
    /// `machine.disks`.
    DISKS: "disks", Shape::List(&DISKS_TABLE), Default("none"), "More disks; at most 3.";
    /// `machine.ports`.
    PORTS: "ports", Shape::List(&PORTS_TABLE), Default("none"), "Ports of the guest that the host forwards.";
}

keys! {
    /// `machine.disks.name`.
    DISK_NAME: "name", Shape::Text(&grammar::DISK_NAME), Required, "Its serial number: `/dev/disk/by-id/virtio-NAME` in the guest.";
    /// `machine.disks.size`.
    DISK_SIZE: "size", DATA_DISK, Required, "Size; takes space as it is filled. It may grow, and never shrinks.";
    /// `machine.disks.keep`.
    DISK_KEEP: "keep", Shape::Boolean, Default("false"), "Outlives `devbox destroy`, and is there again for the next machine of this name; `destroy --disks` removes it.";
    /// `machine.disks.target`.
    DISK_TARGET: "target", Shape::Text(&grammar::GUEST_PATH), Default("not mounted"), "Where the guest mounts it; an empty disk is formatted as ext4.";
}

/// `[[machine.disks]]`.
pub static DISKS_TABLE: Table = Table {
    path: "machine.disks",
    about: "A disk for data, besides the one with the system; no part of the image.",
    keys: &[&DISK_NAME, &DISK_SIZE, &DISK_KEEP, &DISK_TARGET],
};

keys! {
    /// `machine.ports.guest`.
    PORT_GUEST: "guest", PORT, Required, "Port in the guest.";
    /// `machine.ports.host`.
    PORT_HOST: "host", PORT, Default("a free one"), "Port on the host.";
    /// `machine.ports.count`.
    PORT_COUNT: "count", Shape::Integer(1, 1000), Default("1"), "How many ports in a row: this one and those behind it, on both sides.";
    /// `machine.ports.host_ip`.
    PORT_HOST_IP: "host_ip", Shape::Text(&grammar::IPV4), Default("127.0.0.1"), "Address of the host on which the port listens. `0.0.0.0` opens it to the network.";
    /// `machine.ports.protocol`.
    PORT_PROTOCOL: "protocol", Shape::Choice(PROTOCOLS), Default("tcp"), "Protocol.";
    /// `machine.ports.auto_correct`.
    PORT_AUTO_CORRECT: "auto_correct", Shape::Boolean, Default("true"), "Take the next free port when the host's is in use, and say so.";
}

keys! {
    /// `provision`.
    PROVISION: "provision", Shape::List(&PROVISION_TABLE), Default("nothing"), "What `devbox up` does in machines; no part of the image.";
    /// `provision.name`.
    PROVISION_NAME: "name", Shape::Text(&grammar::TITLE), Required, "Title in messages and of `--provision-with`; each one its own.";
    /// `provision.run`.
    PROVISION_RUN: "run", Shape::Choice(RUN_RULES), Default("once"), "`once`: in each machine once. `on-change`: when the script or its variables have changed. `always`: at every `up`.";
    /// `provision.inline`.
    PROVISION_INLINE: "inline", Shape::Text(&grammar::SCRIPT), OneOf("text"), "The script. It runs by `sh -eu` unless it begins with `#!`.";
    /// `provision.script`.
    PROVISION_SCRIPT: "script", Shape::Text(&grammar::HOST_PATH), OneOf("text"), "The script, as a file.";
    /// `provision.env`.
    PROVISION_ENV: "env", Shape::Environment, Default("none"), "Environment variables of the script.";
    /// `provision.privileged`.
    PROVISION_PRIVILEGED: "privileged", Shape::Boolean, Default("true"), "As root; else as the machine's account, in its home.";
    /// `provision.timeout`.
    PROVISION_TIMEOUT: "timeout", TIMEOUT, Default("10m"), "How long it may take; then `up` fails.";
    /// `provision.machines`.
    PROVISION_MACHINES: "machines", Shape::Set(&Shape::Text(&grammar::LABEL)), Default("all"), "The machines that it is for.";
}

keys! {
    /// `mounts`.
    MOUNTS: "mounts", Shape::List(&MOUNTS_TABLE), Default("none"), "Folders of the host that machines see; no part of the image.";
    /// `mounts.type`.
    MOUNT_TYPE: "type", Shape::Choice(MOUNT_TYPES), Default("9p"), "`9p`: the folder itself, shown by QEMU; the guest's kernel needs 9p. `virtiofs`: the same, shown by `virtiofsd`, which the host needs; machines with one are not started from a template. `rsync`: a copy, made at `up` and by `devbox sync`.";
    /// `mounts.source`.
    MOUNT_SOURCE: "source", Shape::Text(&grammar::HOST_PATH), Required, "The folder on the host, relative to the folder of devbox.toml; `~/` is your home.";
    /// `mounts.target`.
    MOUNT_TARGET: "target", Shape::Text(&grammar::GUEST_PATH), Required, "Where the guest sees it; made if it is not there.";
    /// `mounts.writable`.
    MOUNT_WRITABLE: "writable", Shape::Boolean, Default("false"), "Whether the guest may change what is in it. Not for `rsync`, whose copy is the guest's own.";
    /// `mounts.exclude`.
    MOUNT_EXCLUDE: "exclude", Shape::Set(&Shape::Text(&grammar::RSYNC_PATTERN)), Default("none"), "Of `rsync`: patterns (as for `rsync --exclude`) of what is neither copied nor deleted.";
    /// `mounts.machines`.
    MOUNT_MACHINES: "machines", Shape::Set(&Shape::Text(&grammar::LABEL)), Default("all"), "The machines that it is for.";
}

keys! {
    /// `hooks`.
    HOOKS: "hooks", Shape::List(&HOOKS_TABLE), Default("none"), "Scripts before and after what devbox does with machines; no part of the image.";
    /// `hooks.when`.
    HOOK_WHEN: "when", Shape::Choice(HOOK_MOMENTS), Required, "For each machine of the verb.";
    /// `hooks.on`.
    HOOK_ON: "on", Shape::Choice(&["host", "guest"]), Default("host"), "`host`: with your rights, in the folder of the spec. `guest`: as root, where the guest runs at that moment.";
    /// `hooks.inline`.
    HOOK_INLINE: "inline", Shape::Text(&grammar::SCRIPT), OneOf("text"), "The script. It runs by `sh -eu` unless it begins with `#!`.";
    /// `hooks.script`.
    HOOK_SCRIPT: "script", Shape::Text(&grammar::HOST_PATH), OneOf("text"), "The script, as a file.";
    /// `hooks.env`.
    HOOK_ENV: "env", Shape::Environment, Default("none"), "Environment variables of the script, besides `DEVBOX_MACHINE` and `DEVBOX_WHEN`.";
    /// `hooks.timeout`.
    HOOK_TIMEOUT: "timeout", TIMEOUT, Default("10m"), "How long it may take.";
    /// `hooks.on_error`.
    HOOK_ON_ERROR: "on_error", Shape::Choice(&["stop", "continue"]), Default("stop"), "`stop`: a failure before the verb keeps it from being done, and makes it fail. `continue`: it is said.";
    /// `hooks.machines`.
    HOOK_MACHINES: "machines", Shape::Set(&Shape::Text(&grammar::LABEL)), Default("all"), "The machines that it is for.";
}

keys! {
    /// `network`.
    NETWORK: "network", Shape::Table(&NETWORK_TABLE), Default("all defaults"), "The network between the machines of the project; no part of the image.";
    /// `network.private`.
    NETWORK_PRIVATE: "private", Shape::Boolean, Default("true"), "Whether machines reach each other by name. A project of one machine has no such network.";
    /// `network.subnet`.
    NETWORK_SUBNET: "subnet", Shape::Text(&grammar::SUBNET), Default("one that the host does not use"), "Addresses of the machines, within `10.0.0.0/8`, `172.16.0.0/12` or `192.168.0.0/16`.";
}

/// `[network]`.
pub static NETWORK_TABLE: Table = Table {
    path: "network",
    about: "The network between the machines of the project: no root, no other user of the host, no way out. A change holds for a machine when it is started again.",
    keys: &[&NETWORK_PRIVATE, &NETWORK_SUBNET],
};

/// Values of `hooks.when`.
pub static HOOK_MOMENTS: &[&str] = &[
    "before-up",
    "after-up",
    "before-halt",
    "after-halt",
    "before-suspend",
    "after-suspend",
    "before-resume",
    "after-resume",
    "before-destroy",
    "after-destroy",
];
/// Those of them at which a guest runs.
pub static GUEST_MOMENTS: &[&str] =
    &["after-up", "before-halt", "before-suspend", "after-resume", "before-destroy"];

/// `[[hooks]]`.
pub static HOOKS_TABLE: Table = Table {
    path: "hooks",
    about: "A script that runs before or after a verb. One on the host does what you can do: read the spec of others before you run `up`.",
    keys: &[
        &HOOK_WHEN,
        &HOOK_ON,
        &HOOK_INLINE,
        &HOOK_SCRIPT,
        &HOOK_ENV,
        &HOOK_TIMEOUT,
        &HOOK_ON_ERROR,
        &HOOK_MACHINES,
    ],
};

/// Values of `mounts.type`.
pub static MOUNT_TYPES: &[&str] = &["9p", "virtiofs", "rsync"];

/// `[[mounts]]`.
pub static MOUNTS_TABLE: Table = Table {
    path: "mounts",
    about: "A folder of the host that machines see. Read-only unless asked otherwise; in a writable one a guest does what it wants, with your rights.",
    keys: &[
        &MOUNT_TYPE,
        &MOUNT_SOURCE,
        &MOUNT_TARGET,
        &MOUNT_WRITABLE,
        &MOUNT_EXCLUDE,
        &MOUNT_MACHINES,
    ],
};

/// Values of `provision.run`.
pub static RUN_RULES: &[&str] = &["once", "on-change", "always"];

/// `[[provision]]`.
pub static PROVISION_TABLE: Table = Table {
    path: "provision",
    about: "A script that `devbox up` runs in machines once they are ready. What production needs too belongs into `[[steps]]`: this is for the dev box alone.",
    keys: &[
        &PROVISION_NAME,
        &PROVISION_RUN,
        &PROVISION_INLINE,
        &PROVISION_SCRIPT,
        &PROVISION_ENV,
        &PROVISION_PRIVILEGED,
        &PROVISION_TIMEOUT,
        &PROVISION_MACHINES,
    ],
};

/// The file.
pub static SPEC: Table = Table {
    path: "",
    about: "One box: what its image is made of, and how a dev box runs it.",
    keys: &[
        &NAME, &VERSION, &ARCH, &TESTED, &REGISTRY, &SOURCE, &STEPS, &SEAL, &OUTPUTS, &DEPLOY,
        &MACHINE, &MACHINES, &NETWORK, &MOUNTS, &PROVISION, &HOOKS, &PARITY, &TRUST,
    ],
};

/// Values of `source.type`.
pub static SOURCES: &[Variant] = &[
    Variant { name: "packages", table: &PACKAGES_TABLE },
    Variant { name: "image", table: &IMAGE_TABLE },
    Variant { name: "iso", table: &ISO_TABLE },
    Variant { name: "box", table: &BOX_TABLE },
];

/// `[source]` with `type = "packages"`.
pub static PACKAGES_TABLE: Table = Table {
    path: "source",
    about: "An image made from a distribution's packages; nobody's image is downloaded.",
    keys: &[&SOURCE_TYPE, &SUITE, &PACKAGES, &MIRROR, &SECURITY_MIRROR, &COMPONENTS, &SOURCE_DISK],
};

/// `[source]` with `type = "image"`.
pub static IMAGE_TABLE: Table = Table {
    path: "source",
    about: "A disk image that exists already; used only when it matches its checksum.",
    keys: &[
        &SOURCE_TYPE,
        &IMAGE_PATH,
        &IMAGE_URL,
        &IMAGE_SHA256,
        &IMAGE_CHECKSUMS,
        &IMAGE_KEYS,
        &IMAGE_FINGERPRINTS,
        &IMAGE_SIGNATURE,
        &IMAGE_FORMAT,
    ],
};

/// `[seal]`.
pub static SEAL_TABLE: Table = Table {
    path: "seal",
    about: "Sealing removes what belongs to one boot, so that an image is the same for everybody.",
    keys: &[&SEAL_HOSTNAME, &SEAL_EPOCH],
};

/// The keys of `[machine]`, which `[machines.NAME]` has too, behind `more`.
macro_rules! machine_keys {
    ($($more:expr),*) => {
        &[$($more,)* &CPUS, &MEMORY, &MACHINE_DISK, &FIRMWARE, &SECURE_BOOT, &TPM, &USER, &LOGIN, &MACHINE_TIMEOUT, &MACHINE_PROXY, &MACHINE_CERTIFICATES, &DISKS, &PORTS]
    };
}

/// `[machine]`.
pub static MACHINE_TABLE: Table = Table {
    path: "machine",
    about: "The virtual machine that `devbox up` starts; with `[machines]`, the defaults of all of them. The build's guest takes its processors, memory and firmware from here.",
    keys: machine_keys!(),
};

/// `[machines.NAME]`.
pub static MACHINES_TABLE: Table = Table {
    path: "machines.NAME",
    about: "One of several machines. A key of `[machine]` may stand here too, and then holds instead of the one there, `ports` as a whole.",
    keys: machine_keys!(&DEPENDS_ON),
};

keys! {
    /// `machine` of personal settings.
    PERSONAL_MACHINE: "machine", Shape::Table(&PERSONAL_MACHINE_TABLE), Default("nothing"), "For every machine.";
    /// `updates` of personal settings.
    PERSONAL_UPDATES: "updates", Shape::Boolean, Default("true"), "Whether `devbox up` asks, once a day, if a place that devbox.toml names has a newer box.";
    /// `machines` of personal settings.
    PERSONAL_MACHINES: "machines", Shape::Named(&grammar::LABEL, &PERSONAL_MACHINES_TABLE, &PERSONAL_MACHINE_TABLE), Default("nothing"), "For the machine of this name.";
}

/// Personal settings: a file beside the spec that is not shared, a file of the user, or words of the
/// command line.
pub static PERSONAL: Table = Table {
    path: "",
    about: "What one person has otherwise than the spec; no part of the image or of any digest.",
    keys: &[&PERSONAL_UPDATES, &PERSONAL_MACHINE, &PERSONAL_MACHINES, &MOUNTS, &TRUST],
};

/// The keys of a machine that are a person's to choose.
static PERSONAL_KEYS: &[&Key] = &[
    &CPUS,
    &MEMORY,
    &MACHINE_DISK,
    &MACHINE_TIMEOUT,
    &MACHINE_PROXY,
    &MACHINE_CERTIFICATES,
    &PORTS,
];

/// `[machine]` of personal settings.
pub static PERSONAL_MACHINE_TABLE: Table = Table {
    path: "machine",
    about: "What this person's host gives each machine.",
    keys: PERSONAL_KEYS,
};

/// `[machines.NAME]` of personal settings.
pub static PERSONAL_MACHINES_TABLE: Table =
    Table { path: "machines.NAME", about: "The same for one machine.", keys: PERSONAL_KEYS };

/// `[[machine.ports]]`.
pub static PORTS_TABLE: Table = Table {
    path: "machine.ports",
    about: "A port of the guest that the host forwards.",
    keys: &[
        &PORT_GUEST,
        &PORT_HOST,
        &PORT_COUNT,
        &PORT_HOST_IP,
        &PORT_PROTOCOL,
        &PORT_AUTO_CORRECT,
    ],
};
