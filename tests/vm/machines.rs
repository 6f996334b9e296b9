//! Several machines in one project, on the tiny guest.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::people::{exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

/// `web` needs `db`; `log` needs nobody.
fn spec(db: &str) -> String {
    format!(
        "{}{TINY_MACHINE}\n[machines.web]\ndepends_on = [\"db\"]\n\n[machines.db]\n{db}\n\n[machines.log]\n",
        tiny_spec("tiny", "")
    )
}

fn project(name: &str, db: &str) -> Project {
    let project = Project::on_the_tiny_box(name);
    std::fs::write(project.dir().join("devbox.toml"), spec(db)).expect("write the spec");
    project
}

/// Name and state of each machine.
fn states(project: &Project) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    project.machines().iter().map(|m| (text(&m["name"]), text(&m["state"]))).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn insist_on_order(text: &str, first: &str, second: &str) {
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("`{what}` is not in:\n{text}"));
    assert!(at(first) < at(second), "`{first}` comes after `{second}`:\n{text}");
}

#[test]
fn machines_come_up_after_what_they_need_and_go_down_before_it() {
    let project = project("several", "");
    let spec = |db: &str| spec(db).replace("\"tiny\"", "\"several\"");
    // A box of its own, which is not there yet: built once for all three.
    std::fs::write(project.dir().join("devbox.toml"), spec("")).expect("write the spec");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert_eq!(said.err.matches("building it first").count(), 1, "{}", said.err);
    insist_on_order(&said.err, "db: `db` is ready", "web: Making `web`");
    assert!(said.err.contains("log: `log` is ready; log in with `devbox ssh log`"), "{}", said.err);
    assert_eq!(
        states(&project),
        pairs(&[("web", "running"), ("db", "running"), ("log", "running")])
    );
    // A command goes to the machine that is named, and to none where several could be meant.
    let said = exits(&mut project.devbox(&["ssh", "web", "-c", "hostname"]), 0);
    assert_eq!(said.out, "web\n");
    let said = exits(&mut project.devbox(&["ssh", "-c", "hostname"]), 2);
    insist(&said, &["`web`, `db`, `log`"]);
    let said = exits(&mut project.devbox(&["ssh", "webb", "-c", "hostname"]), 2);
    insist(&said, &["no machine `webb`", "Did you mean `web`?"]);

    // What the spec does not name any more is shown and can be removed, even by a broken spec.
    let only_db = format!("{}{TINY_MACHINE}\n[machines.db]\n", tiny_spec("several", ""));
    std::fs::write(project.dir().join("devbox.toml"), only_db).expect("write the spec");
    let table = exits(&mut project.devbox(&["status"]), 0).out;
    assert!(table.contains("running (not in the spec any more)"), "{table}");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("remove it with `devbox destroy web`"), "{}", said.err);
    std::fs::write(project.dir().join("devbox.toml"), "broken").expect("write the spec");
    run(&mut project.devbox(&["destroy", "-f", "l*"]));
    assert_eq!(states(&project), pairs(&[("db", "running"), ("web", "running")]));

    std::fs::write(project.dir().join("devbox.toml"), spec("")).expect("write the spec");
    let said = exits(&mut project.devbox(&["halt"]), 0);
    insist_on_order(&said.err, "`web` shut down", "`db` shut down");
    assert_eq!(
        states(&project),
        pairs(&[("web", "stopped"), ("db", "stopped"), ("log", "absent")])
    );
    project.clear();
}

#[test]
fn a_machine_that_fails_holds_back_only_those_that_need_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = taken.local_addr().expect("an address").port();
    let ports = format!("ports = [{{ guest = 80, host = {port}, auto_correct = false }}]");
    let project = project("one-fails", &ports);
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(&said, &["2 of 3 machines are not up", "in use", "web: left alone, since `db` failed"]);
    assert_eq!(states(&project), pairs(&[("web", "absent"), ("db", "absent"), ("log", "running")]));
    project.clear();
}

#[test]
fn ctrl_c_ends_also_the_machines_that_were_ready_before() {
    let project = project("interrupted", "");
    let mut up = project
        .devbox(&["up", "web"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("devbox runs");
    let began = Instant::now();
    // `db` is ready and `web` on its way.
    loop {
        let now = project.machines();
        if now[0]["pid"].is_i64() && now[1]["state"] == "running" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{now:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let kill = Command::new("kill").args(["-INT", &up.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    assert_eq!(up.wait().expect("ends").code(), Some(130));
    project.insist_on_no_guest();
    // What had not become itself yet is gone; what was waited for is stopped.
    let mut states = states(&project);
    let web = states.remove(0).1;
    assert!(web == "absent" || web == "stopped", "{web}");
    assert_eq!(states, pairs(&[("db", "stopped"), ("log", "absent")]));
    project.clear();
}
