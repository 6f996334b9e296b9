//! The exact words, one on a line.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{FirmwareImages, argv};
use crate::guest::folder::{Folder, FolderKind};
use crate::host::Arch;
use crate::machine::config::{
    Accelerator, Card, Config, DirectKernel, Disk, DiskFormat, Firmware, Forward, Incoming,
    Installer, Lifetime, MemoryFile, Network, Protocol,
};
use crate::machine::files::Files;

fn dev_box() -> Config {
    let ssh = Forward {
        guest: 22,
        host: None,
        host_ip: Ipv4Addr::LOCALHOST,
        protocol: Protocol::Tcp,
        auto_correct: true,
    };
    Config {
        name: "web".to_owned(),
        uuid: "a1b2c3d4-0000-4000-8000-000000000001".to_owned(),
        cpus: 2,
        memory: 1 << 30,
        arch: Arch::X86_64,
        firmware: Firmware::Bios,
        tpm: false,
        accelerator: Accelerator::Tcg,
        disks: vec![Disk {
            path: PathBuf::from("/m/overlay.qcow2"),
            format: DiskFormat::Qcow2,
            read_only: false,
            below: None,
            serial: "root".to_owned(),
        }],
        data: vec![],
        seed: Some(PathBuf::from("/m/seed.iso")),
        kernel: None,
        installer: None,
        network: Network::User { forwards: vec![ssh], restrict: false },
        rtc: None,
        lifetime: Lifetime::Detached,
        agent: true,
        spare_slots: 2,
        card: None,
        folders: vec![],
        owner: None,
        memory_file: None,
        incoming: None,
    }
}

fn words(config: &Config, dir: &str, uefi: Option<&FirmwareImages>) -> String {
    let files = Files::new(Path::new(dir), Path::new("/run/x"));
    let words = argv(config, &files, uefi);
    words.iter().map(|w| w.to_string_lossy().into_owned() + "\n").collect()
}

#[test]
fn dev_box_with_bios_under_emulation() {
    insta::assert_snapshot!(words(&dev_box(), "/m", None));
}

#[test]
fn dev_box_that_goes_on_from_a_template() {
    let config = Config {
        memory_file: Some(MemoryFile { path: "/t/memory".into(), written: false }),
        incoming: Some(Incoming::Template("/t/state".into())),
        ..dev_box()
    };
    let restored = words(&config, "/m", None);
    let booted = words(&dev_box(), "/m", None);
    let other: Vec<&str> = restored.lines().filter(|w| !booted.lines().any(|b| b == *w)).collect();
    // The same hardware: only where the memory comes from differs.
    assert_eq!(
        other,
        [
            r#"{"id":"mem","mem-path":"/t/memory","qom-type":"memory-backend-file","share":false,"size":1073741824}"#,
            // Not the hardware: how much translated code is kept.
            "tcg,thread=multi,tb-size=128",
            "-incoming",
            "defer",
        ]
    );
}

#[test]
fn dev_box_with_uefi_under_kvm() {
    let config = Config { firmware: Firmware::Uefi, accelerator: Accelerator::Kvm, ..dev_box() };
    let images =
        FirmwareImages { code: "/f/CODE.fd".into(), vars: "/m/uefi-vars.fd".into(), smm: false };
    insta::assert_snapshot!(words(&config, "/m", Some(&images)));
}

#[test]
fn dev_box_with_secure_boot_and_a_tpm() {
    let config = Config { firmware: Firmware::SecureBoot, tpm: true, ..dev_box() };
    let vars = "/m/uefi-vars-secure-boot.fd".into();
    let images = FirmwareImages { code: "/f/SECURE.fd".into(), vars, smm: true };
    let with = words(&config, "/m", Some(&images));
    let without = words(&dev_box(), "/m", None);
    let more: Vec<&str> = with.lines().filter(|w| !without.lines().any(|b| b == *w)).collect();
    assert_eq!(
        more,
        [
            "pc-q35-7.2,usb=off,vmport=off,smm=on,memory-backend=mem",
            r#"{"driver":"raw","file":{"driver":"file","filename":"/f/SECURE.fd"},"node-name":"uefi-code","read-only":true}"#,
            r#"{"driver":"raw","file":{"driver":"file","filename":"/m/uefi-vars-secure-boot.fd"},"node-name":"uefi-vars","read-only":false}"#,
            "pflash0=uefi-code,pflash1=uefi-vars",
            // Without it the guest could write the variables that say what it may start.
            "-global",
            "driver=cfi.pflash01,property=secure,value=on",
            "socket,id=tpm,fd=0",
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
            r#"{"driver":"tpm-crb","id":"tpm0-dev","tpmdev":"tpm0"}"#,
        ]
    );
}

#[test]
fn dev_box_of_arm64() {
    let config = Config { arch: Arch::Aarch64, firmware: Firmware::Uefi, tpm: true, ..dev_box() };
    let images =
        FirmwareImages { code: "/f/AA.fd".into(), vars: "/m/uefi-vars.fd".into(), smm: false };
    insta::assert_snapshot!(words(&config, "/m", Some(&images)));
}

#[test]
fn direct_kernel_without_network_at_a_fixed_time() {
    let mut config = dev_box();
    config.disks.push(Disk {
        path: PathBuf::from("/m/seal.raw"),
        format: DiskFormat::Raw,
        read_only: true,
        below: None,
        serial: "seal".to_owned(),
    });
    config.kernel = Some(DirectKernel {
        kernel: PathBuf::from("/k/vmlinuz"),
        initrd: Some(PathBuf::from("/k/initrd.img")),
        append: "root=UUID=1 rw console=ttyS0".to_owned(),
    });
    config.network = Network::None;
    config.seed = None;
    config.agent = false;
    config.rtc = Some(1_700_000_000);
    insta::assert_snapshot!(words(&config, "/m", None));
}

