//! `devbox seal --check` on disks that are, or are not, as a seal leaves them.

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, text};

/// A system with nothing of one machine in it.
const CLEAN: [&str; 4] = ["cd /etc", "write PASSWD passwd", "cd /dev", "rm null"];

/// A disk with these requests of `debugfs` behind those of a clean one.
fn disk(lab: &Lab, requests: &[&str]) -> String {
    let line = lab.path("passwd");
    std::fs::write(&line, "root:x:0:0::/root:/bin/sh\n").expect("written");
    let all = [&CLEAN[..], requests].concat();
    let all: Vec<_> = all.iter().map(|r| r.replace("PASSWD", text(&line))).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    text(&lab.changed(&all)).to_owned()
}

#[test]
fn a_clean_disk_is_sealed_and_each_leftover_is_named_with_its_step() {
    let lab = Lab::new();
    let (code, out) = lab.devbox(&["seal", "--check", &disk(&lab, &[])]);
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("sealed: `"), "{out}");

    let at = |folder: &str, name: &str| format!("{folder}: write PASSWD {name}");
    for (requests, step, what) in [
        (at("/etc", "machine-id"), "identity", "/etc/machine-id is not empty"),
        (at("/etc", "passwd-"), "account", "/etc/passwd- is there"),
        (at("/etc/ssh", "ssh_host_rsa_key"), "ssh", "/etc/ssh/ssh_host_rsa_key is there"),
        (at("/var/log", "syslog"), "logs", "/var/log/syslog is there"),
        (at("/var/log/app", "old"), "logs", "/var/log/app/old is there"),
        (at("/var/log", "wtmp"), "logs", "/var/log/wtmp is not empty"),
        (
            at("/var/lib/apt/lists", "a_Release"),
            "packages",
            "/var/lib/apt/lists/a_Release is there",
        ),
        (at("/var/cache/apt", "pkgcache.bin"), "packages", "/var/cache/apt/pkgcache.bin is there"),
        (at("/var/lib/cloud", "seed"), "cloud-init", "/var/lib/cloud is not empty: `seed`"),
        (at("/home/ann", ".bash_history"), "homes", "/home/ann/.bash_history is there"),
        (at("/tmp", "x"), "temporary", "/tmp is not empty: `x`"),
        (at("/usr/sbin", "sshd"), "ssh", "nothing in the image would make ssh host keys"),
    ] {
        let (folder, write) = requests.split_once(": ").expect("two");
        let mut all = vec!["cd /".to_owned()];
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            // One that is there already is no fault.
            all.push(format!("mkdir {name}"));
            all.push(format!("cd {name}"));
        }
        all.push(write.to_owned());
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let (code, out) = lab.devbox(&["seal", "--check", &disk(&lab, &all), "--json"]);
        assert_eq!(code, 1, "{what}: {out}");
        let said: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(said["sealed"], false);
        let findings = said["findings"].as_array().expect("a list");
        let mine = |f: &&serde_json::Value| f["what"].as_str().is_some_and(|w| w.starts_with(what));
        let found = findings.iter().find(mine);
        assert_eq!(found.expect(what)["step"], step, "{out}");
        assert_eq!(findings.len(), 1, "{out}");
    }
}

/// The requests that write `text` to the file `path`, with the folders on its way.
fn write(lab: &Lab, path: &str, text_of_it: &str) -> Vec<String> {
    let file = lab.path(&path.replace('/', "_"));
    std::fs::write(&file, text_of_it).expect("written");
    let (mut all, folders) = (vec!["cd /".to_owned()], path.split('/').collect::<Vec<_>>());
    let (name, folders) = folders.split_last().expect("a name");
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        all.push(format!("mkdir {folder}"));
        all.push(format!("cd {folder}"));
    }
    all.push(format!("write {} {name}", text(&file)));
    all
}

