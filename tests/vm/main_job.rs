//! The main job on a real Debian guest: one spec, one sealed image, a dev box that runs it, and proof
//! that dev and cloud match.
//!
//! Built twice from the same inputs, by a plain user and by root, because the two take different
//! paths (user namespaces or not) and must give the same content.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containers;
use crate::mirror::Mirror;
use crate::people::{Person, desk, exits, is_root, not_run, run};
use crate::workloads::{Guest, Plan};

/// A line that the example puts into one file of the image; long enough to stand only there.
const MARK: &[u8] = b"<p>hello from one sealed image</p>";
/// The file that holds it.
const MARKED_FILE: &str = "/srv/hello/index.html";

/// Containers that a cloud takes or a tool gives.
const CARRIED: &[&str] = &[
    "qcow2, zstd",
    "vmdk, stream-optimised",
    "vhd, fixed",
    "vhdx, dynamic",
    "an image for Google's cloud",
    "an OVA",
    "a Vagrant box of libvirt",
];

#[test]
fn one_spec_gives_a_dev_box_and_cloud_images_that_match() {
    let desk = desk();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    let mut first = Person::plain(desk.path());
    let second = Person::me(desk.path());

    // The plain user's packages come from another mirror than root's, which must leave no trace.
    let mirror = Mirror::start("bookworm", desk.path());
    match (&mut first, &mirror) {
        (Some(person), Ok(mirror)) => person.env.push(("APT_CONFIG", mirror.config.clone())),
        (Some(_), Err(why)) => not_run("a mirror of the host's own", why),
        (None, _) => {}
    }

    let built_by_plain_user = first.as_ref().map(|person| {
        let project = person.copy_in(&example, "hello");
        with_machine(&project, "disk = \"4GiB\"\nfirmware = \"bios\"");
        with_packages(person, &project);
        stops_half_way(person, &project);
        let outputs = build(person, &project);
        if let Ok(mirror) = &mirror {
            names_stand_nowhere(&mirror.names(), person, &outputs);
        }
        the_dev_box_runs(person, &project, &|| {});
        outputs
    });
    if built_by_plain_user.is_none() {
        not_run(
            "the main job as a plain user",
            "only root can make one; the current user did it all",
        );
    }

    let project = second.copy_in(&example, "hello");
    with_machine(&project, "disk = \"4GiB\"\nfirmware = \"uefi\"");
    with_packages(&second, &project);
    let outputs = build(&second, &project);
    no_step_runs_again(&second, &project);
    the_dev_box_runs(&second, &project, &|| match &mirror {
        Ok(mirror) => drift_is_found(&second, &project, mirror, desk.path()),
        Err(why) => not_run("drift of a working Debian", why),
    });
    outputs_match(&second, &project, &outputs);
    every_container_matches(&second, &project, &outputs);
    one_changed_byte_is_found(&second, &project, &outputs);
    the_kernel_sees_the_same_tree(&second, desk.path(), &outputs);

    if let Some(other) = built_by_plain_user {
        let said = exits(
            &mut second
                .devbox(&project, &["parity", text(&other.raw), text(&outputs.raw), "--all"]),
            0,
        );
        assert!(said.out.contains("equal at level content"), "{}", said.out);
    }
}

/// The files that one build wrote.
struct Outputs {
    qcow2: PathBuf,
    raw: PathBuf,
    vhd: PathBuf,
}

fn build(person: &Person, project: &Path) -> Outputs {
    run(&mut person.devbox(project, &["validate"]));
    let built = exits(&mut person.devbox(project, &["build"]), 0);
    assert!(built.err.contains("installed: tree"), "{}", built.err);
    assert!(built.err.contains("already installed: tree"), "{}", built.err);
    assert!(!built.err.contains("10.0.2.2"), "the log names the host's mirror: {}", built.err);
    let file = |ext: &str| project.join(format!("dist/hello-1.0.0.{ext}"));
    let outputs = Outputs { qcow2: file("qcow2"), raw: file("raw"), vhd: file("vhd") };
    for path in [&outputs.qcow2, &outputs.raw, &outputs.vhd] {
        assert!(path.is_file(), "{} was not written", path.display());
    }
    assert_eq!(person.processes("qemu-system"), Vec::<String>::new(), "the build left a guest");
    outputs
}

