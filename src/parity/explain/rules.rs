//! What a path is for, as data: patterns from the root without a leading `/`; the first that fits counts.
//!
//! `*` stays in one component, `**` does not. Sources: hier(7), file-hierarchy(7), systemd.unit(5), and the
//! measured instance state of booted images.

use std::sync::LazyLock;

use globset::GlobSet;

use super::cause::Cause;
use super::globs::set;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pattern: &'static str,
    /// What a difference there means.
    pub(super) cause: Cause,
    /// Packages (names, perhaps with `*` at the end) from whose change it follows, whoever owns the path.
    pub(super) follows: &'static [&'static str],
}

/// Any package.
const ANY: &[&str] = &["*"];
/// Packages that bring a kernel.
pub(super) const KERNELS: &[&str] = &[
    "linux-image*",
    "linux-modules*",
    "linux-headers*",
    "linux-kbuild*",
    "linux-base",
    "kernel",
    "kernel-*",
    "linux-lts",
    "linux-virt",
];
/// Packages that bring a boot loader.
pub(super) const LOADERS: &[&str] =
    &["grub*", "shim*", "systemd-boot*", "syslinux*", "extlinux*", "efibootmgr"];

const fn rule(pattern: &'static str, cause: Cause) -> Rule {
    Rule { pattern, cause, follows: &[] }
}

