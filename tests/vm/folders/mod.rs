//! `[[mounts]]` on the tiny guest with a kernel that has 9p.

mod hostile;
mod plain;
mod sync;
mod virtiofs;

use std::fs;
use std::path::{Path, PathBuf};

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, full_spec, insist, tiny_spec};

fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

/// A folder beside the spec with this content.
fn folder(project: &Project, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = project.dir().join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("made");
    for (file, text) in files {
        fs::write(dir.join(file), text).expect("written");
    }
    dir
}

fn mounts(list: &[(&str, &str, &str)]) -> String {
    let one = |(source, target, more): &(&str, &str, &str)| {
        format!("[[mounts]]\nsource = \"{source}\"\ntarget = \"{target}\"\n{more}\n")
    };
    list.iter().map(one).collect()
}

/// Again by `up` after the guest has lost one, and after suspends and snapshots: the file `a` of `seen`, which says
/// `changed`, on /work/seen, and one with `own` in it on /work/own. `on_disk` looks while the machine is nothing but
/// files.
fn insist_that_they_come_back(project: &Project, seen: &Path, own: &str, on_disk: impl Fn()) {
    guest(project, "umount /work/seen");
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(project, "cat /work/seen/a"), "changed");
    run(&mut project.devbox(&["suspend"]));
    run(&mut project.devbox(&["resume"]));
    assert_eq!(guest(project, "cat /work/seen/a"), "changed");
    run(&mut project.devbox(&["suspend", "--to-disk"]));
    on_disk();
    fs::write(seen.join("a"), "meanwhile\n").expect("written");
    run(&mut project.devbox(&["resume"]));
    assert_eq!(guest(project, "cat /work/seen/a"), "meanwhile");
    run(&mut project.devbox(&["snapshot", "save", "here"]));
    assert_eq!(guest(project, "cat /work/own/a"), own);
    run(&mut project.devbox(&["snapshot", "restore", "here"]));
    assert_eq!(guest(project, "cat /work/own/a"), own);
}

#[test]
fn a_folder_is_read_only_unless_asked_and_comes_back_with_the_machine() {
    let name = "folders";
    let both = mounts(&[("seen", "/work/seen", ""), ("own", "/work/own", "writable = true")]);
    let home = Project::new(name, "");
    let seen = folder(&home, "seen", &[("a", "of the host\n")]);
    let own = folder(&home, "own", &[]);
    let project = Project::with_9p(name, &both);

    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("on /work/seen (9p, read-only: writes are refused)"), "{}", said.err);
    let can = "on /work/own (9p, writable: create, chmod, symlink, rename, hardlink";
    assert!(said.err.contains(can), "{}", said.err);
    assert_eq!(guest(&project, "cat /work/seen/a"), "of the host");
    assert_eq!(guest(&project, "touch /work/seen/b || echo refused"), "refused");
    assert!(!seen.join("b").exists());
    guest(&project, "echo of the guest > /work/own/a");
    assert_eq!(fs::read_to_string(own.join("a")).expect("there"), "of the guest\n");
    // Nothing of the trials stays.
    assert_eq!(guest(&project, "ls -A /work/seen /work/own"), "/work/own:\na\n\n/work/seen:\na");
    // What the host changes is seen.
    fs::write(seen.join("a"), "changed\n").expect("written");
    assert_eq!(guest(&project, "cat /work/seen/a"), "changed");

    insist_that_they_come_back(&project, &seen, "of the guest", || {});
    run(&mut project.devbox(&["halt"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat /work/own/a"), "of the guest");

    // Another spec is said, and holds after a restart.
    let other = mounts(&[("own", "/work/seen", "")]);
    fs::write(project.dir().join("devbox.toml"), full_spec(&other)).expect("written");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("the spec mounts other folders in `full`"), "{}", said.err);
    run(&mut project.devbox(&["reload"]));
    assert_eq!(guest(&project, "cat /work/seen/a; ls /work/own"), "of the guest");
    project.clear();
    assert_eq!(fs::read_to_string(own.join("a")).expect("still there"), "of the guest\n");
}

#[test]
fn what_holds_a_folder_in_the_guest_is_named_and_nothing_is_lost() {
    let name = "held";
    folder(&Project::new(name, ""), "own", &[("a", "x")]);
    let project = Project::with_9p(name, &mounts(&[("own", "/work", "writable = true")]));
    run(&mut project.devbox(&["up"]));
    guest(&project, "cd /work; setsid sleep 300 > /dev/null 2>&1 < /dev/null &");
    for command in [&["suspend", "--to-disk"][..], &["snapshot", "save", "a"]] {
        let said = exits(&mut project.devbox(command), 1);
        insist(&said, &["`/work` cannot be unmounted in the guest", "held by sleep (process "]);
        assert_eq!(guest(&project, "cat /work/a"), "x");
    }
    // Suspended in memory it stays mounted; to the disk it cannot go.
    run(&mut project.devbox(&["suspend"]));
    exits(&mut project.devbox(&["suspend", "--to-disk"]), 1);
    assert_eq!(project.status()["state"], "suspended");
    run(&mut project.devbox(&["resume"]));
    guest(&project, "killall sleep");
    run(&mut project.devbox(&["snapshot", "save", "a"]));
    assert_eq!(guest(&project, "cat /work/a"), "x");
    // A guest that holds it does not keep its past from being restored.
    guest(&project, "cd /work; setsid sleep 300 > /dev/null 2>&1 < /dev/null &");
    run(&mut project.devbox(&["snapshot", "restore", "a"]));
    assert_eq!(guest(&project, "cat /work/a; killall sleep || true"), "x");
    project.clear();
}

#[test]
fn a_kernel_without_9p_is_said_with_what_to_do_and_the_machine_runs() {
    let project = Project::on_the_tiny_box("no-9p");
    folder(&project, "own", &[]);
    let spec =
        format!("{}{TINY_MACHINE}\n{}", tiny_spec("tiny", ""), mounts(&[("own", "/work", "")]));
    fs::write(project.dir().join("devbox.toml"), spec).expect("written");
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(
        &said,
        &[
            "`/work` is not mounted: the kernel of the guest has no 9p",
            "type = \"rsync\"",
            "linux-image-amd64",
        ],
    );
    assert_eq!(project.status()["state"], "running");
    assert_eq!(guest(&project, "echo alive"), "alive");
    project.clear();
}
