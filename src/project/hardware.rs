//! The machine of a spec as QEMU is to build it.

use crate::build::hardware as words;
use crate::helper::arriving::BoxServer;
use crate::machine::config::{
    Accelerator, Card, Config, Disk, DiskFormat, Forward, Incoming, Lifetime, Network, Protocol,
    SPARE_SLOTS,
};
use crate::machine::instance::Instance;
use crate::machine::ports::BoundForward;
use crate::machine::record::{Login, Record, Shape};
use crate::spec;

/// What machines of this shape have in common: no name, no disk, no forwards.
pub(super) fn shape(machine: &spec::Machine, accelerator: Accelerator) -> Config {
    Config {
        name: String::new(),
        uuid: String::new(),
        arch: words::arch(machine.arch),
        cpus: machine.cpus,
        memory: machine.memory,
        firmware: words::firmware(machine.firmware),
        tpm: machine.tpm,
        accelerator,
        disks: vec![],
        data: vec![],
        seed: None,
        kernel: None,
        installer: None,
        network: Network::User { forwards: vec![], restrict: false },
        rtc: None,
        lifetime: Lifetime::Detached,
        agent: true,
        spare_slots: SPARE_SLOTS,
        card: None,
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: None,
    }
}

/// One machine with its own disk, seed and forwards.
pub(super) fn config(
    machine: &spec::Machine,
    instance: &Instance,
    record: &Record,
    accelerator: Accelerator,
) -> Config {
    let forwards: Vec<Forward> = machine.ports.iter().map(forward).collect();
    Config {
        name: record.name.clone(),
        uuid: record.uuid.clone(),
        disks: vec![own(instance, record)],
        data: record.disks.clone(),
        seed: Some(instance.files().seed()),
        network: Network::User { forwards: record.wishes(&forwards), restrict: false },
        ..shape(machine, accelerator)
    }
}

/// The same machine as it was when it was saved, whatever the spec says now.
pub(super) fn saved(
    instance: &Instance,
    record: &Record,
    shape: Shape,
    card: Card,
    tag: &str,
) -> Config {
    let again = |bound: &BoundForward| Forward {
        guest: bound.guest,
        host: Some(bound.host),
        host_ip: bound.host_ip,
        protocol: bound.protocol,
        auto_correct: true,
    };
    Config {
        name: record.name.clone(),
        uuid: record.uuid.clone(),
        arch: shape.arch,
        cpus: shape.cpus,
        memory: shape.memory,
        firmware: shape.firmware,
        tpm: shape.tpm,
        accelerator: shape.accelerator,
        disks: vec![own(instance, record)],
        data: record.disks.clone(),
        seed: Some(instance.files().seed()),
        kernel: None,
        installer: None,
        network: Network::User {
            forwards: record.forwards.iter().map(again).collect(),
            restrict: false,
        },
        rtc: None,
        lifetime: Lifetime::Detached,
        agent: true,
        spare_slots: shape.spare_slots,
        card: shape.card.then_some(card),
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: Some(Incoming::Snapshot(tag.to_owned())),
    }
}

/// How devbox enters a machine of the spec.
pub(super) fn login(machine: &spec::Machine) -> Login {
    match machine.login {
        spec::Login::Ssh => Login::Ssh,
        spec::Login::Agent => Login::Agent,
    }
}

/// The disk of a machine, over its box or over what serves it.
fn own(instance: &Instance, record: &Record) -> Disk {
    let server = BoxServer::of_machine(instance.files(), record);
    let server = server.filter(|_| record.awaited().is_some());
    Disk { below: server.map(|server| server.socket()), ..root(instance.files().overlay()) }
}

/// The disk that boots.
pub(super) fn root(path: std::path::PathBuf) -> Disk {
    let serial = "root".to_owned();
    Disk { path, format: DiskFormat::Qcow2, read_only: false, below: None, serial }
}

fn forward(port: &spec::PortForward) -> Forward {
    Forward {
        guest: port.guest,
        host: port.host,
        host_ip: port.host_ip,
        protocol: match port.protocol {
            spec::Protocol::Tcp => Protocol::Tcp,
            spec::Protocol::Udp => Protocol::Udp,
        },
        auto_correct: port.auto_correct,
    }
}