const fn made(pattern: &'static str, cause: Cause, follows: &'static [&'static str]) -> Rule {
    Rule { pattern, cause, follows }
}

const RULES: &[Rule] = &[
    // What starts.
    rule("boot/{initrd,initramfs}*", Cause::Initramfs),
    rule("{boot,boot/efi}/**/{initrd,initramfs}*", Cause::Initramfs),
    made("boot/grub{,2}/grub.cfg", Cause::BootLoader, KERNELS),
    rule("boot/loader/entries/**", Cause::CommandLine),
    rule("boot/{vmlinuz,vmlinux,System.map,config,symvers}*", Cause::Kernel),
    rule("boot/**", Cause::BootLoader),
    rule("efi/**", Cause::BootLoader),
    rule("etc/default/grub{,.d/**,.ucf*}", Cause::CommandLine),
    rule("etc/kernel/cmdline", Cause::CommandLine),
    rule("etc/grub.d/**", Cause::BootLoader),
    rule("etc/{initramfs-tools,dracut.conf.d,mkinitcpio.d}/**", Cause::Initramfs),
    rule("etc/{dracut,mkinitcpio,mkinitfs/mkinitfs}.conf", Cause::Initramfs),
    made("{,usr/}lib/modules/*/modules.*", Cause::Kernel, KERNELS),
    rule("{,usr/}lib/modules/**", Cause::Kernel),
    rule("{vmlinuz,initrd.img}{,.old}", Cause::Kernel),
    rule("etc/ld.so.preload", Cause::Preload),
    // What every running system writes.
    rule("etc/machine-id", Cause::State),
    rule("var/lib/dbus/machine-id", Cause::State),
    rule("etc/ssh/ssh_host_*", Cause::State),
    rule("etc/{hostname,mailname,adjtime,resolv.conf,.pwd.lock,.updated}", Cause::State),
    rule("etc/cloud/cloud-init.disabled", Cause::State),
    rule("etc/netplan/50-cloud-init.yaml", Cause::State),
    rule("etc/network/interfaces.d/50-cloud-init*", Cause::State),
    rule("etc/systemd/network/10-cloud-init-*", Cause::State),
    rule(
        "var/lib/{cloud,dhcp,dhcpcd,NetworkManager,urandom,chrony,ntp,ntpsec,private,plymouth}{,/**}",
        Cause::State,
    ),
    rule("var/lib/systemd/catalog/**", Cause::Derived),
    made("var/lib/systemd/deb-systemd-{helper,user-helper}-*/**", Cause::ServicesEnabled, &[]),
    rule("var/lib/systemd{,/**}", Cause::State),
    rule(
        "var/lib/{logrotate,misc,update-notifier,ubuntu-release-upgrader,unattended-upgrades,snapd/seed-state,AccountsService,fwupd,udisks2,upower,boltd}{,/**}",
        Cause::State,
    ),
    made(
        "var/log/{dpkg.log*,apt/**,alternatives.log*,bootstrap.log,dnf*,yum*,zypp/**,installer/**}",
        Cause::State,
        ANY,
    ),
    rule("var/{log,tmp,spool/mail,mail,run,lock,crash,.updated}{,/**}", Cause::State),
    rule("{run,tmp,proc,sys,dev}{,/**}", Cause::State),
    rule(
        "{root,home/*}/.{bash_history,viminfo,lesshst,python_history,sudo_as_admin_successful,wget-hsts}",
        Cause::State,
    ),
    rule("{root,home/*}/.cache{,/**}", Cause::State),
    // Who may come in.
    rule("etc/{passwd,group,shadow,gshadow,subuid,subgid}{,-}", Cause::Accounts),
    rule("etc/{sudoers,sudoers.d/**,sudo.conf,doas.conf,doas.d/**}", Cause::Sudo),
    rule("etc/sudoers.d", Cause::Sudo),
    rule("etc/ssh/**", Cause::Ssh),
    rule("{root,home/*}/.{ssh,ssh/**,rhosts,shosts}", Cause::Ssh),
    rule("etc/{pam.d,security,polkit-1,authselect}{,/**}", Cause::Authentication),
    rule("usr/share/polkit-1/**", Cause::Authentication),
    rule(
        "etc/{pam.conf,nsswitch.conf,login.defs,securetty,hosts.allow,hosts.deny,shells,krb5.conf,sssd/**}",
        Cause::Authentication,
    ),
    made("var/lib/pam/**", Cause::Derived, ANY),
    made("etc/ssl/certs{,/**}", Cause::Certificates, &["ca-certificates*"]),
    made("etc/pki/ca-trust/extracted/**", Cause::Certificates, &["ca-certificates*"]),
    rule(
        "{etc/pki,etc/ca-certificates,usr/local/share/ca-certificates,usr/share/ca-certificates,usr/share/pki}{,/**}",
        Cause::Certificates,
    ),
    made("etc/ca-certificates.conf*", Cause::Certificates, &["ca-certificates*"]),
    // Where packages come from.
    rule(
        "etc/apt/{sources.list,sources.list.d,trusted.gpg,trusted.gpg.d,keyrings,preferences,preferences.d,apt.conf,apt.conf.d,auth.conf,auth.conf.d,mirrors}{,/**}",
        Cause::PackageSources,
    ),
    rule("usr/share/keyrings{,/**}", Cause::PackageSources),
    rule("etc/{yum.repos.d,yum.conf,dnf,zypp,apk,pki/rpm-gpg}{,/**}", Cause::PackageSources),
    // What package managers write.
    made("var/lib/{dpkg,apt,ucf,rpm,dnf,apk}{,/**}", Cause::Derived, ANY),
    made("{usr/lib/sysimage,lib/apk,usr/lib/apk,usr/share/rpm}{,/**}", Cause::Derived, ANY),
    made("var/cache{,/**}", Cause::Derived, ANY),
    made("etc/{ld.so.cache,udev/hwdb.bin}", Cause::Derived, ANY),
    made("usr/lib/udev/hwdb.bin", Cause::Derived, ANY),
    made(
        "usr/share/{info/dir,mime/**,applications/mimeinfo.cache,icons/**/icon-theme.cache,glib-2.0/schemas/gschemas.compiled}",
        Cause::Derived,
        ANY,
    ),
    made(
        "usr/lib/{locale/locale-archive,**/gconv/gconv-modules.cache,**/loaders.cache,**/giomodule.cache,**/immodules.cache}",
        Cause::Derived,
        ANY,
    ),
    rule("usr/**/__pycache__{,/**}", Cause::Derived),
    // What runs.
    rule("etc/systemd/{system,user}/*.{wants,requires,upholds}{,/*}", Cause::ServicesEnabled),
    rule("etc/systemd/system/default.target", Cause::ServicesEnabled),
    rule("etc/{rc?.d,runlevels}{,/**}", Cause::ServicesEnabled),
    rule("etc/systemd/{system,user}{,/**}", Cause::ServiceUnits),
    rule("etc/systemd/system-{generators,environment-generators}{,/**}", Cause::ServiceUnits),
    rule("{,usr/}{lib,local/lib}/systemd/{system,user}{,/**}", Cause::ServiceUnits),
    rule(
        "etc/{init.d,cron.d,cron.hourly,cron.daily,cron.weekly,cron.monthly}{,/**}",
        Cause::ServiceUnits,
    ),
    rule("etc/{crontab,inittab,rc.local}", Cause::ServiceUnits),
    rule("var/spool/{cron,anacron,at}{,/**}", Cause::ServiceUnits),
    rule(
        "etc/{sysctl.conf,sysctl.d,modules,modules-load.d,modprobe.d,udev}{,/**}",
        Cause::KernelSettings,
    ),
    rule("usr/{local/,}lib/{sysctl.d,modules-load.d,modprobe.d}{,/**}", Cause::KernelSettings),
    rule(
        "etc/{nftables.conf,nftables,iptables,ufw,firewalld,arptables,ebtables}{,/**}",
        Cause::Firewall,
    ),
    rule("etc{,/**}", Cause::Configuration),
];

/// Where programs and libraries are.
const PROGRAMS: &[&str] = &[
    "{bin,sbin,lib,lib32,lib64,libx32,opt}/**",
    "usr/{bin,sbin,lib,lib32,lib64,libx32,libexec,local}/**",
];

static SET: LazyLock<GlobSet> = LazyLock::new(|| set(RULES.iter().map(|rule| rule.pattern), false));
static PROGRAM_SET: LazyLock<GlobSet> = LazyLock::new(|| set(PROGRAMS.iter().copied(), false));

/// The rule for a path from the root, without a leading `/`.
pub(super) fn of(path: &[u8]) -> Option<&'static Rule> {
    let first = SET.matches(super::os_path(path)).into_iter().min()?;
    RULES.get(first)
}

