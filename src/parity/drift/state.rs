//! Paths that belong to one machine and not to its image: what the seal takes out, and what a guest
//! makes again at its first start or writes while it runs.

/// A pattern and why its paths differ. `*` stands for any text without `/`, a last `/**` for everything
/// below.
pub(super) const STATE: &[(&str, &str)] = &[
    ("etc/machine-id", "identity"),
    ("var/lib/dbus/machine-id", "identity"),
    ("etc/machine-info", "identity"),
    ("etc/hostname", "identity"),
    ("etc/hosts", "identity"),
    ("etc/iscsi/initiatorname.iscsi", "identity"),
    ("etc/nvme/hostid", "identity"),
    ("etc/nvme/hostnqn", "identity"),
    ("etc/ssh/ssh_host_*", "keys of the machine"),
    ("etc/dropbear/dropbear_*_host_key", "keys of the machine"),
    ("etc/dropbear/host", "keys of the machine"),
    ("var/lib/systemd/random-seed", "random state"),
    ("var/lib/urandom/random-seed", "random state"),
    ("loader/random-seed", "random state"),
    ("boot/loader/random-seed", "random state"),
    ("boot/efi/loader/random-seed", "random state"),
    ("efi/loader/random-seed", "random state"),
    ("var/lib/systemd/credential.secret", "random state"),
    ("etc/resolv.conf", "network"),
    ("var/lib/dhcp/**", "network"),
    ("var/lib/dhclient/**", "network"),
    ("var/lib/dhcpcd/**", "network"),
    ("var/lib/NetworkManager/**", "network"),
    ("var/lib/systemd/network/**", "network"),
    ("etc/udev/rules.d/*persistent-net.rules", "network"),
    ("etc/udev/rules.d/85-persistent-net-cloud-init.rules", "network"),
    ("etc/devbox-network", "devbox"),
    ("etc/systemd/system/devbox-network.service", "devbox"),
    ("etc/systemd/system/multi-user.target.wants/devbox-network.service", "devbox"),
    ("etc/NetworkManager/conf.d/devbox.conf", "devbox"),
    ("etc/profile.d/devbox-proxy.sh", "devbox"),
    ("etc/apt/apt.conf.d/90devbox-proxy", "devbox"),
    ("etc/netplan/50-cloud-init.yaml", "cloud-init"),
    ("etc/network/interfaces.d/50-cloud-init*", "cloud-init"),
    ("etc/systemd/network/*-cloud-init-*", "cloud-init"),
    ("etc/systemd/network/50-cloud-init*", "cloud-init"),
    ("etc/NetworkManager/system-connections/cloud-init-*", "cloud-init"),
    ("etc/sysconfig/network-scripts/ifcfg-eth0", "cloud-init"),
    ("etc/apt/apt.conf.d/90cloud-init-pipelining", "cloud-init"),
    ("etc/sudoers.d/90-cloud-init-users", "cloud-init"),
    ("etc/ssh/sshd_config.d/50-cloud-init.conf", "cloud-init"),
    ("var/lib/cloud/**", "cloud-init"),
    ("var/log/**", "logs"),
    ("var/crash/**", "logs"),
    ("var/lib/systemd/coredump/**", "logs"),
    ("var/lib/systemd/pstore/**", "logs"),
    ("var/lib/wtmpdb/**", "logs"),
    ("var/cache/**", "caches"),
    ("var/lib/apt/lists/**", "caches"),
    ("var/lib/apt/periodic/**", "caches"),
    ("var/lib/dpkg/*-old", "caches"),
    ("var/lib/dpkg/lock*", "caches"),
    ("var/lib/apt/daily_lock", "caches"),
    ("var/lib/mlocate/mlocate.db", "caches"),
    ("var/lib/plocate/plocate.db", "caches"),
    ("var/lib/systemd/catalog/**", "caches"),
    ("var/lib/man-db/**", "caches"),
    ("var/backups/**", "caches"),
    ("tmp/**", "temporary files"),
    ("var/tmp/**", "temporary files"),
    ("run/**", "temporary files"),
    ("var/lib/systemd/timers/**", "clocks and timers"),
    ("var/lib/systemd/timesync/**", "clocks and timers"),
    ("var/lib/private/systemd/timesync/**", "clocks and timers"),
    ("var/lib/chrony/**", "clocks and timers"),
    ("etc/adjtime", "clocks and timers"),
    ("etc/fake-hwclock.data", "clocks and timers"),
    ("var/lib/logrotate/status", "clocks and timers"),
    ("var/lib/logrotate.status", "clocks and timers"),
    ("var/lib/unattended-upgrades/**", "clocks and timers"),
    ("var/lib/systemd/rfkill/**", "devices"),
    ("var/lib/systemd/backlight/**", "devices"),
    ("var/lib/systemd/linger/*", "sessions"),
    ("var/lib/sudo/lectured/**", "sessions"),
    ("var/lib/sudo/ts/**", "sessions"),
    ("etc/.updated", "clocks and timers"),
    ("var/.updated", "clocks and timers"),
    ("etc/.pwd.lock", "accounts"),
    ("etc/passwd-", "accounts"),
    ("etc/shadow-", "accounts"),
    ("etc/group-", "accounts"),
    ("etc/gshadow-", "accounts"),
    ("etc/subuid-", "accounts"),
    ("etc/subgid-", "accounts"),
    ("swapfile", "swap"),
    ("swap.img", "swap"),
];

