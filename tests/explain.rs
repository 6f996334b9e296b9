//! Pairs of images that scripts make from one Debian, each with the causes that `devbox parity` has to name, written down
//! before: right verdict, right cause on the first screen, few lines.
#![expect(clippy::print_stderr, reason = "what could not run here has to be seen")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use devbox::event::{Event, Events, Sink};
use devbox::host::Paths;
use devbox::source::packages;
use devbox::source::seed::Seed;
use devbox::spec::types::{Arch, Packages};
use tokio_util::sync::CancellationToken;

/// Where the root filesystem of a disk of packages begins, in bytes.
const ROOT: u64 = 50 << 20;
/// Most lines that the groups of rank 1 to 4 may take.
const URGENT: usize = 12;

/// A change of the second side, and what has to be said of it.
struct Pair {
    name: &'static str,
    /// A script of sh in the root folder of the second side.
    script: &'static str,
    /// The ids of all groups.
    groups: &'static [&'static str],
    /// What is on the first screen.
    said: &'static [&'static str],
    /// What `--all` adds.
    evidence: &'static [&'static str],
}

const PAIRS: &[Pair] = &[
    Pair {
        name: "a service enabled by hand",
        script: "ln -s /lib/systemd/system/debug-shell.service etc/systemd/system/multi-user.target.wants/",
        groups: &["services.enabled"],
        said: &["~ services", "/etc/systemd/system/multi-user.target.wants/debug-shell.service"],
        evidence: &[],
    },
    Pair {
        name: "a service masked by hand",
        script: "ln -s /dev/null etc/systemd/system/ssh.service",
        groups: &["services.enabled"],
        said: &["/etc/systemd/system/ssh.service"],
        evidence: &["-> /dev/null"],
    },
    Pair {
        name: "a setuid bit",
        script: "chmod u+s usr/bin/find",
        groups: &["privilege.setuid"],
        said: &["! setuid", "/usr/bin/find: mode 0755 -> 4755"],
        evidence: &["[findutils]"],
    },
    Pair {
        name: "a user in a file that anybody may write to",
        script: "echo bob:x:0:0::/:/bin/sh >> etc/passwd; chmod 666 etc/passwd",
        groups: &["privilege.world-writable"],
        said: &["! world-writable", "mode 0644 -> 0666", "+user bob"],
        evidence: &["+user bob (password in shadow, uid 0"],
    },
    Pair {
        name: "a user, and others who may not read of it",
        script: "echo bob:x:0:0::/:/bin/sh >> etc/passwd; chmod 600 etc/passwd",
        groups: &["access.accounts"],
        said: &["! accounts", "/etc/passwd: mode 0644 -> 0600, +user bob"],
        evidence: &[],
    },
    Pair {
        name: "a rule of PAM",
        script: "echo 'auth sufficient pam_permit.so' >> etc/pam.d/common-auth",
        groups: &["access.authentication"],
        said: &["! authentication", "/etc/pam.d/common-auth"],
        evidence: &["+auth sufficient pam_permit.so"],
    },
    Pair {
        name: "a capability",
        script: "setcap cap_net_raw+ep usr/bin/find",
        groups: &["privilege.capabilities"],
        said: &["! capabilities", "/usr/bin/find"],
        evidence: &[],
    },
    Pair {
        name: "a sudoers line",
        script: "mkdir -p etc/sudoers.d; echo 'dev ALL=(ALL) NOPASSWD: ALL' > etc/sudoers.d/90-dev",
        groups: &["access.sudo"],
        said: &["! sudo", "/etc/sudoers.d/90-dev"],
        evidence: &["+dev ALL=(ALL) NOPASSWD: ALL"],
    },
    Pair {
        name: "a kernel command-line word",
        script: "sed -i 's/ ro / ro mitigations=off /' boot/grub/grub.cfg",
        groups: &["boot.command-line", "boot.loader"],
        said: &["! command line", "+mitigations=off"],
        evidence: &["/boot/grub/grub.cfg"],
    },
    Pair {
        name: "an edited file of an unchanged package",
        script: "printf x >> usr/bin/gzip",
        groups: &["files.package-modified"],
        said: &["~ modified", "/usr/bin/gzip", "hint:"],
        evidence: &["[gzip]", "as packaged on the first side, changed on the second"],
    },
    Pair {
        name: "an edited configuration file of a package",
        script: "echo '# by hand' >> etc/profile",
        groups: &["config.etc"],
        said: &["~ configuration", "/etc/profile"],
        evidence: &["+# by hand"],
    },
    Pair {
        name: "a new user",
        script: "echo 'dev:x:1000:1000::/home/dev:/bin/sh' >> etc/passwd; echo 'dev:x:1000:' >> etc/group; \
                 echo 'dev:$6$planted$secrethashsecrethash:20000::::::' >> etc/shadow",
        groups: &["access.accounts"],
        said: &["! accounts", "+user dev"],
        evidence: &["shell /bin/sh", "password set"],
    },
    Pair {
        name: "an image booted once after seal",
        script: "echo 0123456789abcdef0123456789abcdef > etc/machine-id; mkdir -p var/log/journal/0123; \
                 echo x > var/log/journal/0123/system.journal; head -c 32 /dev/zero > var/lib/systemd/random-seed; \
                 mkdir -p var/lib/systemd/timers; touch var/lib/systemd/timers/stamp-apt-daily.timer; \
                 echo x > var/log/wtmp; echo host > etc/hostname; ssh-keygen -q -t ed25519 -N '' -f etc/ssh/ssh_host_ed25519_key",
        groups: &["state.instance"],
        said: &["instance state", "was booted after it was sealed"],
        evidence: &["/var/lib/systemd/random-seed"],
    },
    Pair {
        name: "an image that a cloud edited on import",
        script: "sed -i 's/^UUID/#&/; $a /dev/xvda1 / ext4 defaults 0 1' etc/fstab; \
                 sed -i 's/ ro / ro xen_netfront.max_queues=2 /' boot/grub/grub.cfg; \
                 printf '#!/bin/sh\\nsleep 1d\\n' > usr/sbin/cloud-agent; chmod 755 usr/sbin/cloud-agent; \
                 printf '[Service]\\nExecStart=/usr/sbin/cloud-agent\\n' > etc/systemd/system/cloud-agent.service; \
                 ln -s /etc/systemd/system/cloud-agent.service etc/systemd/system/multi-user.target.wants/",
        groups: &[
            "boot.command-line",
            "boot.loader",
            "services.enabled",
            "services.units",
            "config.etc",
            "files.programs",
        ],
        said: &["cloud's import", "/etc/fstab", "cloud-agent"],
        evidence: &["+/dev/xvda1 / ext4 defaults 0 1"],
    },
    Pair {
        name: "one line in each of the first four ranks and more",
        script: "sed -i 's/ ro / ro a b c d /' boot/grub/grub.cfg; echo x > boot/initrd.img-0; \
                 chmod u+s usr/bin/find; setcap cap_net_raw+ep usr/bin/xargs; chmod o+w usr/bin/gzip; \
                 echo /x.so > etc/ld.so.preload; chown 1000 usr/bin/tar; echo 'a ALL=(ALL) ALL' > etc/sudoers; \
                 echo 'a:x:0:0::/:/bin/sh' >> etc/passwd; echo 'PermitRootLogin yes' >> etc/ssh/sshd_config; \
                 mkdir -p root/.ssh; echo 'ssh-ed25519 AAAA' > root/.ssh/authorized_keys; echo x >> etc/pam.d/login; \
                 mkdir -p usr/local/share/ca-certificates; echo x > usr/local/share/ca-certificates/x.crt; \
                 echo 'deb http://example.invalid x main' > etc/apt/sources.list",
        groups: &[
            "boot.command-line",
            "boot.loader",
            "boot.initramfs",
            "privilege.setuid",
            "privilege.capabilities",
            "privilege.preload",
            "privilege.world-writable",
            "privilege.owner",
            "access.accounts",
            "access.sudo",
            "access.ssh",
            "access.authentication",
            "access.certificates",
            "packages.sources",
        ],
        said: &["! command line", "! setuid", "more groups of rank 1 to 4"],
        evidence: &["/root/.ssh/authorized_keys"],
    },
];

