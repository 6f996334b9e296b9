//! `kill -9` of QEMU in the middle of every verb, at moments chosen by a seed: the verb ends and says so, the
//! next `up` works, nothing is left, and the sealed image is as it was.
//!
//! One moment for each verb by default; four with `DEVBOX_KILLS=all`, others with `DEVBOX_SEED=2`.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::killed::Numbers;
use crate::people::{exits, run};
use crate::remains::Watch;
use crate::workbench::{Project, sha256};

/// For a verb to notice that QEMU is gone, and to say so, on a loaded host.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same for a verb that may boot the guest after it.
const BOOT: Duration = Duration::from_secs(180);

/// A verb, and what happens to its QEMU.
struct Job {
    /// Commands before; all end well.
    before: &'static [&'static [&'static str]],
    verb: &'static [&'static str],
    /// QEMU is killed within so many milliseconds after the verb began, or after QEMU did.
    within: u64,
    /// What a user would type next; then the machine runs.
    next: &'static [&'static [&'static str]],
}

const AGAIN: &[&[&str]] = &[&["up", "--no-provision"]];
/// Quicker, where other verbs show that a machine that ended in this way comes up again.
const ANEW: &[&[&str]] = &[&["destroy", "-f"], &["up", "--no-provision"]];

const JOBS: &[Job] = &[
    Job {
        before: &[&["destroy", "-f"]],
        verb: &["up", "--no-provision"],
        within: 1500,
        next: AGAIN,
    },
    Job { before: &[], verb: &["exec", "--", "sleep", "5"], within: 2000, next: AGAIN },
    Job { before: &[], verb: &["ssh", "-c", "sleep 5"], within: 2000, next: ANEW },
    Job { before: &[], verb: &["cp", "big", ":/root/"], within: 1500, next: ANEW },
    Job { before: &[], verb: &["provision", "--with", "slow"], within: 2000, next: ANEW },
    Job { before: &[], verb: &["port", "add", "47811:80"], within: 30, next: ANEW },
    Job { before: &[], verb: &["suspend"], within: 25, next: ANEW },
    Job { before: &[&["suspend"]], verb: &["resume"], within: 100, next: ANEW },
    Job { before: &[], verb: &["suspend", "--to-disk"], within: 700, next: AGAIN },
    Job { before: &[&["suspend", "--to-disk"]], verb: &["resume"], within: 1000, next: AGAIN },
    Job { before: &[], verb: &["snapshot", "push"], within: 250, next: AGAIN },
    Job { before: &[&["snapshot", "push"]], verb: &["snapshot", "pop"], within: 600, next: AGAIN },
    Job { before: &[], verb: &["halt"], within: 1000, next: AGAIN },
    Job { before: &[], verb: &["reload"], within: 6000, next: AGAIN },
    Job { before: &[], verb: &["destroy", "-f"], within: 200, next: AGAIN },
    Job {
        before: &[&["destroy", "-f"]],
        verb: &["up", "--cold", "--no-provision"],
        within: 6000,
        next: AGAIN,
    },
];

#[test]
#[expect(clippy::print_stderr, reason = "where QEMU was killed explains a failed run")]
fn the_next_up_works_whenever_qemu_is_killed() {
    let moments = if std::env::var("DEVBOX_KILLS").is_ok_and(|k| k == "all") { 4 } else { 1 };
    let seed = std::env::var("DEVBOX_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut numbers = Numbers(seed);
    let slow =
        "[machines.died]\n[[provision]]\nname = \"slow\"\nrun = \"once\"\ninline = \"sleep 5\"\n";
    let watch = Watch::new();
    let project = watch.over(Project::on_the_tiny_box_with("died", slow));
    let image = project.sealed_image();
    let digest = sha256(&image);
    fs::write(project.dir().join("big"), vec![7; 32 << 20]).expect("written");
    run(&mut project.devbox(&["up", "--no-provision"]));
    for job in JOBS {
        for n in 0..moments {
            job.before.iter().for_each(|words| drop(run(&mut project.devbox(words))));
            let part = job.within / moments;
            let after = Duration::from_millis(n * part + numbers.below(part));
            let said = with_qemu_killed(&project, "died", job.verb, after);
            let state = project.status()["state"].clone();
            let verb = job.verb;
            eprintln!("{verb:?}, QEMU killed after {after:?}, seed {seed}, {state}: {said}");
            job.next.iter().for_each(|words| drop(run(&mut project.devbox(words))));
            exits(&mut project.devbox(&["ssh", "-c", "true"]), 0);
            assert_eq!(project.qemu_of("died").iter().len(), 1, "{:?}", job.verb);
        }
    }
    run(&mut project.devbox(&["destroy", "-f"]));
    watch.insist_on_nothing(&project);
    assert_eq!(sha256(&image), digest, "the sealed image was changed");
}

#[test]
fn what_stands_beside_qemu_ends_with_it() {
    let rest = "[machines.attended]\ntpm = true\n\n\
        [[mounts]]\ntype = \"virtiofs\"\nsource = \"served\"\ntarget = \"/work/served\"\n\n\
        [[mounts]]\ntype = \"rsync\"\nsource = \"copied\"\ntarget = \"/work/copied\"\n";
    let watch = Watch::new();
    for folder in ["served", "copied"] {
        let dir = Project::new("attended", "").dir().join(folder);
        fs::create_dir_all(dir).expect("made");
    }
    let project = watch.over(Project::with_9p("attended", rest));
    let count = |program: &str| {
        watch.processes(&project).iter().filter(|line| line.contains(program)).count()
    };
    run(&mut project.devbox(&["up"]));
    assert_eq!((count("swtpm"), count(" helper ")), (1, 1));
    assert!(count("virtiofsd") >= 1);
    fs::write(project.dir().join("copied/big"), vec![7; 64 << 20]).expect("written");
    let said = with_qemu_killed(&project, "attended", &["sync"], Duration::from_millis(300));
    assert!(said.contains("`attended` ended while its folders were copied"), "{said}");
    watch.insist_on_no_process(&project);
    fs::remove_file(project.dir().join("copied/big")).expect("removed");
    run(&mut project.devbox(&["up"]));
    assert_eq!(count("swtpm"), 1);
    run(&mut project.devbox(&["destroy", "-f"]));
    watch.insist_on_nothing(&project);
}

/// Runs a verb and kills its QEMU; insists that it ends soon, well or with one clear message.
fn with_qemu_killed(project: &Project, machine: &str, verb: &[&str], after: Duration) -> String {
    let err = project.dir().join("stderr");
    let file = fs::File::create(&err).expect("a file");
    let mut command = project.devbox(verb);
    let mut child = command.stdout(Stdio::null()).stderr(file).spawn().expect("devbox runs");
    let qemu = loop {
        let ended = child.try_wait().expect("waited for").is_some();
        if let Some(pid) = project.qemu_of(machine) {
            std::thread::sleep(after);
            // A verb that starts it anew has another one by now, or none yet.
            break project.qemu_of(machine).or(Some(pid));
        }
        if ended {
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if let Some(pid) = qemu.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let killed = Instant::now();
    let patience = if ["up", "reload"].contains(&verb[0]) { BOOT } else { PATIENCE };
    let status = loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            break status;
        }
        if killed.elapsed() > patience {
            let _ = child.kill();
            let said = fs::read_to_string(&err).expect("text");
            panic!("{verb:?} hangs when QEMU is killed after {after:?}:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = fs::read_to_string(&err).expect("text");
    assert!(!said.contains("panicked"), "{verb:?}: {said}");
    assert!(matches!(status.code(), Some(0 | 1 | 255)), "{verb:?}: {status}: {said}");
    let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, usize::from(!status.success()), "{verb:?}: {status}: {said}");
    assert!(errors == 0 || said.contains("\nhint: "), "no next step: {verb:?}: {said}");
    format!("{status} within {:?}\n{said}", killed.elapsed())
}
