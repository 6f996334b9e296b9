//! The keys of `[source]` with `type = "iso"`.

use super::{DISK, IMAGE_FINGERPRINTS, IMAGE_KEYS, IMAGE_SIGNATURE, SOURCE_TYPE, TIMEOUT};
use crate::spec::grammar;
use crate::spec::shape::Presence::{Default, OneOf, Required};
use crate::spec::shape::{Key, Shape, Table, Variant};

keys! {
    /// `source.path` of an installation medium.
    ISO_PATH: "path", Shape::Text(&grammar::HOST_PATH), OneOf("location"), "The installation medium, as a file.";
    /// `source.url` of an installation medium.
    ISO_URL: "url", Shape::Text(&grammar::URL), OneOf("location"), "The medium, as an address. The download resumes, and is verified while it streams.";
    /// `source.sha256` of an installation medium.
    ISO_SHA256: "sha256", Shape::Text(&grammar::SHA256), OneOf("checksum"), "SHA-256 of the medium.";
    /// `source.checksums` of an installation medium.
    ISO_CHECKSUMS: "checksums", Shape::Text(&grammar::HOST_PATH), OneOf("checksum"), "Path or address of a checksum file (GNU or BSD form, SHA-256 or SHA-512, clear-signed or not) that lists the medium by its file name.";
    /// `source.disk` of an installation.
    ISO_DISK: "disk", DISK, Default("8GiB"), "Size of the empty disk that the installer finds, and of the image.";
    /// `source.answers`.
    ANSWERS: "answers", Shape::ListOfVariants(ANSWER_TYPES), Default("none"), "Files that tell the installer what to do.";
    /// `source.boot`.
    BOOT: "boot", Shape::Variants(BOOT_TYPES), Default("the medium's own boot loader, to which nothing is typed"), "How the installer is started.";
    /// `source.end`.
    ISO_END: "end", Shape::Choice(&["power-off", "reboot"]), Default("power-off"), "What ends the installation: that the guest powers itself off, or that it reboots.";
    /// `source.reboots`.
    ISO_REBOOTS: "reboots", Shape::Integer(0, 100), Default("3"), "How often the guest may reboot before it powers itself off, each time from its disk; once more is a loop.";
    /// `source.start_timeout`.
    ISO_START_TIMEOUT: "start_timeout", TIMEOUT, Default("20m"), "How long the installer may take until it first writes to the disk or fetches an answer file.";
    /// `source.timeout` of an installation.
    ISO_TIMEOUT: "timeout", TIMEOUT, Default("2h"), "How long the whole installation may take.";
}

/// `[source]` with `type = "iso"`.
pub static ISO_TABLE: Table = Table {
    path: "source",
    about: "An installer that runs unattended; see [installers](installers.md).",
    keys: &[
        &SOURCE_TYPE,
        &ISO_PATH,
        &ISO_URL,
        &ISO_SHA256,
        &ISO_CHECKSUMS,
        &IMAGE_KEYS,
        &IMAGE_FINGERPRINTS,
        &IMAGE_SIGNATURE,
        &ISO_DISK,
        &ANSWERS,
        &BOOT,
        &ISO_END,
        &ISO_REBOOTS,
        &ISO_START_TIMEOUT,
        &ISO_TIMEOUT,
    ],
};

keys! {
    /// `source.answers.type`.
    ANSWER_TYPE: "type", Shape::Choice(&["cd", "http", "floppy", "fw-cfg", "initrd"]), Required, "Where the file goes.";
    /// `source.answers.source`.
    ANSWER_SOURCE: "source", Shape::Text(&grammar::HOST_PATH), Required, "The file. In a text, `{{ http }}` and `{{ hostname }}` are replaced.";
    /// `source.answers.name`.
    ANSWER_NAME: "name", Shape::Text(&grammar::RELATIVE), Default("the file's own name"), "What it is called there; folders are made.";
    /// `source.answers.name` of a floppy disk.
    FLOPPY_NAME: "name", Shape::Text(&grammar::FLOPPY_NAME), Default("the file's own name"), "What it is called there.";
    /// `source.answers.name` of the firmware configuration device.
    FW_CFG_NAME: "name", Shape::Text(&grammar::FW_CFG), Required, "The entry's name, which begins with `opt/`, as in `opt/com.coreos/config`.";
    /// `source.answers.label`.
    ANSWER_LABEL: "label", Shape::Text(&grammar::VOLUME), Required, "The CD's label, by which the installer finds it: `cidata`, `OEMDRV`, `config-2`. Files with the same label are on one CD.";
}

