//! The steps of the seal on a folder in place of an image's root, under each shell that an image
//! can have. The mounts around them are tried by the tests that boot a guest.

use std::path::Path;
use std::process::Command;

use fs_err as fs;

use super::Values;
use super::report::Report;
use super::script::{PARTS, header};

const EPOCH: i64 = 1_700_000_000;
const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIBuildKey";
const OLD_KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOldBuildKey";

fn values() -> Values {
    Values {
        epoch: EPOCH,
        hostname: "it's-hello".into(),
        by_agent: false,
        user: "devbox-build".into(),
        keys: vec![OLD_KEY.into(), KEY.into()],
        secrets: vec![],
        forbidden: vec![],
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("has one")).expect("made");
    fs::write(path, text).expect("written");
}

/// A root as a build leaves it.
fn root(dir: &Path) {
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\napp:x:1000:1000::/home/app:/bin/sh\ndevbox-build:x:60900:60900::/home/devbox-build:/bin/sh\n",
        ),
        (
            "etc/shadow",
            "root:*:19000:0:99999:7:::\napp:!:25000:0:99999:7:::\nnever:!::0:99999:7:::\ndevbox-build:!:25000:0:99999:7:::\n",
        ),
        (
            "etc/group",
            "root:x:0:\nadm:x:4:syslog,devbox-build,app\nsudo:x:27:devbox-build\ndevbox-build:x:60900:\n",
        ),
        ("etc/gshadow", "root:*::\nadm:*::syslog,devbox-build,app\ndevbox-build:!::\n"),
        ("etc/subuid", "app:100000:65536\ndevbox-build:165536:65536\n"),
        ("etc/passwd-", "old"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("etc/hostname", "builder\n"),
        ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
        ("etc/ssh/ssh_host_ed25519_key", "secret"),
        ("etc/ssh/sshd_config", "UsePAM yes\n"),
        ("etc/sudoers.d/90-cloud-init-users", "devbox-build ALL=(ALL) NOPASSWD:ALL\n"),
        ("etc/app.conf.dpkg-old", "old"),
        ("usr/sbin/sshd", ""),
        ("usr/bin/cloud-init", ""),
        ("home/devbox-build/.ssh/authorized_keys", KEY),
        ("home/app/.bash_history", "secret"),
        ("home/app/kept", "kept"),
        (
            "root/.ssh/authorized_keys",
            &format!(
                "command=\"no\" ssh-ed25519 {KEY} build\nssh-ed25519 AAAAother me\nssh-ed25519 {OLD_KEY}\n"
            ),
        ),
        ("var/lib/cloud/instance/x", "x"),
        ("var/lib/systemd/random-seed", "x"),
        ("var/lib/systemd/timers/stamp", ""),
        ("var/lib/systemd/deb-systemd-helper-enabled/kept", ""),
        ("var/log/journal/0123/system.journal", "x"),
        ("var/log/apt/history.log", "x"),
        ("var/log/wtmp", "x"),
        ("var/lib/apt/lists/mirror_InRelease", "x"),
        ("var/lib/apt/lists/lock", ""),
        ("var/cache/apt/pkgcache.bin", "x"),
        ("var/cache/apt/archives/a_1_all.deb", "x"),
        ("var/lib/dpkg/status", "kept"),
        ("var/lib/dpkg/status-old", "x"),
        ("var/.updated", "TIMESTAMP_NSEC=1\n"),
        ("tmp/.hidden", "x"),
        ("usr/lib/app/new.py", "1"),
        ("usr/lib/app/old.py", "1"),
    ] {
        write(dir, path, text);
    }
    // Flags 0: the source's time counts; 1: its hash.
    for (name, flags) in [("a new", 0), ("half", 0), ("hash", 1), ("new", 0), ("old", 0)] {
        let pyc = format!("usr/lib/app/__pycache__/{name}.cpython-311.pyc");
        write(dir, &pyc, "");
        let header = [0xa7, 13, 13, 10, flags, 0, 0, 0, 9, 9, 9, 9, 7, 0, 0, 0, 0xe3];
        let length = if name == "half" { 4 } else { header.len() };
        fs::write(dir.join(pyc), &header[..length]).expect("written");
    }
    for source in ["a new", "half"] {
        write(dir, &format!("usr/lib/app/{source}.py"), "1");
    }
    write(dir, "usr/lib/app/hash.py", "1");
    // Of a source that a step changed, and compiled before that.
    write(dir, "usr/lib/app/changed.py", "2");
    let before = "usr/lib/app/__pycache__/changed.cpython-311.pyc";
    write(dir, before, "");
    fs::write(dir.join(before), [0xa7, 13, 13, 10, 0, 0, 0, 0, 9, 9, 9, 9, 1, 0, 0, 0, 0xe3])
        .expect("written");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(EPOCH as u64 - 5);
    for path in ["usr/lib/app/old.py", before] {
        let old = std::fs::File::open(dir.join(path)).expect("opens");
        old.set_modified(time).expect("set");
    }
}

/// Runs the steps; what the script said.
fn seal(shell: &[&str], root: &Path, scratch: &Path) -> Report {
    fs::create_dir_all(scratch).expect("made");
    // A plain user cannot give files away; the tests that boot a guest see to the owners.
    let mut script = String::from("chown() { :; }\nMORE=\n");
    script.push_str(&format!("W='{}'\nR='{}'\ncd \"$R\"\n", scratch.display(), root.display()));
    script.push_str("touch -d \"@1700000000\" \"$W/epoch\"\n");
    script.push_str(&header(&values()));
    for (name, part) in PARTS {
        if !["begin", "filesystems", "end"].contains(name) {
            script.push_str(part);
        }
    }
    script.push_str("[ -n \"$failed\" ] || say \"end sealed\"\n");
    let out = Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(&script).output();
    let out = out.expect("the shell runs");
    let log = root.with_extension("log");
    fs::write(&log, out.stdout).expect("written");
    assert!(out.stderr.is_empty(), "{shell:?}: {}", String::from_utf8_lossy(&out.stderr));
    Report::read(&log).expect("reads")
}

