//! A machine starts before its box is here, whatever is killed meanwhile.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, sha256, tiny_spec};

const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with the tiny box, as a registry would have it.
fn shelf() -> String {
    shelf_of("arriving-shelf")
}

/// The same for one test alone.
fn shelf_of(name: &str) -> String {
    let project = Project::on_the_tiny_box(name);
    let shelf = format!("dir:{}", project.dir().join("shelf").display());
    run(&mut project.devbox(&["box", "push", "tiny:1.0.0", &shelf]));
    format!("{shelf}:1.0.0")
}

fn project(name: &str) -> Project {
    let project = Project::new(name, &format!("{}{TINY_MACHINE}", tiny_spec("tiny", ""))).alone();
    let _ = std::fs::remove_dir_all(project.devbox_home());
    project
}

/// Servers of boxes that arrive in this project's store, by their process ids.
fn servers(project: &Project) -> Vec<i32> {
    let home = project.devbox_home().to_string_lossy().into_owned();
    let of = |pid: i32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (line, env) = (read("cmdline"), read("environ"));
        String::from_utf8_lossy(&line).contains("\0box-server\0")
            && String::from_utf8_lossy(&env).contains(&home)
    };
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of(*pid)).collect()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every blob has the digest of its name.
fn insist_on_blobs(project: &Project) -> usize {
    let folder = project.devbox_home().join("store/blobs/sha256");
    let blobs: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the store").flatten().map(|e| e.path()).collect();
    for blob in &blobs {
        assert_eq!(blob.file_name().and_then(|n| n.to_str()), Some(&*sha256(blob)), "a wrong blob");
    }
    blobs.len()
}

#[test]
fn a_machine_starts_before_its_box_is_here_and_has_it_then() {
    let (shelf, project) = (shelf(), project("arriving"));
    let said = exits(&mut project.devbox(&["up", "--from", &shelf]), 0);
    assert!(said.err.contains("arrives from"), "{}", said.err);
    run(&mut project.devbox(&["ssh", "-c", "sudo dd if=/dev/vda of=/dev/null bs=1M"]));
    wait_for("the box", || exits_well(&project, &["box", "show", "tiny:1.0.0", "--verify"]));
    wait_for("the end of the server", || servers(&project).is_empty());
    assert_eq!(insist_on_blobs(&project), 3);
    let status = project.status();
    assert_eq!((status["state"].as_str(), status["arriving"].is_null()), (Some("running"), true));
    // From the file, and as any other machine from then on.
    run(&mut project.devbox(&["ssh", "-c", "sudo dd if=/dev/vda of=/dev/null bs=1M"]));
    run(&mut project.devbox(&["reload"]));
    run(&mut project.devbox(&["ssh", "-c", "true"]));
    project.clear();
}

fn exits_well(project: &Project, args: &[&str]) -> bool {
    let mut command = project.devbox(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_server_that_is_killed_while_a_guest_boots_is_started_again() {
    let (shelf, project) = (shelf(), project("arriving-killed"));
    let log = project.dir().join("up.log");
    let mut up = project
        .devbox(&["up", "--from", &shelf])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("devbox runs");
    for _ in 0..3 {
        wait_for("a server", || !servers(&project).is_empty() || !runs(&mut up));
        std::thread::sleep(Duration::from_millis(700));
        for pid in servers(&project) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let ended = up.wait().expect("ends");
    assert!(ended.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
    run(&mut project.devbox(&["ssh", "-c", "true"]));
    wait_for("the box", || exits_well(&project, &["box", "show", "tiny:1.0.0", "--verify"]));
    insist_on_blobs(&project);
    project.clear();
}

/// The packs of the boxes in a folder go, or come back.
fn packs(shelf: &str, there: bool) {
    let folder = shelf.trim_start_matches("dir:").trim_end_matches(":1.0.0");
    let blobs = PathBuf::from(folder).join("blobs/sha256");
    let (mut moved, away) = (0, PathBuf::from(folder).join("away"));
    std::fs::create_dir_all(&away).expect("a folder");
    let (from, to) = if there { (&away, &blobs) } else { (&blobs, &away) };
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        // Smaller ones have what QEMU reads as it starts.
        if there || entry.metadata().expect("a blob").len() > 1 << 20 {
            std::fs::rename(entry.path(), to.join(entry.file_name())).expect("moved");
            moved += 1;
        }
    }
    assert!(moved > 3, "{moved} packs");
}

#[test]
fn a_machine_that_stands_still_can_be_suspended_and_stays_so() {
    let (shelf, project) = (shelf_of("arriving-away"), project("arriving-suspended"));
    packs(&shelf, false);
    exits(&mut project.devbox(&["up", "--from", &shelf, "--timeout", "20s"]), 1);
    let waits = || project.status()["arriving"]["progress"]["waits"] == true;
    wait_for("a guest that stands still", waits);
    run(&mut project.devbox(&["suspend"]));
    assert_eq!(project.status()["state"], "suspended");
    packs(&shelf, true);
    wait_for("what was away", || !waits());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(project.status()["state"], "suspended", "nobody but its user lets it go on");
    run(&mut project.devbox(&["up"]));
    run(&mut project.devbox(&["ssh", "-c", "true"]));
    wait_for("the box", || exits_well(&project, &["box", "show", "tiny:1.0.0", "--verify"]));
    project.clear();
}

/// Whether it runs still.
fn runs(up: &mut std::process::Child) -> bool {
    up.try_wait().expect("asked").is_none()
}
