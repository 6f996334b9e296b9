//! `[machine]`, whose keys `[machines.NAME]` has too.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::spec::decode::mounts::is_system;
use crate::spec::keys;
use crate::spec::quantity::{GIB, size_text};
use crate::spec::reader::{Collector, Reader};
use crate::spec::types::{Arch, DataDisk, Firmware, Login, Machine, PortForward, Protocol, Source};

/// Two, as most hosts have at least that many.
const CPUS: u32 = 2;
/// Enough for a Debian system that compiles something small.
const MEMORY: u64 = GIB;
/// An emulated guest needs minutes for its first boot on a busy host.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The account of `devbox ssh`.
const ACCOUNT: &str = "dev";
/// As many as QEMU has places for, beside folders and the network.
const MOST_DISKS: usize = 3;

pub(super) fn machine(
    top: &Reader<'_, '_>,
    name: Option<&str>,
    arch: Option<Arch>,
    source: Option<&Source>,
    c: &mut Collector,
) -> Option<Machine> {
    // A spec without one was reported, and is none.
    let arch = arch.unwrap_or(Arch::Amd64);
    let machine = Machine {
        // A spec without a name was reported, and is none.
        name: name.unwrap_or_default().to_owned(),
        depends_on: vec![],
        cpus: CPUS,
        memory: MEMORY,
        disk: None,
        arch,
        firmware: match arch {
            Arch::Amd64 => Firmware::Bios,
            Arch::Arm64 => Firmware::Uefi,
        },
        tpm: false,
        user: ACCOUNT.to_owned(),
        login: Login::Ssh,
        timeout: TIMEOUT,
        proxy: false,
        certificates: false,
        disks: vec![],
        ports: vec![],
    };
    if !top.has(&keys::MACHINE) {
        return Some(machine);
    }
    let table = top.table(&keys::MACHINE, c)?;
    Some(keys_of(&table, machine, source, c))
}

/// `machine` with what the table says instead, key by key.
pub(super) fn keys_of(
    table: &Reader<'_, '_>,
    machine: Machine,
    source: Option<&Source>,
    c: &mut Collector,
) -> Machine {
    let mut machine = personal_keys_of(table, machine, source, c);
    if table.has(&keys::DISKS) {
        machine.disks = disks(table, c);
    }
    machine.firmware = firmware(table, &machine, source, c);
    if let Some(tpm) = table.boolean(&keys::TPM, c) {
        machine.tpm = tpm;
    }
    if let Some(at) = table.text(&keys::USER, c) {
        if at.value == "root" {
            c.report(&at.path, at.span, "`root` exists already and takes no login").hint =
                Some("Name another account; it gets `sudo` without a password.".to_owned());
        } else {
            machine.user = at.value;
        }
    }
    match table.text(&keys::LOGIN, c).as_ref().map(|at| at.value.as_str()) {
        Some("agent") => machine.login = Login::Agent,
        Some(_) => machine.login = Login::Ssh,
        None => {}
    }
    machine
}

/// `firmware` and `secure_boot` of one table; what it does not say is the machine's so far.
fn firmware(
    table: &Reader<'_, '_>,
    machine: &Machine,
    source: Option<&Source>,
    c: &mut Collector,
) -> Firmware {
    let named = table.text(&keys::FIRMWARE, c);
    let bios = named.as_ref().is_some_and(|at| at.value == "bios");
    if let Some(at) = named.as_ref().filter(|_| bios && machine.arch == Arch::Arm64) {
        c.report(&at.path, at.span.clone(), "a machine of arm64 has no BIOS").hint =
            Some("Write `uefi`, or leave it out.".to_owned());
    }
    let before = match (&named, machine.firmware) {
        (Some(_), _) if bios => Firmware::Bios,
        (Some(_), Firmware::Bios) => Firmware::Uefi,
        (_, before) => before,
    };
    let secure = table.boolean(&keys::SECURE_BOOT, c);
    let place = table.place_of(&keys::SECURE_BOOT);
    match secure {
        None => before,
        Some(false) if before == Firmware::SecureBoot => Firmware::Uefi,
        Some(false) => before,
        Some(true) => {
            if bios {
                c.report(&place.path, place.span, "a BIOS has no Secure Boot").hint =
                    Some("Remove `firmware`, or set it to \"uefi\".".to_owned());
            } else if let Some(missing) = source.and_then(|source| unsigned(source, machine.arch)) {
                let what = format!("an image without {missing} does not start with Secure Boot");
                c.report(&place.path, place.span, what).hint =
                    Some("Add it to the `packages` of `[source]`: the vendor's signed boot loader is put on the disk then.".to_owned());
            }
            Firmware::SecureBoot
        }
    }
}

