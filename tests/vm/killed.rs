//! `kill -9` of devbox in the middle of every verb that changes something, at system calls chosen by a
//! seed: the next command works, nothing is left, and the sealed image is as it was.
//!
//! A tenth of the points by default, on the tiny guest; all of them with `DEVBOX_KILLS=all`, others with
//! `DEVBOX_SEED=2`, and with `DEVBOX_KILLS=debian` one for each verb on a Debian made of its packages.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::people::{exits, run};
use crate::workbench::{Project, sha256, small_debian};

/// What changes something outside of the process, or starts something: files, sockets, programs.
const CALLS: &str = "rename,renameat2,unlink,unlinkat,mkdir,mkdirat,fsync,ftruncate,copy_file_range,\
    connect,sendto,sendmsg,write,clone3,fchmod,flock";

/// A verb that is killed.
struct Job {
    name: &'static str,
    /// Commands before; all end well.
    before: &'static [&'static [&'static str]],
    killed: &'static [&'static str],
    /// What a user would type next; all end well, and then the machine runs.
    after: &'static [&'static [&'static str]],
    /// How many points there are in all.
    points: u64,
}

const JOBS: &[Job] = &[
    Job {
        name: "up",
        before: &[&["destroy", "-f"]],
        killed: &["up"],
        after: &[&["up"]],
        points: 30,
    },
    Job {
        name: "up-again",
        before: &[&["up"], &["halt", "-f"]],
        killed: &["up"],
        after: &[&["up"]],
        points: 12,
    },
    Job {
        name: "suspend",
        before: &[&["up"]],
        killed: &["suspend"],
        after: &[&["up"]],
        points: 10,
    },
    Job {
        name: "suspend-to-disk",
        before: &[&["up"]],
        killed: &["suspend", "--to-disk"],
        after: &[&["up"]],
        points: 14,
    },
    Job {
        name: "resume",
        before: &[&["up"], &["suspend", "--to-disk"]],
        killed: &["resume"],
        after: &[&["up"]],
        points: 12,
    },
    Job {
        name: "snapshot-save",
        before: &[&["up"]],
        killed: &["snapshot", "push"],
        after: &[&["up"]],
        points: 12,
    },
    Job {
        name: "snapshot-restore",
        before: &[&["up"], &["snapshot", "push"]],
        killed: &["snapshot", "pop"],
        after: &[&["up"]],
        points: 12,
    },
    Job { name: "halt", before: &[&["up"]], killed: &["halt", "-f"], after: &[&["up"]], points: 8 },
    Job {
        name: "destroy",
        before: &[&["up"]],
        killed: &["destroy", "-f"],
        after: &[&["destroy", "-f"], &["up"]],
        points: 12,
    },
];

/// A fixed sequence of numbers for a seed (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) % bound
    }
}

#[test]
fn the_next_command_works_wherever_devbox_is_killed() {
    let all = kills() == "all";
    let points: u64 = JOBS.iter().map(|job| job.points).sum();
    assert!(points >= 100, "{points}");
    let mut numbers = Numbers(seed());
    for job in JOBS {
        let project = Project::on_the_tiny_box(&format!("killed-{}", job.name));
        let chosen = if all { job.points } else { job.points.div_ceil(10) };
        killed_at_some_calls(&project, job, chosen, &mut numbers);
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "what was not run has to be seen")]
fn the_next_command_works_on_debian_too() {
    if kills() != "debian" {
        eprintln!(
            "not run: the_next_command_works_on_debian_too: half an hour; DEVBOX_KILLS=debian"
        );
        return;
    }
    let mut numbers = Numbers(seed());
    let project = Project::new("killed-debian", &small_debian("killed")).alone();
    run(&mut project.devbox(&["build"]));
    for job in JOBS {
        killed_at_some_calls(&project, job, 1, &mut numbers);
    }
}

/// Which of the kills are asked for.
fn kills() -> String {
    std::env::var("DEVBOX_KILLS").unwrap_or_default()
}

fn seed() -> u64 {
    std::env::var("DEVBOX_SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

/// Kills the verb once in each of `chosen` parts of its way, at a place in it that `numbers` choose.
#[expect(clippy::print_stderr, reason = "where it was killed explains a failed run")]
fn killed_at_some_calls(project: &Project, job: &Job, chosen: u64, numbers: &mut Numbers) {
    let others = machines(project);
    let image = project.sealed_image();
    let digest = sha256(&image);
    // With its template, which is made once and is no part of any verb.
    run(&mut project.devbox(&["up"]));
    all_end_well(project, job.before);
    let calls = count(project, job.killed);
    all_end_well(project, job.after);
    for n in 0..chosen {
        let part = calls.div_ceil(chosen);
        let point = (n * part + numbers.below(part)).clamp(1, calls);
        eprintln!("{}: call {point} of {calls}, seed {}", job.name, seed());
        all_end_well(project, job.before);
        kill_at(project, job.killed, point);
        all_end_well(project, job.after);
        exits(&mut project.devbox(&["ssh", "-c", "true"]), 0);
        assert_eq!(project.guests().len(), 1, "{} at call {point}", job.name);
    }
    project.clear();
    assert_eq!(machines(project), others, "{}: left behind", job.name);
    assert_eq!(sha256(&image), digest, "{}: the sealed image was changed", job.name);
}

fn all_end_well(project: &Project, commands: &[&[&str]]) {
    for command in commands {
        run(&mut project.devbox(command));
    }
}

/// `devbox` under strace, which follows only its first thread, and no program that it starts.
fn traced(project: &Project, args: &[&str], log: &std::path::Path, inject: Option<u64>) -> Command {
    let devbox = project.devbox(args);
    let mut command = Command::new("strace");
    command.args(["-qq", "-e", &format!("trace={CALLS}"), "-o"]).arg(log);
    if let Some(point) = inject {
        command.args(["-e", &format!("inject={CALLS}:signal=KILL:when={point}")]);
    }
    command.arg(devbox.get_program()).args(devbox.get_args());
    command.current_dir(project.dir()).stdin(std::process::Stdio::null());
    for (key, value) in devbox.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command
}

/// How many such calls the command makes when nobody kills it.
fn count(project: &Project, args: &[&str]) -> u64 {
    let log = project.dir().join("calls");
    run(&mut traced(project, args, &log, None));
    let text = std::fs::read_to_string(&log).expect("the log");
    let calls = text.lines().filter(|line| line.contains('(')).count() as u64;
    assert!(calls >= 10, "{calls} calls of {args:?}: not those of the verb");
    calls
}

/// Kills the command at its call number `point`; runs differ by some calls, so it may be done before.
fn kill_at(project: &Project, args: &[&str], point: u64) {
    let log = project.dir().join("calls");
    let out = traced(project, args, &log, Some(point)).output().expect("strace runs");
    let killed = out.status.signal() == Some(9) || out.status.code() == Some(128 + 9);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(killed || out.status.success(), "{args:?} at call {point}: {}\n{said}", out.status);
}

/// The folders of all machines in this home, also of other tests: where one is, there is at least a lock.
fn machines(project: &Project) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project.devbox_home().join("machines"));
    let mut found: Vec<_> = entries.into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}
