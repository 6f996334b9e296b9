//! `devbox clone`, on the tiny guest: the disk of another machine, and nobody else's identity.

use std::process::Command;

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

fn guest(project: &Project, machine: &str, command: &str) -> String {
    let said = exits(&mut project.devbox(&["ssh", machine, "-c", command]), 0);
    said.out.trim().to_owned()
}

/// What the machine's ssh server shows on the wire.
fn offered(project: &Project, machine: &str) -> String {
    let machines = project.machines();
    let machine = machines.iter().find(|m| m["name"] == machine).expect("the machine");
    let forwards = machine["forwards"].as_array().expect("forwards");
    let ssh = forwards.iter().find(|f| f["guest"] == 22).expect("the forward of ssh");
    let port = ssh["host"].to_string();
    let out = run(Command::new("ssh-keyscan").args(["-t", "ed25519", "-p", &port, "127.0.0.1"]));
    let text = String::from_utf8_lossy(&out.stdout);
    text.split_whitespace().last().expect("a key").to_owned()
}

#[test]
fn a_clone_has_the_disk_and_an_identity_of_its_own() {
    let project = Project::on_the_tiny_box("cloned");
    let two = format!("{}{TINY_MACHINE}\n[machines.a]\n[machines.b]\n", tiny_spec("tiny", ""));
    std::fs::write(project.dir().join("devbox.toml"), two).expect("write the spec");
    insist(&exits(&mut project.devbox(&["clone", "a", "b"]), 1), &["`a` is not made yet"]);
    run(&mut project.devbox(&["up", "a"]));
    insist(&exits(&mut project.devbox(&["clone", "a", "a"]), 2), &["its own clone"]);
    insist(&exits(&mut project.devbox(&["clone", "a", "c"]), 2), &["no machine `c`"]);
    // Work that the guest has not written to its disk yet, beside a snapshot that stays behind.
    run(&mut project.devbox(&["snapshot", "save", "-m", "a", "start"]));
    guest(&project, "a", "echo work > /root/work");
    run(&mut project.devbox(&["clone", "a", "b"]));
    assert_eq!(guest(&project, "a", "cat /root/work"), "work", "the source goes on");
    insist(&exits(&mut project.devbox(&["clone", "a", "b"]), 1), &["`b` is made already"]);
    run(&mut project.devbox(&["up", "b"]));
    assert_eq!(guest(&project, "b", "cat /root/work; hostname"), "work\nb");
    let list = exits(&mut project.devbox(&["snapshot", "list", "-m", "b", "--json"]), 0).out;
    assert!(!list.contains("start"), "{list}");
    for what in ["cat /etc/machine-id", "cat /home/*/.ssh/authorized_keys"] {
        let (a, b) = (guest(&project, "a", what), guest(&project, "b", what));
        assert!(!a.is_empty() && a != b, "{what}: {a}");
    }
    assert_ne!(offered(&project, "a"), offered(&project, "b"));

    // From a machine that is stopped to another checkout of the project.
    run(&mut project.devbox(&["halt", "a"]));
    let other = Project::new(
        "cloned-checkout",
        &format!("{}{TINY_MACHINE}\n[machines.a]\n", tiny_spec("tiny", "")),
    );
    let folder = other.dir().to_str().expect("text");
    run(&mut project.devbox(&["clone", "a", "--project", folder]));
    run(&mut other.devbox(&["up"]));
    assert_eq!(guest(&other, "a", "cat /root/work"), "work");
    assert_ne!(
        guest(&other, "a", "cat /etc/machine-id"),
        guest(&project, "b", "cat /etc/machine-id")
    );
    run(&mut other.devbox(&["destroy", "-f"]));
    project.clear();
}

#[cfg(feature = "crash-points")]
#[test]
fn a_clone_that_crashes_leaves_no_machine() {
    use std::os::unix::process::ExitStatusExt as _;
    let project = Project::on_the_tiny_box("clone-crash");
    let two = format!("{}{TINY_MACHINE}\n[machines.a]\n[machines.b]\n", tiny_spec("tiny", ""));
    std::fs::write(project.dir().join("devbox.toml"), two).expect("write the spec");
    run(&mut project.devbox(&["up", "a"]));
    let mut killed = project.devbox(&["clone", "a", "b"]);
    let out = killed.env("DEVBOX_CRASH", "clone.before-record").output().expect("runs");
    assert_eq!(out.status.signal(), Some(9));
    assert_eq!(project.machines()[1]["state"], "absent");
    // The source stands still where the crash left it, and says how it goes on.
    assert_eq!(project.machines()[0]["state"], "suspended");
    run(&mut project.devbox(&["resume", "a"]));
    run(&mut project.devbox(&["clone", "a", "b"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "b", "hostname"), "b");
    project.clear();
}

#[test]
fn a_machine_that_does_not_come_up_is_removed_where_that_is_wanted() {
    let project = Project::on_the_tiny_box("passing");
    let failing = "\n[[provision]]\nname = \"fails\"\ninline = \"echo why >&2; exit 7\"\n";
    let spec = format!("{}{TINY_MACHINE}{failing}", tiny_spec("tiny", ""));
    std::fs::write(project.dir().join("devbox.toml"), spec).expect("write the spec");
    let said = exits(&mut project.devbox(&["up", "--destroy-on-error"]), 1);
    assert!(said.err.contains("was removed again"), "{}", said.err);
    assert!(!said.err.contains("`tiny` runs;"), "no advice about what is gone:\n{}", said.err);
    assert_eq!(project.status()["state"], "absent");
    project.insist_on_no_guest();
    let bundles = std::fs::read_dir(project.devbox_home().join("bundles")).expect("the evidence");
    assert_eq!(bundles.count(), 1);

    // One that was there before stays, and so does every one without the option.
    exits(&mut project.devbox(&["up", "--destroy-on-error", "--no-destroy-on-error"]), 1);
    assert_eq!(project.status()["state"], "running");
    exits(&mut project.devbox(&["up", "--destroy-on-error", "--provision"]), 1);
    assert_eq!(project.status()["state"], "running");
    project.clear();
}