/// The packages of signed boot loaders that the image does not have; none for an image that others made.
fn unsigned(source: &Source, arch: Arch) -> Option<String> {
    let Source::Packages(source) = source else { return None };
    let missing: Vec<String> = source.missing_loaders(arch).map(|p| format!("`{p}`")).collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

/// The same for the keys that a person may set too.
pub(super) fn personal_keys_of(
    table: &Reader<'_, '_>,
    mut machine: Machine,
    source: Option<&Source>,
    c: &mut Collector,
) -> Machine {
    if let Some(at) = table.integer(&keys::CPUS, c) {
        machine.cpus = u32::try_from(at.value).unwrap_or(CPUS);
    }
    if let Some(at) = table.size(&keys::MEMORY, c) {
        machine.memory = at.value;
    }
    if let Some(at) = table.size(&keys::MACHINE_DISK, c) {
        if let Some(image) = source.and_then(Source::disk_size)
            && at.value < image
        {
            let image = size_text(image);
            let what = format!(
                "a disk of {} is smaller than the image, which has {image}",
                size_text(at.value)
            );
            c.report(&at.path, at.span, what).hint =
                Some(format!("Set it to \"{image}\" or more, or remove it."));
        }
        machine.disk = Some(at.value);
    }
    if let Some(timeout) = table.duration(&keys::MACHINE_TIMEOUT, c) {
        machine.timeout = timeout;
    }
    if let Some(proxy) = table.boolean(&keys::MACHINE_PROXY, c) {
        machine.proxy = proxy;
    }
    if let Some(certificates) = table.boolean(&keys::MACHINE_CERTIFICATES, c) {
        machine.certificates = certificates;
    }
    if table.has(&keys::PORTS) {
        machine.ports = ports(table, c);
    }
    machine
}

fn disks(table: &Reader<'_, '_>, c: &mut Collector) -> Vec<DataDisk> {
    let mut disks: Vec<DataDisk> = vec![];
    for disk in table.tables(&keys::DISKS, c) {
        let name = disk.text(&keys::DISK_NAME, c);
        let size = disk.size(&keys::DISK_SIZE, c);
        let keep = disk.boolean(&keys::DISK_KEEP, c).unwrap_or(false);
        let target = disk.text(&keys::DISK_TARGET, c);
        let (Some(name), Some(size)) = (name, size) else { continue };
        if ["root", "devbox-seed"].contains(&name.value.as_str()) {
            let what = format!("`{}` is the name of another disk of the machine", name.value);
            c.report(&name.path, name.span.clone(), what).hint =
                Some("Choose another one.".to_owned());
        }
        if let Some(at) = &target
            && at.value.contains([' ', '\t', '\\', '#'])
        {
            // The guest's list of filesystems cannot hold it as it is (fstab(5)).
            c.report(&at.path, at.span.clone(), "a place with such characters cannot be mounted")
                .hint = Some("Use letters, digits, `-`, `_`, `.` and `/`.".to_owned());
        }
        if let Some(at) = &target
            && is_system(&at.value)
        {
            let what =
                format!("nothing can be mounted on `{}`: the guest's system is there", at.value);
            c.report(&at.path, at.span.clone(), what).hint =
                Some("Choose another folder, such as `/data`.".to_owned());
        }
        if disks.iter().any(|other| other.name == name.value) {
            c.report(&name.path, name.span.clone(), "another disk has this name").hint =
                Some("Give each its own.".to_owned());
        }
        if let Some(at) = &target
            && disks.iter().any(|other| other.target.as_ref() == Some(&at.value))
        {
            c.report(&at.path, at.span.clone(), "another disk is mounted there").hint =
                Some("Give each its own place.".to_owned());
        }
        if disks.len() == MOST_DISKS {
            let what = format!("a machine has at most {MOST_DISKS} data disks");
            c.report(&name.path, name.span.clone(), what).hint =
                Some("Put what belongs together on one.".to_owned());
        }
        let target = target.map(|at| at.value);
        disks.push(DataDisk { name: name.value, size: size.value, keep, target });
    }
    disks
}

fn ports(table: &Reader<'_, '_>, c: &mut Collector) -> Vec<PortForward> {
    // Each with the number of its table.
    let mut ports: Vec<(usize, PortForward)> = vec![];
    for (i, port) in table.tables(&keys::PORTS, c).into_iter().enumerate() {
        let guest = port.integer(&keys::PORT_GUEST, c);
        let host = port.integer(&keys::PORT_HOST, c);
        let count = port.integer(&keys::PORT_COUNT, c);
        let host_ip = port.text(&keys::PORT_HOST_IP, c).and_then(|at| at.value.parse().ok());
        let host_ip = host_ip.unwrap_or(Ipv4Addr::LOCALHOST);
        let protocol = match port.text(&keys::PORT_PROTOCOL, c).as_ref().map(|at| at.value.as_str())
        {
            Some("udp") => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        let auto_correct = port.boolean(&keys::PORT_AUTO_CORRECT, c).unwrap_or(true);
        let last = count.as_ref().map_or(0, |at| at.value.max(1) - 1);
        if let Some(at) = &count
            && [&guest, &host]
                .into_iter()
                .flatten()
                .any(|first| first.value + last > u16::MAX.into())
        {
            let what = format!("the last of {} ports would be beyond {}", at.value, u16::MAX);
            c.report(&at.path, at.span.clone(), what).hint =
                Some("Forward fewer, or begin lower.".to_owned());
            continue;
        }
        for n in 0..=last {
            let number = |first: i64| u16::try_from(first + n).ok();
            let forward = PortForward {
                guest: guest.as_ref().and_then(|at| number(at.value)).unwrap_or(0),
                host: host.as_ref().and_then(|at| number(at.value)),
                host_ip,
                protocol,
                auto_correct,
            };
            if let (Some(at), Some(taken)) = (&host, forward.host)
                && let Some((before, _)) = ports.iter().find(|(_, p)| collide(p, &forward))
            {
                let list = table.path_of(keys::PORTS.name);
                let what = format!("port {taken} of the host is taken by {list}[{before}]");
                c.report(&at.path, at.span.clone(), what).hint =
                    Some("Choose another port, or leave `host` out to get a free one.".to_owned());
                break;
            }
            ports.push((i, forward));
        }
    }
    let mut ports: Vec<PortForward> = ports.into_iter().map(|(_, port)| port).collect();
    // A port without a number in the guest was reported.
    ports.retain(|p| p.guest != 0);
    ports
}

/// Whether both cannot listen at once: an address collides with itself and with "all addresses".
pub(super) fn collide(a: &PortForward, b: &PortForward) -> bool {
    let addresses =
        a.host_ip == b.host_ip || a.host_ip.is_unspecified() || b.host_ip.is_unspecified();
    a.host.is_some() && a.host == b.host && a.protocol == b.protocol && addresses
}