#[test]
fn an_image_whose_machines_have_no_other_way_in_starts_a_guest_agent() {
    const UNIT: &str = "/usr/lib/systemd/system/qemu-guest-agent.service";
    const RULE: &str = "/usr/lib/udev/rules.d/60-qemu-guest-agent.rules";
    // As Debian 12 has it, over two lines.
    const WANTS: &str = "SUBSYSTEM==\"virtio-ports\", ATTR{name}==\"org.qemu.guest_agent.0\", \\\n  \
        TAG+=\"systemd\", ENV{SYSTEMD_WANTS}=\"qemu-guest-agent.service\"\n";
    let lab = Lab::new();
    let file = |path: &str, text: &str| write(&lab, path, text);
    let program = file("/usr/sbin/qemu-ga", "x");
    let systemd = file("/usr/lib/systemd/systemd", "x");
    let (unit, rule) = (file(UNIT, "[Service]\n"), file(RULE, WANTS));
    let link = |folder: &str, target: &str| {
        let mut all = file(&format!("{folder}/beside"), "x");
        all.push(format!("symlink qemu-guest-agent.service {target}"));
        all
    };
    let masked = link("/etc/systemd/system", "/dev/null");
    let wanted = link("/etc/systemd/system/multi-user.target.wants", UNIT);
    let off = file("/etc/udev/rules.d/60-qemu-guest-agent.rules", "# none\n");
    let inittab = file("/etc/inittab", "::respawn:/usr/sbin/qemu-ga -m virtio-serial\n");
    let openrc = file("/etc/runlevels/default/qemu-guest-agent", "x");
    let killed = file("/etc/rc2.d/K01qemu-guest-agent", "x");
    let (none, nothing) = ("there is no guest agent", "nothing starts the guest agent");
    for (parts, wrong) in [
        (vec![], Some(none)),
        (vec![&program], Some(nothing)),
        (vec![&systemd, &unit, &rule], Some(none)),
        (vec![&program, &systemd, &unit, &rule], None),
        (vec![&program, &systemd, &unit], Some(nothing)),
        (vec![&program, &systemd, &rule], Some(nothing)),
        (vec![&program, &systemd, &unit, &wanted], None),
        (vec![&program, &systemd, &unit, &rule, &masked], Some(nothing)),
        (vec![&program, &systemd, &unit, &rule, &off], Some(nothing)),
        // systemd reads neither.
        (vec![&program, &systemd, &inittab, &openrc], Some(nothing)),
        (vec![&program, &inittab], None),
        (vec![&program, &openrc], None),
        (vec![&program, &killed], Some(nothing)),
    ] {
        let requests: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        let disk = disk(&lab, &requests);
        let (code, out) = lab.devbox(&["seal", "--check", &disk, "--login", "agent"]);
        match wrong {
            Some(wrong) => {
                assert_eq!(code, 1, "{requests:?}: {out}");
                assert!(out.contains(&format!("agent  {wrong}")), "{requests:?}: {out}");
            }
            None => assert_eq!(code, 0, "{requests:?}: {out}"),
        }
        assert_eq!(lab.devbox(&["seal", "--check", &disk]).0, 0, "by SSH nobody needs it");
    }
}

#[test]
fn times_and_the_host_name_are_checked_where_they_are_named() {
    let lab = Lab::new();
    let disk = disk(&lab, &[]);
    let (code, out) =
        lab.devbox(&["seal", "--check", &disk, "--epoch", "1000", "--hostname", "web"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("times     / has a time after the epoch"), "{out}");
    assert!(out.contains("identity  /etc/hostname is not `web`"), "{out}");
    let far = ["seal", "--check", &disk, "--epoch", "99999999999"];
    assert_eq!(lab.devbox(&far).0, 0);
}

#[test]
fn what_is_no_system_is_not_sealed_and_what_is_no_image_is_no_answer() {
    let lab = Lab::new();
    let (code, out) = lab.devbox(&["seal", "--check", text(&lab.convert("a.qcow2", &["qcow2"]))]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("no filesystem has an /etc/passwd"), "{out}");
    let file = lab.path("half.qcow2");
    std::fs::write(&file, b"QFI\xfb and no more").expect("written");
    assert_eq!(lab.devbox(&["seal", "--check", text(&file)]).0, 3);
    assert_eq!(lab.devbox(&["seal", "--check", text(&lab.path(""))]).0, 2);
    assert_eq!(lab.devbox(&["seal", text(&file)]).0, 2);
}
