//! What a restart of the host, or a clock that was set, leaves in devbox's files: each verb looks at what is so,
//! not at what was written, and no innocent process is signalled.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::people::{exits, run};
use crate::remains::Watch;
use crate::workbench::{Project, insist};

/// The name of the machine, which no other test's has.
const NAME: &str = "stale";
/// In the year 2200.
const FUTURE: i64 = 7_258_118_400;

/// A program of somebody else's that has a process id of ours.
struct Innocent(Child);

impl Innocent {
    fn with_words(words: &[&str]) -> Innocent {
        let mut command = Command::new("sh");
        // It waits by itself, with no program that would outlive it.
        command.args(["-c", "read -r line; :", "sh"]).args(words).stdin(Stdio::piped());
        Innocent(command.spawn().expect("sh runs"))
    }

    fn insist_on_its_life(&mut self, after: &[&str]) {
        assert!(self.0.try_wait().expect("ours").is_none(), "{after:?} ended somebody else");
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process's start, as a record names it (proc(5), field 22).
fn start_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let after = stat.rsplit_once(')').expect("a name").1.to_owned();
    after.split_whitespace().nth(19).expect("a start").parse().expect("a number")
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(file).expect("there")).expect("JSON");
    change(&mut value);
    fs::write(file, serde_json::to_vec(&value).expect("JSON")).expect("written");
}