fn each_shell(test: impl Fn(&[&str], &Path)) {
    for shell in [&["dash"][..], &["busybox", "sh"], &["bash", "--posix"]] {
        if which::which(shell[0]).is_err() {
            let said = anstream::stderr();
            use std::io::Write as _;
            let _ = writeln!(
                said.lock(),
                "not run: seal steps under {}: it is not installed",
                shell[0]
            );
            continue;
        }
        let dir = tempfile::tempdir().expect("folder");
        test(shell, dir.path());
    }
}

#[test]
fn the_steps_give_each_path_its_sealed_value_under_every_shell() {
    each_shell(|shell, dir| {
        let image = dir.join("image");
        root(&image);
        let report = seal(shell, &image, &dir.join("scratch"));
        assert!(report.complete, "{shell:?}: {report:?}");
        let text = |path: &str| {
            fs::read_to_string(image.join(path)).unwrap_or_else(|_| panic!("{shell:?} {path}"))
        };
        assert_eq!(
            text("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\napp:x:1000:1000::/home/app:/bin/sh\n"
        );
        assert_eq!(
            text("etc/shadow"),
            "root:*:19000:0:99999:7:::\napp:!:19675:0:99999:7:::\nnever:!::0:99999:7:::\n"
        );
        assert_eq!(text("etc/group"), "root:x:0:\nadm:x:4:syslog,app\nsudo:x:27:\n");
        assert_eq!(text("etc/gshadow"), "root:*::\nadm:*::syslog,app\n");
        assert_eq!(text("etc/subuid"), "app:100000:65536\n");
        assert_eq!(text("etc/machine-id"), "");
        assert_eq!(text("etc/hostname"), "it's-hello\n");
        assert_eq!(text("etc/resolv.conf"), "");
        assert_eq!(text("root/.ssh/authorized_keys"), "ssh-ed25519 AAAAother me\n");
        assert_eq!(text("var/log/wtmp"), "");
        assert!(text("var/.updated").ends_with("TIMESTAMP_NSEC=1700000000000000000\n"));
        for gone in [
            "etc/passwd-",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/sudoers.d/90-cloud-init-users",
            "etc/app.conf.dpkg-old",
            "home/devbox-build",
            "home/app/.bash_history",
            "var/lib/cloud/instance",
            "var/lib/systemd/random-seed",
            "var/lib/systemd/timers/stamp",
            "var/log/journal/0123",
            "var/log/apt/history.log",
            "var/lib/apt/lists/mirror_InRelease",
            "var/cache/apt/pkgcache.bin",
            "var/cache/apt/archives/a_1_all.deb",
            "var/lib/dpkg/status-old",
            "tmp/.hidden",
            "usr/lib/app/__pycache__/new.cpython-311.pyc",
            "usr/lib/app/__pycache__/a new.cpython-311.pyc",
            "usr/lib/app/__pycache__/changed.cpython-311.pyc",
        ] {
            assert!(fs::symlink_metadata(image.join(gone)).is_err(), "{shell:?}: {gone} is left");
        }
        for kept in [
            "home/app/kept",
            "var/log/apt",
            "var/lib/cloud",
            "var/lib/dpkg/status",
            "var/lib/apt/lists/lock",
            "var/lib/systemd/deb-systemd-helper-enabled/kept",
            "etc/ssh/sshd_config",
            "tmp",
            "usr/lib/app/__pycache__/half.cpython-311.pyc",
            "usr/lib/app/__pycache__/old.cpython-311.pyc",
            "usr/lib/app/__pycache__/hash.cpython-311.pyc",
        ] {
            assert!(fs::symlink_metadata(image.join(kept)).is_ok(), "{shell:?}: {kept} is gone");
        }
        for entry in walkdir::WalkDir::new(&image) {
            let entry = entry.expect("walks");
            use std::os::unix::fs::MetadataExt as _;
            let meta = entry.metadata().expect("stat");
            assert!(meta.mtime() <= EPOCH, "{shell:?}: {} is newer", entry.path().display());
        }
    });
}

#[test]
fn a_second_seal_changes_nothing() {
    each_shell(|shell, dir| {
        let image = dir.join("image");
        root(&image);
        assert!(!seal(shell, &image, &dir.join("scratch")).changes.is_empty());
        let again = seal(shell, &image, &dir.join("scratch"));
        assert!(again.complete);
        assert_eq!(again.changes, [], "{shell:?}");
    });
}

#[test]
fn an_image_that_would_have_no_host_keys_is_not_sealed() {
    each_shell(|shell, dir| {
        let image = dir.join("image");
        root(&image);
        fs::remove_file(image.join("usr/bin/cloud-init")).expect("removed");
        let report = seal(shell, &image, &dir.join("scratch"));
        assert!(!report.complete);
        assert!(report.failures[0].starts_with("ssh: nothing in the image"), "{report:?}");
        write(&image, "lib/systemd/system/keys.service", "ExecStart=/usr/bin/ssh-keygen -A\n");
        assert!(seal(shell, &image, &dir.join("scratch")).complete);
    });
}
