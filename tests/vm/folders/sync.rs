//! Copies by rsync: at `up`, by `devbox sync`, and while it watches.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::{folder, guest};
use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

const MOUNT: &str = "[[mounts]]\ntype = \"rsync\"\nsource = \"own\"\ntarget = \"/work/a b\"\n\
    exclude = [\"*.o\", \"/build/\"]\n";

#[test]
fn a_copy_follows_the_host_and_leaves_what_is_excluded() {
    let name = "synced";
    let own =
        folder(&Project::new(name, ""), "own", &[("a", "one"), ("x.o", "object"), ("it's", "q")]);
    let project = Project::with_9p(name, MOUNT);
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("to /work/a b: 2 sent (a, it's)"), "{}", said.err);
    assert_eq!(guest(&project, "cd '/work/a b'; cat a; ls -A"), "onea\nit's");

    // What the guest has of its own stays where it is excluded, and goes elsewhere.
    guest(&project, "cd '/work/a b'; mkdir build; touch build/own y.o gone");
    fs::write(own.join("a"), "other").expect("written");
    fs::remove_file(own.join("it's")).expect("removed");
    let said = exits(&mut project.devbox(&["sync"]), 0);
    assert!(said.err.contains("1 sent, 2 deleted ("), "{}", said.err);
    assert_eq!(
        guest(&project, "cd '/work/a b'; cat a; ls -A . build"),
        "other.:\na\nbuild\ny.o\n\nbuild:\nown"
    );
    // Nothing comes back.
    guest(&project, "echo guest > '/work/a b/a'");
    assert_eq!(fs::read_to_string(own.join("a")).expect("there"), "other");
    let said = exits(&mut project.devbox(&["sync"]), 0);
    assert!(said.err.contains("1 sent (a)"), "{}", said.err);
    // As JSON, too; with nothing to do, nothing is said but the end.
    let said = exits(&mut project.devbox(&["sync", "--json"]), 0).out;
    assert_eq!(said.lines().count(), 1, "{said}");

    // It watches, also what comes new, until Ctrl-C.
    let mut sync = project.devbox(&["sync", "--watch"]);
    let mut sync = sync.stderr(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(sync.stderr.take().expect("piped")).lines();
    let mut until = |word: &str| {
        let mut seen = lines.by_ref().map(|line| line.expect("text"));
        assert!(seen.any(|line| line.contains(word)), "never said: {word}");
    };
    until("watching for changes");
    fs::create_dir_all(own.join("new/deep")).expect("made");
    fs::write(own.join("new/deep/b"), "two").expect("written");
    until("new/deep/b");
    fs::write(own.join("new/deep/c"), "three").expect("written");
    until("new/deep/c");
    assert_eq!(guest(&project, "cat '/work/a b/new/deep/'*"), "twothree");
    run(Command::new("kill").args(["-INT", &sync.id().to_string()]));
    assert_eq!(sync.wait().expect("ends").code(), Some(130));

    // A machine that goes ends it.
    let mut sync = project.devbox(&["sync", "--watch"]);
    let mut sync = sync.stderr(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(sync.stderr.take().expect("piped")).lines();
    let seen = lines.by_ref().map(|line| line.expect("text"));
    assert!(seen.take_while(|line| !line.contains("watching for changes")).count() < 20);
    run(&mut project.devbox(&["halt", "-f"]));
    let left: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(sync.wait().expect("ends").code(), Some(1), "{left:?}");
    assert!(left.iter().any(|line| line.contains("has stopped")), "{left:?}");
    let said = exits(&mut project.devbox(&["sync"]), 1);
    insist(&said, &["`full` does not run", "devbox up full"]);
    project.clear();
}

#[test]
fn a_guest_without_rsync_is_said_with_what_to_do() {
    let project = Project::on_the_tiny_box("no-rsync");
    folder(&project, "own", &[("a", "x")]);
    let spec = format!("{}{TINY_MACHINE}\n{MOUNT}", tiny_spec("tiny", ""));
    fs::write(project.dir().join("devbox.toml"), spec).expect("written");
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(&said, &["there is no `rsync` in the guest", "`packages`"]);
    assert_eq!(project.status()["state"], "running");
    project.clear();
}