/// The steps that the build after it begins behind; its image is compared with one whose steps all ran in one guest.
fn stops_half_way(person: &Person, project: &Path) {
    let said = exits(&mut person.devbox(project, &["build", "--until-step", "enable"]), 0).err;
    assert!(said.contains("step 1 page runs: it was not run before"), "{said}");
    assert!(said.contains("stopped after step `enable`"), "{said}");
    assert!(!project.join("dist").exists(), "no box was made, so no output is written");
    assert_eq!(person.processes("qemu-system"), Vec::<String>::new(), "the build left a guest");
}

/// A build of the same inputs starts no guest but the seal's, and makes the same box.
fn no_step_runs_again(person: &Person, project: &Path) {
    let said = exits(&mut person.devbox(project, &["build", "--rebuild"]), 0).err;
    for step in ["step 1 page", "step 3 enable", "step 5"] {
        assert!(said.contains(&format!("{step} is in the cache")), "{said}");
    }
    assert!(!said.contains("Booting"), "{said}");
    assert!(said.contains("hello:1.0.0 was in the store already"), "{said}");
    let layers = exits(&mut person.devbox(project, &["cache", "list", "--json"]), 0).out;
    let layers: serde_json::Value = serde_json::from_str(&layers).expect("JSON");
    assert_eq!(layers["layers"].as_array().map(Vec::len), Some(5), "{layers}");
}

/// No image, log, cached disk or stored blob holds one of these names. A layer may: it is what the guest had before
/// the seal, and never leaves the user's own cache.
fn names_stand_nowhere(names: &[String], person: &Person, outputs: &Outputs) {
    let mut grep = Command::new("grep");
    grep.args([
        "--exclude-dir=layers",
        "--recursive",
        "--text",
        "--only-matching",
        "--extended-regexp",
    ]);
    for name in names {
        // With what stands around it, to see where it comes from.
        grep.args([
            "-e",
            &format!("[[:print:]]{{0,60}}{}[[:print:]]{{0,60}}", name.replace('.', "\\.")),
        ]);
    }
    for place in [".local/share/devbox", ".cache/devbox"] {
        grep.arg(person.home().join(place));
    }
    let said = exits(grep.arg(&outputs.raw), 1);
    assert_eq!(said.out, "", "these files name the host's mirror");
}

/// Installs a package over the network in a step, and once more: the second time changes nothing.
fn with_packages(person: &Person, project: &Path) {
    let provisioners = Path::new(env!("CARGO_MANIFEST_DIR")).join("provisioners");
    let script = person.copy_in(&provisioners, "provisioners").join("apt-install.sh");
    let mut spec = fs::read_to_string(project.join("devbox.toml")).expect("the example's spec");
    for _ in 0..2 {
        spec.push_str(&format!(
            "\n[[steps]]\ntype = \"shell\"\nscript = \"{}\"\nenv = {{ PACKAGES = \"tree\" }}\n",
            script.display()
        ));
    }
    fs::write(project.join("devbox.toml"), spec).expect("write");
}

/// The machine's firmware and disk are no part of the image: one spec's machine may differ.
fn with_machine(project: &Path, keys: &str) {
    let spec = project.join("devbox.toml");
    let text = fs::read_to_string(&spec).expect("the example's spec");
    let changed = text.replace("[machine]\n", &format!("[machine]\n{keys}\n"));
    assert_ne!(text, changed, "the example has a [machine] table");
    let disk = "\n[[machine.disks]]\nname = \"data\"\nsize = \"256MiB\"\ntarget = \"/srv/data\"\n";
    fs::write(&spec, changed + disk).expect("write");
}

