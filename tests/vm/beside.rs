//! Commands at the same time on one machine, and a port that is taken while a machine starts. (Two `up` at
//! once: `tests/up.rs`; of two machines: `warm`.)

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::killed::Numbers;
use crate::people::{Said, exits, run};
use crate::remains::Watch;
use crate::workbench::{Project, insist};

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("devbox runs")
}

/// Its code and what it said.
fn end(child: Child) -> (Option<i32>, Said) {
    let out = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = Said { out: text(&out.stdout), err: text(&out.stderr) };
    assert!(!said.err.contains("panicked"), "{}", said.err);
    (out.status.code(), said)
}

#[test]
fn one_command_at_a_time_works_on_a_machine() {
    let watch = Watch::new();
    let project = watch.over(Project::on_the_tiny_box_with("beside", "[machines.beside]\n"));
    run(&mut project.devbox(&["up"]));
    run(&mut project.devbox(&["destroy", "-f"]));
    let up = start(&mut project.devbox(&["up", "--cold"]));
    while project.qemu_of("beside").is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for verb in [
        &["halt"][..],
        &["halt", "-f"],
        &["destroy", "-f"],
        &["reload"],
        &["suspend"],
        &["snapshot", "push"],
    ] {
        let began = Instant::now();
        let said = exits(&mut project.devbox(verb), 1);
        assert!(began.elapsed() < Duration::from_secs(5), "{verb:?}: {:?}", began.elapsed());
        insist(&said, &[&format!("`devbox up` (pid {}) is working", up.id()), "Wait until it is"]);
    }
    let (code, said) = end(up);
    assert_eq!(code, Some(0), "{}", said.err);
    exits(&mut project.devbox(&["ssh", "-c", "true"]), 0);

    // Both at any time of the other: one of them is told who is at work, or they come one after the other.
    let mut numbers = Numbers(1);
    for round in 0..6 {
        let verb: &[&str] = if round % 2 == 0 { &["destroy", "-f"] } else { &["halt", "-f"] };
        let first = start(&mut project.devbox(verb));
        std::thread::sleep(Duration::from_millis(numbers.below(150)));
        let second = start(&mut project.devbox(&["up"]));
        for (code, said) in [end(first), end(second)] {
            match code {
                Some(0) => {}
                Some(1) => insist(&said, &["is working on this machine since"]),
                _ => panic!("{verb:?} beside `up`: {code:?}: {}", said.err),
            }
        }
        let state = project.status()["state"].clone();
        assert!(["running", "stopped", "absent"].map(Into::into).contains(&state), "{state}");
        let runs = project.qemu_of("beside").is_some();
        assert_eq!(runs, state == "running", "{verb:?}: {state}");
        if round % 2 == 1 || state != "running" {
            run(&mut project.devbox(&["destroy", "-f"]));
            run(&mut project.devbox(&["up"]));
        }
    }
    run(&mut project.devbox(&["destroy", "-f"]));
    watch.insist_on_nothing(&project);
}

#[test]
fn a_port_that_is_taken_while_a_machine_starts_is_said_or_stepped_over() {
    let watch = Watch::new();
    let project = watch.over(Project::on_the_tiny_box_with("grabbed", ""));
    let spec = fs::read_to_string(project.dir().join("devbox.toml")).expect("the spec");
    let with = |port: u16, auto: bool| {
        let ports =
            format!("[[machine.ports]]\nguest = 80\nhost = {port}\nauto_correct = {auto}\n");
        let spec = format!("{spec}\n{ports}\n[machines.grabbed]\n");
        fs::write(project.dir().join("devbox.toml"), spec).expect("written");
    };
    for auto in [false, true] {
        // QEMU may be quicker: then there was nothing to see.
        let seen = (0..10).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            let port = port.expect("a free port").port();
            with(port, auto);
            run(&mut project.devbox(&["destroy", "-f"]));
            let mut up = start(&mut project.devbox(&["up"]));
            while project.qemu_of("grabbed").is_none() && up.try_wait().expect("ours").is_none() {
                std::thread::yield_now();
            }
            let grabbed = TcpListener::bind(("127.0.0.1", port));
            let end = end(up);
            grabbed.is_ok().then_some((port, end))
        });
        let (port, (code, said)) = seen.expect("QEMU was quicker each time");
        if auto {
            assert_eq!(code, Some(0), "{}", said.err);
            assert!(said.err.contains(&format!("port {port}")), "{}", said.err);
            let forwards = project.status()["forwards"].clone();
            let web = forwards.as_array().expect("all").iter().find(|f| f["guest"] == 80).cloned();
            assert_ne!(web.expect("the forward")["host"], u64::from(port));
            exits(&mut project.devbox(&["ssh", "-c", "true"]), 0);
        } else {
            assert_eq!(code, Some(1), "{}", said.err);
            insist(&said, &[&port.to_string(), "in use"]);
            assert_eq!(project.status()["state"], "absent", "nothing half made stays");
            assert_eq!(project.qemu_of("grabbed"), None);
        }
    }
    run(&mut project.devbox(&["destroy", "-f"]));
    watch.insist_on_nothing(&project);
}
