//! The exact command line of QEMU for a config. Pure; golden tests compare every word.

use std::ffi::OsString;
use std::path::Path;

use serde_json::json;

use super::board::Board;
use super::config::{Accelerator, Config, Disk, DiskFormat, Incoming, Installer, NAT_MAC, Network};
use super::files::Files;
use super::{backing, card, data_disk, folder, hotplug};
use crate::guest::folder::FolderKind;

/// The node of the disk that boots; it holds the machine's snapshots.
pub(super) const ROOT_NODE: &str = "disk0";

/// UEFI firmware images, found by [`super::firmware::find`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareImages {
    /// The code, shared and read-only.
    pub code: std::path::PathBuf,
    /// The machine's own variable store.
    pub vars: std::path::PathBuf,
    /// Only code in System Management Mode may change the variables.
    pub smm: bool,
}

/// QEMU's arguments, without the program's name. The machine starts paused (`-S`), so that forwards
/// are in place before the guest runs.
#[must_use]
pub fn argv(config: &Config, files: &Files, uefi: Option<&FirmwareImages>) -> Vec<OsString> {
    let mut a = Args(Vec::new());
    identity(&mut a, config, files);
    hardware(&mut a, config, uefi.is_some_and(|images| images.smm));
    if let Some(images) = uefi {
        firmware(&mut a, images);
    }
    if config.tpm {
        tpm(&mut a, config);
    }
    let from_cd = config.installer.as_ref().is_some_and(|installer| !installer.cds.is_empty());
    for (n, disk) in config.disks.iter().enumerate() {
        let place = (config.kernel.is_none() && n == 0).then_some(u8::from(from_cd));
        add_disk(&mut a, n, disk, place);
    }
    if let Some(seed) = &config.seed {
        add_seed(&mut a, seed);
    }
    if let Some(kernel) = &config.kernel {
        a.pair("-kernel", &kernel.kernel);
        if let Some(initrd) = &kernel.initrd {
            a.pair("-initrd", initrd);
        }
        a.pair("-append", &kernel.append);
    }
    if let Some(installer) = &config.installer {
        add_installer(&mut a, config, installer);
    }
    if config.kernel.is_some() || config.installer.is_some() {
        a.word("-no-reboot");
    }
    network(&mut a, config);
    ports(&mut a, config, files);
    spare_slots(&mut a, config.spare_slots);
    if let Some(card) = &config.card {
        a.pair("-netdev", card::netdev(card, files).to_string());
        let mut device = card::device(card);
        device["bus"] = json!(hotplug::bus(hotplug::NETWORK_SLOT));
        a.device(&device);
    }
    // A template knows no data disk: its machine is given them while it runs.
    if !matches!(config.incoming, Some(Incoming::Template(_))) {
        for (n, disk) in config.data.iter().enumerate() {
            a.blockdev(&disk.block());
            let mut device = disk.device();
            device["bus"] = json!(hotplug::bus(data_disk::slot(n)));
            a.device(&device);
        }
    }
    folders(&mut a, config);
    if matches!(config.incoming, Some(Incoming::Template(_) | Incoming::Memory(_))) {
        // The state is named over the monitor, after the capabilities that it was saved with.
        a.pair("-incoming", "defer");
    }
    a.0
}

struct Args(Vec<OsString>);

impl Args {
    fn word(&mut self, word: impl Into<OsString>) {
        self.0.push(word.into());
    }

    fn pair(&mut self, option: &str, value: impl AsRef<std::ffi::OsStr>) {
        self.word(option);
        self.word(value.as_ref());
    }

    fn device(&mut self, value: &serde_json::Value) {
        self.pair("-device", value.to_string());
    }

    fn blockdev(&mut self, value: &serde_json::Value) {
        self.pair("-blockdev", value.to_string());
    }

    /// An option whose value ends with `<key>=<path>`. A comma in a path is written twice (QEMU's
    /// manual, "Device URL syntax" and `-chardev`).
    fn with_path(&mut self, option: &str, before: &str, path: &Path, after: &str) {
        let path = path.to_string_lossy().replace(',', ",,");
        self.pair(option, format!("{before}{path}{after}"));
    }
}

fn identity(a: &mut Args, config: &Config, files: &Files) {
    a.pair("-name", format!("guest={},process=devbox-vm", config.name.replace(',', ",,")));
    a.pair("-uuid", &config.uuid);
    a.pair("-pidfile", files.pid_file());
    a.word("-no-user-config");
    a.word("-nodefaults");
    a.pair("-display", "none");
    a.pair("-msg", "timestamp=on");
    a.word("-S");
}