/// With `work` done while it runs, after which it has to run too.
fn the_dev_box_runs(person: &Person, project: &Path, work: &dyn Fn()) {
    let stored = stored_disk(person, project);
    let before = sha256(&stored);
    run(&mut person.devbox(project, &["up"]));
    let said = exits(&mut person.devbox(project, &["ssh", "-c", "cat /etc/os-release"]), 0);
    assert!(said.out.contains("ID=debian"), "{}", said.out);
    exits(&mut person.devbox(project, &["ssh", "-c", "exit 7"]), 7);
    // The root has grown into the machine's disk.
    let said =
        exits(&mut person.devbox(project, &["ssh", "-c", "df --output=size -B1M / | tail -n1"]), 0);
    let mib: u64 = said.out.trim().parse().expect("a number of MiB");
    assert!(mib > 3000, "the root has {mib} MiB, the machine's disk 4 GiB");
    // Its data disk is formatted, mounted, and will be mounted again.
    let mounted = "findmnt -no FSTYPE /srv/data && grep -c ' /srv/data auto nofail' /etc/fstab";
    assert_eq!(exits(&mut person.devbox(project, &["ssh", "-c", mounted]), 0).out, "ext4\n1\n");
    // Writing in the guest changes the overlay alone.
    exits(&mut person.devbox(project, &["ssh", "-c", "sudo touch /etc/changed && sync"]), 0);
    assert_eq!(sha256(&stored), before, "the sealed image changed under the running machine");
    let said = exits(&mut person.devbox(project, &["status", "--json"]), 0);
    assert!(said.out.contains("\"running\""), "{}", said.out);
    run(&mut person.devbox(project, &["up"]));
    work();
    run(&mut person.devbox(project, &["halt"]));
    let said = exits(&mut person.devbox(project, &["status", "--json"]), 0);
    assert!(said.out.contains("\"stopped\""), "{}", said.out);
    exits(&mut person.devbox(project, &["ssh", "-c", "true"]), 255);
    run(&mut person.devbox(project, &["destroy", "-f"]));
    assert_eq!(person.processes("qemu-system"), Vec::<String>::new(), "destroy left a guest");
    assert_eq!(sha256(&stored), before, "the sealed image changed");
}

