//! Folders by virtiofsd: on the kernel that boxes of packages have by default, which has no 9p.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{folder, guest, insist_that_they_come_back, mounts};
use crate::people::{exits, is_root, not_run, run};
use crate::workbench::{Project, insist};

fn project(name: &str, list: &[(&str, &str, &str)]) -> Project {
    let of_type = |more: &str| format!("type = \"virtiofs\"\n{more}");
    let list: Vec<String> =
        list.iter().map(|(from, to, more)| mounts(&[(from, to, &of_type(more))])).collect();
    Project::on_the_tiny_box_with(name, &list.concat())
}

/// Servers of folders below `place`.
fn servers(place: &std::path::Path) -> Vec<u32> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // Also one that is on its way.
        let ours = line.contains("virtiofsd") && line.contains("--fd=0");
        if ours && line.contains(&*place.to_string_lossy()) {
            found.extend(entry.file_name().to_string_lossy().parse::<u32>());
        }
    }
    found
}

fn insist_on_no_server(project: &Project) {
    let began = Instant::now();
    while !servers(project.dir()).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", servers(project.dir()));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_folder_is_served_and_comes_back_with_the_machine_and_its_server() {
    let name = "virtiofs";
    let home = Project::new(name, "");
    let seen = folder(&home, "seen, and", &[("a", "of the host\n")]);
    let own = folder(&home, "own", &[]);
    let project =
        project(name, &[("seen, and", "/work/seen", ""), ("own", "/work/own", "writable = true")]);

    let said = exits(&mut project.devbox(&["up"]), 0);
    for part in [
        "no template: `type = \"virtiofs\"` shares the machine's memory",
        "on /work/seen (virtiofs, read-only: writes are refused)",
        "on /work/own (virtiofs, writable: create, chmod, symlink, rename, hardlink",
    ] {
        assert!(said.err.contains(part), "{}", said.err);
    }
    assert_eq!(guest(&project, "cat /work/seen/a"), "of the host");
    assert_eq!(guest(&project, "touch /work/seen/b || echo refused"), "refused");
    guest(&project, "echo of the guest > /work/own/a");
    assert_eq!(fs::read_to_string(own.join("a")).expect("there"), "of the guest\n");
    assert_eq!(guest(&project, "ls -A /work/seen /work/own"), "/work/own:\na\n\n/work/seen:\na");
    // What the host changes is seen at once, also by who has the file open.
    guest(&project, "cat /work/seen/a /work/own/a > /dev/null");
    fs::write(seen.join("a"), "changed\n").expect("written");
    fs::write(own.join("a"), "changed, too\n").expect("written");
    fs::write(own.join("new"), "").expect("written");
    assert_eq!(guest(&project, "cat /work/seen/a /work/own/a"), "changed\nchanged, too");
    assert_eq!(guest(&project, "ls /work/own"), "a\nnew");
    fs::remove_file(own.join("new")).expect("removed");
    assert_eq!(guest(&project, "ls /work/own; [ -e /work/own/new ] || echo gone"), "a\ngone");
    assert!(servers(project.dir()).len() >= 2);

    let on_disk = || insist_on_no_server(&project);
    insist_that_they_come_back(&project, &seen, "changed, too", on_disk);
    let before = servers(project.dir());
    run(&mut project.devbox(&["halt"]));
    insist_on_no_server(&project);
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat /work/own/a"), "changed, too");
    assert!(before.iter().all(|old| !servers(project.dir()).contains(old)), "{before:?}");

    // A killed QEMU takes them along.
    let pid = project.status()["pid"].as_i64().expect("a pid");
    run(Command::new("kill").args(["-KILL", &pid.to_string()]));
    insist_on_no_server(&project);
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat /work/own/a"), "changed, too");
    project.clear();
    insist_on_no_server(&project);
}

