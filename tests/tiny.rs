//! The tiny guest boots, answers ssh with the host key and the account of its seed, and powers off
//! by its power button; its disk also boots directly into a shell, as the seal does.
#![expect(clippy::print_stderr, reason = "what was measured or said explains a failed run")]

#[path = "support/tiny.rs"]
mod tiny;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use devbox::event::Events;
use devbox::guest::seed::Seed;
use devbox::guest::ssh::{Client, Ended, Remote, Target};
use devbox::host;
use devbox::host::Arch;
use devbox::machine::config::{
    Accelerator, Config, DirectKernel, Disk, DiskFormat, Firmware, Forward, Lifetime, Network,
    Protocol,
};
use devbox::machine::ready::{serial_probe, ssh_probes};
use devbox::machine::{Machine, Stopped};
use tokio_util::sync::CancellationToken;

/// Under emulation on a busy host; alone it takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_disk_is_made_once() {
    let first = tiny::raw(tiny::KERNEL).await;
    assert_eq!(std::fs::metadata(&first).expect("made").len(), tiny::SIZE);
    assert_eq!(tiny::raw(tiny::KERNEL).await, first);
    assert!(tiny::qcow2(tiny::KERNEL).await.exists());
}

fn overlay(dir: &Path, base: &Path) -> Disk {
    let path = dir.join("overlay.qcow2");
    let out = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([base, path.as_path()])
        .output()
        .expect("qemu-img runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Disk {
        path,
        format: DiskFormat::Qcow2,
        read_only: false,
        below: None,
        serial: "root".to_owned(),
    }
}

fn config(disk: Disk, firmware: Firmware) -> Config {
    Config {
        name: "tiny".to_owned(),
        uuid: host::new_uuid().expect("a uuid"),
        cpus: 1,
        memory: 256 << 20,
        arch: Arch::X86_64,
        firmware,
        tpm: false,
        accelerator: Accelerator::Tcg,
        disks: vec![disk],
        data: vec![],
        seed: None,
        kernel: None,
        installer: None,
        network: Network::None,
        rtc: None,
        lifetime: Lifetime::WithParent,
        agent: false,
        spare_slots: 0,
        card: None,
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: None,
    }
}

async fn boots_and_powers_off(firmware: Firmware) {
    let dir = tempfile::tempdir().expect("a folder");
    let never = CancellationToken::new();
    let (ssh_dir, seed) = (dir.path().join("ssh"), dir.path().join("seed.iso"));
    let (user, host_key) = Client::keys(&ssh_dir, "tiny").expect("keys");
    let uuid = host::new_uuid().expect("a uuid");
    let mac = devbox::machine::config::NAT_MAC;
    Seed {
        instance_id: "i-1".to_owned(),
        hostname: "little",
        user: "dev",
        authorized_key: Some(user.public()),
        host_key: Some(&host_key),
        mac: Some(mac),
    }
    .write(&seed)
    .expect("a seed");

    let mut config = config(overlay(dir.path(), &tiny::raw(tiny::KERNEL).await), firmware);
    config.uuid = uuid;
    config.seed = Some(seed);
    let forward = Forward {
        guest: 22,
        host: None,
        host_ip: Ipv4Addr::LOCALHOST,
        protocol: Protocol::Tcp,
        auto_correct: true,
    };
    config.network = Network::User { forwards: vec![forward], restrict: true };

    let start = Instant::now();
    let (files, run) = (dir.path().join("m"), dir.path().join("r"));
    let machine = Machine::launch(config, &files, &run, &Events::silent(), &never).await;
    let mut machine = machine.unwrap_or_else(|e| panic!("{e}"));
    let port = machine.forwarded(22).expect("forwarded").host;
    let target = Target {
        name: "tiny".to_owned(),
        alias: String::new(),
        user: "dev".to_owned(),
        host: Ipv4Addr::LOCALHOST,
        port,
    };
    let client = Client::new(&ssh_dir, &run.join("c"), target, host_key.public()).expect("client");
    let [banner, login] = ssh_probes(&client);
    let ready = machine.wait_ready(&[serial_probe(), banner, login], PATIENCE, &never).await;
    ready.unwrap_or_else(|e| panic!("{e}"));
    eprintln!("ready after {:.1} s", start.elapsed().as_secs_f64());

    let mut lines = vec![];
    let remote =
        Remote::new("sudo -n id -u && hostname && cat").stdin(b"through stdin\n".as_slice());
    let ended = client.run(remote, |_, l| lines.push(l.to_owned()), PATIENCE, &never).await;
    assert_eq!(ended.unwrap_or_else(|e| panic!("{e}")), Ended::Code(0), "{lines:?}");
    assert_eq!(lines[..3], ["0", "little", "through stdin"]);
    client.disconnect().await;
    let stopped = machine.shutdown(PATIENCE, &never).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stopped, Stopped::PoweredOff);
}

