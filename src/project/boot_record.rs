//! Boots a box once, in a machine that is thrown away, to see what of its disk a boot reads.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::arrival::Recording;
use crate::build::hardware as words;
use crate::chunks::boot;
use crate::error::{Error, Result};
use crate::guest::seed::Seed;
use crate::guest::ssh::{Client, Target};
use crate::machine::config::{
    Accelerator, Config, Disk, Firmware, Forward, Lifetime, NAT_MAC, Network, Protocol, SPARE_SLOTS,
};
use crate::machine::instance::new_layer;
use crate::machine::{Machine, accel, ready};
use crate::project::{Run, hardware};
use crate::spec::Arch;
use crate::store::BoxRef;

/// Most boxes boot with this; one that needs more reads the same of its disk until it says so.
const MEMORY: u64 = 1 << 30;
const CPUS: u32 = 2;
/// The account that the seed asks for.
const USER: &str = "dev";

/// What was seen.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The record, as [`boot::parse`] reads it.
    pub record: Vec<u8>,
    /// Bytes of the disk's file that it names.
    pub bytes: u64,
    /// Until a login worked.
    pub took: Duration,
}

/// Boots `image` and writes down what it reads until a login works. What comes later is none of it: the rest moves from then on.
///
/// # Errors
/// It does not boot, or takes no login within `timeout`.
pub async fn record_boot(image: &BoxRef, timeout: Duration, run: Run<'_>) -> Result<Recorded> {
    let begun = Instant::now();
    let config = image.config();
    let arch = match config.arch.as_str() {
        "arm64" => words::arch(Arch::Arm64),
        _ => words::arch(Arch::Amd64),
    };
    let firmware = match config.firmware.as_str() {
        "bios" => Firmware::Bios,
        "secure-boot" => Firmware::SecureBoot,
        _ => Firmware::Uefi,
    };
    let accelerator = accel::choose(&run.paths.cache, arch).await?;
    run.events.note(&accelerator.reason);
    crate::host::private_dir(&run.paths.cache)?;
    crate::host::private_dir(&run.paths.runtime)?;
    let dir = tempfile::Builder::new().prefix("boot-").tempdir_in(&run.paths.cache)?;
    // Sockets want a short path.
    let runtime =
        tempfile::Builder::new().prefix("r").rand_bytes(6).tempdir_in(&run.paths.runtime)?;
    let socket = runtime.path().join("nbd.sock");
    let recording = Recording::start(image.disk_path(), &socket)?;
    let (ssh, seed, layer) =
        (dir.path().join("ssh"), dir.path().join("seed.iso"), dir.path().join("layer.qcow2"));
    let name = "boot";
    let (user_key, host_key) = Client::keys(&ssh, name)?;
    new_layer(image.disk_path(), &layer, image.disk_size())?;
    Seed {
        instance_id: format!("boot-{}", image.disk_digest().hex()),
        hostname: name,
        user: USER,
        authorized_key: Some(user_key.public()),
        host_key: Some(&host_key),
        mac: Some(NAT_MAC),
    }
    .write(&seed)?;
    let disk = Disk { below: Some(socket), ..hardware::root(layer) };
    let config = machine(name, arch, firmware, accelerator.accelerator, disk, seed)?;
    run.events.phase(format!("Booting {} to see what it reads", image.config().reference()));
    let (files, sockets) = (dir.path().join("m"), runtime.path().join("m"));
    let mut machine = Machine::launch(config, &files, &sockets, run.events, run.cancel).await?;
    let control = runtime.path().join("c");
    let seen = until_login(&mut machine, &ssh, &control, name, &host_key, timeout, run).await;
    let (took, reads) = (begun.elapsed(), recording.reads());
    machine.kill().await?;
    seen?;
    let record = boot::encode(image.disk_digest(), &reads);
    let ranges = boot::parse(&record, image.disk_digest())?;
    let bytes = ranges.iter().map(|range: &Range<u64>| range.end - range.start).sum();
    run.events.done(format!("{} takes logins", image.config().reference()), took);
    Ok(Recorded { record, bytes, took })
}

fn machine(
    name: &str,
    arch: crate::host::Arch,
    firmware: Firmware,
    accelerator: Accelerator,
    disk: Disk,
    seed: std::path::PathBuf,
) -> Result<Config> {
    let forward = Forward {
        guest: 22,
        host: None,
        host_ip: Ipv4Addr::LOCALHOST,
        protocol: Protocol::Tcp,
        auto_correct: true,
    };
    Ok(Config {
        name: name.to_owned(),
        uuid: crate::host::new_uuid()?,
        arch,
        cpus: CPUS,
        memory: MEMORY,
        firmware,
        tpm: false,
        accelerator,
        disks: vec![disk],
        data: vec![],
        seed: Some(seed),
        kernel: None,
        installer: None,
        network: Network::User { forwards: vec![forward], restrict: false },
        rtc: None,
        lifetime: Lifetime::WithParent,
        agent: true,
        spare_slots: SPARE_SLOTS,
        card: None,
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: None,
    })
}

async fn until_login(
    machine: &mut Machine,
    ssh: &std::path::Path,
    control: &std::path::Path,
    name: &str,
    host_key: &crate::guest::keys::KeyPair,
    timeout: Duration,
    run: Run<'_>,
) -> Result<()> {
    let Some(port) = machine.forwarded(22).map(|forward| forward.host) else {
        return Err(Error::failed("no port of this host leads to the guest's ssh server"));
    };
    let target = Target {
        name: name.to_owned(),
        alias: String::new(),
        user: USER.to_owned(),
        host: Ipv4Addr::LOCALHOST,
        port,
    };
    let client = Client::new(ssh, control, target, host_key.public())?;
    let [banner, login] = ready::ssh_probes(&client);
    let probes = [ready::serial_probe(), banner, login];
    let ready = machine.wait_ready(&probes, timeout, run.cancel).await;
    client.disconnect().await;
    ready
}
