//! The verbs about a machine that runs, on the tiny guest: one machine for all of them, since a boot
//! under emulation is what costs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::people::{exits, not_run, run};
use crate::workbench::{Project, insist};

#[test]
fn a_running_machine_obeys_every_verb() {
    let project = Project::on_the_tiny_box("verbs");
    // What needs a running machine says so before there is one.
    for words in [&["port"][..], &["logs"], &["screenshot"], &["cp", ":/etc/passwd", "."]] {
        insist(&exits(&mut project.devbox(words), 1), &["no machine", "devbox up"]);
    }
    insist(&exits(&mut project.devbox(&["exec", "--", "true"]), 255), &["no machine"]);
    run(&mut project.devbox(&["up"]));
    it_is_listed(&project);
    programs_get_their_words(&project);
    files_go_both_ways(&project);
    a_hostile_guest_writes_nothing_outside(&project);
    ports_come_and_go(&project);
    the_screen_is_pictured(&project);
    the_console_is_a_terminal(&project);
    logs_follow_across_a_reload(&project);
    project.clear();
}

fn json(project: &Project, words: &[&str]) -> Value {
    let value: Value =
        serde_json::from_str(&exits(&mut project.devbox(words), 0).out).expect("JSON");
    assert_eq!(value["schema"], 1, "{value}");
    value
}

fn it_is_listed(project: &Project) {
    let list = json(project, &["list", "--json"]);
    let dir = project.dir().canonicalize().expect("there");
    let mut machines = list["machines"].as_array().expect("machines").iter();
    let own = machines.find(|m| m["project"].as_str() == dir.to_str()).expect("this machine");
    assert_eq!((&own["state"], &own["box"]), (&"running".into(), &"tiny:1.0.0".into()));
    assert!(own["disk_bytes"].as_u64().is_some_and(|n| n > 100_000), "{own}");
    assert!(own["ssh_port"].is_u64(), "{own}");
    let table = exits(&mut project.devbox(&["list"]), 0).out;
    let line =
        table.lines().find(|l| l.ends_with(dir.to_str().expect("text"))).expect("this machine");
    assert!(line.contains(&format!(" {}:22 ", own["ssh_port"])), "{line}");
}

fn programs_get_their_words(project: &Project) {
    let words = ["exec", "--", "printf", "%s|", "a b", "", "$HOME", "it's", "*", "-n"];
    assert_eq!(exits(&mut project.devbox(&words), 0).out, "a b||$HOME|it's|*|-n|");
    exits(&mut project.devbox(&["exec", "tiny", "--", "sh", "-c", "exit 7"]), 7);
    exits(&mut project.devbox(&["exec", "--", "no-such-program"]), 127);
    let words = ["exec", "-w", "/tmp", "-e", "A=x y", "--", "sh", "-c", "pwd; echo \"$A\"; cat"];
    let mut child = project
        .devbox(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("devbox runs");
    let input: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    child.stdin.take().expect("a pipe").write_all(&input).expect("written");
    let out = child.wait_with_output().expect("ends");
    assert!(out.status.success());
    assert_eq!(out.stdout, [b"/tmp\nx y\n", &input[..]].concat(), "byte for byte");
    exits(&mut project.devbox(&["exec", "-w", "/no/such", "--", "true"]), 255);
}

fn files_go_both_ways(project: &Project) {
    let here = |name: &str| project.dir().join(name);
    let text: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    std::fs::create_dir_all(here("out/deep er")).expect("made");
    std::fs::write(here("out/deep er/it's"), &text).expect("written");
    std::os::unix::fs::symlink("deep er/it's", here("out/link")).expect("linked");
    std::fs::write(here("one"), "one").expect("written");

    run(&mut project.devbox(&["cp", "one", ":copied"]));
    assert_eq!(exits(&mut project.devbox(&["exec", "--", "cat", "copied"]), 0).out, "one");
    insist(&exits(&mut project.devbox(&["cp", "out", ":there"]), 2), &["`out` is a folder", "-r"]);
    run(&mut project.devbox(&["cp", "-r", "out", "tiny:there"]));
    // The second time it is a folder, so the copy goes into it.
    run(&mut project.devbox(&["cp", "-r", "out", "one", ":there"]));
    let found = exits(&mut project.devbox(&["exec", "--", "find", "there", "-type", "f"]), 0).out;
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["there/deep er/it's", "there/one", "there/out/deep er/it's"]);

    run(&mut project.devbox(&["cp", "-r", ":there", "back"]));
    assert_eq!(std::fs::read(here("back/out/deep er/it's")).expect("copied"), text);
    let link = std::fs::read_link(here("back/link")).expect("a link");
    assert_eq!(link, Path::new("deep er/it's"));
    run(&mut project.devbox(&["cp", ":there/one", ":/etc/hostname", "back"]));
    assert_eq!(std::fs::read_to_string(here("back/one")).expect("copied"), "one");
    assert!(here("back/hostname").is_file());
    for (words, code, said) in [
        (&["cp", ":there", "again"][..], 2, &["is a folder", "-r"][..]),
        (&["cp", ":no/such", "."], 1, &["there is no `tiny:no/such`"]),
        (&["cp", "one", "out", ":nowhere"], 1, &["`tiny:nowhere` is no folder"]),
        (&["cp", ":copied", ":other"], 2, &["on this host"]),
        (&["cp", "one", "two"], 2, &["MACHINE:PATH"]),
        (&["cp", "one", ":/proc/no"], 1, &["failed in the guest"]),
        (&["cp", "other:x", "."], 2, &["no machine `other`"]),
    ] {
        insist(&exits(&mut project.devbox(words), code), said);
    }
    assert!(!here("again").exists());
}

