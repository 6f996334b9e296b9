//! What goes wrong on a host: one clear message, the right code, nothing left behind. Failing steps and
//! killed builds are in `tests/build.rs`, killed machines and two commands at once in `tests/up.rs`.

use std::net::TcpListener;
use std::process::Command;

use crate::people::{exits, is_root, not_run, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

fn failing_build(name: &str, step: &str) -> Project {
    Project::new(name, &format!("{}{TINY_MACHINE}", tiny_spec(name, step)))
}

#[test]
fn a_guest_that_never_answers_is_explained() {
    let project = failing_build(
        "silent",
        "[[steps]]\ntype = \"shell\"\nname = \"silence\"\ninline = \"rm /bin/dropbear\"\n",
    );
    run(&mut project.devbox(&["build"]));
    let said = exits(&mut project.devbox(&["up", "--timeout", "20s"]), 1);
    insist(&said, &["silent", "20 s", "ssh", "serial"]);
    // What the guest said last is shown, not only where it is kept.
    assert!(said.err.contains("can't run '/bin/dropbear'"), "{}", said.err);
    project.clear();
}

#[test]
fn a_port_in_use_is_named_or_stepped_over() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = taken.local_addr().expect("an address").port();
    let spec = |auto: bool| {
        format!(
            "{}{TINY_MACHINE}\n[[machine.ports]]\nguest = 80\nhost = {port}\nauto_correct = {auto}\n",
            tiny_spec("tiny", "")
        )
    };
    let project = Project::on_the_tiny_box("ports");
    std::fs::write(project.dir().join("devbox.toml"), spec(false)).expect("write the spec");
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(&said, &[&port.to_string(), "in use"]);
    // It is not the template's fault.
    assert!(!said.err.contains("is not used"), "{}", said.err);
    assert_eq!(project.status()["state"], "absent", "nothing half made stays");
    project.insist_on_no_guest();
    std::fs::write(project.dir().join("devbox.toml"), spec(true)).expect("write the spec");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains(&port.to_string()), "{}", said.err);
    let forwards = project.status()["forwards"].clone();
    let web = forwards.as_array().expect("forwards").iter().find(|f| f["guest"] == 80).cloned();
    assert_ne!(web.expect("the forward")["host"], u64::from(port));
    project.clear();
}

#[test]
fn without_qemu_the_program_and_its_package_are_named() {
    let project = Project::on_the_tiny_box("no-qemu");
    let empty = project.dir().join("empty");
    std::fs::create_dir_all(&empty).expect("a folder");
    let empty = empty.to_str().expect("text").to_owned();
    let project = project.with_env("PATH", &empty);
    for verb in ["up", "build"] {
        let said = exits(&mut project.devbox(&[verb]), 1);
        insist(&said, &["qemu", "not installed", "apt-get install"]);
    }
    assert_eq!(project.status()["state"], "absent", "a failed `up` leaves no machine");
}

#[test]
fn a_full_disk_is_said_and_nothing_half_stays() {
    if !is_root() {
        return not_run("a full disk", "only root can mount a small filesystem");
    }
    let project = failing_build("full", "");
    let small = project.dir().join("small");
    std::fs::create_dir_all(&small).expect("a folder");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&small));
    let project = project.with_home(&small);
    let out = project.devbox(&["build"]).output();
    let guests = project.guests();
    let blobs = walkdir::WalkDir::new(&small)
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file() && e.path().starts_with(small.join("store/blobs")))
        .count();
    run(Command::new("umount").arg(&small));
    let out = out.expect("devbox runs");
    let said = crate::people::Said {
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    assert_eq!(out.status.code(), Some(1), "{}", said.err);
    insist(&said, &["space"]);
    assert_eq!((guests.len(), blobs, project.outputs().len()), (0, 0, 0));
}

/// Crash points that other tests have: `store_crash`; `cloning`, `folders`, `versions` here; the test `registry`.
#[cfg(feature = "crash-points")]
const ELSEWHERE: &[&str] = &["store.", "clone.", "folder.", "rollback.", "pull.", "push."];

/// Every other crash point, of the build and of machines: the next command works and nothing is left.
#[cfg(feature = "crash-points")]
#[test]
fn a_crash_at_any_point_is_healed_by_the_next_command() {
    for point in
        devbox::crash::POINTS.iter().filter(|p| !ELSEWHERE.iter().any(|no| p.starts_with(no)))
    {
        let name = format!("crash-{}", point.replace('.', "-"));
        if point.starts_with("build.") || point.starts_with("layers.") {
            let step = "[[steps]]\ntype = \"shell\"\ninline = \"true\"\n";
            let project = failing_build(&name, step);
            crash(&project, &["build"], point);
            run(&mut project.devbox(&["build"]));
            project.insist_on_no_guest();
            assert_eq!(project.outputs().len(), 1, "{point}");
            continue;
        }
        let project = Project::on_the_tiny_box(&name);
        if *point == "network.recorded" {
            let spec = std::fs::read_to_string(project.dir().join("devbox.toml")).expect("a spec");
            let machines = format!("{spec}\n[machines.tiny]\n\n[machines.other]\n");
            std::fs::write(project.dir().join("devbox.toml"), machines).expect("written");
        }
        // What stands before the command that is killed, that command, and what has to work then.
        let (before, killed, after): (&[&[&str]], &[&str], &[&[&str]]) = match *point {
            "template.staged" => (&[&["box", "prune", "--templates"]], &["up"], &[&["up"]]),
            "machine.before-cont" | "up.started" => (&[], &["up", "--cold"], &[&["up"]]),
            "network.recorded" => (&[], &["up", "tiny"], &[&["up", "tiny"]]),
            "suspend.saved" | "suspend.recorded" => {
                (&[&["up"]], &["suspend", "--to-disk"], &[&["up"]])
            }
            "snapshot.saved" => {
                (&[&["up"]], &["snapshot", "save", "x"], &[&["snapshot", "save", "x"]])
            }
            "snapshot.forgotten" => (
                &[&["up"], &["snapshot", "save", "x"]],
                &["snapshot", "delete", "x"],
                &[&["snapshot", "save", "x"], &["snapshot", "restore", "x"]],
            ),
            "drift.frozen" | "drift.paused" => (&[&["up"]], &["drift"], &[&["up"]]),
            "reset.cleared" => (&[&["up"]], &["reset", "-f"], &[&["up"]]),
            "compact.copied" => (&[&["up"], &["halt"]], &["compact"], &[&["compact"], &["up"]]),
            _ => (&[], &["up"], &[&["up"]]),
        };
        for args in before {
            run(&mut project.devbox(args));
        }
        crash(&project, killed, point);
        for args in after {
            run(&mut project.devbox(args));
        }
        exits(&mut project.devbox(&["ssh", "tiny", "-c", "true"]), 0);
        assert_eq!(project.guests().len(), 1, "{point}");
        project.clear();
    }
}

/// Runs a command that dies at `point`.
#[cfg(feature = "crash-points")]
fn crash(project: &Project, args: &[&str], point: &str) {
    use std::os::unix::process::ExitStatusExt as _;
    let out = project.devbox(args).env("DEVBOX_CRASH", point).output().expect("runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.signal(), Some(9), "{point} was not passed: {said}");
}