#[test]
fn what_is_mounted_in_a_read_only_folder_is_read_only_too() {
    if !is_root() {
        return not_run("a mount in a folder by virtiofs", "this process may not mount");
    }
    let name = "virtiofs-mounts";
    let seen = folder(&Project::new(name, ""), "seen", &[]);
    let below = seen.join("be low");
    fs::create_dir(&below).expect("made");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "nosuid,noexec", "none"]).arg(&below));
    fs::write(below.join("a"), "x").expect("written");
    let project = project(name, &[("seen", "/work", "")]);
    let up = project.devbox(&["up"]).output().expect("runs");
    let tried = "sudo mount -o remount,rw /work; cat '/work/be low/a'; echo y > '/work/be low/a' || echo refused";
    let said = project.devbox(&["ssh", "-c", tried]).output().expect("runs");
    let left = fs::read_to_string(below.join("a"));
    run(Command::new("umount").arg(&below));
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "xrefused");
    assert_eq!(left.expect("there"), "x");
    project.clear();
}

#[test]
fn a_host_without_virtiofsd_is_told_what_to_install_and_no_guest_is_started() {
    let name = "virtiofs-none";
    folder(&Project::new(name, ""), "own", &[]);
    let list = [("own", "/work", "")];
    let project = project(name, &list).with_env("DEVBOX_VIRTIOFSD", "/nowhere/virtiofsd");
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(&said, &["`virtiofsd` is not installed", "apt-get install virtiofsd", "type = \"9p\""]);
    assert_eq!(project.guests(), Vec::<String>::new());
    // A program that is none is seen before a guest waits for it.
    let project = project.with_env("DEVBOX_VIRTIOFSD", "/bin/true");
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(&said, &["`/bin/true` is no virtiofsd that devbox knows"]);
    assert_eq!(project.guests(), Vec::<String>::new());
    project.clear();
}

#[cfg(feature = "crash-points")]
#[test]
fn a_killed_devbox_leaves_no_server_that_outlives_its_machine() {
    use std::os::unix::process::ExitStatusExt as _;
    let name = "virtiofs-crash";
    folder(&Project::new(name, ""), "own", &[("a", "x")]);
    let project = project(name, &[("own", "/work", "")]);
    for point in devbox::crash::POINTS.iter().filter(|point| point.starts_with("folder.")) {
        let out = project.devbox(&["up"]).env("DEVBOX_CRASH", point).output().expect("runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.signal(), Some(9), "{point} was not passed: {said}");
        if *point == "folder.connected" {
            insist_on_no_server(&project);
        }
        run(&mut project.devbox(&["up"]));
        assert_eq!(guest(&project, "cat /work/a"), "x", "{point}");
        run(&mut project.devbox(&["halt", "-f"]));
        insist_on_no_server(&project);
    }
    project.clear();
}

#[test]
fn a_guest_that_restarts_gets_its_folder_back_and_a_server_that_dies_is_said() {
    let name = "virtiofs-dead";
    folder(&Project::new(name, ""), "own", &[("a", "x")]);
    let project = project(name, &[("own", "/work", "writable = true")]);
    run(&mut project.devbox(&["up"]));
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let first = guest(&project, boot);
    // Whoever is asked while it restarts gives no answer.
    let _ = project.devbox(&["ssh", "-c", "reboot -f"]).output();
    let began = Instant::now();
    loop {
        let said = project.devbox(&["ssh", "-c", boot]).output().expect("runs");
        if said.status.success() && String::from_utf8_lossy(&said.stdout).trim() != first {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(300), "it does not come back");
        std::thread::sleep(Duration::from_secs(1));
    }
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat /work/a"), "x");

    for pid in servers(project.dir()) {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
    insist_on_no_server(&project);
    for command in [&["up"][..], &["snapshot", "save", "s"]] {
        let said = exits(&mut project.devbox(command), 1);
        insist(&said, &["the server of `/work` in `tiny` has ended", "devbox halt -f tiny"]);
    }
    run(&mut project.devbox(&["halt", "-f"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat /work/a"), "x");
    project.clear();
    insist_on_no_server(&project);
}
