//! What goes into an image besides the packages that the spec names: the least that boots, gets an
//! address, takes its instance data from cloud-init and can be reached. Pure text.

use std::fmt::Write as _;

use crate::source::disk::Ids;
use crate::spec::types::{Arch, Packages};

/// Changes whenever this file changes what comes out: part of the cache's key.
pub(super) const VERSION: u32 = 6;

/// Boots, gets an address, can be reached; nothing is recommended, each is needed.
///
/// The network is systemd-networkd's: it is there anyway, cloud-init renders for it without
/// starting `netplan` (Python), and it has a lease before ifupdown's `dhclient` has started.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "qemu-guest-agent",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "zstd",
];
/// Unless the spec names a kernel. Debian's kernel for virtual machines: no drivers of hardware,
/// a third of the modules.
fn kernel(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "linux-image-cloud-amd64",
        Arch::Arm64 => "linux-image-cloud-arm64",
    }
}

/// The package of an unsigned boot loader that the disk is given as it is; amd64 gets one that is made of
/// the host's modules.
fn loader(arch: Arch) -> Option<&'static str> {
    match arch {
        Arch::Amd64 => None,
        Arch::Arm64 => Some("grub-efi-arm64-bin"),
    }
}

/// Drivers of the root disk under QEMU and in the clouds: virtio, NVMe and Xen (AWS), Hyper-V
/// (Azure), SATA and SCSI. A list makes the initramfs a third of the size of `MODULES=most`.
const MODULES: &[&str] = &[
    "ext4",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ahci",
    "nvme",
    "hv_vmbus",
    "hv_storvsc",
];
/// The same for hardware that only PCs have.
const PC_MODULES: &[&str] = &["ata_piix", "xen_blkfront", "vmw_pvscsi"];

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageFile {
    pub(super) path: &'static str,
    pub(super) content: String,
}

