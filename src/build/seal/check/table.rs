//! The seal's table: what each step of the script leaves absent, empty or as folders with nothing in them.
//! A test holds it against the script.

/// Paths that must not be there, by step; `*` stands for characters of one name.
pub(super) const ABSENT: &[(&str, &[&str])] = &[
    (
        "account",
        &[
            "/etc/sudoers.d/90-cloud-init-users",
            "/etc/passwd-",
            "/etc/shadow-",
            "/etc/group-",
            "/etc/gshadow-",
            "/etc/subuid-",
            "/etc/subgid-",
        ],
    ),
    (
        "identity",
        &[
            "/etc/machine-info",
            "/etc/adjtime",
            "/etc/fake-hwclock.data",
            "/etc/iscsi/initiatorname.iscsi",
            "/etc/nvme/hostid",
            "/etc/nvme/hostnqn",
        ],
    ),
    (
        "ssh",
        &[
            "/etc/ssh/ssh_host_*",
            "/etc/dropbear/dropbear_*_host_key",
            "/etc/dropbear/host",
            "/etc/ssh/sshd_config.d/50-cloud-init.conf",
        ],
    ),
    (
        "cloud-init",
        &[
            "/etc/netplan/50-cloud-init.yaml",
            "/etc/network/interfaces.d/50-cloud-init*",
            "/etc/systemd/network/*-cloud-init-*",
            "/etc/systemd/network/50-cloud-init*",
            "/etc/NetworkManager/system-connections/cloud-init-*",
            "/etc/sysconfig/network-scripts/ifcfg-eth0.cloud-init",
            "/etc/apt/apt.conf.d/90cloud-init-pipelining",
            "/etc/cloud/clean.d/99-devbox-build",
        ],
    ),
    (
        "network",
        &[
            "/etc/udev/rules.d/*persistent-net.rules",
            "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
        ],
    ),
    (
        "packages",
        &[
            "/var/lib/apt/lists/auxfiles",
            "/var/cache/apt/archives/*.deb",
            "/var/cache/apt/*.bin",
            "/var/lib/apt/daily_lock",
            "/var/lib/dpkg/*-old",
            "/var/cache/debconf/*-old",
            "/var/lib/dpkg/lock*",
            "/var/cache/apt/archives/lock",
        ],
    ),
    (
        "caches",
        &[
            "/var/cache/ldconfig/aux-cache",
            "/var/cache/man/index.db",
            "/var/lib/mlocate/mlocate.db",
            "/var/lib/plocate/plocate.db",
        ],
    ),
    (
        "state",
        &[
            "/var/lib/systemd/random-seed",
            "/var/lib/systemd/credential.secret",
            "/boot/efi/loader/random-seed",
            "/efi/loader/random-seed",
            "/boot/loader/random-seed",
            // On the EFI system partition itself.
            "/loader/random-seed",
            "/var/lib/logrotate/status",
            "/var/lib/logrotate.status",
            "/var/lib/urandom/random-seed",
        ],
    ),
    ("homes", &HOMES),
];

/// What interactive programs leave, in the folder of root and of each user.
const HOMES: [&str; 24] = [
    "/root/.bash_history",
    "/root/.ash_history",
    "/root/.zsh_history",
    "/root/.sh_history",
    "/root/.python_history",
    "/root/.lesshst",
    "/root/.viminfo",
    "/root/.wget-hsts",
    "/root/.cache",
    "/root/.ssh/known_hosts",
    "/root/.ssh/known_hosts.old",
    "/root/.sudo_as_admin_successful",
    "/home/*/.bash_history",
    "/home/*/.ash_history",
    "/home/*/.zsh_history",
    "/home/*/.sh_history",
    "/home/*/.python_history",
    "/home/*/.lesshst",
    "/home/*/.viminfo",
    "/home/*/.wget-hsts",
    "/home/*/.cache",
    "/home/*/.ssh/known_hosts",
    "/home/*/.ssh/known_hosts.old",
    "/home/*/.sudo_as_admin_successful",
];

/// Folders that have to be empty, where they are there.
pub(super) const HOLLOW: &[(&str, &[&str])] = &[
    ("account", &["/var/lib/sudo/lectured", "/var/lib/sudo/ts"]),
    ("cloud-init", &["/var/lib/cloud"]),
    (
        "network",
        &[
            "/var/lib/dhcp",
            "/var/lib/dhclient",
            "/var/lib/dhcpcd",
            "/var/lib/NetworkManager",
            "/var/lib/systemd/network",
        ],
    ),
    (
        "logs",
        &[
            "/var/log/journal",
            "/var/crash",
            "/var/lib/systemd/coredump",
            "/var/lib/systemd/pstore",
            "/var/lib/wtmpdb",
        ],
    ),
    (
        "packages",
        &[
            "/var/cache/apt/archives/partial",
            "/var/lib/apt/periodic",
            "/var/backups",
            "/var/cache/dnf",
            "/var/cache/yum",
            "/var/lib/unattended-upgrades",
        ],
    ),
    ("caches", &["/var/cache/man", "/var/cache/fontconfig"]),
    (
        "state",
        &[
            "/var/lib/systemd/timers",
            "/var/lib/systemd/timesync",
            "/var/lib/systemd/rfkill",
            "/var/lib/systemd/backlight",
            "/var/lib/private/systemd/timesync",
        ],
    ),
    ("temporary", &["/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys"]),
];

/// Logs that programs expect to be there, with nothing in them.
pub(super) const EMPTY: &[&str] = &["wtmp", "btmp", "lastlog", "faillog", "tallylog"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::seal::script::PARTS;

    /// The words behind `command` in a step of the script, over lines that go on.
    fn words(step: &str, command: &str) -> Vec<String> {
        let text = step.replace("\\\n", " ");
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let of = lines.filter_map(|line| line.strip_prefix(command)?.strip_prefix(' '));
        of.flat_map(str::split_whitespace)
            .map(|word| word.trim_matches('"').replace("$home", "home/*"))
            .filter(|word| !word.contains('$') && !word.contains('}'))
            .map(|word| format!("/{}", word.trim_end_matches(';')))
            .collect()
    }

    #[test]
    fn everything_that_the_script_removes_is_looked_for() {
        let mut seen = 0;
        for (name, text) in PARTS {
            for (command, table) in [("absent", ABSENT), ("hollow", HOLLOW)] {
                let known = table.iter().find(|(step, _)| step == name).map_or(&[][..], |(_, p)| p);
                for word in words(text, command) {
                    assert!(known.contains(&&*word), "{name}: {command} {word}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 80, "{seen} words were found in the script");
    }

    #[test]
    fn the_steps_of_the_table_are_the_scripts() {
        for (step, _) in ABSENT.iter().chain(HOLLOW) {
            assert!(PARTS.iter().any(|(name, _)| name == step), "{step}");
        }
    }
}