fn hardware(a: &mut Args, config: &Config, smm: bool) {
    let board = Board::of(config.arch);
    let smm = match (board.smm, smm) {
        (false, _) => "",
        (true, false) => ",smm=off",
        (true, true) => ",smm=on",
    };
    a.pair("-machine", format!("{},{}{smm},memory-backend=mem", board.machine, board.options));
    memory(a, config);
    let (accel, cpu) = config.accelerator.words(config.arch);
    a.pair("-accel", format!("{accel}{}", translated(config)));
    a.pair("-cpu", cpu);
    a.pair("-smp", format!("cpus={}", config.cpus));
    a.pair("-m", format!("size={}M", config.memory >> 20));
    let base = config.rtc.and_then(|s| jiff::Timestamp::from_second(s).ok());
    let base = base.map_or("utc".to_owned(), |t| t.strftime("%Y-%m-%dT%H:%M:%S").to_string());
    a.pair("-rtc", format!("base={base}"));
    a.device(&json!({"driver": board.video, "id": "video0"}));
    a.pair("-object", "rng-builtin,id=rng0");
    a.device(&json!({"driver": "virtio-rng-pci", "id": "entropy0", "rng": "rng0"}));
    if board.generation_id {
        // A new id at each start of QEMU: a guest that goes on from a saved state sees that it was
        // copied, and its kernel takes new random state ("Virtual Machine Generation ID", Microsoft).
        a.device(&json!({"driver": "vmgenid", "id": "generation0", "guid": "auto"}));
    }
}

/// How much of its own memory QEMU may fill with translated code. A guest that boots fills most of the gigabyte
/// that is QEMU's default, and one that is restored from a template never runs what boots: an eighth of its
/// memory is enough, so that ten machines of one template do not hold ten times the rest.
fn translated(config: &Config) -> String {
    const MOST_MIB: u64 = 1024;
    const LEAST_MIB: u64 = 64;
    let restored = matches!(config.incoming, Some(Incoming::Template(_)));
    if config.accelerator != Accelerator::Tcg || !restored {
        return String::new();
    }
    format!(",tb-size={}", (config.memory >> 23).clamp(LEAST_MIB, MOST_MIB))
}

/// The same name for every kind of memory: a saved state names the memory that it belongs to.
fn memory(a: &mut Args, config: &Config) {
    let mut object = json!({"qom-type": "memory-backend-ram", "id": "mem", "size": config.memory});
    if let Some(file) = &config.memory_file {
        object["qom-type"] = json!("memory-backend-file");
        object["mem-path"] = json!(file.path.to_string_lossy());
        object["share"] = json!(file.written);
    } else if config.folders.iter().any(|folder| folder.kind == FolderKind::Virtiofs) {
        // The servers of these folders read and write the guest's memory.
        object["qom-type"] = json!("memory-backend-memfd");
        object["share"] = json!(true);
    }
    a.pair("-object", object.to_string());
}

/// All in one slot of the root bus, one function each.
fn spare_slots(a: &mut Args, count: u8) {
    for n in 0..count.min(8) {
        a.device(&json!({
            "driver": "pcie-root-port", "id": format!("spare{n}"), "bus": "pcie.0",
            "addr": format!("10.{n}"), "multifunction": true, "chassis": n + 1,
        }));
    }
}

/// What serves the folders; their devices come when the guest runs.
///
/// `none`: files are what they are on the host, made with the rights of the user whom QEMU runs as, and an
/// owner that this user cannot give is left out. The other models write owners, modes, and even links
/// into attributes that only QEMU understands, or want root. QEMU opens each part of a path below the folder by itself and
/// follows no link, so that no name leads out of it.
fn folders(a: &mut Args, config: &Config) {
    for (n, folder) in config.folders.iter().enumerate() {
        if folder.kind != FolderKind::NineP {
            continue;
        }
        let readonly = if folder.writable { "off" } else { "on" };
        let before = format!(
            "local,id={},security_model=none,multidevs=remap,readonly={readonly},path=",
            folder::tag(n)
        );
        a.with_path("-fsdev", &before, &folder.source, "");
    }
}

fn firmware(a: &mut Args, images: &FirmwareImages) {
    a.blockdev(&json!({
        "driver": "raw", "node-name": "uefi-code", "read-only": true,
        "file": {"driver": "file", "filename": images.code.to_string_lossy()},
    }));
    a.blockdev(&json!({
        "driver": "raw", "node-name": "uefi-vars", "read-only": false,
        "file": {"driver": "file", "filename": images.vars.to_string_lossy()},
    }));
    a.pair("-machine", "pflash0=uefi-code,pflash1=uefi-vars");
    if images.smm {
        a.pair("-global", "driver=cfi.pflash01,property=secure,value=on");
    }
}