#[test]
fn commas_and_quotes_in_paths_stay_inside_their_value() {
    let mut config = dev_box();
    config.disks[0].path = PathBuf::from("/a,b/\"c\".qcow2");
    let text = words(&config, "/a,b", None);
    assert!(text.contains(r#""filename":"/a,b/\"c\".qcow2""#), "{text}");
    assert!(text.contains("logfile=/a,,b/serial.log,"), "{text}");
    assert!(text.contains("-pidfile\n/a,b/qemu.pid\n"), "{text}");
}

#[test]
fn a_card_on_the_private_network_has_its_own_slot() {
    let mac = "02:00:00:00:00:01".to_owned();
    let card = Some(Card { mac, switch: "/run/p/a, b.sock".into() });
    let with = words(&Config { card, ..dev_box() }, "/m", None);
    let without = words(&dev_box(), "/m", None);
    // Options stand there twice; what is said of this card does not.
    let more: Vec<&str> = with.lines().filter(|w| !without.lines().any(|b| b == *w)).collect();
    assert_eq!(
        more,
        [
            r#"{"id":"private0","local":{"path":"/run/x/card.sock","type":"unix"},"remote":{"path":"/run/p/a, b.sock","type":"unix"},"type":"dgram"}"#,
            r#"{"bus":"spare7","driver":"virtio-net-pci","id":"private0-dev","mac":"02:00:00:00:00:01","netdev":"private0","romfile":""}"#,
        ]
    );
}

#[test]
fn a_folder_of_virtiofs_shares_the_memory_and_adds_nothing_else() {
    let folder = Folder {
        kind: FolderKind::Virtiofs,
        source: "/a".into(),
        target: "/work".to_owned(),
        writable: false,
        exclude: vec![],
    };
    let with = words(&Config { folders: vec![folder], ..dev_box() }, "/m", None);
    let without = words(&dev_box(), "/m", None);
    let other: Vec<&str> = with.lines().filter(|w| !without.lines().any(|b| b == *w)).collect();
    let size = dev_box().memory;
    assert_eq!(
        other,
        [format!(r#"{{"id":"mem","qom-type":"memory-backend-memfd","share":true,"size":{size}}}"#)]
    );
    assert_eq!(with.lines().count(), without.lines().count());
}

#[test]
fn folders_are_served_without_a_device_and_read_only_unless_asked() {
    let folder = |source: &str, writable| Folder {
        kind: FolderKind::NineP,
        source: source.into(),
        target: "/work".to_owned(),
        writable,
        exclude: vec![],
    };
    let copied = Folder { kind: FolderKind::Rsync, ..folder("/c", true) };
    let folders = vec![folder("/a,b", false), copied, folder("/d", true)];
    let with = words(&Config { folders, ..dev_box() }, "/m", None);
    let without = words(&dev_box(), "/m", None);
    // The words of `dev_box` stay as they are: a template fits.
    let more: Vec<&str> = with.strip_prefix(&without).expect("added behind").lines().collect();
    assert_eq!(
        more,
        [
            "-fsdev",
            "local,id=devbox0,security_model=none,multidevs=remap,readonly=on,path=/a,,b",
            "-fsdev",
            "local,id=devbox2,security_model=none,multidevs=remap,readonly=off,path=/d",
        ]
    );
}

#[test]
fn each_accelerator_has_its_words() {
    let of = |accelerator, option: &str| {
        let words = words(&Config { accelerator, ..dev_box() }, "/m", None);
        let mut words = words.lines().skip_while(|word| *word != option);
        words.nth(1).expect("a value").to_owned()
    };
    for (accelerator, accel, cpu) in [
        (Accelerator::Kvm, "kvm", "host"),
        (Accelerator::Hvf, "hvf", "host"),
        (Accelerator::Whpx, "whpx,kernel-irqchip=off", "Nehalem"),
        (Accelerator::Tcg, "tcg,thread=multi", "max"),
    ] {
        assert_eq!(of(accelerator, "-accel"), accel);
        assert_eq!(of(accelerator, "-cpu"), cpu);
    }
}

#[test]
fn an_installer_finds_its_media_and_ends_with_a_reboot() {
    let installer = Installer {
        cds: vec!["/m/a.iso".into(), "/m/answers0.iso".into()],
        floppy: Some("/m/floppy.img".into()),
        fw_cfg: vec![("opt/com.coreos/config".to_owned(), "/m/fw,0".into())],
        vnc: true,
    };
    let config = Config { installer: Some(installer), ..dev_box() };
    insta::assert_snapshot!(words(&config, "/m", None));
    // Nothing is left of it once the CDs are out, but that a reboot ends it.
    let later = Config { installer: Some(Installer::default()), ..dev_box() };
    let (with, without) = (words(&later, "/m", None), words(&dev_box(), "/m", None));
    let more: Vec<&str> = with.lines().filter(|w| !without.lines().any(|l| l == *w)).collect();
    assert_eq!(more, ["-no-reboot"]);
}

#[test]
fn a_board_without_a_disk_controller_gets_one_for_cds_and_a_keyboard() {
    let installer = Installer { cds: vec!["/m/a.iso".into()], ..Installer::default() };
    let config = Config {
        arch: Arch::Aarch64,
        firmware: Firmware::Uefi,
        installer: Some(installer),
        ..dev_box()
    };
    let words = words(&config, "/m", None);
    for part in ["\"scsi-cd\"", "virtio-scsi-pci", "usb-kbd", "\"bootindex\":0"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}