/// `[[source.answers]]`, by `type`.
pub static ANSWER_TYPES: &[Variant] = &[
    Variant { name: "cd", table: &ANSWER_CD },
    Variant { name: "http", table: &ANSWER_HTTP },
    Variant { name: "floppy", table: &ANSWER_FLOPPY },
    Variant { name: "fw-cfg", table: &ANSWER_FW_CFG },
    Variant { name: "initrd", table: &ANSWER_INITRD },
];

static ANSWER_CD: Table = Table {
    path: "source.answers",
    about: "A file on a CD beside that of the installer.",
    keys: &[&ANSWER_TYPE, &ANSWER_SOURCE, &ANSWER_NAME, &ANSWER_LABEL],
};
static ANSWER_HTTP: Table = Table {
    path: "source.answers",
    about: "A file that the build serves by HTTP while the installation runs, at `{{ http }}/NAME`. An installer that never asked for it is told.",
    keys: &[&ANSWER_TYPE, &ANSWER_SOURCE, &ANSWER_NAME],
};
static ANSWER_FLOPPY: Table = Table {
    path: "source.answers",
    about: "A file on a floppy disk, for guests of amd64.",
    keys: &[&ANSWER_TYPE, &ANSWER_SOURCE, &FLOPPY_NAME],
};
static ANSWER_FW_CFG: Table = Table {
    path: "source.answers",
    about: "An entry of QEMU's firmware configuration device, where Ignition looks.",
    keys: &[&ANSWER_TYPE, &ANSWER_SOURCE, &FW_CFG_NAME],
};
static ANSWER_INITRD: Table = Table {
    path: "source.answers",
    about: "A file that is appended to the initial RAM disk; needs `boot` with `type = \"kernel\"` and an `initrd`.",
    keys: &[&ANSWER_TYPE, &ANSWER_SOURCE, &ANSWER_NAME],
};

keys! {
    /// `source.boot.type`.
    BOOT_TYPE: "type", Shape::Choice(&["kernel", "command"]), Required, "`kernel`: a kernel of the medium, without its boot loader. `command`: keys that are typed.";
    /// `source.boot.kernel`.
    BOOT_KERNEL: "kernel", Shape::Text(&grammar::RELATIVE), Required, "Path of the kernel on the medium, such as \"casper/vmlinuz\".";
    /// `source.boot.initrd`.
    BOOT_INITRD: "initrd", Shape::Text(&grammar::RELATIVE), Default("none"), "Path of its initial RAM disk on the medium.";
    /// `source.boot.cmdline`.
    BOOT_CMDLINE: "cmdline", Shape::Text(&grammar::CMDLINE), Default("nothing"), "Its command line, in which `{{ http }}` and `{{ hostname }}` are replaced.";
    /// `source.boot.wait`.
    BOOT_WAIT: "wait", TIMEOUT, Default("10s"), "How long nothing is typed.";
    /// `source.boot.command`.
    BOOT_COMMAND: "command", Shape::Text(&grammar::TYPED), Required, "What is typed: text, and keys and pauses in `<>`, see [installers](installers.md). Line breaks are not typed.";
}

/// `[source.boot]`, by `type`.
pub static BOOT_TYPES: &[Variant] = &[
    Variant { name: "kernel", table: &BOOT_BY_KERNEL },
    Variant { name: "command", table: &BOOT_BY_COMMAND },
];

static BOOT_BY_KERNEL: Table = Table {
    path: "source.boot",
    about: "Starts a kernel of the medium itself: no menu, and a command line of yours.",
    keys: &[&BOOT_TYPE, &BOOT_KERNEL, &BOOT_INITRD, &BOOT_CMDLINE],
};
static BOOT_BY_COMMAND: Table = Table {
    path: "source.boot",
    about: "Types into the medium's boot loader as a person would, on a US keyboard.",
    keys: &[&BOOT_TYPE, &BOOT_COMMAND, &BOOT_WAIT],
};
