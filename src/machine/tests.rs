//! Tests on the real QEMU, without a guest that boots.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::config::{
    Accelerator, Config, Disk, DiskFormat, Firmware, Forward, Lifetime, Network, Protocol,
};
use super::ready::{Check, Probe};
use super::{Machine, Stopped};
use crate::event::Events;
use crate::host;
use crate::host::Arch;

/// A machine whose disk is empty: the firmware runs and finds nothing to boot.
fn empty(dir: &Path, forwards: Vec<Forward>) -> Config {
    let disk = dir.join("empty.raw");
    std::fs::write(&disk, vec![0; 1 << 20]).expect("disk");
    Config {
        name: "empty".to_owned(),
        uuid: host::new_uuid().expect("uuid"),
        cpus: 1,
        memory: 64 << 20,
        arch: Arch::X86_64,
        firmware: Firmware::Bios,
        tpm: false,
        accelerator: Accelerator::Tcg,
        disks: vec![Disk {
            path: disk,
            format: DiskFormat::Raw,
            read_only: false,
            below: None,
            serial: "root".to_owned(),
        }],
        data: vec![],
        seed: None,
        kernel: None,
        installer: None,
        network: Network::User { forwards, restrict: false },
        rtc: None,
        lifetime: Lifetime::WithParent,
        agent: true,
        spare_slots: 0,
        card: None,
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: None,
    }
}

fn forward(host: Option<u16>, auto_correct: bool) -> Forward {
    let (host_ip, protocol) = (Ipv4Addr::LOCALHOST, Protocol::Tcp);
    Forward { guest: 22, host, host_ip, protocol, auto_correct }
}

async fn launch(dir: &Path, config: Config) -> crate::error::Result<Machine> {
    let never = CancellationToken::new();
    Machine::launch(config, dir, &dir.join("run"), &Events::silent(), &never).await
}

#[tokio::test]
async fn a_guest_that_never_answers_is_explained() {
    let dir = tempfile::tempdir().expect("dir");
    let mut machine =
        launch(dir.path(), empty(dir.path(), vec![forward(None, true)])).await.expect("starts");
    let port = machine.forwarded(22).expect("bound").host;
    let probes = [
        Probe { description: "the serial console", check: Check::Serial, hint: "Hint one." },
        Probe {
            description: "the ssh server's banner",
            check: Check::Banner(Ipv4Addr::LOCALHOST, port),
            hint: "Hint two.",
        },
    ];
    let never = CancellationToken::new();
    let start = Instant::now();
    let e = machine
        .wait_ready(&probes, Duration::from_secs(3), &never)
        .await
        .expect_err("nothing boots");
    assert!(start.elapsed() < Duration::from_secs(10));
    let text = e.to_string();
    assert!(text.contains("`empty` was not ready within 3 s"), "{text}");
    assert!(text.contains("serial.log"), "{text}");
    assert!(text.contains("hint: Hint "), "{text}");
    let picture = machine.files().screenshot();
    assert!(text.contains(&picture.display().to_string()), "{text}");
    assert!(std::fs::read(picture).expect("picture").starts_with(b"\x89PNG"));
    machine.kill().await.expect("killed");
    assert!(!machine.process().alive());
}

#[tokio::test]
async fn a_taken_port_is_corrected_or_named_with_its_owner() {
    let dir = tempfile::tempdir().expect("dir");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = listener.local_addr().expect("address").port();
    let e = launch(dir.path(), empty(dir.path(), vec![forward(Some(taken), false)]))
        .await
        .expect_err("taken");
    let text = e.to_string();
    assert!(text.contains(&format!("port {taken} of 127.0.0.1 is in use")), "{text}");
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    assert!(!dir.path().join("qemu.pid").exists(), "nothing is left running");
    let mut machine = launch(dir.path(), empty(dir.path(), vec![forward(Some(taken), true)]))
        .await
        .expect("runs");
    let bound = machine.forwarded(22).expect("bound").clone();
    assert_ne!(bound.host, taken);
    assert_eq!(bound.wished, Some(taken));
    TcpListener::bind(("127.0.0.1", bound.host)).expect_err("QEMU holds it");
    machine.kill().await.expect("killed");
}

