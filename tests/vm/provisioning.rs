//! `[[provision]]` on the tiny guest.

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

/// Three scripts that each add a line to a file of their own.
fn write_spec(project: &Project, changed: &str) {
    let one = |name: &str, rule: &str, more: &str| {
        format!(
            "\n[[provision]]\nname = \"{name}\"\nrun = \"{rule}\"\n\
             inline = \"echo $WORD >> /root/{name}\"\nenv = {{ WORD = \"{more}\" }}\n"
        )
    };
    let spec = format!(
        "{}{TINY_MACHINE}{}{}{}",
        tiny_spec("tiny", ""),
        one("first", "once", "once"),
        one("second", "on-change", changed),
        one("third", "always", "always")
    );
    std::fs::write(project.dir().join("devbox.toml"), spec).expect("written");
}

/// Lines of each script's file.
fn counts(project: &Project) -> Vec<u64> {
    let lines = guest(project, "for f in first second third; do wc -l < /root/$f; done");
    lines.lines().map(|n| n.trim().parse().expect("a number")).collect()
}

#[test]
fn scripts_run_once_when_they_change_or_always() {
    let project = Project::on_the_tiny_box("provisioned");
    write_spec(&project, "a");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("Running provision `first`"), "{}", said.err);
    assert_eq!(counts(&project), [1, 1, 1]);
    assert_eq!(guest(&project, "cat /root/second"), "a");
    run(&mut project.devbox(&["up"]));
    assert_eq!(counts(&project), [1, 1, 2]);
    write_spec(&project, "b");
    run(&mut project.devbox(&["up"]));
    assert_eq!(counts(&project), [1, 2, 3]);
    run(&mut project.devbox(&["up", "--no-provision"]));
    assert_eq!(counts(&project), [1, 2, 3]);
    run(&mut project.devbox(&["up", "--provision-with", "first"]));
    assert_eq!(counts(&project), [2, 2, 3]);
    run(&mut project.devbox(&["provision"]));
    assert_eq!(counts(&project), [3, 3, 4]);
    let said = exits(&mut project.devbox(&["provision", "--with", "fourth"]), 2);
    insist(&said, &["no provision `fourth`", "`first`, `second`, `third`"]);

    // A snapshot brings back what had been done by then.
    run(&mut project.devbox(&["snapshot", "save", "here"]));
    write_spec(&project, "c");
    run(&mut project.devbox(&["up"]));
    assert_eq!(counts(&project), [3, 4, 5]);
    run(&mut project.devbox(&["snapshot", "restore", "here"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!(counts(&project), [3, 4, 5]);
    project.clear();
}

#[test]
fn a_script_that_fails_is_shown_and_done_again_once_it_is_right() {
    let project = Project::on_the_tiny_box("unprovisioned");
    let spec = |script: &str| {
        let head = format!("{}{TINY_MACHINE}", tiny_spec("tiny", ""));
        let table = "[[provision]]\nname = \"set up\"\nprivileged = false\ninline = ";
        let text = format!("{head}\n{table}\"\"\"\n{script}\n\"\"\"\n");
        std::fs::write(project.dir().join("devbox.toml"), text).expect("written");
    };
    spec("echo about to fail; false; touch ~/reached");
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(
        &said,
        &["provision `set up` failed with exit code 1", "| about to fail", "`devbox up` again"],
    );
    assert_eq!(project.status()["state"], "running");
    assert_eq!(guest(&project, "ls ~; ls /tmp/.devbox-* 2>/dev/null; true"), "");
    spec("#!/bin/sh\npwd > ~/reached");
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat ~/reached"), guest(&project, "cd; pwd"));
    project.clear();
}

#[test]
fn hooks_run_on_the_host_and_in_the_guest() {
    let project = Project::on_the_tiny_box("hooked");
    let hook = |when: &str, on: &str, script: &str| {
        format!("\n[[hooks]]\nwhen = \"{when}\"\non = \"{on}\"\ninline = \"{script}\"\n")
    };
    let log = "echo $DEVBOX_WHEN $DEVBOX_MACHINE >> log";
    let spec = [
        tiny_spec("tiny", ""),
        TINY_MACHINE.to_owned(),
        hook("before-up", "host", log),
        hook("after-up", "guest", "echo up $DEVBOX_MACHINE >> /root/log"),
        hook("before-halt", "guest", "echo down >> /root/log; sync"),
        hook("after-halt", "host", log),
        hook("before-suspend", "host", log),
        hook("after-resume", "host", log),
    ];
    std::fs::write(project.dir().join("devbox.toml"), spec.concat()).expect("written");
    let of_host = || std::fs::read_to_string(project.dir().join("log")).unwrap_or_default();
    run(&mut project.devbox(&["up"]));
    assert_eq!(of_host(), "before-up tiny\n");
    assert_eq!(guest(&project, "cat /root/log"), "up tiny");
    run(&mut project.devbox(&["suspend"]));
    run(&mut project.devbox(&["resume"]));
    run(&mut project.devbox(&["halt"]));
    let all = "before-up tiny\nbefore-suspend tiny\nafter-resume tiny\nafter-halt tiny\n";
    assert_eq!(of_host(), all);
    run(&mut project.devbox(&["up"]));
    assert_eq!(guest(&project, "cat /root/log"), "up tiny\ndown\nup tiny");
    project.clear();
}
