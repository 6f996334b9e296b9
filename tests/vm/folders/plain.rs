//! Folders of a plain user, which most people are.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::mounts;
use crate::people::{Person, desk, exits, not_run, run};
use crate::workbench::{TINY_MACHINE, full_disk, image_spec, insist, tiny_disk};

#[test]
fn the_users_files_belong_to_the_guests_account_and_back_by_9p() {
    let desk = desk();
    let Some(person) = Person::plain(desk.path()) else {
        return not_run("folders of a plain user", "this process may not make users");
    };
    both_ways(&person, desk.path(), "9p", full_disk());
}

#[test]
fn the_users_files_belong_to_the_guests_account_and_back_by_virtiofs() {
    let desk = desk();
    let Some(person) = Person::plain(desk.path()) else {
        return not_run("folders of a plain user", "this process may not make users");
    };
    let dir = both_ways(&person, desk.path(), "virtiofs", tiny_disk());
    let left = || !person.processes("virtiofsd").is_empty();
    for _ in 0..50 {
        if left() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(!left(), "{:?}", person.processes("virtiofsd"));
    // Without ids to give to the guest's other accounts, that is said before a guest is started.
    let name = dir.metadata().expect("there").uid().to_string();
    let name = run(Command::new("id").args(["-un", &name])).stdout;
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    for (file, option) in [("/etc/subuid", "--del-subuids"), ("/etc/subgid", "--del-subgids")] {
        let all = fs::read_to_string(file).expect("there");
        let line = all.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("a range");
        let words: Vec<&str> = line.split(':').collect();
        let start: u32 = words[1].parse().expect("a number");
        let count: u32 = words[2].parse().expect("a number");
        let range = format!("{start}-{}", start + count - 1);
        run(Command::new("/usr/sbin/usermod").args([option, &range, &name]));
    }
    let said = exits(&mut person.devbox(&dir, &["up"]), 1);
    insist(&said, &["needs a range of ids for the user", "--add-subuids", "type = \"9p\""]);
    assert_eq!(person.processes("qemu-system"), Vec::<String>::new());
    run(&mut person.devbox(&dir, &["destroy", "-f"]));
}

/// Files of the person in the guest, and of the guest on the host, in a folder of this type. Gives the project.
fn both_ways(person: &Person, desk: &Path, kind: &str, disk: (&Path, &str)) -> PathBuf {
    let (disk, sha256) = disk;
    let disk = person.copy_in(disk, "disk.qcow2");
    let source = format!("path = \"{}\"\nsha256 = \"{sha256}\"", disk.display());
    let of_type = format!("type = \"{kind}\"");
    let list = mounts(&[
        ("own", "/work", &format!("{of_type}\nwritable = true")),
        ("~/seen", "/seen", &of_type),
    ]);
    let project = desk.join("project");
    fs::create_dir_all(project.join("own")).expect("made");
    fs::create_dir_all(project.join("seen")).expect("made");
    fs::write(project.join("seen/a"), "x").expect("written");
    let spec = format!("{}{TINY_MACHINE}\n{list}", image_spec("mine", &source, ""));
    fs::write(project.join("devbox.toml"), spec).expect("written");
    run(Command::new("chmod").args(["-R", "go-w"]).arg(&project));
    let dir = person.copy_in(&project, "project");
    run(person.command("cp".as_ref(), &dir).args(["-r", "seen", ".."]));

    let said = exits(&mut person.devbox(&dir, &["up"]), 0);
    assert!(
        said.err.contains(&format!("on /work ({kind}, writable: create, chmod, symlink, rename")),
        "{}",
        said.err
    );
    assert!(!said.err.contains("files belong to"), "{}", said.err);
    let guest = |command: &str| {
        exits(&mut person.devbox(&dir, &["ssh", "-c", command]), 0).out.trim().to_owned()
    };
    // The guest's account has the id 0, and the person has not.
    let owner = fs::metadata(&dir).expect("there").uid();
    assert_ne!(owner, 0);
    assert_eq!(guest("stat -c %u:%g /seen/a /work"), "0:0\n0:0");
    guest("echo made > /work/b; mkdir /work/d; chmod 0750 /work/d");
    for path in ["own/b", "own/d"] {
        assert_eq!(fs::metadata(dir.join(path)).expect("there").uid(), owner, "{path}");
    }
    assert_eq!(fs::metadata(dir.join("own/d")).expect("there").mode() & 0o777, 0o750);
    // Whose files the person may not read, the guest may not either, as root.
    let secret = dir.join("own/secret");
    fs::write(&secret, "of root").expect("written");
    run(Command::new("chmod").arg("600").arg(&secret));
    assert_eq!(guest("cat /work/secret 2> /dev/null || echo refused"), "refused");
    run(&mut person.devbox(&dir, &["destroy", "-f"]));
    assert_eq!(person.processes("qemu-system"), Vec::<String>::new());
    dir
}
