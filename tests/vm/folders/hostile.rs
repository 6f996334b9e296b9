//! A guest that wants out of the folders that it was given.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;

use super::{folder, guest, mounts};
use crate::people::run;
use crate::workbench::Project;

const SECRET: &str = "the secret of the host";

/// Runs what the guest tries; nothing of it may show or change the secret.
fn tried(project: &Project, script: &str) -> String {
    let said = guest(project, &format!("exec 2>&1; {script}; true"));
    assert!(!said.contains(SECRET), "{script}\n{said}");
    let secret = fs::read_to_string(project.dir().join("secret")).expect("there");
    assert_eq!(secret, SECRET, "{script}");
    said
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn no_name_link_or_device_leads_out_of_a_folder_by_9p() {
    tries("hostile", "9p", "trans=virtio,version=9p2000.L", Project::with_9p);
}

#[test]
fn no_name_link_or_device_leads_out_of_a_folder_by_virtiofs() {
    tries("hostile-virtiofs", "virtiofs", "nodev", Project::on_the_tiny_box_with);
}

/// What a guest tries with folders of this type, which it mounts with `options`.
fn tries(name: &str, kind: &str, options: &str, project: fn(&str, &str) -> Project) {
    let home = Project::new(name, "");
    let (own, seen) = (folder(&home, "own", &[("a", "x")]), folder(&home, "seen", &[("a", "x")]));
    fs::write(home.dir().join("secret"), SECRET).expect("written");
    // The same folder twice: two servers, of which one does not hear what is renamed in the other.
    let (read, write) =
        (format!("type = \"{kind}\""), format!("type = \"{kind}\"\nwritable = true"));
    let list = mounts(&[
        ("own", "/work/own", &write),
        ("own", "/work/twin", &write),
        ("seen", "/work/seen", &read),
    ]);
    let project = project(name, &list);
    run(&mut project.devbox(&["up"]));
    let host = project.dir().display().to_string();
    let around = names(project.dir());

    // Links of the host, links of the guest, and `..`: the guest resolves them, in itself.
    symlink("../secret", own.join("planted")).expect("made");
    symlink("..", own.join("out")).expect("made");
    symlink(project.dir().join("secret"), seen.join("planted")).expect("made");
    for path in
        ["own/planted", "own/out/secret", "seen/planted", "own/../secret", "own/./../../secret"]
    {
        tried(&project, &format!("cat /work/{path}; head -c 9 /work/{path}"));
        tried(&project, &format!("echo changed > /work/{path}; echo changed >> /work/{path}"));
    }
    for link in
        ["../secret".to_owned(), format!("{host}/secret"), format!("/work/own/../..{host}/secret")]
    {
        tried(
            &project,
            &format!("cd /work/own && ln -sf {link} l && cat l; cat ./l; echo c > l; rm -f l"),
        );
    }
    tried(
        &project,
        "cd /work/own && ln planted h && cat h; echo c > h; mv h /work/own/out/h; rm -f h",
    );
    tried(&project, "cd /work/own && mv a ../a; mv ../a a; mkdir -p d && mv d ../d; rmdir d ../d");
    // What it makes of a way out is its own folder above, not the host's.
    let listed = tried(&project, "ls -a /work/own/out/ /work/own/..");
    assert!(listed.contains("twin") && !listed.contains("devbox.toml"), "{listed}");
    // Another root of the server than the one that it has.
    for aname in ["/", "..", "/etc", host.as_str()] {
        tried(
            &project,
            &format!(
                "mkdir -p /mnt/x; mount -t {kind} -o {options},aname={aname} devbox0 /mnt/x && cat /mnt/x/secret {}; umount /mnt/x",
                "/mnt/x/hostname"
            ),
        );
    }

    // A folder that one server has open becomes a link to the outside through the other.
    let swap = "mkdir -p /work/own/d && echo decoy > /work/own/d/secret && cd /work/own/d && cat secret && \
        mv /work/twin/d /work/twin/e && ln -s .. /work/twin/d && ls -la /work/twin";
    let swapped = tried(
        &project,
        &format!(
            "{swap}; cat secret; cat ./secret; ls; echo c > secret; echo c > new; mkdir n; mv secret a; rm -f secret; ln -s x y; chmod 777 .; cat ../secret"
        ),
    );
    assert!(swapped.contains("d -> .."), "the swap was not made: {swapped}");
    assert!(own.join("d").is_symlink(), "{swapped}");
    tried(&project, "cd /; rm -rf /work/twin/d /work/twin/e");
    // The same as a race, for as long as a guest likes.
    let swaps = "cd /work/twin; mkdir r; echo decoy > r/secret; i=0; while [ $i -lt 300 ]; do \
        mv r s; ln -s .. r; rm r; mv s r; i=$((i+1)); done > /dev/null 2>&1 &";
    let reads = "i=0; while [ $i -lt 300 ]; do cat /work/own/r/secret; echo c > /work/own/r/secret; \
        i=$((i+1)); done > /tmp/raced 2>&1; wait; rm -rf r s; sort /tmp/raced | uniq -c";
    let raced = tried(&project, &format!("{swaps} {reads}"));
    // It came between at least once.
    assert!(raced.contains("can't open") && raced.contains(" c"), "{raced}");

    // No devices, and nobody else's files.
    tried(
        &project,
        "cd /work/own; mknod b b 254 0; mknod c c 1 3; touch o; chown 4711:4711 o; ls -ln",
    );
    for entry in fs::read_dir(&own).expect("a folder").flatten() {
        let file_type = entry.file_type().expect("a type");
        assert!(!file_type.is_block_device() && !file_type.is_char_device(), "{:?}", entry.path());
        use std::os::unix::fs::MetadataExt as _;
        let owner = fs::symlink_metadata(entry.path()).expect("there").uid();
        // By virtiofs also ids of the user's own range, or of root's.
        let own = kind == "virtiofs" && owner >= 100_000;
        assert!(own || owner == rustix::process::geteuid().as_raw(), "{:?}", entry.path());
    }

    // Read-only is what the host says, not what the guest mounts.
    let said = tried(
        &project,
        &format!(
            "mount -o remount,rw /work/seen; touch /work/seen/b || echo refused; rm -f /work/seen/a; \
            umount /work/seen; mount -t {kind} -o rw,{options} devbox2 /work/seen && echo again; \
            touch /work/seen/b || echo refused; mv /work/seen/a /work/seen/c; chmod 777 /work/seen/a; echo c > /work/seen/a"
        ),
    );
    assert!(said.contains("again"), "{said}");
    assert_eq!(said.matches("refused").count(), 2, "{said}");
    assert_eq!(names(&seen), ["a", "planted"]);
    assert_eq!(fs::read_to_string(seen.join("a")).expect("there"), "x");

    // Nothing beside the folders was made or has gone.
    assert_eq!(names(project.dir()), around);
    project.clear();
}
