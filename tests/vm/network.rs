//! The private network between machines, the helper that switches it, and the clocks that it keeps: on
//! the tiny guest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::people::{exits, is_root, not_run, run};
use crate::workbench::{Project, TINY_MACHINE, tiny_spec};

/// Far above what a helper needs; the host is loaded.
const PATIENCE: Duration = Duration::from_secs(60);

fn three(name: &str) -> Project {
    let project = Project::on_the_tiny_box(name);
    let machines = "\n[machines.web]\n\n[machines.db]\n\n[machines.log]\n";
    let spec = format!("{}{TINY_MACHINE}{machines}", tiny_spec("tiny", ""));
    fs::write(project.dir().join("devbox.toml"), spec).expect("write the spec");
    project
}

/// What a command in a machine prints.
fn guest(project: &Project, machine: &str, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", machine, "-c", command]), 0).out.trim().to_owned()
}

/// `from` reaches `to` by name; the first frame may be lost on a switch that has just begun.
fn insist_on_reach(project: &Project, from: &str, to: &str) {
    let ping = format!("for n in 1 2 3 4 5; do ping -c 1 -W 2 {to} && exit; done; exit 1");
    exits(&mut project.devbox(&["ssh", from, "-c", &ping]), 0);
}

/// The helpers of this project, by process id.
fn helpers(project: &Project) -> Vec<i32> {
    let dir = project.dir().canonicalize().expect("there").display().to_string();
    let mut found = vec![];
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        if words.get(1..3) == Some(&[b"helper".as_slice(), dir.as_bytes()]) {
            found.push(pid);
        }
    }
    found
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The one helper of this project.
fn helper(project: &Project) -> i32 {
    wait_for("a helper", || match helpers(project)[..] {
        [one] => Some(one),
        _ => None,
    })
}

fn signal(name: &str, pid: i64) {
    run(Command::new("kill").args([name, &pid.to_string()]));
}

/// The files of a process's descriptors.
fn opened(pid: i32) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect()
}

/// The folder of the helper's sockets.
fn folder(pid: i32) -> PathBuf {
    let lock = opened(pid).into_iter().find(|path| path.ends_with("lock")).expect("its lock");
    lock.parent().expect("a folder").to_owned()
}

#[test]
fn three_clones_reach_each_other_by_name_whatever_happens() {
    let project = three("private");
    run(&mut project.devbox(&["up"]));
    let machines = project.machines();
    let address = |n: usize| machines[n]["address"].as_str().expect("an address").to_owned();
    // The first one that came up knows the last one.
    for (from, to) in [("web", "db"), ("db", "log"), ("log", "web.private")] {
        insist_on_reach(&project, from, to);
    }
    let named = guest(&project, "web", "ping -c 1 -W 2 db | head -n 1");
    assert!(named.contains(&address(1)), "{named} is not {}", address(1));
    let table = exits(&mut project.devbox(&["status"]), 0).out;
    assert!(table.contains("ADDRESS") && table.contains(&address(2)), "{table}");
    let serve = "mkdir /run/www; echo hello from db > /run/www/index.html; httpd -p 80 -h /run/www";
    guest(&project, "db", serve);
    let fetch = "wget -q -O - http://db/";
    assert_eq!(guest(&project, "web", fetch), "hello from db");
    nobody_else_is_there(&project);

    // The helper is killed: machines run on, and the next `up` has another one.
    let first = helper(&project);
    signal("-KILL", first.into());
    wait_for("its end", || helpers(&project).is_empty().then_some(()));
    let said = exits(&mut project.devbox(&["status"]), 0);
    assert!(said.err.contains("helper"), "{}", said.err);
    run(&mut project.devbox(&["up"]));
    assert_ne!(helper(&project), first);
    insist_on_reach(&project, "web", "db");
    assert_eq!(guest(&project, "log", fetch), "hello from db");

    // Its folder is taken away, as a cleaner of temporary files does.
    let before = helper(&project);
    fs::remove_dir_all(folder(before)).expect("removed");
    insist_on_reach(&project, "web", "db");
    assert!(helpers(&project).len() == 1, "{:?}", helpers(&project));

    // A restart, memory that was saved, and a snapshot: the same card, the same names.
    run(&mut project.devbox(&["snapshot", "save", "x", "-m", "web"]));
    run(&mut project.devbox(&["suspend", "--to-disk", "web"]));
    run(&mut project.devbox(&["resume", "web"]));
    insist_on_reach(&project, "web", "log");
    assert_eq!(guest(&project, "web", fetch), "hello from db");
    run(&mut project.devbox(&["snapshot", "restore", "x", "-m", "web"]));
    insist_on_reach(&project, "web", "db");
    run(&mut project.devbox(&["reload", "db"]));
    assert_eq!(project.machines()[1]["address"].as_str(), Some(address(1).as_str()));
    insist_on_reach(&project, "web", "db");
    insist_on_reach(&project, "db", "log");
    insist_on_reach(&project, "log", "db");

    // Two at once are one helper, and the last machine takes it along.
    signal("-KILL", helper(&project).into());
    let mut ups: Vec<_> =
        (0..2).map(|_| project.devbox(&["up", "web"]).spawn().expect("devbox runs")).collect();
    // One of them may find the machine locked.
    let ended: Vec<bool> = ups.iter_mut().map(|up| up.wait().expect("ends").success()).collect();
    assert!(ended.contains(&true), "{ended:?}");
    let place = folder(helper(&project));
    run(&mut project.devbox(&["destroy", "-f"]));
    // It lets go of its lock, for which `destroy` waits, some moments before it ends.
    wait_for("the helper's end", || helpers(&project).is_empty().then_some(()));
    assert!(!place.exists());
    project.insist_on_no_guest();
}

