//! Drift of a Debian that works: after random workloads in it, and after its power was cut, what `devbox drift`
//! says is what a comparison says that hashes everything of the image and of the machine's disk.
//!
//! A few workloads and one power cut on the machine of the main job; with `DEVBOX_WORKLOADS=50` so many on a Debian of
//! their own, others with `DEVBOX_SEED=2`.

#[path = "workloads/mounted.rs"]
mod mounted;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use devbox::image::Limits;
use devbox::parity::subject::Reference;
use devbox::parity::{Level, compare};
use serde_json::Value;

use crate::killed::Numbers;
use crate::mirror::Mirror;
use crate::people::{desk, exits, is_root, not_run, run};
use crate::workbench::{Project, sha256, small_debian};

/// What runs in the guest.
const SCRIPT: &str = include_str!("workloads/guest.sh");
/// Kinds of workloads, as the script names them.
const KINDS: &[&str] = &[
    "install",
    "remove",
    "unlink",
    "rename",
    "truncate",
    "sparse",
    "space",
    "link",
    "rights",
    "folder",
    "big",
    "same",
    "database",
    "discard",
    "many",
    "special",
    "configure",
    "hold",
    "append",
    "sync",
];
/// Packages that the first workload installs, since others need them, and those that come and go.
const TOOLS: &[&str] =
    &["sqlite3", "libsqlite3-0", "libreadline8", "readline-common", "attr", "acl"];
const PACKAGES: &[&str] =
    &["tree", "bc", "figlet", "less", "sl", "dos2unix", "pv", "ed", "unzip", "zip"];

/// A Debian that runs, and what is known of it on the host.
pub(crate) struct Guest<'a> {
    /// `devbox` with these words, in its project.
    pub(crate) devbox: &'a dyn Fn(&[&str]) -> Command,
    /// The machine's folder.
    pub(crate) dir: PathBuf,
    /// Its sealed image.
    pub(crate) image: PathBuf,
    /// A mirror of its suite.
    pub(crate) mirror: &'a Mirror,
    /// Where large files may stand for a moment.
    pub(crate) desk: PathBuf,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) workloads: u64,
    /// So many of them between two checks.
    pub(crate) batch: u64,
    /// How often the power is cut instead of a check while the machine stands still.
    pub(crate) cuts: u64,
}

/// What was compared.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    checks: u64,
    cuts: u64,
    /// Places that differed, over all checks.
    places: usize,
    /// The longest time that the machine stood still, and that a comparison took, in milliseconds.
    paused: u64,
    took: u64,
}

