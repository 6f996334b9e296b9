//! A project whose box is in the store already.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use devbox::digest::{BoxDigest, FileDigest};
use devbox::parity::bytes::Chunks;
use devbox::store::{BoxConfig, Existing, Store};
use serde_json::Value;

use crate::lab::{Lab, text};

/// Date of the box.
pub(crate) const EPOCH: i64 = 1_700_000_000;

/// All formats, in the order of the reference.
pub(crate) const ALL: [&str; 12] = [
    "qcow2",
    "qcow2-zstd",
    "raw",
    "vmdk",
    "ova",
    "vhd",
    "vhdx",
    "gce",
    "aws",
    "xen",
    "vagrant",
    "containerdisk",
];

/// A disk, a spec that asks for outputs of it, and a home whose store has its box.
pub(crate) struct Desk {
    pub(crate) lab: Lab,
    /// The disk, raw.
    pub(crate) disk: PathBuf,
}

impl Desk {
    /// One whose spec asks for these outputs, with more text at its end.
    pub(crate) fn new(outputs: &[&str], more: &str) -> Self {
        let lab = Lab::new();
        let disk = with_packages(&lab);
        Desk::of(lab, disk, outputs, more)
    }

    /// One whose box has no package database.
    pub(crate) fn without_packages(outputs: &[&str]) -> Self {
        let lab = Lab::new();
        let disk = lab.path("a.raw");
        Desk::of(lab, disk, outputs, "")
    }

    fn of(lab: Lab, disk: PathBuf, outputs: &[&str], more: &str) -> Self {
        let desk = Desk { lab, disk };
        desk.spec(outputs, more);
        let home = desk.path("home");
        std::fs::create_dir(&home).expect("made");
        let spec = devbox::spec::load(Some(&desk.path("devbox.toml"))).expect("a good spec");
        let source = FileDigest::of(&std::fs::read(&desk.disk).expect("read"));
        let store = Store::open(&home.join("store")).expect("a store");
        let staged = store.stage().expect("staged");
        let image = desk.lab.convert("box.qcow2", &["qcow2"]);
        std::fs::copy(image, staged.path()).expect("copied");
        let container = devbox::image::container::open(&desk.disk, &Default::default());
        let reader = container.expect("opens").reader;
        let config = BoxConfig {
            name: "web".into(),
            version: "1.2.0".into(),
            arch: "amd64".into(),
            firmware: "bios".into(),
            spec1: devbox::spec::digest::spec1(&spec, Some(&source)).expect("spec1"),
            bytes1: Chunks::read(&*reader).expect("read").digest(),
            box1: BoxDigest::of(b"the system"),
            disk_size: reader.size(),
            cmdline: "root=/dev/vda3 ro".into(),
            epoch: EPOCH,
            seal: "seal/1".into(),
            devbox: "0.1.0".into(),
        };
        store.add(&config, staged, Existing::Refuse).expect("added");
        desk
    }

    /// Writes the spec anew.
    pub(crate) fn spec(&self, outputs: &[&str], more: &str) {
        let sha256 = FileDigest::of(&std::fs::read(&self.disk).expect("read")).hex();
        let text = format!(
            "name = \"web\"\nversion = \"1.2.0\"\narch = \"amd64\"\noutputs = {outputs:?}\n\n\
             [source]\ntype = \"image\"\npath = \"a.raw\"\nsha256 = \"{sha256}\"\n\n{more}"
        );
        std::fs::write(self.path("devbox.toml"), text).expect("written");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(args).current_dir(self.path("")).stdin(Stdio::null());
        command.env("DEVBOX_HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path(""));
        command
    }

    /// What a build into `dir` says of itself.
    pub(crate) fn build(&self, dir: &str) -> Value {
        let out = self.command(&["build", "--json", "--output-dir", dir]).output().expect("runs");
        assert!(out.status.success(), "{}", said(&out));
        let built: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(built["reused"], true, "no guest has to boot");
        built
    }
}

/// What a program said on standard error.
pub(crate) fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The names in a folder, sorted; hidden ones too.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The lab's disk with a package database in its root.
fn with_packages(lab: &Lab) -> PathBuf {
    let (status, release) = (lab.path("status"), lab.path("os-release"));
    // Bytes that nothing compresses, so that writing an output takes a moment.
    let noise = lab.path("noise");
    std::fs::write(&noise, noise_bytes()).expect("written");
    std::fs::write(&status, STATUS).expect("written");
    std::fs::write(&release, "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n")
        .expect("written");
    let noise = format!("write {} noise", text(&noise));
    let status = format!("write {} status", text(&status));
    let release = format!("write {} os-release", text(&release));
    let made = lab.changed(&[
        &noise,
        "mkdir var",
        "cd var",
        "mkdir lib",
        "cd lib",
        "mkdir dpkg",
        "cd dpkg",
        &status,
        "cd /etc",
        "rm os-release",
        &release,
    ]);
    let disk = lab.path("a.raw");
    std::fs::rename(made, &disk).expect("renamed");
    disk
}

/// 8 MiB of what xorshift gives.
fn noise_bytes() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.take(1 << 20).flat_map(u64::to_le_bytes).collect()
}

/// Two packages that are there, and one of which only its configuration is left.
const STATUS: &str = "\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 1:2.36-9+deb12u10

Package: nano
Status: deinstall ok config-files
Architecture: amd64
Version: 7.2-1
";
