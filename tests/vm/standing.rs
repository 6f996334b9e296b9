//! Machines that stand still and go on, and snapshots, on the tiny guest.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::people::{exits, run};
use crate::workbench::{Project, insist};

fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

/// By how many seconds the guest's clock is off.
fn off(project: &Project) -> i64 {
    let guest: i64 = guest(project, "date +%s").parse().expect("seconds");
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    (host.as_secs() as i64 - guest).abs()
}

/// A program that runs since before and can tell that it is the same one.
const MARK: &str =
    "echo $$ > /run/mark; (while :; do sleep 1; done) > /dev/null 2>&1 & echo $! > /run/runs";

fn insist_on_the_mark(project: &Project) {
    guest(project, "kill -0 $(cat /run/runs)");
}

#[test]
fn a_suspended_machine_goes_on_where_it_was() {
    let project = Project::on_the_tiny_box("suspended");
    run(&mut project.devbox(&["up"]));
    guest(&project, MARK);
    let start = Instant::now();
    run(&mut project.devbox(&["suspend"]));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(project.status()["state"], "suspended");
    insist(
        &exits(&mut project.devbox(&["ssh", "-c", "true"]), 255),
        &["suspended", "devbox resume"],
    );
    run(&mut project.devbox(&["suspend"]));
    std::thread::sleep(Duration::from_secs(3));
    run(&mut project.devbox(&["resume"]));
    assert_eq!(project.status()["state"], "running");
    insist_on_the_mark(&project);
    assert!(off(&project) <= 2, "the clock is off by {} s", off(&project));

    // To its disk: nothing of it runs, and `up` lets it go on too.
    run(&mut project.devbox(&["suspend", "--to-disk"]));
    project.insist_on_no_guest();
    assert_eq!(project.status()["state"], "suspended");
    assert_eq!(project.status()["pid"], Value::Null);
    insist(&exits(&mut project.devbox(&["ssh", "-c", "true"]), 255), &["suspended"]);
    run(&mut project.devbox(&["up"]));
    insist_on_the_mark(&project);
    assert!(off(&project) <= 2, "the clock is off by {} s", off(&project));
    run(&mut project.devbox(&["resume"]));

    // A guest that stands still can be shut down; saved memory can be given up.
    run(&mut project.devbox(&["suspend"]));
    run(&mut project.devbox(&["halt"]));
    assert_eq!(project.status()["state"], "stopped");
    insist(&exits(&mut project.devbox(&["resume"]), 1), &["stopped", "devbox up"]);
    run(&mut project.devbox(&["up"]));
    run(&mut project.devbox(&["suspend", "--to-disk"]));
    let said = exits(&mut project.devbox(&["halt"]), 0);
    assert!(said.err.contains("thrown away"), "{}", said.err);
    assert_eq!(project.status()["state"], "stopped");
    project.clear();
}

#[test]
fn snapshots_bring_back_disk_and_memory() {
    let project = Project::on_the_tiny_box("snapshots");
    run(&mut project.devbox(&["up"]));
    let names = |project: &Project| -> Vec<String> {
        let out = exits(&mut project.devbox(&["snapshot", "list", "--json"]), 0).out;
        let list: Value = serde_json::from_str(&out).expect("JSON");
        let all = list["snapshots"].as_array().expect("snapshots").clone();
        all.iter().map(|s| s["name"].as_str().expect("a name").to_owned()).collect()
    };
    guest(&project, "echo before > /root/file; sync");
    guest(&project, MARK);
    run(&mut project.devbox(&["snapshot", "save", "clean"]));
    insist(&exits(&mut project.devbox(&["snapshot", "save", "clean"]), 1), &["`clean` already"]);
    insist(&exits(&mut project.devbox(&["snapshot", "save", "7"]), 2), &["no name for a snapshot"]);
    insist(
        &exits(&mut project.devbox(&["snapshot", "restore", "other"]), 1),
        &["no snapshot `other`"],
    );
    guest(&project, "echo after > /root/file; sync; kill $(cat /run/runs)");
    run(&mut project.devbox(&["snapshot", "restore", "clean"]));
    assert_eq!(guest(&project, "cat /root/file"), "before");
    insist_on_the_mark(&project);
    assert!(off(&project) <= 2, "the clock is off by {} s", off(&project));

    // Without memory while it is stopped; and with memory from there.
    run(&mut project.devbox(&["halt"]));
    run(&mut project.devbox(&["snapshot", "save", "cold"]));
    run(&mut project.devbox(&["snapshot", "restore", "clean"]));
    assert_eq!(project.status()["state"], "running");
    insist_on_the_mark(&project);
    let said = exits(&mut project.devbox(&["snapshot", "restore", "cold"]), 0);
    assert!(said.err.contains("no memory"), "{}", said.err);
    assert_eq!(project.status()["state"], "stopped");
    run(&mut project.devbox(&["up"]));

    run(&mut project.devbox(&["snapshot", "push"]));
    guest(&project, "rm /root/file; sync");
    run(&mut project.devbox(&["snapshot", "pop"]));
    assert_eq!(guest(&project, "cat /root/file"), "before");
    assert_eq!(names(&project), ["clean", "cold"]);
    insist(&exits(&mut project.devbox(&["snapshot", "pop"]), 1), &["no pushed snapshot"]);
    run(&mut project.devbox(&["snapshot", "delete", "cold"]));
    run(&mut project.devbox(&["snapshot", "delete", "clean"]));
    assert_eq!(names(&project), Vec::<String>::new());
    project.clear();
}

#[test]
fn a_disk_is_as_small_as_what_is_on_it() {
    let project = Project::on_the_tiny_box("compacted");
    run(&mut project.devbox(&["up"]));
    let overlay = || {
        use std::os::unix::fs::MetadataExt as _;
        let record = project.status()["serial_log"].as_str().expect("a path").to_owned();
        let overlay = std::path::Path::new(&record).with_file_name("overlay.qcow2");
        std::fs::metadata(overlay).expect("there").blocks() * 512
    };
    let fill = "dd if=/dev/urandom of=/root/big bs=1M count=40 2>/dev/null; sync";
    guest(&project, &format!("{fill}; rm /root/big; sync"));
    let full = overlay();
    assert!(full > 40 << 20, "{full}");
    // While it runs: what the guest has removed.
    run(&mut project.devbox(&["compact"]));
    let trimmed = overlay();
    assert!(trimmed < full - (30 << 20), "{trimmed} of {full}");
    // While it is stopped: what the layer holds.
    guest(&project, &format!("{fill}; sync"));
    let sum = guest(&project, "md5sum < /root/big");
    run(&mut project.devbox(&["halt"]));
    run(&mut project.devbox(&["snapshot", "save", "x"]));
    insist(&exits(&mut project.devbox(&["compact"]), 1), &["has snapshots", "devbox up"]);
    run(&mut project.devbox(&["snapshot", "delete", "x"]));
    run(&mut project.devbox(&["compact"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "md5sum < /root/big"), sum);
    project.clear();
}