/// A few random workloads, then a power cut: `devbox drift` finds what a full comparison finds.
#[expect(clippy::print_stderr, reason = "what was compared is what it is run for")]
fn drift_is_found(person: &Person, project: &Path, mirror: &Mirror, desk: &Path) {
    let machines = fs::read_dir(person.home().join(".local/share/devbox/machines"));
    let mut machines = machines.expect("machines").map(|entry| entry.expect("an entry").path());
    let guest = Guest {
        devbox: &|args| person.devbox(project, args),
        dir: machines.find(|dir| dir.join("overlay.qcow2").exists()).expect("a machine"),
        image: stored_disk(person, project),
        mirror,
        desk: desk.to_owned(),
    };
    let seed = std::env::var("DEVBOX_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let tally = guest.work(Plan { seed, workloads: 8, batch: 8, cuts: 1 });
    eprintln!("drift of a working Debian, 8 workloads of seed {seed}: {tally:?}");
}

fn outputs_match(person: &Person, project: &Path, outputs: &Outputs) {
    for other in [&outputs.raw, &outputs.vhd] {
        for level in ["disk", "content"] {
            let args = ["parity", text(&outputs.qcow2), text(other), "--level", level];
            let said = exits(&mut person.devbox(project, &args), 0);
            assert!(said.out.contains(&format!("equal at level {level}")), "{}", said.out);
        }
    }
}

/// The image in the containers of other tools and clouds, and back, is the same disk and system: in those that people
/// carry images in, and in all of them with `DEVBOX_CONTAINERS=all`. `tests/roundtrip.rs` has all of a smaller disk.
fn every_container_matches(person: &Person, project: &Path, outputs: &Outputs) {
    let digests = |path: &Path| {
        ["disk", "content"].map(|level| {
            exits(&mut person.devbox(project, &["digest", text(path), "--level", level]), 0).out
        })
    };
    let expected = digests(&outputs.raw);
    let all = std::env::var_os("DEVBOX_CONTAINERS").is_some_and(|which| which == "all");
    let mut checked = 0;
    let wanted = |name: &str| all || CARRIED.contains(&name);
    containers::each(&outputs.raw, project, &wanted, &mut |name, path| {
        assert_eq!(digests(path), expected, "{name}");
        checked += 1;
    });
    assert!(checked >= CARRIED.len(), "{checked} of {CARRIED:?}");
}

fn one_changed_byte_is_found(person: &Person, project: &Path, outputs: &Outputs) {
    let copy = project.join("tampered.raw");
    run(Command::new("cp").arg("--sparse=always").arg(&outputs.raw).arg(&copy));
    let at = find(&copy, MARK);
    let file = fs::OpenOptions::new().write(true).open(&copy).expect("open");
    file.write_all_at(b"H", at).expect("write one byte");
    drop(file);
    let said =
        exits(&mut person.devbox(project, &["parity", text(&outputs.qcow2), text(&copy)]), 1);
    assert!(said.out.contains("different at level content"), "{}", said.out);
    assert!(said.out.contains(MARKED_FILE), "{}", said.out);
    let said = exits(
        &mut person
            .devbox(project, &["parity", text(&outputs.qcow2), text(&copy), "--level", "disk"]),
        1,
    );
    assert!(said.out.contains("different at level disk"), "{}", said.out);
}

/// The tree digest of the image is the one of the same filesystem mounted by the kernel.
fn the_kernel_sees_the_same_tree(person: &Person, desk: &Path, outputs: &Outputs) {
    if !is_root() {
        return not_run("tree digest against a mounted image", "loop mounts need root");
    }
    let parts = run(Command::new("sfdisk").arg("--json").arg(&outputs.raw));
    let table: serde_json::Value = serde_json::from_slice(&parts.stdout).expect("sfdisk's JSON");
    let root = table["partitiontable"]["partitions"]
        .as_array()
        .and_then(|p| p.last())
        .and_then(|p| p["start"].as_u64())
        .expect("a last partition");
    let at = desk.join("mnt");
    fs::create_dir(&at).expect("a mount point");
    run(Command::new("mount")
        .args(["-o", &format!("ro,noload,loop,offset={}", root * 512)])
        .arg(&outputs.raw)
        .arg(&at));
    let mounted = person.devbox(desk, &["digest", "--level", "tree", "--root", text(&at)]).output();
    run(Command::new("umount").arg(&at));
    let mounted = mounted.expect("devbox runs");
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    let image =
        exits(&mut person.devbox(desk, &["digest", "--level", "tree", text(&outputs.raw)]), 0);
    let mounted = String::from_utf8_lossy(&mounted.stdout).into_owned();
    let digest = mounted.split_whitespace().find(|w| w.starts_with("tree1:")).expect("a digest");
    assert!(image.out.contains(digest), "mounted {mounted}image {}", image.out);
}

/// The blob that holds the box's disk.
fn stored_disk(person: &Person, project: &Path) -> PathBuf {
    let said = exits(&mut person.devbox(project, &["box", "show", "hello:1.0.0", "--json"]), 0);
    let shown: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    PathBuf::from(shown["disk"].as_str().expect("the disk's path"))
}

fn sha256(path: &Path) -> String {
    let out = run(Command::new("sha256sum").arg(path));
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("a digest").to_owned()
}

/// Where `what` stands in a file; it must stand there exactly once.
fn find(path: &Path, what: &[u8]) -> u64 {
    let out = run(Command::new("grep")
        .args(["-obUaF"])
        .arg(std::str::from_utf8(what).expect("text"))
        .arg(path));
    let said = String::from_utf8_lossy(&out.stdout);
    let places: Vec<u64> = said
        .lines()
        .filter_map(|l| l.split(':').next())
        .map(|n| n.parse().expect("an offset"))
        .collect();
    assert_eq!(places.len(), 1, "{} places of the mark", places.len());
    places[0]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