struct Silent;

impl Sink for Silent {
    fn emit(&self, event: Event) {
        eprintln!("{event:?}");
    }
}

/// A disk of Debian's packages, made once and kept for the next run.
fn debian() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    let paths = Paths {
        store: home.join("store"),
        machines: home.join("machines"),
        templates: home.join("templates"),
        bundles: home.join("bundles"),
        disks: home.join("disks"),
        settings: home.join("config.toml"),
        cache: home.join("cache"),
        runtime: home.join("run"),
    };
    // As in tests/packages.rs, so that there is one disk for both.
    let spec = Packages {
        suite: "bookworm".to_owned(),
        packages: vec![],
        mirror: "http://deb.debian.org/debian".to_owned(),
        security_mirror: "http://deb.debian.org/debian-security".to_owned(),
        components: vec!["main".to_owned()],
        disk_size: 2 << 30,
    };
    let (seed, events, cancel) =
        (Seed::from_text("t"), Events::new(Silent), CancellationToken::new());
    let wanted =
        packages::Wanted { spec: &spec, arch: Arch::Amd64, epoch: None, seed: &seed, locked: None };
    let build = packages::build(&wanted, &paths, &events, &cancel);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(build).unwrap_or_else(|e| panic!("{e}")).path
}

/// A folder with `a.raw`, and a copy of it that scripts change.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk =
            Desk { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder") };
        copy(&debian(), &desk.path("a.raw"));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `b.raw`: the first disk after a script in the root folder of its root filesystem.
    fn change(&self, script: &str) {
        copy(&self.path("a.raw"), &self.path("b.raw"));
        self.run_in("b.raw", script);
    }

    fn run_in(&self, disk: &str, script: &str) {
        let mount = self.path("mnt");
        std::fs::create_dir_all(&mount).expect("mkdir");
        let loop_options = format!("loop,offset={ROOT}");
        let shell = |text: &str| {
            let out = Command::new("sh")
                .args(["-ec", text])
                .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                .output()
                .expect("sh runs");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            (out.status.success(), said)
        };
        let (mount, disk) = (mount.display().to_string(), self.path(disk).display().to_string());
        let (ok, said) = shell(&format!("mount -o {loop_options} {disk} {mount}"));
        assert!(ok, "{said}");
        let (ok, said) = shell(&format!("umask 022; cd {mount}; {script}"));
        let (unmounted, why) = shell(&format!("umount {mount}"));
        assert!(ok && unmounted, "{script}: {said} {why}");
    }

    fn parity(&self, more: &[&str]) -> (i32, String) {
        self.devbox(&[&["parity", "a.raw", "b.raw"], more].concat())
    }

    fn devbox(&self, args: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(args)
            .current_dir(self.dir.path())
            .env("DEVBOX_HOME", self.path("home"))
            .output()
            .expect("devbox runs");
        let stderr = String::from_utf8_lossy(&out.stderr);
        let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (
            out.status.code().expect("a code"),
            if stdout.is_empty() { stderr.into_owned() } else { stdout },
        )
    }

    fn json(&self, more: &[&str]) -> serde_json::Value {
        let (_, out) = self.parity(&[more, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

/// A copy that takes only what is not zero.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "cp {}", from.display());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(to, mode).expect("chmod");
}

/// Without blanks: long lines of the screen are wrapped.
fn flat(text: &str) -> String {
    text.split_whitespace().collect()
}

fn groups(json: &serde_json::Value) -> BTreeSet<String> {
    let all = json["groups"].as_array().expect("groups").iter();
    all.map(|group| group["id"].as_str().expect("an id").to_owned()).collect()
}

/// The lines of ranks 1 to 4, which stand first.
fn urgent(screen: &str) -> usize {
    let lines = screen.lines().skip(2);
    let titles = [
        "~ modified",
        "~ services",
        "~ units",
        "~ kernel settings",
        "~ firewall",
        "~ configuration",
        "~ programs",
        "`--group",
    ];
    let is_note = |line: &str| line.starts_with("- ");
    lines
        .take_while(|line| !titles.iter().any(|title| line.starts_with(title)) && !is_note(line))
        .count()
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: {test}: the scripts change a mounted filesystem, which needs root");
    }
    root
}

#[test]
fn each_change_is_put_down_to_its_cause_on_the_first_screen() {
    if !is_root("each_change_is_put_down_to_its_cause_on_the_first_screen") {
        return;
    }
    let desk = Desk::new();
    for pair in PAIRS {
        desk.change(pair.script);
        let (code, screen) = desk.parity(&[]);
        assert_eq!(code, 1, "{}: {screen}", pair.name);
        assert!(screen.starts_with("different at level content\n"), "{}: {screen}", pair.name);
        let json = desk.json(&[]);
        let expected: BTreeSet<_> = pair.groups.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(groups(&json), expected, "{}: {screen}", pair.name);
        for word in pair.said {
            assert!(
                flat(&screen).contains(&flat(word)),
                "{}: `{word}` is not in\n{screen}",
                pair.name
            );
        }
        assert!(urgent(&screen) <= URGENT, "{}: {screen}", pair.name);
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{}: {screen}", pair.name);
        let (_, all) = desk.parity(&["--all"]);
        for word in pair.evidence {
            assert!(all.contains(word), "{}: `{word}` is not in\n{all}", pair.name);
        }
        assert!(!all.contains("secrethash") && !json.to_string().contains("secrethash"), "{all}");
        let of_all: u64 = json["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .map(|group| group["count"].as_u64().expect("a count"))
            .sum();
        assert_eq!(Some(of_all), json["counts"]["differences"].as_u64(), "{}", pair.name);
    }
}

#[test]
fn the_same_host_keys_on_both_sides_are_a_finding_even_if_all_is_equal() {
    if !is_root("the_same_host_keys_on_both_sides_are_a_finding_even_if_all_is_equal") {
        return;
    }
    let desk = Desk::new();
    let script =
        "rm -f etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f etc/ssh/ssh_host_ed25519_key";
    desk.run_in("a.raw", script);
    copy(&desk.path("a.raw"), &desk.path("b.raw"));
    for more in [&["--recompute"][..], &[]] {
        let (code, screen) = desk.parity(more);
        assert_eq!(code, 0, "{screen}");
        assert!(screen.starts_with("equal at level content"), "{screen}");
        assert!(screen.contains("! host keys        /etc/ssh/ssh_host_ed25519_key"), "{screen}");
        assert!(screen.contains("hint: Build the image again"), "{screen}");
    }
    desk.change("echo x > etc/motd");
    let json = desk.json(&[]);
    assert!(groups(&json).contains("access.shared-host-keys"), "{json}");
    // Keys of their own are as they should be.
    desk.change(
        "rm etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f etc/ssh/ssh_host_ed25519_key",
    );
    let json = desk.json(&[]);
    assert!(!groups(&json).contains("access.shared-host-keys"), "{json}");
}

#[test]
fn access_lists_that_squashfs_lost_are_one_cause() {
    if !is_root("access_lists_that_squashfs_lost_are_one_cause") {
        return;
    }
    let desk = Desk::new();
    let run = |script: &str| {
        let out = Command::new("sh").args(["-ec", script]).current_dir(desk.dir.path()).output();
        let out = out.expect("sh runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    run(
        "mkdir -p a/etc a/srv/x a/var; echo ID=lab > a/etc/os-release; echo 1 > a/srv/x/f; echo 2 > a/var/g; \
         setfacl -m u:1000:rw a/srv/x/f; setfacl -d -m g:100:rx a/srv/x; setfacl -m g:100:r a/var/g; \
         mksquashfs a a.squashfs -quiet -no-progress -comp gzip; unsquashfs -q -n -d b a.squashfs",
    );
    let args = ["parity", "dir:a", "dir:b", "--level", "tree"];
    let (code, screen) = desk.devbox(&args);
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("access lists"), "{screen}");
    let hint = flat("All access lists are missing on b: it was repacked");
    assert!(flat(&screen).contains(&hint), "{screen}");
    let (_, json) = desk.devbox(&[&args[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(groups(&json), BTreeSet::from(["metadata.acl".to_owned()]), "{json:#}");
}

/// Packages that had updates for security, at the versions that the rest of the archive has.
#[test]
fn a_missing_security_pocket_is_told_by_packages_and_sources() {
    const NAME: &str = "a_missing_security_pocket_is_told_by_packages_and_sources";
    if !is_root(NAME) {
        return;
    }
    let desk = Desk::new();
    let older = match older_packages(&desk) {
        Ok(older) => older,
        Err(why) => {
            eprintln!("not run: {NAME}: {why}");
            return;
        }
    };
    let debs = desk.path("debs");
    desk.change(&format!(
        "dpkg --root=\"$PWD\" --force-downgrade --force-depends -i {}/*.deb; \
         sed -i '/-security/d' etc/apt/sources.list.d/*; rm -f var/log/dpkg.log",
        debs.display()
    ));
    let (code, screen) = desk.parity(&[]);
    assert_eq!(code, 1, "{screen}");
    let json = desk.json(&[]);
    let expected = BTreeSet::from(["packages.changed".to_owned(), "packages.sources".to_owned()]);
    assert_eq!(groups(&json), expected, "{screen}\n{}", desk.parity(&["--all"]).1);
    let hint = flat("b.raw was built without the security pocket");
    assert!(flat(&screen).contains(&hint), "{screen}");
    assert!(urgent(&screen) <= URGENT, "{screen}");
    assert_eq!(json["counts"]["packages"].as_u64(), Some(older.len() as u64), "{json:#}");
    assert_eq!(json["counts"]["remain"], 1, "{json:#}");
    let (_, all) = desk.parity(&["--group", "packages.changed"]);
    for (name, new, old) in &older {
        assert!(all.contains(&format!("{name} {new} -> {old}")), "{all}");
    }
    // What a package did not bring is not put down to it: one byte more in a file of a package that changed.
    let changed = json["differences"].as_array().expect("differences").iter().find_map(|one| {
        let is_doc = one["path"].as_str()?.starts_with("/usr/share/doc/");
        let has_content =
            one["changes"].as_array()?.iter().any(|change| change["kind"] == "content");
        (is_doc && has_content && one["package"].is_string())
            .then(|| one["path"].as_str().map(str::to_owned))?
    });
    let changed = changed.expect("a file of documentation that changed with its package");
    desk.run_in("b.raw", &format!("printf x >> .{changed}"));
    let json = desk.json(&[]);
    assert!(groups(&json).contains("files.package-modified"), "{changed}: {json:#}");
}

/// Downloads older versions of some packages of the image to `debs`: name, version in the image, older one.
fn older_packages(desk: &Desk) -> Result<Vec<(String, String, String)>, String> {
    let debs = desk.path("debs");
    std::fs::create_dir_all(&debs).map_err(|e| e.to_string())?;
    desk.run_in("a.raw", &format!("cp var/lib/dpkg/status {}/status", debs.display()));
    let status = std::fs::read_to_string(debs.join("status")).map_err(|e| e.to_string())?;
    let installed = |name: &str| {
        let record = status.split("\n\n").find(|r| r.starts_with(&format!("Package: {name}\n")))?;
        record.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned)
    };
    let mut found = vec![];
    for name in ["perl-base", "libssl3", "tzdata", "libc-bin", "libsystemd0", "openssl"] {
        let Some(now) = installed(name) else { continue };
        let out = Command::new("apt-cache").args(["madison", name]).output();
        let out = out.map_err(|e| format!("apt-cache: {e}"))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let older = text.lines().find_map(|line| {
            let fields: Vec<_> = line.split('|').map(str::trim).collect();
            let (version, from) = (*fields.get(1)?, *fields.get(2)?);
            (version != now && from.contains("bookworm/main")).then(|| version.to_owned())
        });
        let Some(older) = older else { continue };
        let out = Command::new("apt-get")
            .args(["download", "-q", &format!("{name}={older}")])
            .current_dir(&debs)
            .output()
            .map_err(|e| format!("apt-get: {e}"))?;
        if !out.status.success() {
            return Err(format!(
                "`apt-get download` of {name}: {}",
                String::from_utf8_lossy(&out.stderr)
            ));
        }
        found.push((name.to_owned(), now, older));
        if found.len() == 2 {
            break;
        }
    }
    if found.is_empty() {
        return Err("no package of the image has an older version in the host's lists".to_owned());
    }
    Ok(found)
}
