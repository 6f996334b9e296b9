//! Warm starts on the tiny guest: a template is made once, machines go on from it as themselves, and
//! whatever is wrong with it ends in a boot and one line that says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, sha256, tiny_spec};

/// Projects of one devbox home with the tiny box built in it and nothing else.
fn projects(home: &str, names: &[&str]) -> Vec<Project> {
    let first = Project::new(home, &format!("{}{TINY_MACHINE}", tiny_spec(home, ""))).alone();
    run(&mut first.devbox(&["build"]));
    let at = first.devbox_home().to_owned();
    let spec = fs::read_to_string(first.dir().join("devbox.toml")).expect("the spec");
    names.iter().map(|name| Project::new(&format!("{home}-{name}"), &spec).with_home(&at)).collect()
}

/// They share a home, so none of them is alone before all are gone.
fn clear(projects: &[Project]) {
    for project in projects {
        run(&mut project.devbox(&["destroy", "-f"]));
    }
    projects[0].insist_on_no_guest();
}

/// The folders of all templates.
fn templates(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("templates")).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

fn template(home: &Path) -> PathBuf {
    let mut all = templates(home);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// What a command in the guest prints.
fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

/// The keys that the guest's ssh server offers, as seen from outside.
fn offered(project: &Project) -> String {
    let port = project.status()["ssh_port"].as_u64().expect("a port");
    let out = run(Command::new("ssh-keyscan")
        .args(["-t", "ed25519", "-p", &port.to_string(), "127.0.0.1"])
        .stderr(std::process::Stdio::null()));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace().last().expect("a key").to_owned()
}

#[test]
fn machines_of_one_template_are_themselves() {
    let projects = projects("warm", &["a", "b"]);
    let [a, b] = &projects[..] else { unreachable!("two projects") };
    let said = exits(&mut a.devbox(&["up"]), 0);
    assert!(said.err.contains("Making a template of warm:1.0.0"), "{}", said.err);
    assert!(said.err.contains("goes on from the template, as itself"), "{}", said.err);
    let home = a.devbox_home();
    let made = template(home);
    let parts = ["memory", "state", "disk.qcow2"].map(|part| made.join(part));
    let digests = parts.each_ref().map(|part| sha256(part));

    let said = exits(&mut b.devbox(&["up"]), 0);
    assert!(!said.err.contains("Making a template"), "made twice:\n{}", said.err);
    assert!(!said.err.contains("Booting"), "{}", said.err);

    let both = |command: &str| (guest(a, command), guest(b, command));
    let (one, other) = both("cat /etc/machine-id");
    assert_eq!((one.len(), other.len()), (32, 32));
    assert_ne!(one, other, "machine ids");
    let (one, other) = both("head -c 32 /dev/urandom | base64");
    assert_ne!(one, other, "random state");
    let (one, other) = (offered(a), offered(b));
    assert_ne!(one, other, "host keys");
    assert_ne!(
        guest(a, "cat /etc/dropbear/host | base64"),
        guest(b, "cat /etc/dropbear/host | base64")
    );
    // Only the machine's own key opens it.
    let (one, other) = both("cat ~/.ssh/authorized_keys");
    assert_ne!(one, other, "authorized keys");
    assert_eq!(one.lines().count(), 1, "{one}");
    assert_eq!(guest(a, "hostname"), "warm");
    let now: i64 = guest(b, "date +%s").parse().expect("seconds");
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    assert!((host.as_secs() as i64 - now).abs() < 10, "the guest's clock says {now}");

    // They share the template and none writes it; it is for this user only.
    guest(a, "dd if=/dev/zero of=/tmp/x bs=1M count=20; sync");
    assert_eq!(parts.each_ref().map(|part| sha256(part)), digests);
    use std::os::unix::fs::PermissionsExt as _;
    for part in &parts {
        let mode = fs::metadata(part).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", part.display());
    }

    // It is counted and removed like a box; machines that came from it go on.
    let listed = exits(&mut a.devbox(&["box", "templates", "--json"]), 0).out;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["templates"][0]["box"], "warm:1.0.0");
    run(&mut a.devbox(&["box", "prune", "--templates"]));
    assert_eq!(templates(home), Vec::<PathBuf>::new());
    guest(b, "md5sum /bin/busybox /tmp/x 2>/dev/null || true");
    // What was written by the identity is on the disk: a boot of the same machine keeps it.
    let before = (guest(b, "cat /etc/machine-id"), offered(b));
    run(&mut b.devbox(&["halt"]));
    run(&mut b.devbox(&["up"]));
    assert_eq!((guest(b, "cat /etc/machine-id"), offered(b)), before);
    clear(&projects);
}

