//! `kill -9` of a build, at system calls chosen by a seed: nothing half has a name, nothing runs on, and the
//! next build brings what it would have brought.
//!
//! A tenth of the points by default; all of them with `DEVBOX_KILLS=all`, others with `DEVBOX_SEED=2`.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::{Project, processes_naming, shell, text};

/// What changes something outside of the process, or starts something: files, sockets, programs.
const CALLS: &str = "rename,renameat2,unlink,unlinkat,mkdir,mkdirat,fsync,ftruncate,copy_file_range,\
    connect,sendto,sendmsg,write,clone3,fchmod,flock";
/// Points in all.
const POINTS: u64 = 60;
/// From nothing, as the first time.
const BUILD: [&str; 3] = ["build", "--rebuild", "--no-cache"];

/// A fixed number for a seed and an index (SplitMix64).
fn number(seed: u64, index: u64, below: u64) -> u64 {
    let mut n = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (n ^ (n >> 31)) % below
}

/// devbox under strace, which follows all its threads and no program that it starts.
fn traced(project: &Project, log: &Path, inject: Option<u64>) -> Command {
    let devbox = project.command(&BUILD);
    let mut command = Command::new("strace");
    command.args(["-qq", "-e", &format!("trace={CALLS}"), "-o"]).arg(log);
    if let Some(point) = inject {
        command.args(["-e", &format!("inject={CALLS}:signal=KILL:when={point}")]);
    }
    command.arg(devbox.get_program()).args(devbox.get_args());
    command.current_dir(project.dir()).stdin(Stdio::null());
    command.envs(devbox.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
}

/// Whole, or not there: the store, the cache of steps, the outputs.
fn nothing_half(project: &Project, at: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    let home = project.dir().to_string_lossy().into_owned();
    while !processes_naming(&home).is_empty() {
        assert!(Instant::now() < until, "{at}: runs on: {:?}", processes_naming(&home));
        std::thread::sleep(Duration::from_millis(50));
    }
    for image in project.boxes().as_array().expect("a list") {
        let name = image["reference"].as_str().expect("a name");
        let out = project.run(&["box", "show", "--verify", name]);
        assert!(out.status.success(), "{at}: {}", text(&out.stderr));
    }
    let out = project.run(&["cache", "list", "--json"]);
    assert!(out.status.success(), "{at}: {}", text(&out.stderr));
    let raw = "dist/tiny-1.0.0-dev.raw";
    if project.path(raw).exists() {
        // An output is written of a box that is in the store.
        let out = project.run(&["parity", "--level", "disk", raw, "tiny:1.0.0-dev"]);
        assert!(out.status.success(), "{at}: a half output: {}", text(&out.stdout));
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "where it was killed explains a failed run")]
async fn the_next_build_brings_the_same_wherever_one_is_killed() {
    let all = std::env::var("DEVBOX_KILLS").is_ok_and(|kills| kills == "all");
    let seed = std::env::var("DEVBOX_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let steps = [
        shell("one", "mkdir -p /srv; echo one > /srv/one", ""),
        shell("two", "echo two > /srv/two", ""),
    ];
    let project = Project::new(&steps.concat()).await;
    let log = project.path("calls");
    let first = traced(&project, &log, None).output().expect("strace runs");
    assert!(first.status.success(), "{}", text(&first.stderr));
    let calls = std::fs::read_to_string(&log).expect("the log");
    let calls = calls.lines().filter(|line| line.contains('(')).count() as u64;
    assert!(calls > POINTS, "{calls} calls are not those of a build");
    let content = project.boxes()[0]["config"]["box1"].clone();
    assert!(content.is_string(), "{}", project.boxes());

    let chosen = if all { POINTS } else { POINTS / 10 };
    for n in 0..chosen {
        let part = calls.div_ceil(chosen);
        let point = (n * part + number(seed, n, part)).clamp(1, calls);
        let at = format!("call {point} of {calls}, seed {seed}");
        eprintln!("{at}");
        let _ = std::fs::remove_dir_all(project.path("dist"));
        // Sometimes the box is there, sometimes not.
        if n % 2 == 0 {
            project.run(&["box", "remove", "tiny:1.0.0-dev"]);
        }
        let out = traced(&project, &log, Some(point)).output().expect("strace runs");
        let killed = out.status.signal() == Some(9) || out.status.code() == Some(128 + 9);
        assert!(killed || out.status.success(), "{at}: {}\n{}", out.status, text(&out.stderr));
        nothing_half(&project, &at);

        let next = project.run(&["build", "--json"]);
        assert!(next.status.success(), "{at}: {}", text(&next.stderr));
        let next: Value = serde_json::from_slice(&next.stdout).expect("JSON");
        assert_eq!(next["config"]["box1"], content, "{at}");
        project.nothing_left();
        nothing_half(&project, &at);
    }
}