#[test]
#[expect(clippy::print_stderr, reason = "what was done and found is what the test is run for")]
fn drift_of_a_working_debian_is_what_a_full_comparison_finds() {
    let test = "drift_of_a_working_debian_is_what_a_full_comparison_finds";
    let Ok(count) = std::env::var("DEVBOX_WORKLOADS") else {
        return not_run(test, "a quarter of an hour; DEVBOX_WORKLOADS=50");
    };
    let desk = desk();
    let mirror = match Mirror::start("bookworm", desk.path()) {
        Ok(mirror) => mirror,
        Err(why) => return not_run(test, &why),
    };
    let workloads = count.parse().expect("DEVBOX_WORKLOADS is a number");
    let seed = std::env::var("DEVBOX_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let project = Project::new("worked", &small_debian("worked")).alone();
    run(&mut project.devbox(&["build"]));
    run(&mut project.devbox(&["up"]));
    let guest = Guest {
        devbox: &|args| project.devbox(args),
        dir: project.machine_dir("worked").expect("made"),
        image: project.sealed_image(),
        mirror: &mirror,
        desk: desk.path().to_owned(),
    };
    let digest = sha256(&guest.image);
    let fresh = exits(&mut project.devbox(&["drift"]), 0).out;
    assert!(fresh.starts_with("state-only: "), "{fresh}");
    let began = Instant::now();
    let tally = guest.work(Plan { seed, workloads, batch: 5, cuts: workloads.div_ceil(20) });
    eprintln!("{test}: {workloads} workloads of seed {seed}, {:?}: {tally:?}", began.elapsed());
    run(&mut project.devbox(&["halt"]));
    eprintln!("{test}: stopped: {} places", guest.compare("stopped").expect("the same").len());
    assert_eq!(sha256(&guest.image), digest, "the sealed image was changed");
    project.clear();
}

impl Guest<'_> {
    /// Works in the guest and compares; panics with the seed and all that was done where both are not the same.
    pub(crate) fn work(&self, plan: Plan) -> Tally {
        self.bring();
        let mut numbers = Numbers(plan.seed);
        let (mut tally, mut done) = (Tally::default(), vec![]);
        let batches = plan.workloads.div_ceil(plan.batch);
        // The last ones of equal parts.
        let cut_after =
            |batch: u64| (batch + 1) * plan.cuts / batches > batch * plan.cuts / batches;
        for batch in 0..batches {
            let count = plan.batch.min(plan.workloads - batch * plan.batch);
            let words = (0..count).map(|_| {
                let kind = KINDS[numbers.below(KINDS.len() as u64) as usize];
                format!("{kind} {}", numbers.below(32768))
            });
            let words: Vec<String> = words.collect();
            self.script(&words.join(" "));
            done.extend(words);
            let checked = self.check_running(&mut tally).and_then(|()| {
                if !cut_after(batch) {
                    return Ok(());
                }
                let (number, after) = (numbers.below(32768), 500 + numbers.below(4000));
                done.push(format!("churn {number}, and the power cut after {after} ms"));
                self.check_cut(number, Duration::from_millis(after), &mut tally)
            });
            if let Err(why) = checked {
                panic!("seed {}, after {done:#?}:\n{why}", plan.seed);
            }
        }
        tally
    }

    /// Brings the script and the packages into the guest, and installs what all workloads need.
    fn bring(&self) {
        let lab = self.desk.join("lab");
        fs::create_dir_all(lab.join("packages")).expect("a folder");
        fs::create_dir_all(lab.join("tools")).expect("a folder");
        fs::write(lab.join("guest.sh"), SCRIPT).expect("written");
        for (folder, names) in [("packages", PACKAGES), ("tools", TOOLS)] {
            let mut apt = Command::new("apt-get");
            apt.args(["-qq", "download"]).args(names).current_dir(lab.join(folder));
            run(apt.env("APT_CONFIG", &self.mirror.config));
        }
        let lab = lab.to_str().expect("text");
        exits(&mut (self.devbox)(&["cp", "-r", lab, ":/var/tmp/lab"]), 0);
        self.guest("sudo dpkg --install /var/tmp/lab/tools/*.deb");
    }

    fn guest(&self, command: &str) -> String {
        exits(&mut (self.devbox)(&["ssh", "-c", command]), 0).out
    }

    fn script(&self, words: &str) {
        self.guest(&format!("sudo bash /var/tmp/lab/guest.sh {words} > /dev/null"));
    }

    /// While the machine runs, its filesystems frozen by its agent; and while it stands still, with what it has not
    /// written to its disk yet only in its journal or in its memory.
    fn check_running(&self, tally: &mut Tally) -> Result<(), String> {
        let running = self.drift("running, frozen", tally);
        run(&mut (self.devbox)(&["suspend"]));
        let found = self.compare("suspended");
        let still = self.drift("suspended", tally);
        run(&mut (self.devbox)(&["resume"]));
        tally.places += found?.len();
        tally.checks += 2;
        // Nothing works in it by now, but logs are written.
        let counted = |all: &Value| -> BTreeSet<String> {
            let changes = all["changes"].as_array().expect("a list").iter();
            changes.filter(|change| change["class"] != "state").map(line).collect()
        };
        same("while it ran", &counted(&running), "while it stood still", &counted(&still))
    }

    /// The power is cut while something works.
    fn check_cut(&self, number: u64, after: Duration, tally: &mut Tally) -> Result<(), String> {
        let churn = format!("bash /var/tmp/lab/guest.sh churn {number}");
        self.guest(&format!("sudo systemd-run --quiet --collect {churn}"));
        std::thread::sleep(after);
        let pid = fs::read_to_string(self.dir.join("qemu.pid")).expect("it runs");
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number"));
        let pid = pid.expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        while rustix::process::test_kill_process(pid).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let sum = sha256(&self.dir.join("overlay.qcow2"));
        let found = self.compare("stopped")?;
        assert_eq!(sha256(&self.dir.join("overlay.qcow2")), sum, "the disk was written to");
        tally.places += found.len();
        tally.checks += 1;
        tally.cuts += 1;
        run(&mut (self.devbox)(&["up"]));
        Ok(())
    }

    /// What `devbox drift` says of the machine, which is as `state` says.
    fn drift(&self, state: &str, tally: &mut Tally) -> Value {
        let said = exits(&mut (self.devbox)(&["drift", "--json", "--all"]), 1).out;
        let value: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(value["machine_was"], state, "{}", value["notes"]);
        tally.paused = tally.paused.max(value["paused_milliseconds"].as_u64().unwrap_or(0));
        tally.took = tally.took.max(value["milliseconds"].as_u64().expect("a time"));
        value
    }

    /// All places that differ between the image and the machine, which writes nothing now; by both ways.
    pub(crate) fn compare(&self, state: &str) -> Result<BTreeSet<String>, String> {
        let value = self.drift(state, &mut Tally::default());
        let ours = value["changes"].as_array().expect("a list").iter().map(line).collect();
        let flat = self.desk.join("flat");
        let overlay = self.dir.join("overlay.qcow2");
        // Also while QEMU has it open.
        run(Command::new("qemu-img")
            .args(["convert", "-U", "-f", "qcow2", "-O", "raw"])
            .args([&overlay, &flat]));
        let reference = |path: &Path| Reference::parse(OsStr::new(path));
        let (image, disk) = (reference(&self.image), reference(&flat));
        let full = compare::compare(&image, &disk, Level::Content, &Limits::default());
        let full = full.map_err(|e| format!("the full comparison: {e}"))?.differences;
        let theirs =
            full.iter().map(|one| line(&serde_json::to_value(one).expect("JSON"))).collect();
        same("found by drift", &ours, "by a full comparison", &theirs)?;
        // A machine that is off: it takes a while.
        if is_root() && state == "stopped" {
            let kernel = mounted::different(&self.image, &flat, &self.desk);
            let known = |path: &str| ours.iter().any(|line| tells(line, path));
            let missed: Vec<_> = kernel.iter().filter(|(path, _)| !known(path)).take(20).collect();
            if !missed.is_empty() {
                return Err(format!("only on the mounted disks: {missed:#?}"));
            }
        }
        fs::remove_file(flat).expect("it was there");
        Ok(ours)
    }
}

/// Place and changes of a difference.
fn line(change: &Value) -> String {
    let place =
        change.get("path").or(change.get("place")).and_then(Value::as_str).expect("a place");
    format!("{place} {}", change["changes"])
}

/// Whether `line` tells of `path`, which may be a later name of a file with several.
fn tells(line: &str, path: &str) -> bool {
    let Some((place, changes)) = line.split_once(":/").and_then(|(_, rest)| rest.split_once(' '))
    else {
        return false;
    };
    let name = path.replace('\\', "\\\\");
    let linked = changes.contains(r#""kind":"hard-links""#);
    place == path || linked && changes.split([' ', '"']).any(|word| word == name)
}

fn same(
    our: &str,
    ours: &BTreeSet<String>,
    their: &str,
    theirs: &BTreeSet<String>,
) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let only = |of: &BTreeSet<String>, not: &BTreeSet<String>| -> Vec<String> {
        of.difference(not).take(20).cloned().collect()
    };
    Err(format!("only {our}: {:#?}\nonly {their}: {:#?}", only(ours, theirs), only(theirs, ours)))
}