/// What apt installs, sorted, each once.
pub(super) fn packages(spec: &Packages, arch: Arch) -> Vec<String> {
    let mut all: Vec<String> = PACKAGES.iter().map(|p| (*p).to_owned()).collect();
    all.extend(spec.packages.iter().cloned());
    if !spec.packages.iter().any(|p| p.starts_with("linux-image-")) {
        all.push(kernel(arch).to_owned());
    }
    if !spec.is_signed(arch) {
        all.extend(loader(arch).map(str::to_owned));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// The suites that an image follows, each with whether it lies on the security mirror.
pub(super) fn suites(spec: &Packages) -> Vec<(String, bool)> {
    let suite = &spec.suite;
    // The rolling suites have neither.
    if ["sid", "unstable", "experimental"].contains(&suite.as_str()) {
        return vec![(suite.clone(), false)];
    }
    vec![
        (suite.clone(), false),
        (format!("{suite}-updates"), false),
        (format!("{suite}-security"), true),
    ]
}

/// Needed before the kernel's package makes its initramfs.
pub(super) fn early_files(arch: Arch) -> Vec<ImageFile> {
    let more = if arch == Arch::Amd64 { PC_MODULES } else { &[] };
    vec![
        ImageFile {
            path: "/etc/initramfs-tools/conf.d/devbox",
            content: "# Written by devbox: drivers of virtual machines only.\n\
                      MODULES=list\nCOMPRESS=zstd\n"
                .to_owned(),
        },
        ImageFile {
            path: "/usr/share/initramfs-tools/modules.d/devbox",
            content: [MODULES, more].concat().join("\n") + "\n",
        },
    ]
}

/// The files that the image's own configuration consists of.
pub(super) fn files(spec: &Packages, arch: Arch, ids: &Ids) -> Vec<ImageFile> {
    vec![
        ImageFile { path: "/boot/grub/grub.cfg", content: grub_cfg(arch, ids) },
        ImageFile { path: "/etc/apt/sources.list.d/debian.sources", content: apt_sources(spec) },
        ImageFile { path: "/etc/cloud/cloud.cfg.d/10_devbox.cfg", content: CLOUD_CFG.to_owned() },
        ImageFile { path: "/etc/default/locale", content: "LANG=C.UTF-8\n".to_owned() },
        ImageFile { path: "/etc/fstab", content: fstab(ids) },
        ImageFile { path: "/etc/hostname", content: "localhost\n".to_owned() },
        ImageFile {
            path: "/etc/hosts",
            content: "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned(),
        },
        ImageFile { path: "/etc/machine-id", content: String::new() },
    ]
}

/// `/vmlinuz` and `/initrd.img` are links that Debian's `linux-base` points at the newest kernel:
/// a kernel that a step installs is booted without this file being written again.
fn grub_cfg(arch: Arch, ids: &Ids) -> String {
    let (root, console) = (ids.root, arch.console());
    format!(
        "# Written by devbox. /vmlinuz and /initrd.img follow the newest kernel.\n\
         if serial --unit=0 --speed=115200; then\n\
         \x20   terminal_output console serial\n\
         fi\n\
         set default=0\n\
         set timeout=0\n\
         menuentry \"Debian GNU/Linux\" {{\n\
         \x20   search --no-floppy --fs-uuid --set=root {root}\n\
         \x20   linux /vmlinuz root=UUID={root} ro console=tty0 console={console},115200\n\
         \x20   initrd /initrd.img\n\
         }}\n"
    )
}

/// Nothing on the EFI system partition changes once it is made, so it is not mounted at boot.
fn fstab(ids: &Ids) -> String {
    format!(
        "UUID={} / ext4 rw,discard,errors=remount-ro 0 1\n\
         UUID={} /boot/efi vfat umask=0077,noauto 0 0\n",
        ids.root,
        ids.esp_text()
    )
}

/// deb822 (sources.list(5)). From the spec alone: the host's mirror has no place in an image.
fn apt_sources(spec: &Packages) -> String {
    let components = spec.components.join(" ");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let mut text = String::new();
    for security in [false, true] {
        let suites: Vec<String> =
            suites(spec).into_iter().filter(|(_, s)| *s == security).map(|(n, _)| n).collect();
        if suites.is_empty() {
            continue;
        }
        let mirror = if security { &spec.security_mirror } else { &spec.mirror };
        if security {
            text.push('\n');
        }
        let _ = write!(
            text,
            "Types: deb\nURIs: {mirror}\nSuites: {}\nComponents: {components}\nSigned-By: {keys}\n",
            suites.join(" ")
        );
    }
    text
}

/// `apt_preserve_sources_list`: else cloud-init writes the sources again from its own template.
const CLOUD_CFG: &str = "\
# Written by devbox.
datasource_list: [NoCloud, ConfigDrive, Azure, Ec2, GCE, OpenStack, None]
apt:
  preserve_sources_list: true
# What an image for virtual machines uses; each module costs a second under emulation, and
# grub-dpkg, which has nothing to do here, six.
cloud_config_modules: [locale, set-passwords, apt-configure, ntp, timezone, runcmd]
cloud_final_modules:
  - package-update-upgrade-install
  - write-files-deferred
  - scripts-vendor
  - scripts-per-once
  - scripts-per-boot
  - scripts-per-instance
  - scripts-user
  - ssh-authkey-fingerprints
  - keys-to-console
  - install-hotplug
  - phone-home
  - final-message
  - power-state-change
";

/// A script that writes `files` beneath `$1`, as the root of mmdebstrap's namespace.
pub(super) fn write_script(files: &[ImageFile]) -> String {
    let mut script = String::from("#!/bin/sh\nset -eu\numask 022\n");
    for file in files {
        let dir = file.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let path = file.path;
        let _ = write!(
            script,
            "mkdir -p \"$1{dir}\"\nrm -f \"$1{path}\"\ncat > \"$1{path}\" <<'END-OF-FILE'\n{}END-OF-FILE\n",
            file.content
        );
    }
    script
}

/// After all packages are there: what only one machine may have, what the build host left behind,
/// and what differs from build to build. Every line is idempotent.
///
/// `/tmp` is mmdebstrap's: it keeps its apt configuration there until its own clean-up. Without that
/// file the clean-up's `apt-get update` and `clean` work on the host, and as root they empty its lists.
pub(super) const FINISH: &str = concat!(
    r#"
chmod 0444 "$1/etc/machine-id"
mkdir -p "$1/boot/efi" "$1/var/lib/dbus"
ln -sf /etc/machine-id "$1/var/lib/dbus/machine-id"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
rm -f "$1/etc/apt/preferences.d/devbox-lock"
rm -f "$1/etc/apt/sources.list" "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -f "$1"/etc/ssh/ssh_host_*
for unit in systemd-networkd.service systemd-resolved.service systemd-timesyncd.service ssh.service; do
    chroot "$1" systemctl --quiet enable "$unit"
done
# Snapshots of LVM volumes, of which there are none: five seconds of a boot under emulation.
chroot "$1" systemctl --quiet mask e2scrub_reap.service
chroot "$1" usermod --lock root
rm -f "$1"/etc/passwd- "$1"/etc/group- "$1"/etc/shadow- "$1"/etc/gshadow- "$1"/etc/subuid- "$1"/etc/subgid-
rm -f "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old "$1/var/cache/ldconfig/aux-cache"
rm -f "$1/var/lib/systemd/random-seed" "$1/var/lib/systemd/credential.secret"
find "$1/var/log" -type f -delete
if [ -x "$1/usr/bin/python3" ]; then chroot "$1" python3 -I -S -B - /usr "$SOURCE_DATE_EPOCH" <<'END-OF-PROGRAM'
"#,
    include_str!("compiled.py"),
    "END-OF-PROGRAM\nfi\n"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::disk::ids;
    use crate::source::seed::Seed;

    pub(crate) fn spec() -> Packages {
        Packages {
            suite: "bookworm".to_owned(),
            packages: vec!["nginx-light".to_owned()],
            mirror: "http://deb.debian.org/debian".to_owned(),
            security_mirror: "http://deb.debian.org/debian-security".to_owned(),
            components: vec!["main".to_owned()],
            disk_size: 2 << 30,
        }
    }

    #[test]
    fn apt_sources_are_those_of_the_spec() {
        assert_eq!(
            apt_sources(&spec()),
            "Types: deb\n\
             URIs: http://deb.debian.org/debian\n\
             Suites: bookworm bookworm-updates\n\
             Components: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\
             \n\
             Types: deb\n\
             URIs: http://deb.debian.org/debian-security\n\
             Suites: bookworm-security\n\
             Components: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        );
        let sid = Packages { suite: "sid".to_owned(), ..spec() };
        assert!(!apt_sources(&sid).contains("security"));
    }

    #[test]
    fn a_kernel_of_the_spec_takes_the_place_of_the_default() {
        let has =
            |spec: &Packages, arch, name: &str| packages(spec, arch).iter().any(|p| p == name);
        assert!(has(&spec(), Arch::Amd64, "linux-image-cloud-amd64"));
        assert!(has(&spec(), Arch::Arm64, "linux-image-cloud-arm64"));
        let own = Packages { packages: vec!["linux-image-amd64".to_owned()], ..spec() };
        assert!(!has(&own, Arch::Amd64, "linux-image-cloud-amd64"));
    }

    #[test]
    fn a_boot_loader_is_installed_where_the_host_makes_none() {
        let loaders = |spec: &Packages, arch| {
            packages(spec, arch).into_iter().filter(|p| p.contains("grub")).collect::<Vec<_>>()
        };
        assert!(loaders(&spec(), Arch::Amd64).is_empty());
        assert_eq!(loaders(&spec(), Arch::Arm64), ["grub-efi-arm64-bin"]);
        let signed = Packages::signed_loaders(Arch::Arm64).map(str::to_owned).to_vec();
        let signed = Packages { packages: signed, ..spec() };
        assert_eq!(loaders(&signed, Arch::Arm64), ["grub-efi-arm64-signed"]);
    }

    #[test]
    fn boot_entry_and_fstab_name_the_same_root() {
        let ids = ids(&Seed::from_text("x"));
        let uuid = ids.root.to_string();
        let entry = |arch| grub_cfg(arch, &ids);
        let words = format!("root=UUID={uuid} ro console=tty0 console=");
        assert!(entry(Arch::Amd64).contains(&format!("{words}ttyS0,")));
        assert!(entry(Arch::Arm64).contains(&format!("{words}ttyAMA0,")));
        assert!(fstab(&ids).starts_with(&format!("UUID={uuid} / ext4 ")));
    }

    #[test]
    fn the_last_script_leaves_the_folder_of_mmdebstraps_own_configuration_alone() {
        assert!(!FINISH.contains("\"$1\"/tmp") && !FINISH.contains("$1/tmp"), "{FINISH}");
    }

    #[test]
    fn compiled_python_names_the_time_of_its_source_and_not_its_hash() {
        const PYTHON: &str = "import sys, py_compile, os\n\
            for name, time in (('old', 5), ('new', 99), ('other', 5)):\n\
            \x20   open(name + '.py', 'w').write('x = 1')\n\
            \x20   os.utime(name + '.py', (time, time))\n\
            \x20   py_compile.compile(name + '.py')\n\
            open('other.py', 'w').write('x = 2')\n\
            py_compile.compile('old.py', cfile='__pycache__/none.py-1.pyc')\n";
        let dir = tempfile::tempdir().expect("a folder");
        let run = |program: &str, words: &[&str]| {
            let mut command = std::process::Command::new("python3");
            command.args(["-I", "-S", "-B", "-c", program]).args(words).current_dir(dir.path());
            command.env("SOURCE_DATE_EPOCH", "7").status()
        };
        match run(PYTHON, &[]) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            made => assert!(made.expect("python3 runs").success()),
        }
        let read = |name: &str| {
            let mut found = std::fs::read_dir(dir.path().join("__pycache__")).expect("a folder");
            let path = found
                .find_map(|entry| {
                    let path = entry.expect("reads").path();
                    path.to_string_lossy().contains(&format!("/{name}.")).then_some(path)
                })
                .expect("compiled");
            std::fs::read(path).expect("reads")
        };
        let before = ["old", "new", "other", "none"].map(read);
        assert!(before.iter().all(|bytes| bytes[4] == 3), "the hash");
        for _ in 0..2 {
            let done = run(include_str!("compiled.py"), &[".", "7"]).expect("python3 runs");
            assert!(done.success());
            let after = ["old", "new", "other", "none"].map(read);
            assert_eq!(after[0][4..16], [0, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0]);
            assert_eq!(after[1][4..16], [0, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0], "as in the image");
            assert_eq!(after[0][16..], before[0][16..]);
            assert_eq!(after[2..], before[2..], "of another source, and of none");
        }
    }

    #[test]
    fn a_written_file_has_the_content_as_given() {
        let dir = tempfile::tempdir().expect("a folder");
        let content = "a $HOME `x` \\ 'q'\n".to_owned();
        let script =
            write_script(&[ImageFile { path: "/etc/deep/file", content: content.clone() }]);
        let status = std::process::Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(dir.path())
            .status()
            .expect("sh runs");
        assert!(status.success());
        let got = std::fs::read_to_string(dir.path().join("etc/deep/file")).expect("written");
        assert_eq!(got, content);
    }
}