#[tokio::test]
async fn it_boots_by_bios_answers_ssh_and_obeys_the_power_button() {
    boots_and_powers_off(Firmware::Bios).await;
}

#[tokio::test]
async fn it_boots_by_uefi_answers_ssh_and_obeys_the_power_button() {
    boots_and_powers_off(Firmware::Uefi).await;
}

/// As the seal does it: the guest's own kernel and initrd, a shell as the only process, a script on a
/// second disk.
#[tokio::test]
async fn it_runs_a_script_from_a_second_disk_as_its_only_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let never = CancellationToken::new();
    let raw = tiny::raw(tiny::KERNEL).await;
    let boot = dir.path().join("boot");
    std::fs::create_dir(&boot).expect("a folder");
    let tar = raw.with_file_name(format!("root-{}.tar", tiny::KERNEL));
    let out = Command::new("tar")
        .args(["--wildcards", "--strip-components=2", "-xf"])
        .arg(&tar)
        .args(["./boot/vmlinuz-*", "./boot/initrd.img-*"])
        .current_dir(&boot)
        .output()
        .expect("tar runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let find = |prefix: &str| {
        let entries = std::fs::read_dir(&boot).expect("listed");
        let mut paths = entries.map(|e| e.expect("listed").path());
        paths.find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
    };
    let script = dir.path().join("script");
    let mut text =
        b"echo \"script runs as $$ on $(cat /etc/os-release | head -n 1)\" > /dev/ttyS0\n\
        touch /sealed && sync && mount -o remount,ro / && echo ended > /dev/ttyS0\n\
        echo o > /proc/sysrq-trigger; sleep 60; exit\n"
            .to_vec();
    text.resize(512, b'\n');
    std::fs::write(&script, text).expect("written");

    let mut config = config(overlay(dir.path(), &raw), Firmware::Bios);
    config.disks.push(Disk {
        path: script,
        format: DiskFormat::Raw,
        read_only: true,
        below: None,
        serial: "seal".to_owned(),
    });
    config.kernel = Some(DirectKernel {
        kernel: find("vmlinuz-").expect("a kernel"),
        initrd: find("initrd.img-"),
        append: "root=LABEL=tiny rw console=ttyS0,115200 init=/bin/sh -- -c \"mount -t proc proc /proc; sh /dev/vdb\"".to_owned(),
    });
    let (files, run) = (dir.path().join("m"), dir.path().join("r"));
    let machine = Machine::launch(config, &files, &run, &Events::silent(), &never).await;
    let mut machine = machine.unwrap_or_else(|e| panic!("{e}"));
    machine.wait_exit(PATIENCE, &never).await.unwrap_or_else(|e| panic!("{e}"));
    let log = std::fs::read_to_string(machine.serial_log()).expect("a log");
    assert!(log.contains("script runs as 1 on PRETTY_NAME=\"devbox tiny guest\""), "{log}");
    assert!(log.contains("ended"), "{log}");
}