/// The guest's shell sends an archive of its own where it is asked for one.
fn a_hostile_guest_writes_nothing_outside(project: &Project) {
    let evil = project.dir().join("evil");
    std::fs::create_dir_all(&evil).expect("made");
    // Made by the host's tar, which is asked to keep names that lead out.
    let made = |script: &str, name: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-ec", script, "sh", name]).current_dir(&evil);
        run(&mut sh);
    };
    made("mkdir -p d; echo theirs > escaped; tar -C d -P -cf $1 ../escaped; rm escaped", "up.tar");
    made(
        "ln -sfn /tmp way; tar -cf $1 way; rm way; mkdir way; echo theirs > way/in; tar -rf $1 way/in; rm -r way",
        "through.tar",
    );
    let fake = "#!/bin/sh\ncase \"$*\" in *'tar -cf'*) exec cat /tmp/evil.tar ;; esac\nexec /bin/sh \"$@\"\n";
    std::fs::write(evil.join("shell"), fake).expect("written");
    run(&mut project.devbox(&["cp", "evil/shell", ":/bin/shell"]));
    let swap = "chmod 755 /bin/shell && echo /bin/shell >> /etc/shells && \
        sed -i 's,^\\(dev:.*\\):/bin/sh$,\\1:/bin/shell,' /etc/passwd";
    run(&mut project.devbox(&["ssh", "-c", swap]));
    // The shell is the one of the login, and a login serves many commands.
    run(&mut project.devbox(&["ssh", "--", "-O", "exit"]));
    let target = project.dir().join("target");
    std::fs::create_dir_all(&target).expect("made");
    for (archive, said) in [("up.tar", "leads out of the target"), ("through.tar", "left out 1")] {
        let from = format!("evil/{archive}");
        run(&mut project.devbox(&["cp", &from, ":/tmp/evil.tar"]));
        let out = project.devbox(&["cp", "-r", ":/etc", "target"]).output().expect("devbox runs");
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(err.contains(said), "{archive}: {err}");
        assert!(!project.dir().join("escaped").exists() && !target.join("escaped").exists());
        assert!(!Path::new("/tmp/in").exists());
    }
    run(&mut project.devbox(&["ssh", "-c", "sed -i 's,:/bin/shell$,:/bin/sh,' /etc/passwd; sync"]));
    run(&mut project.devbox(&["ssh", "--", "-O", "exit"]));
}

fn ports_come_and_go(project: &Project) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken_port = taken.local_addr().expect("an address").port();
    let free = {
        let probe = TcpListener::bind("127.0.0.1:0").expect("a listener");
        probe.local_addr().expect("an address").port()
    };
    let ssh = exits(&mut project.devbox(&["port", "--guest", "22"]), 0).out;
    assert_eq!(ssh.trim(), project.status()["ssh_port"].to_string());
    insist(&exits(&mut project.devbox(&["port", "--guest", "81"]), 1), &["port 81"]);
    let said = exits(&mut project.devbox(&["port", "add", &format!("{taken_port}:22")]), 1);
    insist(&said, &[&taken_port.to_string(), "in use"]);
    insist(&exits(&mut project.devbox(&["port", "add", "80"]), 2), &["HOST:GUEST"]);
    // Port 22 of the guest once more: what answers is known.
    run(&mut project.devbox(&["port", "add", "tiny", &format!("{free}:22")]));
    assert!(banner(free).starts_with("SSH-2.0"));
    let forwards = json(project, &["port", "--json"])["forwards"].clone();
    let hosts = |forwards: &Value| -> Vec<u64> {
        let list = forwards.as_array().expect("forwards").iter();
        list.map(|f| f["host"].as_u64().expect("a port")).collect()
    };
    assert!(hosts(&forwards).contains(&u64::from(free)), "{forwards}");
    run(&mut project.devbox(&["reload", "-f"]));
    assert!(banner(free).starts_with("SSH-2.0"), "the next start keeps it");
    run(&mut project.devbox(&["port", "remove", &format!("{free}:22")]));
    assert!(TcpStream::connect(("127.0.0.1", free)).is_err(), "nobody listens any more");
    assert!(!hosts(&json(project, &["port", "--json"])["forwards"]).contains(&u64::from(free)));
    insist(
        &exits(&mut project.devbox(&["port", "remove", &format!("{free}:22")]), 1),
        &["no forward"],
    );
    // UDP has numbers of its own, on an address that is named.
    let udp = format!("127.0.0.2:{free}:53/udp");
    run(&mut project.devbox(&["port", "add", &udp]));
    assert!(std::net::UdpSocket::bind(("127.0.0.2", free)).is_err(), "QEMU has it");
    run(&mut project.devbox(&["port", "remove", &udp]));
    assert!(std::net::UdpSocket::bind(("127.0.0.2", free)).is_ok(), "and has given it back");
    let own = format!("{}:22", ssh.trim());
    insist(&exits(&mut project.devbox(&["port", "remove", &own]), 1), &["`devbox ssh` uses"]);
}

