//! Machines follow versions of boxes, forwards and back, with data disks that stay.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

const DISK: &str = "\n[[machine.disks]]\nname = \"own\"\nsize = \"32MiB\"\n";

/// The usual machine, on a host that is busy.
fn machine() -> String {
    TINY_MACHINE.replace("\"2m\"", "\"10m\"")
}

/// A version of a box `rolled`; what a step wrote to `/etc/box` tells them apart, since a
/// machine gets a hostname of its own.
fn spec(version: &str, more: &str) -> String {
    let mark = version.replace('.', "-");
    let step = format!("[[steps]]\ntype = \"shell\"\ninline = \"echo v{mark} > /etc/box\"\n");
    let spec = tiny_spec("rolled", &step)
        .replace("version = \"1.0.0\"", &format!("version = \"{version}\"\n{more}"));
    format!("{spec}{}{DISK}", machine())
}

fn set(project: &Project, text: &str) {
    fs::write(project.dir().join("devbox.toml"), text).expect("write the spec");
}

fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

fn on_disk(project: &Project, command: &str) -> String {
    let find =
        "for b in /sys/block/vd*; do [ \"$(cat $b/serial)\" != own ] || d=/dev/${b##*/}; done";
    guest(project, &format!("sudo sh -c '{find}; {command}'"))
}

fn data(project: &Project) -> String {
    on_disk(project, "dd if=$d bs=16 count=1 2>/dev/null | tr -d \"\\000\"")
}

fn json(project: &Project, args: &[&str], code: i32) -> Value {
    let said = exits(&mut project.devbox(args), code);
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.out))
}