/// QEMU's standard input is a socket to the emulator of the TPM, see [`super::tpm`].
fn tpm(a: &mut Args, config: &Config) {
    a.pair("-chardev", "socket,id=tpm,fd=0");
    a.pair("-tpmdev", "emulator,id=tpm0,chardev=tpm");
    a.device(&json!({"driver": Board::of(config.arch).tpm, "id": "tpm0-dev", "tpmdev": "tpm0"}));
}

/// `place` is the disk's place in the order in which the firmware looks for what it boots.
fn add_disk(a: &mut Args, n: usize, disk: &Disk, place: Option<u8>) {
    let driver = match disk.format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
    };
    let node = format!("disk{n}");
    let mut block = json!({
        "driver": driver, "node-name": node, "read-only": disk.read_only,
        "file": {"driver": "file", "filename": disk.path.to_string_lossy()},
    });
    if !disk.read_only {
        // What the guest trims is given back to the host, and zeros that it writes take no space.
        block["discard"] = json!("unmap");
        block["detect-zeroes"] = json!("unmap");
        block["file"]["discard"] = json!("unmap");
    }
    if let Some(socket) = &disk.below {
        a.blockdev(&backing::block(socket));
        block["backing"] = json!(backing::ARRIVING_NODE);
        block["file"]["node-name"] = json!(backing::FILE_NODE);
    }
    a.blockdev(&block);
    let mut device = json!({
        "driver": "virtio-blk-pci", "id": format!("{node}-dev"), "drive": node, "serial": disk.serial,
    });
    if disk.below.is_some() {
        // What cannot be read now can be later: until then the guest stands still, also where it writes a part of
        // what it would have to read.
        device["rerror"] = json!("stop");
        device["werror"] = json!("stop");
    }
    if let Some(place) = place {
        device["bootindex"] = json!(place);
    }
    a.device(&device);
}

fn add_installer(a: &mut Args, config: &Config, installer: &Installer) {
    let (nodes, devices) = installer.devices(config.arch, config.kernel.is_none());
    for node in &nodes {
        a.blockdev(node);
    }
    for device in &devices {
        a.device(device);
    }
    for (name, path) in &installer.fw_cfg {
        a.with_path("-fw_cfg", &format!("name={name},file="), path, "");
    }
    if installer.vnc {
        a.pair("-vnc", "127.0.0.1:0,to=99");
    }
}

fn add_seed(a: &mut Args, seed: &Path) {
    a.blockdev(&json!({
        "driver": "raw", "node-name": "seed", "read-only": true,
        "file": {"driver": "file", "filename": seed.to_string_lossy()},
    }));
    a.device(&json!({
        "driver": "virtio-blk-pci", "id": "seed-dev", "drive": "seed", "serial": "devbox-seed",
    }));
}

fn network(a: &mut Args, config: &Config) {
    let Network::User { restrict, .. } = &config.network else { return };
    let restrict = if *restrict { "on" } else { "off" };
    a.pair("-netdev", format!("user,id=net0,restrict={restrict}"));
    a.device(&json!({
        "driver": "virtio-net-pci", "id": "net0-dev", "netdev": "net0", "mac": NAT_MAC,
        // No network boot: it costs seconds and could boot something else.
        "romfile": "",
    }));
}

fn ports(a: &mut Args, config: &Config, files: &Files) {
    for (id, path) in [("qmp", files.qmp_socket()), ("watch", files.watch_socket())] {
        let before = format!("socket,id={id},server=on,wait=off,path=");
        a.with_path("-chardev", &before, &path, "");
        a.pair("-mon", format!("chardev={id},mode=control"));
    }
    let log = files.serial_log().to_string_lossy().replace(',', ",,");
    a.with_path(
        "-chardev",
        &format!("socket,id=serial0,server=on,wait=off,logfile={log},logappend=off,path="),
        &files.serial_socket(),
        "",
    );
    match Board::of(config.arch).serial {
        Some(driver) => {
            a.device(&json!({"driver": driver, "id": "serial0-dev", "chardev": "serial0"}));
        }
        None => a.pair("-serial", "chardev:serial0"),
    }
    if config.agent {
        let before = "socket,id=agent,server=on,wait=off,path=";
        a.with_path("-chardev", before, &files.agent_socket(), "");
        a.device(&json!({"driver": "virtio-serial-pci", "id": "vserial0"}));
        a.device(&json!({
            "driver": "virtserialport", "id": "agent-dev", "bus": "vserial0.0",
            "chardev": "agent", "name": "org.qemu.guest_agent.0",
        }));
    }
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