/// Whether `path` fits `pattern`, see [`STATE`].
pub(super) fn fits(pattern: &str, path: &[u8]) -> bool {
    if let Some(folder) = pattern.strip_suffix("/**") {
        let mut parts = path.splitn(folder.split('/').count() + 1, |byte| *byte == b'/');
        return folder
            .split('/')
            .all(|word| parts.next().is_some_and(|part| name_fits(word, part)))
            && parts.next().is_some();
    }
    let mut parts = path.split(|byte| *byte == b'/');
    pattern.split('/').all(|word| parts.next().is_some_and(|part| name_fits(word, part)))
        && parts.next().is_none()
}

/// Why something below the folder `path` would be state, if a pattern says so.
pub(super) fn leads_to(path: &[u8]) -> Option<&'static str> {
    let leads = |pattern: &&(&str, &str)| {
        let mut words = pattern.0.split('/');
        let parts: Vec<_> = path.split(|byte| *byte == b'/').collect();
        let all = parts.iter().all(|part| words.next().is_some_and(|word| name_fits(word, part)));
        all && words.next().is_some()
    };
    STATE.iter().find(leads).map(|(_, why)| *why)
}

/// One component; a pattern has two `*` at most, so each is tried.
fn name_fits(pattern: &str, name: &[u8]) -> bool {
    match pattern.split_once('*') {
        None => pattern.as_bytes() == name,
        Some((start, rest)) => name
            .strip_prefix(start.as_bytes())
            .is_some_and(|name| (0..=name.len()).any(|skip| name_fits(rest, &name[skip..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_paths() {
        for (pattern, path, expected) in [
            ("etc/ssh/ssh_host_*", "etc/ssh/ssh_host_rsa_key", true),
            ("etc/ssh/ssh_host_*", "etc/ssh/ssh_host_rsa/key", false),
            ("etc/ssh/ssh_host_*", "etc/ssh/ssh_config", false),
            ("etc/systemd/network/*-cloud-init-*", "etc/systemd/network/10-cloud-init-x", true),
            ("var/log/**", "var/log/a/b", true),
            ("var/log/**", "var/log", false),
            ("var/log/**", "var/logs/a", false),
            ("home/*/.cache/**", "home/me/.cache/x", true),
            ("home/*/.cache/**", "home/me/.cachet/x", false),
            ("etc/hosts", "etc/hosts", true),
            ("etc/hosts", "etc/hosts/x", false),
            ("etc/hosts", "etc", false),
        ] {
            assert_eq!(fits(pattern, path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn folders_that_hold_state_alone_are_known() {
        for (path, why) in [
            ("var/lib/cloud", Some("cloud-init")),
            ("var/lib/systemd/timers", Some("clocks and timers")),
            ("var/lib/systemd/linger", Some("sessions")),
            ("var/lib/systemd/linger/dev", None),
            ("var/lib/cloud2", None),
            ("opt", None),
        ] {
            assert_eq!(leads_to(path.as_bytes()), why, "{path}");
        }
    }
}