#[test]
#[expect(clippy::print_stderr, reason = "what was measured explains a failed run")]
fn a_machine_goes_forward_and_back_and_its_data_stays() {
    let project = Project::new("rolled", &spec("1.0.0", "")).alone();
    run(&mut project.devbox(&["up"]));
    on_disk(&project, "echo precious | dd of=$d conv=notrunc 2>/dev/null");
    insist(&exits(&mut project.devbox(&["rollback", "-f"]), 1), &["ran on no other box", "--to"]);
    assert_eq!(project.status()["box"], "rolled:1.0.0");

    // Another version is in the spec: nothing happens by itself.
    set(&project, &spec("1.1.0", ""));
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(
        said.err.contains("runs on rolled:1.0.0, and the spec is rolled:1.1.0"),
        "{}",
        said.err
    );
    run(&mut project.devbox(&["up", "--forward"]));
    let status = project.status();
    assert_eq!(status["box"], "rolled:1.1.0");
    assert_eq!(data(&project), "precious");

    insist(&exits(&mut project.devbox(&["rollback"]), 2), &["rolled", "devbox rollback -f"]);
    insist(
        &exits(&mut project.devbox(&["rollback", "-f", "--to", "9.9.9"]), 1),
        &["no box `rolled:9.9.9`", "ran on rolled:1.0.0, rolled:1.1.0"],
    );
    let begun = Instant::now();
    let said = exits(&mut project.devbox(&["rollback", "-f"]), 0);
    eprintln!("rolled back in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(said.err.contains("its disk `own` stays"), "{}", said.err);
    let status = project.status();
    assert_eq!((&status["box"], &status["state"]), (&"rolled:1.0.0".into(), &"running".into()));
    assert_eq!(status["held"]["reference"], "rolled:1.0.0");
    let ran: Vec<&str> = status["history"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|ran| ran["reference"].as_str().expect("text"))
        .collect();
    assert_eq!(ran, ["rolled:1.0.0", "rolled:1.1.0", "rolled:1.0.0"]);
    assert_eq!(data(&project), "precious");

    // It stays there, also from one start to the next, and after a reset.
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(
        said.err.contains("stays on rolled:1.0.0") && said.err.contains("up --forward"),
        "{}",
        said.err
    );
    run(&mut project.devbox(&["reset", "-f"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!(project.status()["box"], "rolled:1.0.0");
    assert_eq!(data(&project), "precious");
    // What the way back needs is not removed.
    insist(
        &exits(&mut project.devbox(&["box", "remove", "rolled:1.1.0"]), 1),
        &["in use by `rolled (rollback)`"],
    );
    run(&mut project.devbox(&["up", "--forward"]));
    let status = project.status();
    assert_eq!((&status["box"], &status["held"]), (&"rolled:1.1.0".into(), &Value::Null));
    assert_eq!(data(&project), "precious");

    // Killed on its way: before and after its disk is gone.
    let killed = |point: &str| {
        let out = project.devbox(&["rollback", "-f"]).env("DEVBOX_CRASH", point).output();
        assert!(!out.expect("runs").status.success(), "{point}");
    };
    killed("rollback.held");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("was interrupted"), "{}", said.err);
    assert_eq!(project.status()["box"], "rolled:1.1.0");
    killed("rollback.cleared");
    run(&mut project.devbox(&["up"]));
    assert_eq!(project.status()["box"], "rolled:1.0.0");
    assert_eq!(data(&project), "precious");

    // A moved pre-release version is kept for as long as somebody may go back to it.
    run(&mut project.devbox(&["destroy", "-f"]));
    set(&project, &spec("2.0.0-dev", ""));
    run(&mut project.devbox(&["up"]));
    set(&project, &spec("2.0.0-dev", "").replace("v2-0-0-dev", "again"));
    run(&mut project.devbox(&["build"]));
    let before = project.status()["manifest"].clone();
    run(&mut project.devbox(&["up", "--forward"]));
    assert_ne!(project.status()["manifest"], before);
    let said = exits(&mut project.devbox(&["box", "prune", "--dry-run"]), 0);
    let line =
        format!("kept for rolled (rollback): rolled:2.0.0-dev {}", before.as_str().expect("text"));
    assert!(said.out.contains(&line), "{}", said.out);
    run(&mut project.devbox(&["box", "prune"]));
    run(&mut project.devbox(&["rollback", "-f"]));
    assert_eq!(project.status()["manifest"], before);
    // One that no machine needed any more is kept as what differs from the newest, and is there all the same.
    let listed = json(&project, &["box", "list", "--json"], 0);
    let old = listed.as_array().expect("a list").iter().find(|b| b["reference"] == "rolled:1.0.0");
    assert!(old.expect("is there")["difference_from"].is_string(), "{listed}");
    let said = exits(&mut project.devbox(&["rollback", "-f", "--to", "1.0.0"]), 0);
    assert!(said.err.contains("rolled:1.0.0 is whole again"), "{}", said.err);
    assert_eq!(guest(&project, "cat /etc/box"), "v1-0-0");
    project.clear();
    let said = exits(&mut project.devbox(&["box", "prune"]), 0);
    assert!(!said.out.contains("kept for"), "{}", said.out);
}

#[test]
fn a_box_from_where_it_lives_is_pulled_and_followed() {
    let maker = Project::new("made", &spec("1.0.0", "")).alone();
    let boxes = format!("dir:{}", maker.dir().join("boxes").display());
    let home = format!("registry = \"{boxes}\"");
    set(&maker, &spec("1.0.0", &home));
    run(&mut maker.devbox(&["build"]));
    run(&mut maker.devbox(&["box", "push", "--channel", "stable"]));

    // The same spec elsewhere: pulled and not built.
    let other = Project::new("pulled", &spec("1.0.0", &home)).alone();
    let said = exits(&mut other.devbox(&["up"]), 0);
    assert!(said.err.contains("pulling it from dir:"), "{}", said.err);
    assert!(!said.err.contains("Sealing"), "{}", said.err);
    assert_eq!(other.status()["box"], "rolled:1.0.0");
    other.clear();
    // Other inputs: built, and told.
    let third = Project::new("differs", &spec("1.0.0", &home).replace("v1-0-0", "other")).alone();
    let said = exits(&mut third.devbox(&["up"]), 0);
    for word in ["was built from other inputs", "raise `version`", "Sealing"] {
        assert!(said.err.contains(word), "`{word}`: {}", said.err);
    }
    third.clear();
    // Nobody there: built, with one line.
    fs::remove_dir_all(third.dir().join("devbox-home/store")).expect("removed");
    let away = "registry = \"oci://127.0.0.1:9/web\"";
    set(&third, &spec("1.0.0", away));
    let said = exits(&mut third.devbox(&["up"]), 0);
    assert!(said.err.contains("was not asked"), "{}", said.err);
    third.clear();

    // A project that is a box.
    let source = format!("[source]\ntype = \"box\"\nbox = \"{boxes}\"\nversion = \"^1\"\n");
    let text = format!(
        "name = \"dev\"\nversion = \"0.1.0\"\narch = \"amd64\"\n{source}{}{DISK}",
        machine()
    );
    let dev = Project::new("follows", &text).alone();
    run(&mut dev.devbox(&["up"]));
    assert_eq!(dev.status()["box"], "rolled:1.0.0");
    on_disk(&dev, "echo precious | dd of=$d conv=notrunc 2>/dev/null");
    run(&mut dev.devbox(&["lock"]));
    run(&mut dev.devbox(&["lock", "--check"]));
    let lock = fs::read_to_string(dev.dir().join("devbox.lock")).expect("a lock");
    assert!(lock.contains("version = \"1.0.0\", manifest = \"sha256:"), "{lock}");
    assert_eq!(json(&dev, &["box", "outdated", "--json"], 0)["outdated"], false);

    set(&maker, &spec("1.1.0", &home));
    run(&mut maker.devbox(&["build"]));
    run(&mut maker.devbox(&["box", "push", "--channel", "stable"]));
    let found = json(&dev, &["box", "outdated", "--json"], 1);
    assert_eq!(found["boxes"][0]["newest"], "1.1.0", "{found}");
    assert_eq!(found["boxes"][1]["machine"], "dev", "{found}");
    let text = exits(&mut dev.devbox(&["box", "outdated"]), 1);
    assert!(text.out.contains("`dev` runs on 1.0.0"), "{}", text.out);
    // `up` asked when there was nothing newer, and does not ask again today.
    let _ = fs::remove_dir_all(dev.devbox_home().join("cache/newer"));
    let said = exits(&mut dev.devbox(&["up"]), 0);
    assert!(said.err.contains("has 1.1.0, and devbox.lock has 1.0.0"), "{}", said.err);
    let said = exits(&mut dev.devbox(&["up", "--set", "updates=false"]), 0);
    assert!(!said.err.contains("has 1.1.0"), "{}", said.err);
    assert_eq!(dev.status()["box"], "rolled:1.0.0");

    run(&mut dev.devbox(&["box", "update"]));
    let said = exits(&mut dev.devbox(&["up"]), 0);
    assert!(said.err.contains("runs on rolled:1.0.0, and `devbox.lock` has 1.1.0"), "{}", said.err);
    run(&mut dev.devbox(&["up", "--forward"]));
    assert_eq!((dev.status()["box"].as_str(), &*data(&dev)), (Some("rolled:1.1.0"), "precious"));
    assert_eq!(json(&dev, &["box", "outdated", "--json"], 0)["outdated"], false);
    run(&mut dev.devbox(&["rollback", "-f"]));
    assert_eq!((dev.status()["box"].as_str(), &*data(&dev)), (Some("rolled:1.0.0"), "precious"));

    // The place is gone: what is here goes on, and what has to be asked says that it cannot be.
    fs::remove_dir_all(maker.dir().join("boxes")).expect("removed");
    run(&mut dev.devbox(&["up", "--forward"]));
    assert_eq!(dev.status()["box"], "rolled:1.1.0");
    let said = exits(&mut dev.devbox(&["box", "outdated"]), 3);
    assert!(said.err.contains("holds no boxes"), "{}", said.err);
    dev.clear();
}
