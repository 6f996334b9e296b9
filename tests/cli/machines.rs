//! The verbs about machines, as far as they need none that runs: records are written by hand.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Sandbox;

impl Sandbox {
    /// A stopped machine of this project, made of files alone; `record` stands in its machine.json.
    fn machine(&self, name: &str, project: &str, record: &str) -> PathBuf {
        let project = self.project().with_file_name(project);
        let hash = devbox::digest::sha256(project.as_os_str().as_encoded_bytes());
        let hash = &devbox::digest::hex(&hash)[..8];
        let machines = self.project().with_file_name("devbox").join("machines");
        let dir = machines.join(format!("{name}-{hash}"));
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join("machine.json"), record).expect("written");
        dir
    }

    fn stopped(&self, name: &str, project: &str) -> PathBuf {
        let record = json!({
            "format": 2,
            "name": name,
            "project": self.project().with_file_name(project),
            "uuid": "00000000-0000-4000-8000-000000000000",
            "user": "dev",
            "base": { "reference": "web:1.0.0", "manifest": "sha256:0", "disk": "/no/disk", "size": 1 },
            "forwards": [],
            "ready": null,
        });
        self.machine(name, project, &record.to_string())
    }

    fn spec(&self, machines: &str) {
        let head = "name = \"web\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";
        self.write("devbox.toml", &format!("{head}{machines}"));
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.devbox().args(args).output().expect("it runs");
        assert!(out.status.success(), "{out:?}");
        serde_json::from_slice(&out.stdout).expect("JSON")
    }
}

#[test]
fn status_shows_machines_of_the_spec_and_those_it_does_not_name_any_more() {
    let s = Sandbox::new();
    s.spec("[machines.web]\ndepends_on = [\"db\"]\n[machines.db]\n");
    s.stopped("db", "project");
    s.stopped("old", "project");
    s.machine("torn", "project", "{");
    insta::assert_snapshot!(s.run(&["status"]));
    let one = s.run(&["status", "d*"]);
    let lines: Vec<&str> = one.lines().skip(2).take(3).collect();
    assert_eq!(lines, ["machine  db", "state    stopped", "box      web:1.0.0 (sha256:0)"]);
    let status = s.json(&["status", "--json"]);
    assert_eq!(status["schema"], 1);
    let of = |key: &str| -> Vec<Value> {
        status["machines"].as_array().expect("machines").iter().map(|m| m[key].clone()).collect()
    };
    assert_eq!(of("name"), ["web", "db", "old", "torn"]);
    assert_eq!(of("state"), ["absent", "stopped", "stopped", "damaged"]);
    assert_eq!(of("in_spec"), [json!(true), json!(true), json!(false), json!(false)]);
    assert_eq!(of("forwards"), [json!([]), json!([]), json!([]), json!([])]);
}

#[test]
fn a_broken_spec_hides_no_machine_and_a_name_is_asked_for_where_there_are_several() {
    let s = Sandbox::new();
    s.write("devbox.toml", "name = ");
    s.stopped("db", "project");
    let alone = s.run(&["ssh"]);
    assert!(alone.starts_with("exit 255") && alone.contains("`db` is stopped"), "{alone}");
    s.stopped("web", "project");
    assert_eq!(s.json(&["status", "--json"])["machines"][1]["in_spec"], Value::Null);
    insta::assert_snapshot!(s.run(&["ssh"]));
    for args in [
        &["exec", "--", "true"][..],
        &["port"],
        &["logs"],
        &["screenshot"],
        &["ssh-config"],
        &["cp", ":a", "."],
    ] {
        let out = s.run(args);
        assert!(out.starts_with("exit 2") && out.contains("`db`, `web`"), "{args:?}: {out}");
    }
    for args in
        [&["ssh", "nobody"][..], &["halt", "x*"], &["status", "x*"], &["destroy", "-f", "x*"]]
    {
        let out = s.run(args);
        assert!(out.starts_with("exit 2") && out.contains("has no machine `"), "{args:?}: {out}");
    }
    assert!(s.run(&["status"]).contains("the spec has problems, see `devbox validate`"));
    // Both go, though nothing says in which order; what a broken `up` left goes with them.
    let rest = s.stopped("rest", "project");
    std::fs::remove_file(rest.join("machine.json")).expect("removed");
    let asked = s.run(&["destroy"]);
    assert!(asked.starts_with("exit 2") && asked.contains("for: `db`, `web`\n"), "{asked}");
    let out = s.run(&["destroy", "-f"]);
    assert!(out.starts_with("exit 0") && out.contains("`db` was destroyed"), "{out}");
    assert_eq!(s.json(&["status", "--json"])["machines"], json!([]));
    assert!(!rest.exists());
    for verb in ["halt", "destroy"] {
        let out = s.run(&[verb, "-f"]);
        assert!(out.starts_with("exit 0") && out.contains("there is no machine to"), "{out}");
    }
}