#[tokio::test]
async fn a_machine_is_found_again_by_its_uuid_and_never_started_twice() {
    let dir = tempfile::tempdir().expect("dir");
    let run = dir.path().join("run");
    let config = empty(dir.path(), vec![]);
    let (uuid, events) = (config.uuid.clone(), Events::silent());
    let machine = launch(dir.path(), config.clone()).await.expect("starts");
    let pid = machine.process().pid();
    drop(machine);
    let e = launch(dir.path(), config).await.expect_err("runs already");
    assert!(e.what().contains(&format!("runs already (QEMU pid {pid})")), "{e}");
    let other = host::new_uuid().expect("uuid");
    let none = Machine::attach("x", &other, dir.path(), &run, &events).await.expect("no failure");
    assert!(none.is_none(), "another machine's process is not ours");
    let never = CancellationToken::new();
    let mut machine =
        Machine::attach("x", &uuid, dir.path(), &run, &events).await.expect("ok").expect("runs");
    assert_eq!(machine.process().pid(), pid);
    // The BIOS does not react to the power button.
    let stopped = machine.shutdown(Duration::from_millis(300), &never).await.expect("stops");
    assert_eq!(stopped, Stopped::Quit);
    let stopped = machine.shutdown(Duration::from_millis(300), &never).await.expect("stopped");
    assert_eq!(stopped, Stopped::Already);
}

#[tokio::test]
async fn qemu_killed_during_the_wait_is_noticed_at_once() {
    let dir = tempfile::tempdir().expect("dir");
    let mut machine = launch(dir.path(), empty(dir.path(), vec![])).await.expect("starts");
    let pid = machine.process().pid();
    let killer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    });
    let probe = Probe {
        description: "the ssh server's banner",
        check: Check::Banner(Ipv4Addr::LOCALHOST, 1),
        hint: "x.",
    };
    let never = CancellationToken::new();
    let start = Instant::now();
    let e = machine.wait_ready(&[probe], Duration::from_secs(60), &never).await.expect_err("died");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(e.what().contains("QEMU ended while `empty` started"), "{e}");
    killer.await.expect("killer");
}

#[tokio::test]
async fn what_qemu_says_about_a_bad_start_is_shown() {
    let dir = tempfile::tempdir().expect("dir");
    let mut config = empty(dir.path(), vec![]);
    config.disks[0].format = DiskFormat::Qcow2;
    let e = launch(dir.path(), config).await.expect_err("no qcow2");
    assert!(e.what().contains("QEMU did not start `empty`"), "{e}");
    assert!(e.details().iter().any(|d| d.contains("not in qcow2 format")), "{e}");
}

#[tokio::test]
async fn devices_take_the_spare_slots_and_leave_that_of_the_network() {
    use super::hotplug::{NETWORK_SLOT, occupied, plug, plug_into};
    let dir = tempfile::tempdir().expect("dir");
    let config = Config { spare_slots: super::config::SPARE_SLOTS, ..empty(dir.path(), vec![]) };
    let mut machine = launch(dir.path(), config).await.expect("starts");
    let device = |n: u8| json!({"driver": "virtio-keyboard-pci", "id": format!("later{n}")});
    for n in 0..NETWORK_SLOT {
        assert_eq!(plug(machine.qmp(), &device(n)).await.expect("a free slot"), n);
    }
    let e = plug(machine.qmp(), &device(9)).await.expect_err("all are taken");
    assert!(e.to_string().contains("no free slot"), "{e}");
    assert_eq!(occupied(machine.qmp(), NETWORK_SLOT).await, Ok(false));
    plug_into(machine.qmp(), NETWORK_SLOT, &device(9)).await.expect("its own slot");
    assert_eq!(occupied(machine.qmp(), NETWORK_SLOT).await, Ok(true));
    machine.kill().await.expect("killed");
    // One without slots, as an older devbox made it.
    let mut machine = launch(dir.path(), empty(dir.path(), vec![])).await.expect("starts");
    let e = plug(machine.qmp(), &device(0)).await.expect_err("there is none");
    assert!(e.to_string().contains("no free slot"), "{e}");
    machine.kill().await.expect("killed");
}
