//! Data disks on the tiny guest, which has no program that makes a filesystem: bytes, not files. A guest
//! that formats and mounts one is in `main_job`.

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

fn spec(disks: &str) -> String {
    format!("{}{TINY_MACHINE}{disks}", tiny_spec("tiny", ""))
}

const TWO: &str = "\n[[machine.disks]]\nname = \"kept\"\nsize = \"64MiB\"\nkeep = true\n\
    [[machine.disks]]\nname = \"own\"\nsize = \"32MiB\"\n";

fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

/// A command on the disk with this serial number, which is `$d` in it.
fn on(project: &Project, disk: &str, command: &str) -> String {
    let find = format!(
        "for b in /sys/block/vd*; do [ \"$(cat $b/serial)\" != {disk} ] || d=/dev/${{b##*/}}; done"
    );
    guest(project, &format!("sudo sh -c '{find}; {command}'"))
}

fn write(project: &Project, disk: &str, text: &str) {
    on(project, disk, &format!("echo {text} | dd of=$d conv=notrunc 2>/dev/null; sync"));
}

fn read(project: &Project, disk: &str) -> String {
    on(project, disk, "dd if=$d bs=16 count=1 2>/dev/null | tr -d \"\\000\"")
}

#[test]
fn a_data_disk_outlives_its_machine_where_that_is_declared() {
    let project = Project::on_the_tiny_box("disks");
    std::fs::write(project.dir().join("devbox.toml"), spec(TWO)).expect("write the spec");
    run(&mut project.devbox(&["up"]));
    write(&project, "kept", "first");
    write(&project, "own", "first");

    // A snapshot and saved memory have all disks in them.
    run(&mut project.devbox(&["snapshot", "save", "x"]));
    write(&project, "kept", "later");
    run(&mut project.devbox(&["snapshot", "restore", "x"]));
    assert_eq!(read(&project, "kept"), "first");
    run(&mut project.devbox(&["suspend", "--to-disk"]));
    run(&mut project.devbox(&["resume"]));
    assert_eq!((read(&project, "kept"), read(&project, "own")), ("first".into(), "first".into()));
    run(&mut project.devbox(&["snapshot", "delete", "x"]));

    // Another size is for the next start; a smaller one is none.
    let grown = spec(&TWO.replace("64MiB", "96MiB"));
    std::fs::write(project.dir().join("devbox.toml"), grown).expect("write the spec");
    run(&mut project.devbox(&["reload"]));
    assert_eq!(on(&project, "kept", "cat /sys/block/${d#/dev/}/size"), (96 * 2048).to_string());
    assert_eq!(read(&project, "kept"), "first");
    std::fs::write(project.dir().join("devbox.toml"), spec(TWO)).expect("write the spec");
    insist(
        &exits(&mut project.devbox(&["reload"]), 2),
        &["`kept`", "96MiB", "cannot become smaller"],
    );
    let grown = spec(&TWO.replace("64MiB", "96MiB"));
    std::fs::write(project.dir().join("devbox.toml"), grown).expect("write the spec");

    let said = exits(&mut project.devbox(&["destroy", "-f"]), 0);
    assert!(said.err.contains("its disk stays") && said.err.contains("--disks"), "{}", said.err);
    run(&mut project.devbox(&["up"]));
    assert_eq!((read(&project, "kept"), read(&project, "own")), ("first".into(), String::new()));
    run(&mut project.devbox(&["destroy", "-f"]));
    // Also when the machine is gone already.
    insist(&exits(&mut project.devbox(&["destroy", "--disks"]), 2), &["tiny", "devbox destroy -f"]);
    run(&mut project.devbox(&["destroy", "-f", "--disks"]));
    let disks = std::fs::read_dir(project.devbox_home().join("disks")).expect("the folder");
    assert_eq!(disks.count(), 0);
    project.insist_on_no_guest();
}

#[test]
fn a_reset_takes_the_system_and_leaves_the_data() {
    let project = Project::on_the_tiny_box("reset");
    std::fs::write(project.dir().join("devbox.toml"), spec(TWO)).expect("write the spec");
    run(&mut project.devbox(&["up"]));
    for disk in ["kept", "own"] {
        write(&project, disk, disk);
    }
    guest(&project, "sudo touch /etc/mark; sync");
    run(&mut project.devbox(&["snapshot", "save", "x"]));
    insist(&exits(&mut project.devbox(&["reset"]), 2), &["tiny", "devbox reset -f"]);
    let said = exits(&mut project.devbox(&["reset", "-f"]), 0);
    assert!(said.err.contains("its disk `own` stays"), "{}", said.err);
    // Whoever dies on the way up takes nothing along.
    #[cfg(feature = "crash-points")]
    for point in ["machine.before-record", "up.restored"] {
        let killed = project.devbox(&["up"]).env("DEVBOX_CRASH", point).status();
        assert!(!killed.expect("it starts").success(), "{point}");
    }
    run(&mut project.devbox(&["up"]));
    assert_eq!((read(&project, "kept"), read(&project, "own")), ("kept".into(), "own".into()));
    guest(&project, "test ! -e /etc/mark");
    // A machine that is destroyed leaves only what is declared to outlive it.
    run(&mut project.devbox(&["reset", "-f"]));
    run(&mut project.devbox(&["destroy", "-f"]));
    run(&mut project.devbox(&["up"]));
    assert_eq!((read(&project, "kept"), read(&project, "own")), ("kept".into(), String::new()));
    run(&mut project.devbox(&["destroy", "-f", "--disks"]));
}