#[test]
fn list_shows_every_project_and_a_damaged_record_is_one_line() {
    let s = Sandbox::new();
    // No project is needed for it.
    assert_eq!(s.json(&["list", "--json"]), json!({ "schema": 1, "machines": [] }));
    s.stopped("web", "project");
    s.stopped("db", "gone");
    let torn = s.machine("torn", "elsewhere", "not JSON");
    let list = s.json(&["list", "--json"]);
    let of = |key: &str| -> Vec<Value> {
        list["machines"].as_array().expect("machines").iter().map(|m| m[key].clone()).collect()
    };
    assert_eq!(of("name"), ["db", "torn", "web"]);
    assert_eq!(of("state"), ["stopped", "damaged", "stopped"]);
    assert_eq!(of("project_exists"), [json!(false), Value::Null, json!(true)]);
    assert_eq!(of("box")[2], "web:1.0.0");
    let before = of("disk_bytes")[1].as_u64().expect("bytes");
    std::fs::write(torn.join("overlay.qcow2"), vec![1; 1 << 20]).expect("written");
    let after = s.json(&["list", "--json"])["machines"][1]["disk_bytes"].as_u64().expect("bytes");
    assert!((1 << 20..(1 << 20) + 65_536).contains(&(after - before)), "{before} {after}");
    let table = s.run(&["list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[2], ["MACHINE", "STATE", "BOX", "DISK", "PORTS", "PROJECT"]);
    assert_eq!(
        (lines[3][..3].to_vec(), lines[3].last()),
        (vec!["db", "stopped", "web:1.0.0"], Some(&"(gone)"))
    );
    assert_eq!(lines[4][..3], ["torn", "damaged", "-"]);
    // Where there is no project to go to, its machines can be removed still.
    let gone = s.project().with_file_name("gone");
    let command = format!("devbox destroy --project {} db", gone.display());
    assert!(
        table
            .replace("SANDBOX", &s.project().parent().expect("a parent").display().to_string())
            .contains(&command),
        "{table}"
    );
    let out = s.run(&["destroy", "-f", "--project", gone.to_str().expect("text"), "db"]);
    assert!(out.starts_with("exit 0") && out.contains("`db` was destroyed"), "{out}");
    assert_eq!(s.json(&["list", "--json"])["machines"].as_array().map(Vec::len), Some(2));
}

#[test]
fn logs_of_a_stopped_machine_are_shown_without_what_a_terminal_would_obey() {
    let s = Sandbox::new();
    s.spec("");
    let dir = s.stopped("web", "project");
    let never = s.run(&["logs"]);
    assert!(never.starts_with("exit 1") && never.contains("`web` was never started"), "{never}");
    let long = "x".repeat(100_000);
    let log = format!("one\r\n\u{1b}[2J\u{1b}[31mtwo\r\n{long}\r\nlogin: ");
    std::fs::write(dir.join("serial.log"), log).expect("written");
    std::fs::write(dir.join("qemu.log"), "a warning\n").expect("written");
    let out = |args: &[&str]| {
        let out = s.devbox().args(args).output().expect("it runs");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).expect("text")
    };
    let all = out(&["logs"]);
    assert!(all.starts_with("one\ntwo\nxxx") && all.ends_with("xxx\nlogin: \n"), "{:.40}", all);
    assert_eq!(out(&["logs", "web", "-n", "1"]), "login: \n");
    assert_eq!(out(&["logs", "--qemu"]), "a warning\n");
}

#[test]
fn up_refuses_names_that_the_spec_does_not_have() {
    let s = Sandbox::new();
    s.spec("[machines.web]\n[machines.db]\n");
    insta::assert_snapshot!(s.run(&["up", "webb"]));
    s.stopped("old", "project");
    for verb in ["up", "reload"] {
        let out = s.run(&[verb, "old"]);
        assert!(out.starts_with("exit 2") && out.contains("`old` is not in the spec"), "{out}");
    }
}

#[test]
fn words_that_make_no_sense_are_refused_before_a_machine_is_looked_for() {
    let s = Sandbox::new();
    s.spec("");
    for (args, said) in [
        (&["exec", "--env", "1=x", "--", "true"][..], "NAME=VALUE"),
        (&["exec"], "required"),
        (&["port", "add", "8080"], "HOST:GUEST"),
        (&["port", "--guest", "0"], "0 is not in 1..=65535"),
        (&["cp", "one"], "SOURCE"),
        (&["cp", "one", "two"], "must be in the dev box"),
        (&["console"], "needs a terminal"),
        (&["completions", "tcsh"], "bash"),
    ] {
        let out = s.run(args);
        assert!(out.starts_with("exit 2\n") && out.contains(said), "{args:?}: {out}");
    }
}

#[test]
fn a_shell_is_told_verbs_and_the_machines_of_the_project() {
    let s = Sandbox::new();
    s.spec("[machines.web-1]\n[machines.db]\n");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = s.run(&["completions", shell]);
        assert!(script.starts_with("exit 0") && script.contains("devbox"), "{shell}: {script}");
    }
    let complete = |words: &[&str]| {
        let mut devbox = s.devbox();
        devbox.env("COMPLETE", "fish").arg("--").arg("devbox").args(words);
        let out = devbox.output().expect("it runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        text.lines().map(word).filter(|w| !w.starts_with('-')).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["scr"]), ["screenshot"]);
    assert_eq!(complete(&["ssh", ""]), ["web-1", "db"]);
    assert_eq!(complete(&["halt", "w"]), ["web-1"]);
    // Without a project nothing is known, and nothing is said.
    std::fs::remove_file(s.project().join("devbox.toml")).expect("removed");
    assert!(complete(&["ssh", ""]).is_empty());
}

#[test]
fn settings_of_a_person_are_checked_with_their_file_and_place() {
    let s = Sandbox::new();
    s.spec("[machines.web]\n");
    s.write("devbox.local.toml", "[machine]\nmemory = \"4GB\"\n\n[machines.wbe]\ncpus = 2\n");
    insta::assert_snapshot!(s.run(&["validate"]));
    s.write("devbox.local.toml", "[machine]\nmemory = \"4GiB\"\n");
    assert!(s.run(&["validate"]).starts_with("exit 0\n"));
    insta::assert_snapshot!(s.run(&["up", "--set", "machine.firmware=uefi"]));
}

#[test]
fn work_on_machines_can_be_followed_by_programs() {
    let s = Sandbox::new();
    s.spec("");
    s.stopped("web", "project");
    let lines = |args: &[&str], code: i32| -> Vec<Value> {
        let out = s.devbox().args(args).output().expect("it runs");
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        let text = String::from_utf8(out.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let said = lines(&["halt", "--json"], 0);
    assert!(said.iter().all(|event| event["schema"] == 1 && event["time"].is_string()), "{said:?}");
    assert_eq!(said[0]["event"], "note");
    assert_eq!(said[0]["text"], "`web` was stopped already");
    let end = said.last().expect("an end");
    assert_eq!(
        (&end["event"], &end["exit"], &end["error"]),
        (&json!("end"), &json!(0), &Value::Null)
    );
    let said = lines(&["resume", "--json"], 1);
    let end = said.last().expect("an end");
    assert_eq!(end["exit"], 1);
    assert_eq!(end["error"]["what"], "`web` is not suspended but stopped");
    assert_eq!(end["error"]["hints"], json!(["Start it with `devbox up web`."]));
}

#[test]
fn a_bundle_holds_what_is_known_and_no_secret() {
    let s = Sandbox::new();
    s.write(
        "devbox.toml",
        "name = \"web\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n\
        [[steps]]\ntype = \"shell\"\ninline = \"true\"\nenv = { TOKEN = \"hunter2-token\" }\n",
    );
    let dir = s.stopped("web", "project");
    std::fs::write(dir.join("serial.log"), "login with hunter2-token\n").expect("written");
    std::fs::create_dir(dir.join("ssh")).expect("made");
    std::fs::write(dir.join("ssh/id_ed25519"), "PRIVATE KEY").expect("written");
    std::fs::write(dir.join("seed.iso"), "PRIVATE KEY").expect("written");
    assert!(s.run(&["bundle", "-o", "out.tar.gz"]).contains("out.tar.gz"));
    let tar = |args: &[&str]| {
        let mut tar = std::process::Command::new("tar");
        let out = tar.args(args).current_dir(s.project()).output().expect("tar runs");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let names = tar(&["-tzf", "out.tar.gz"]);
    for name in
        ["README.txt", "versions.txt", "status.json", "machine.json", "serial.log", "devbox.toml"]
    {
        assert!(names.lines().any(|n| n == name), "{names}");
    }
    let all = tar(&["-xzOf", "out.tar.gz"]);
    assert!(all.contains("login with [redacted]"), "{all}");
    assert!(all.contains("TOKEN = \"[redacted]\""), "{all}");
    for secret in ["hunter2", "PRIVATE KEY"] {
        assert!(!all.contains(secret), "{secret}:\n{all}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode =
        std::fs::metadata(s.project().join("out.tar.gz")).expect("there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "for this user only");
}

#[test]
fn doctor_says_what_is_missing_and_ends_with_one() {
    let s = Sandbox::new();
    let empty = s.project().join("empty");
    std::fs::create_dir(&empty).expect("made");
    let out = s.devbox().env("PATH", &empty).args(["doctor", "--json"]).output().expect("it runs");
    let found: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let finding = |about: &str| {
        let all = found["findings"].as_array().expect("findings");
        all.iter().find(|f| f["about"] == about).cloned().expect("a finding")
    };
    assert_eq!((out.status.code(), &found["ok"]), (Some(1), &json!(false)), "{found:#}");
    assert_eq!(finding("QEMU")["grade"], "fail");
    assert!(finding("QEMU")["hints"][0].as_str().is_some_and(|h| h.contains("apt-get install")));
    assert_eq!(finding("store")["grade"], "ok");
}

#[test]
fn a_hook_that_fails_keeps_the_verb_from_being_done_unless_it_may_go_on() {
    let s = Sandbox::new();
    let hook = |on_error: &str| {
        s.spec(&format!(
            "[[hooks]]\nwhen = \"before-destroy\"\non_error = \"{on_error}\"\ninline = \"echo $DEVBOX_MACHINE; exit 3\"\n\
             [[hooks]]\nwhen = \"after-destroy\"\ninline = \"#!/bin/sh\\npwd > gone\"\n"
        ));
    };
    let dir = s.stopped("web", "project");
    hook("stop");
    let said = s.run(&["destroy", "-f"]);
    assert!(said.starts_with("exit 1\n"), "{said}");
    for words in [
        "hook `before-destroy`: web\n",
        "error: the hook `before-destroy` of `web` failed",
        "exit status: 3",
        "hint: Correct it in devbox.toml",
    ] {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
    assert!(dir.join("machine.json").exists());
    hook("continue");
    let said = s.run(&["destroy", "-f"]);
    assert!(said.starts_with("exit 0\n") && said.contains("; going on"), "{said}");
    assert!(!dir.exists());
    let gone = std::fs::read_to_string(s.project().join("gone")).expect("the second hook ran");
    assert_eq!(gone.trim(), s.project().canonicalize().expect("there").display().to_string());
    s.spec("[[hooks]]\nwhen = \"before-up\"\non = \"guest\"\ninline = \"true\"\n");
    insta::assert_snapshot!(s.run(&["validate"]));
}