fn banner(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let mut bytes = [0; 7];
    stream.read_exact(&mut bytes).expect("a banner");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn the_screen_is_pictured(project: &Project) {
    let said = exits(&mut project.devbox(&["screenshot", "-o", "screen.png"]), 0);
    assert_eq!(said.out, "screen.png\n");
    let bytes = std::fs::read(project.dir().join("screen.png")).expect("written");
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.len() > 100);
    insist(&exits(&mut project.devbox(&["screenshot", "-o", "no/such.png"]), 1), &["no/such.png"]);
}

/// In a terminal of its own, made by `script` (util-linux).
fn the_console_is_a_terminal(project: &Project) {
    insist(&exits(&mut project.devbox(&["console"]), 2), &["needs a terminal", "devbox exec"]);
    if Command::new("script").arg("--version").output().is_err() {
        return not_run("the console in a terminal", "`script` is not installed");
    }
    let devbox = env!("CARGO_BIN_EXE_devbox");
    let line = format!("stty -g; {devbox} console; echo ended $?; stty -g");
    let mut script = project.devbox(&[]);
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).current_dir(project.dir());
    for (key, value) in script.envs(std::env::vars()).get_envs() {
        if let Some(value) = value {
            terminal.env(key, value);
        }
    }
    let mut child =
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
    let mut keys = child.stdin.take().expect("a pipe");
    let mut screen = child.stdout.take().expect("a pipe");
    let shown = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let copy = std::sync::Arc::clone(&shown);
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = screen.read(&mut piece) {
            copy.lock().expect("no panic").extend_from_slice(&piece[..n]);
        }
    });
    let text = || String::from_utf8_lossy(&shown.lock().expect("no panic")).into_owned();
    let wait_for = |what: &str| {
        let start = Instant::now();
        while !text().contains(what) {
            assert!(start.elapsed() < Duration::from_secs(60), "`{what}` is not in:\n{}", text());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for("leave with Ctrl-]");
    // The guest writes there without being asked, and what is typed arrives: Ctrl-C too.
    run(&mut project.devbox(&["ssh", "-c", "echo seen on the console | sudo tee /dev/ttyS0"]));
    wait_for("seen on the console");
    let second = exits(&mut project.devbox(&["status"]), 0);
    assert!(second.out.contains("running"), "the console holds no lock of the machine");
    keys.write_all(b"\x03\x1d").expect("typed");
    wait_for("ended 0");
    drop(keys);
    child.wait().expect("ends");
    reader.join().expect("no panic");
    let text = text();
    let modes: Vec<&str> =
        text.lines().map(str::trim).filter(|l| l.matches(':').count() > 20).collect();
    assert_eq!(modes.len(), 2, "{text}");
    assert_eq!(modes[0], modes[1], "the terminal is as before");
}

fn logs_follow_across_a_reload(project: &Project) {
    let last = exits(&mut project.devbox(&["logs", "-n", "2"]), 0).out;
    assert_eq!(last.lines().count(), 2, "{last}");
    exits(&mut project.devbox(&["logs", "--qemu"]), 0);
    let file = std::fs::File::create(project.dir().join("followed")).expect("made");
    let mut follow =
        project.devbox(&["logs", "-f", "-n", "0"]).stdout(file).spawn().expect("devbox runs");
    let seen = |what: &str| {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(project.dir().join("followed")).expect("read");
            if text.contains(what) {
                assert!(!text.contains('\u{1b}'), "{text:?}");
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "`{what}` is not in:\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let say = |what: &str| {
        let line = format!("printf '\\033[2J{what}\\r\\n' | sudo tee /dev/ttyS0");
        run(&mut project.devbox(&["ssh", "-c", &line]));
    };
    say("before the reload");
    seen("before the reload");
    let said = exits(&mut project.devbox(&["reload"]), 0);
    assert!(said.err.contains("shut down") && said.err.contains("is ready"), "{}", said.err);
    say("after the reload");
    seen("after the reload");
    follow.kill().expect("killed");
    follow.wait().expect("ends");
}
