//! What goes wrong while a step runs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::project::{Project, list, shell, text, wait_for};

#[tokio::test]
async fn a_step_that_prints_a_hundred_megabytes_neither_stops_nor_fills_the_memory() {
    let print = "line=$(printf '%0990d' 0)\n\
        n=0; while [ $n -lt 100 ]; do echo \"$line\"; n=$((n + 1)); done > /tmp/part\n\
        n=0; while [ $n -lt 1000 ]; do cat /tmp/part; n=$((n + 1)); done; rm /tmp/part\n\
        echo the last line; exit 3";
    let project = Project::new(&shell("print", print, "timeout = \"20m\"")).await;
    let mut child = project.command(&["build", "--quiet"]);
    let child = child.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("runs");
    let status = format!("/proc/{}/status", child.id());
    let peak = std::thread::spawn(move || most_memory(&status));
    let out = child.wait_with_output().expect("ends");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("exit code 3") && said.contains("the last line"), "{said}");
    assert!(said.len() < 100 << 10, "{} bytes were repeated", said.len());
    let peak = peak.join().expect("read");
    assert!(peak < 128 << 10, "{peak} KiB");
    project.nothing_left();
    let logs = project.path("home/cache/logs");
    let kept: u64 = walkdir::WalkDir::new(logs)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|meta| meta.len())
        .sum();
    assert!(kept < 32 << 20, "{kept} bytes of logs");
}

/// Most memory that a process had at once, in KiB, read until it is gone (proc(5), `VmHWM`).
fn most_memory(status: &str) -> u64 {
    let mut most = 0;
    while let Ok(text) = std::fs::read_to_string(status) {
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
        most = line.trim().trim_end_matches(" kB").parse().unwrap_or(most);
        std::thread::sleep(Duration::from_millis(50));
    }
    most
}

#[tokio::test]
async fn ctrl_c_twice_ends_at_once_and_leaves_no_guest() {
    let project =
        Project::new(&shell("wait", "echo waiting; trap '' INT TERM; sleep 600", "")).await;
    let mut child = project.command(&["build"]).stderr(Stdio::piped()).spawn().expect("runs");
    let rest = wait_for(&mut child, "step 1 wait: waiting");
    let pid = rustix::process::Pid::from_child(&child);
    let start = Instant::now();
    for _ in 0..2 {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = child.wait().expect("ends");
    let said = rest.join().expect("read");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // The guest ends with devbox; what lies about is removed by the next build.
    let until = Instant::now() + Duration::from_secs(10);
    let home = project.dir().to_string_lossy().into_owned();
    while !crate::project::processes_naming(&home).is_empty() {
        assert!(Instant::now() < until, "{:?}", crate::project::processes_naming(&home));
        std::thread::sleep(Duration::from_millis(50));
    }
    project.spec_with(|spec| spec.replace("sleep 600", "true"));
    let out = project.run(&["build"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    project.nothing_left();
}

#[tokio::test]
async fn an_ssh_that_comes_and_goes_does_not_end_a_build() {
    // The server's programs are ended behind the first step and come back after some seconds.
    let away = "mv /bin/dropbear /bin/away; sleep 2; killall dropbear; sleep 8; mv /bin/away /bin/dropbear";
    let go = format!("setsid sh -c '{away}' > /dev/null 2>&1 < /dev/null &\nsleep 1");
    let steps = [
        shell("go", &go, ""),
        shell(
            "after",
            "mkdir -p /srv; echo after > /srv/after",
            "retries = 5\nretry_pause = \"3s\"",
        ),
    ];
    let project = Project::new(&steps.concat()).await;
    let out = project.run(&["build"]);
    let said = text(&out.stderr);
    assert!(out.status.success(), "{said}");
    project.nothing_left();
}

#[tokio::test]
async fn a_source_that_is_another_image_is_given_no_step() {
    let project = Project::new(&shell("mark", "echo ran", "")).await;
    let mut other = String::new();
    project.spec_with(|spec| {
        let at = spec.find("sha256 = \"").expect("a digest") + "sha256 = \"".len();
        // The same digest but for its first digit.
        let digit = if spec[at..].starts_with('0') { "1" } else { "0" };
        other = format!("{digit}{}", &spec[at + 1..at + 64]);
        format!("{}{digit}{}", &spec[..at], &spec[at + 1..])
    });
    for args in [&["build"][..], &["build", "--until-step", "1"], &["lock"]] {
        let out = project.run(args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("is not the expected image") && said.contains(&other), "{said}");
        assert!(!said.contains("Running step"), "{said}");
        project.nothing_left();
    }
    assert_eq!(project.boxes(), serde_json::json!([]));
    assert_eq!(list(&project.path("home/cache/layers")).len(), 1, "the lock alone");
}