/// Whether programs and libraries belong there.
pub(super) fn is_program(path: &[u8]) -> bool {
    PROGRAM_SET.is_match(super::os_path(path))
}

/// Whether a package's name is one of `names`.
pub(super) fn is_one_of(package: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| match name.strip_suffix('*') {
        Some(start) => package.starts_with(start.as_bytes()),
        None => package == name.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_can_be_read_and_has_its_place() {
        assert_eq!(SET.len(), RULES.len());
        assert_eq!(PROGRAM_SET.len(), PROGRAMS.len());
    }

    #[test]
    fn a_path_means_what_its_most_special_rule_says() {
        for (path, cause) in [
            ("boot/initrd.img-6.1.0-50-amd64", Cause::Initramfs),
            ("boot/vmlinuz-6.1.0-50-amd64", Cause::Kernel),
            ("boot/efi/EFI/BOOT/BOOTX64.EFI", Cause::BootLoader),
            ("boot/grub/grubenv", Cause::BootLoader),
            ("etc/default/grub", Cause::CommandLine),
            ("etc/default/grub.d/50-cloud.cfg", Cause::CommandLine),
            ("etc/default/keyboard", Cause::Configuration),
            ("lib/modules/6.1/kernel/x.ko", Cause::Kernel),
            ("etc/shadow", Cause::Accounts),
            ("etc/group-", Cause::Accounts),
            ("etc/sudoers.d/90-dev", Cause::Sudo),
            ("etc/ssh/sshd_config.d/a.conf", Cause::Ssh),
            ("etc/ssh/ssh_host_ed25519_key", Cause::State),
            ("home/dev/.ssh/authorized_keys", Cause::Ssh),
            ("etc/apt/sources.list.d/debian.sources", Cause::PackageSources),
            ("var/lib/dpkg/status", Cause::Derived),
            ("var/lib/systemd/random-seed", Cause::State),
            ("etc/systemd/system/multi-user.target.wants/x.service", Cause::ServicesEnabled),
            ("etc/systemd/system/x.service", Cause::ServiceUnits),
            ("etc/rc3.d/S01x", Cause::ServicesEnabled),
            ("etc/sysctl.d/99.conf", Cause::KernelSettings),
            ("etc/fstab", Cause::Configuration),
            ("usr/lib/python3/__pycache__/a.cpython-311.pyc", Cause::Derived),
        ] {
            assert_eq!(of(path.as_bytes()).map(|rule| rule.cause), Some(cause), "{path}");
        }
        assert!(of(b"srv/x").is_none() && of(b"usr/bin/x").is_none());
        assert!(is_program(b"usr/local/bin/x") && !is_program(b"usr/share/x"));
        assert!(is_one_of(b"linux-image-6.1", KERNELS) && !is_one_of(b"linux-libc-dev", KERNELS));
    }
}