/// No port of the host, and nothing that another user could open.
fn nobody_else_is_there(project: &Project) {
    let pid = helper(project);
    let inodes: Vec<String> = opened(pid)
        .iter()
        .filter_map(|path| path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']'))
        .map(str::to_owned)
        .collect();
    assert!(inodes.len() >= 4, "a socket for each machine: {inodes:?}");
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "packet"] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(!words.iter().any(|w| inodes.iter().any(|i| i == w)), "{table}: {line}");
        }
    }
    let place = folder(pid);
    assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o777, 0o700);
    if !is_root() {
        return not_run("another user and the switch", "only root can be another user");
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "ls"]).arg(&place);
    let out = other.output().expect("setpriv runs");
    assert!(!out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn a_network_that_is_not_wanted_is_not_made() {
    let project = three("no-network");
    let file = project.dir().join("devbox.toml");
    let spec = fs::read_to_string(&file).expect("the spec");
    fs::write(&file, format!("{spec}\n[network]\nprivate = false\n")).expect("write the spec");
    run(&mut project.devbox(&["up", "web"]));
    assert!(project.status()["address"].is_null());
    assert_eq!(guest(&project, "web", "ls /sys/class/net | tr '\\n' ' '"), "eth0 lo");
    // It is wanted after all, with these addresses: at once.
    let wanted = format!("{spec}\n[network]\nsubnet = \"192.168.77.0/24\"\n");
    fs::write(&file, wanted).expect("write the spec");
    run(&mut project.devbox(&["up", "web", "db"]));
    let address = project.status()["address"].as_str().expect("an address").to_owned();
    assert!(address.starts_with("192.168.77."), "{address}");
    insist_on_reach(&project, "web", "db");
    insist_on_reach(&project, "db", "web");
    project.clear();
}

/// By how many seconds the guest's clock is off.
fn off(project: &Project) -> i64 {
    let guest: i64 = guest(project, "tiny", "date +%s").parse().expect("seconds");
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    (host.as_secs() as i64 - guest).abs()
}

#[test]
fn a_clock_that_went_wrong_is_set() {
    let project = Project::on_the_tiny_box("clock");
    run(&mut project.devbox(&["up"]));
    let pid = helper(&project);
    for wrong in ["-500000000", "+700000000"] {
        guest(&project, "tiny", &format!("date -u -s @$(($(date +%s) {wrong}))"));
        assert!(off(&project) > 1000);
        wait_for("the right time", || (off(&project) <= 2).then_some(()));
    }
    // QEMU stood still, as it does while the host sleeps.
    let qemu = project.status()["pid"].as_i64().expect("it runs");
    signal("-STOP", qemu);
    std::thread::sleep(Duration::from_secs(8));
    signal("-CONT", qemu);
    wait_for("the right time", || (off(&project) <= 2).then_some(()));
    assert_eq!(helper(&project), pid);
    // One that stands still is left alone, and the helper stays for it.
    run(&mut project.devbox(&["suspend"]));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(helper(&project), pid);
    run(&mut project.devbox(&["halt", "-f"]));
    wait_for("its end", || helpers(&project).is_empty().then_some(()));
    project.clear();
}
