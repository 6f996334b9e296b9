//! What a machine changed since it was made, on the tiny guest.

use serde_json::Value;

use crate::people::{exits, run};
use crate::workbench::{Project, sha256};

fn guest(project: &Project, command: &str) {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0);
}

/// The paths of one class, as `devbox drift` tells them; it ends with `code`.
fn paths(project: &Project, class: &str, code: i32) -> Vec<String> {
    let said = exits(&mut project.devbox(&["drift", "--json"]), code).out;
    let value: Value = serde_json::from_str(&said).expect("JSON");
    let changes = value["changes"].as_array().expect("a list").iter();
    let of = changes.filter(|change| change["class"] == class);
    of.map(|change| change["path"].as_str().expect("a place").to_owned()).collect()
}

#[test]
fn a_stopped_machine_tells_what_was_changed_in_it() {
    let project = Project::on_the_tiny_box("drifted");
    run(&mut project.devbox(&["up"]));
    run(&mut project.devbox(&["halt"]));
    let drift = paths(&project, "drift", 0);
    assert!(drift.is_empty(), "{drift:?}");
    run(&mut project.devbox(&["up"]));
    guest(&project, "mkdir -p /srv/made && echo hi > /srv/made/file && chmod 600 /etc/passwd");
    guest(&project, "rm /etc/os-release && echo mine > $HOME/note");
    guest(&project, "sync");
    run(&mut project.devbox(&["halt"]));
    let mut drift = paths(&project, "drift", 1);
    drift.retain(|path| !path.contains("lost+found"));
    let named: Vec<&str> = drift.iter().filter_map(|path| path.split(':').next_back()).collect();
    for path in ["/etc/os-release", "/etc/passwd", "/srv/made", "/srv/made/file"] {
        assert!(named.contains(&path), "{path} in {named:?}");
    }
    let said = exits(&mut project.devbox(&["drift"]), 1).out;
    assert!(said.starts_with("drifted("), "{said}");
    assert!(said.contains("\n! accounts "), "{said}");
    assert!(!said.contains("/srv/made/file: "), "{said}");
    let group = exits(&mut project.devbox(&["drift", "--group", "config.etc"]), 1).out;
    assert!(group.contains("\n  /etc/os-release: removed file"), "{group}");
    let all = exits(&mut project.devbox(&["drift", "--all"]), 1).out;
    assert!(all.contains("/srv/made/file: added file") && all.contains("\nwork: "), "{all}");
    exits(&mut project.devbox(&["drift", "--group", "nothing"]), 2);
    project.clear();
}

#[test]
fn a_machine_that_runs_is_held_still_for_a_moment_only() {
    // A name of its own: its process is looked for by it.
    let project = Project::on_the_tiny_box_with("drifting", "[machines.drifting]\n");
    run(&mut project.devbox(&["up"]));
    guest(&project, "mkdir -p /srv && echo one > /srv/one && sync");
    let before = standing(&project);
    let said = exits(&mut project.devbox(&["drift", "--json"]), 1).out;
    let value: Value = serde_json::from_str(&said).expect("JSON");
    assert!(value["paused_milliseconds"].as_u64().expect("it ran") < 1000, "{said}");
    assert!(said.contains("/srv/one"), "{said}");
    assert_eq!(project.status()["state"], "running");
    guest(&project, "echo two > /srv/two && sync");
    assert_eq!(standing(&project), before, "something stays in the machine's folders");

    // The power is cut: the journal is replayed in memory, and nothing that was synced is missed.
    let qemu = project.qemu_of("drifting").expect("it runs");
    kill(qemu);
    let layer = project.machine_dir("drifting").expect("made").join("overlay.qcow2");
    let sum = sha256(&layer);
    let drift = paths(&project, "drift", 1);
    for path in ["/srv/one", "/srv/two"] {
        assert!(drift.iter().any(|found| found.ends_with(path)), "{path} in {drift:?}");
    }
    assert_eq!(sha256(&layer), sum, "the disk was written to");

    // Another life: nothing of the old one but what is on data disks.
    run(&mut project.devbox(&["reset", "-f"]));
    assert_eq!(project.status()["state"], "absent");
    run(&mut project.devbox(&["up"]));
    guest(&project, "test ! -e /srv/one");
    run(&mut project.devbox(&["halt"]));
    assert_eq!(paths(&project, "drift", 0), Vec::<String>::new());
    project.clear();
}

/// The names in the machine's folder.
fn standing(project: &Project) -> Vec<String> {
    let dir = project.machine_dir("drifting").expect("made");
    let names = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("one"));
    let mut names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn kill(pid: i32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Killed where it hurts most: the helper lets the machine go on, without any command.
#[cfg(feature = "crash-points")]
#[test]
fn a_machine_goes_on_when_devbox_died_while_it_held_it_still() {
    let project = Project::on_the_tiny_box("heldstill");
    run(&mut project.devbox(&["up"]));
    let killed = project.devbox(&["drift"]).env("DEVBOX_CRASH", "drift.paused").status();
    assert!(!killed.expect("it starts").success());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while project.status()["state"] != "running" {
        assert!(std::time::Instant::now() < deadline, "{}", project.status());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    guest(&project, "true");
    // A command that comes first does the same.
    let killed = project.devbox(&["drift"]).env("DEVBOX_CRASH", "drift.paused").status();
    assert!(!killed.expect("it starts").success());
    run(&mut project.devbox(&["up"]));
    guest(&project, "true");
    project.clear();
}