/// Ends QEMU and everything beside it as the end of the host does.
fn pull_the_plug(watch: &Watch, project: &Project) {
    for line in watch.processes(project) {
        let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let began = std::time::Instant::now();
    while !watch.processes(project).is_empty() {
        assert!(began.elapsed().as_secs() < 10, "{:?}", watch.processes(project));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Sockets that nobody listens on any more, locks of nobody, and half of what was being made.
fn leave(watch: &Watch, project: &Project, dir: &Path, pid: u32) {
    let sockets: Vec<_> = walkdir::WalkDir::new(watch.runtime()).into_iter().flatten().collect();
    let folders = sockets.iter().filter(|e| e.file_type().is_dir()).map(walkdir::DirEntry::path);
    for folder in folders.skip(2) {
        for name in ["qmp.sock", "watch.sock", "agent.sock", "c", "console.sock"] {
            let _ = UnixListener::bind(folder.join(name));
        }
        let _ = UnixDatagram::bind(folder.join("wake.sock"));
        let holder = json!({"pid": pid, "start": start_of(pid), "build": "0.0.1 1.2.3"});
        fs::write(folder.join("lock"), holder.to_string()).expect("written");
        fs::write(folder.join("stderr"), "").expect("written");
    }
    fs::write(dir.join("lock"), format!("devbox up\n{pid}\n2020-01-01 00:00:00\n"))
        .expect("written");
    fs::write(dir.join(".tmpAbCdEf"), "{").expect("written");
    fs::write(dir.join("tpm.pid"), format!("{pid}\n")).expect("written");
    let templates = project.devbox_home().join("templates");
    for entry in fs::read_dir(&templates).expect("templates").flatten() {
        let path = entry.path();
        if path.is_dir() && path.extension().is_none() {
            let lock = path.with_extension("lock");
            fs::write(lock, format!("devbox up\n{pid}\n2020-01-01 00:00:00\n")).expect("written");
            fs::create_dir_all(path.with_extension("new")).expect("made");
            fs::write(path.with_extension("new").join("memory"), "half").expect("written");
        }
    }
}

#[test]
fn what_a_restart_of_the_host_leaves_is_seen_through() {
    let watch = Watch::new();
    let project = watch.over(Project::on_the_tiny_box_with(NAME, "[machines.stale]\n"));
    let image = project.sealed_image();
    let digest = crate::workbench::sha256(&image);
    run(&mut project.devbox(&["up"]));
    let dir = project.machine_dir(NAME).expect("it was made");
    let record = dir.join("machine.json");
    let uuid = fs::read(&record).expect("there");
    let uuid: Value = serde_json::from_slice(&uuid).expect("JSON");
    let uuid = uuid["uuid"].as_str().expect("a uuid").to_owned();
    // It stands still in memory, which is lost.
    run(&mut project.devbox(&["suspend"]));
    pull_the_plug(&watch, &project);
    insist(&exits(&mut project.devbox(&["resume"]), 1), &["stopped", "devbox up"]);

    // The process id is that of a program which has nothing to do with it, or only its name.
    let (joined, other) = (format!("-uuid={uuid}"), format!("{uuid}-uuid"));
    for words in [&[][..], &["-uuid", &other, &joined, &uuid, "qemu-system-x86_64", "-uuid"]] {
        let mut innocent = Innocent::with_words(words);
        let pid = innocent.0.id();
        let stale = || {
            fs::write(dir.join("qemu.pid"), format!("{pid}\n")).expect("written");
            let ready = json!({"pid": pid, "start": start_of(pid)});
            change(&record, |r| r["ready"] = ready);
            leave(&watch, &project, &dir, pid);
        };
        let gone = ["ssh", "exec", "cp", "provision", "sync", "suspend", "resume", "reload"];
        for (verb, code) in [
            (&["status"][..], 0),
            (&["list"], 0),
            (&["ssh", "-c", "true"], 255),
            (&["exec", "--", "true"], 255),
            (&["cp", ":/etc/passwd", "out"], 1),
            (&["suspend"], 1),
            (&["resume"], 1),
            (&["port"], 1),
            (&["halt"], 0),
            (&["halt", "-f"], 0),
        ] {
            stale();
            let said = exits(&mut project.devbox(verb), code);
            innocent.insist_on_its_life(verb);
            if gone.contains(&verb[0]) {
                insist(&said, &["devbox up"]);
            }
            let state = project.status()["state"].clone();
            assert!(state == "died" || state == "stopped", "{state} after {verb:?}");
        }
        stale();
        if words.is_empty() {
            continue;
        }
        // All of it is stepped over, or cleared away; a helper runs again.
        run(&mut project.devbox(&["up"]));
        exits(&mut project.devbox(&["ssh", "-c", "true"]), 0);
        let helpers = watch.processes(&project);
        assert_eq!(helpers.iter().filter(|line| line.contains(" helper ")).count(), 1);
        innocent.insist_on_its_life(&["up"]);
        times_in_the_future_break_nothing(&project, &record);
        pull_the_plug(&watch, &project);
        stale();
        run(&mut project.devbox(&["destroy", "-f"]));
        innocent.insist_on_its_life(&["destroy", "-f"]);
    }
    watch.insist_on_nothing(&project);
    assert_eq!(crate::workbench::sha256(&image), digest, "the sealed image was changed");
    assert!(!dir.exists());
}

/// The host's clock was ahead when they were written.
fn times_in_the_future_break_nothing(project: &Project, record: &Path) {
    run(&mut project.devbox(&["snapshot", "save", "later"]));
    for time in [FUTURE, i64::MAX, i64::MIN] {
        change(record, |record| record["snapshots"]["later"]["made"] = time.into());
        let home = project.devbox_home();
        let templates = fs::read_dir(home.join("templates")).expect("templates").flatten();
        for template in templates.map(|entry| entry.path().join("template.json")) {
            if template.exists() {
                change(&template, |template| template["made"] = time.into());
            }
        }
        let accelerator = home.join("cache/accelerator.json");
        if accelerator.exists() {
            change(&accelerator, |answer| answer["at"] = time.max(0).into());
        }
        for verb in [
            &["status"][..],
            &["list"],
            &["list", "--json"],
            &["snapshot", "list"],
            &["snapshot", "list", "--json"],
            &["box", "list"],
            &["box", "prune", "--dry-run"],
            &["up"],
        ] {
            let said = exits(&mut project.devbox(verb), 0);
            assert!(!said.err.contains("panicked"), "{verb:?}: {}", said.err);
        }
    }
    run(&mut project.devbox(&["snapshot", "restore", "later"]));
    run(&mut project.devbox(&["snapshot", "delete", "later"]));
}