#[test]
fn a_template_that_is_damaged_or_refused_ends_in_a_machine_all_the_same() {
    let projects = projects("broken", &["a"]);
    let a = &projects[0];
    let home = a.devbox_home();
    run(&mut a.devbox(&["up"]));
    a.clear();

    // Damaged: noticed before it is used, made anew.
    let state = template(home).join("state");
    let mut bytes = fs::read(&state).expect("the state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, &bytes).expect("written");
    let said = exits(&mut a.devbox(&["up"]), 0);
    assert!(said.err.contains("is not used: its device state was changed"), "{}", said.err);
    assert!(said.err.contains("goes on from the template"), "{}", said.err);
    a.clear();

    // Refused by QEMU: whole by its record, and not what QEMU wrote.
    let made = template(home);
    let state = made.join("state");
    fs::write(&state, b"no state at all").expect("written");
    vouch_for(&made, &state);
    let said = exits(&mut a.devbox(&["up"]), 0);
    assert!(said.err.contains("the template of broken:1.0.0 is not used: "), "{}", said.err);
    assert!(said.err.contains("Booting"), "{}", said.err);
    guest(a, "true");
    assert_eq!(a.guests().len(), 1);
    assert_eq!(templates(home), Vec::<PathBuf>::new(), "the next `up` makes a new one");
    a.clear();

    // Not wanted.
    let said = exits(&mut a.devbox(&["up", "--cold"]), 0);
    assert!(said.err.contains("Booting"), "{}", said.err);
    assert_eq!(templates(home), Vec::<PathBuf>::new());
    a.clear();
}

/// Has the template's record say that its state is as it should be.
fn vouch_for(template: &Path, state: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let file = template.join("template.json");
    let mut record: Value =
        serde_json::from_slice(&fs::read(&file).expect("the record")).expect("JSON");
    let meta = fs::metadata(state).expect("the state");
    let saved = &mut record["contents"]["saved"];
    assert!(saved["state"]["size"].is_u64(), "{saved}");
    saved["state"] = serde_json::json!({
        "size": meta.len(), "inode": meta.ino(), "modified": [meta.mtime(), meta.mtime_nsec()],
    });
    saved["state_sha256"] = format!("sha256:{}", sha256(state)).into();
    fs::write(&file, record.to_string()).expect("written");
}

#[test]
fn a_box_without_an_agent_boots_and_says_why() {
    let step = "[[steps]]\ntype = \"shell\"\ninline = \"rm /bin/qemu-ga\"\n";
    let spec = format!("{}{TINY_MACHINE}", tiny_spec("agentless", step));
    let project = Project::new("agentless", &spec).alone();
    run(&mut project.devbox(&["build"]));
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("its image has no guest agent"), "{}", said.err);
    assert!(said.err.contains("Booting"), "{}", said.err);
    project.clear();
}

#[test]
fn two_starts_at_once_make_one_template() {
    let projects = projects("twice", &["a", "b"]);
    let mut running: Vec<_> = projects
        .iter()
        .map(|p| {
            let mut up = p.devbox(&["up"]);
            up.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
            up.spawn().expect("devbox runs")
        })
        .collect();
    let said: Vec<String> = running
        .drain(..)
        .map(|up| {
            let out = up.wait_with_output().expect("it ends");
            let err = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{err}");
            err
        })
        .collect();
    let makers = said.iter().filter(|err| err.contains("Making a template")).count();
    assert_eq!(makers, 1, "{said:#?}");
    assert_eq!(said.iter().filter(|err| err.contains("Waiting for the template")).count(), 1);
    assert_ne!(
        guest(&projects[0], "cat /etc/machine-id"),
        guest(&projects[1], "cat /etc/machine-id")
    );
    clear(&projects);
}
