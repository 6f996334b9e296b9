//! Machines without SSH, on the tiny guest: QEMU's own guest agent (Debian's `qemu-ga`) is the only way in.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::people::{Said, exits, run};
use crate::workbench::{Project, TINY_MACHINE, insist, tiny_spec};

const CLOSED: &str = "[machines.db]\nlogin = \"agent\"\n";
const MIB: usize = 1 << 20;

/// `devbox exec db` with these words, and nothing piped in.
fn exec(project: &Project, words: &[&str], code: i32) -> Said {
    exits(&mut project.devbox(&[&["exec", "db", "--"], words].concat()), code)
}

/// The same with `input` in a file as standard input; what the program wrote, byte by byte.
fn piped(project: &Project, words: &[&str], input: &[u8]) -> std::process::Output {
    let file = project.dir().join("input");
    fs::write(&file, input).expect("written");
    let mut command = project.devbox(&[&["exec", "db", "--"], words].concat());
    command.stdin(fs::File::open(file).expect("there")).output().expect("devbox runs")
}

/// A program that sleeps in the guest, begun and seen there.
fn sleeper(project: &Project, seconds: &str) -> Child {
    let mut command = project.devbox(&["exec", "db", "--", "sleep", seconds]);
    let child = command.stderr(Stdio::piped()).spawn().expect("devbox runs");
    let begun = Instant::now();
    // Beside the one that waits: the agent is nobody's alone.
    while !exec(project, &["ps"], 0).out.contains(&format!("sleep {seconds}")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not started");
    }
    child
}

#[test]
fn a_machine_without_ssh_is_used_through_its_guest_agent() {
    let project = Project::on_the_tiny_box_with("entered", CLOSED);
    let said = exits(&mut project.devbox(&["up"]), 0);
    for words in [
        "from the template",
        "the guest agent answers",
        "the guest agent runs programs",
        "`db` is ready; run programs in it with `devbox exec -- PROGRAM`",
    ] {
        assert!(said.err.contains(words), "`{words}` is not in:\n{}", said.err);
    }
    // No key, no port, and nothing of ssh's.
    let status = project.status();
    assert_eq!((&status["login"], &status["state"]), (&"agent".into(), &"running".into()));
    assert_eq!((status["ssh_port"].is_null(), &status["forwards"]), (true, &serde_json::json!([])));
    let dir = project.machine_dir("db").expect("its folder");
    assert!(!dir.join("ssh").exists());
    let seed = fs::read(dir.join("seed.iso")).expect("the seed");
    let seed = String::from_utf8_lossy(&seed);
    assert!(seed.contains("user-data") || seed.contains("USER"), "a seed");
    assert!(!seed.contains("ssh-ed25519") && !seed.contains("PRIVATE KEY"), "{seed}");
    let text = exits(&mut project.devbox(&["status"]), 0).out;
    assert!(text.contains("login    by its guest agent alone"), "{text}");

    // Streams, exit codes, words.
    let said = exec(&project, &["sh", "-c", "echo out; echo err >&2; exit 7"], 7);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    assert_eq!(exec(&project, &["sh", "-c", "kill -9 $$"], 137).out, "");
    exec(&project, &["no-such-program"], 127);
    let odd = ["", "a b", "$HOME", "it's", "-n", "*", "\\", "a\nb", "ö"];
    let said = exec(&project, &[&["printf", "<%s>"], &odd[..]].concat(), 0);
    assert_eq!(said.out, odd.map(|word| format!("<{word}>")).concat());
    assert_eq!(exec(&project, &["sh", "-c", "pwd; echo $HOME; id -u"], 0).out, "/root\n/root\n0\n");
    let with = ["exec", "db", "-w", "/etc", "-e", "A=x y", "--", "sh", "-c", "pwd; echo $A"];
    assert_eq!(exits(&mut project.devbox(&with), 0).out, "/etc\nx y\n");
    exits(&mut project.devbox(&["exec", "db", "-w", "/nowhere", "--", "true"]), 255);
    let no_text = {
        use std::os::unix::ffi::OsStrExt as _;
        std::ffi::OsStr::from_bytes(b"\xff").to_owned()
    };
    insist(&exits(project.devbox(&["exec", "db", "--", "ls"]).arg(no_text), 2), &["is not UTF-8"]);

    // What is piped arrives byte by byte, and is bounded on both sides.
    let every: Vec<u8> = (0..MIB).map(|n| u8::try_from(n % 251).expect("a byte")).collect();
    let out = piped(&project, &["cat"], &every);
    assert!(out.status.success() && out.stdout == every, "{} bytes", out.stdout.len());
    let out = piped(&project, &["cat"], &vec![0; 16 * MIB + 1]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0));
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        err.contains("the input of `cat` has more than 16 MiB") && err.contains("hint:"),
        "{err}"
    );
    let out = piped(&project, &["head", "-c", "17000000", "/dev/zero"], b"");
    assert_eq!((out.status.code(), out.stdout.len()), (Some(0), 16 * MIB));
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(err.contains("keeps 16 MiB of each output"), "{err}");

    // From its firmware too.
    run(&mut project.devbox(&["halt"]));
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("cloud-init has finished"), "{}", said.err);

    // Ctrl-C ends the program in the guest, and devbox says how it ended.
    let mut child = sleeper(&project, "611");
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(!exec(&project, &["ps"], 0).out.contains("sleep 611"));
    project.clear();
}

#[test]
fn what_needs_ssh_is_refused_by_name_and_says_what_does_it() {
    let project = Project::on_the_tiny_box_with("refused", CLOSED);
    run(&mut project.devbox(&["up"]));
    for (words, code) in [
        (&["ssh", "db"][..], 255),
        (&["ssh", "db", "-c", "true"], 255),
        (&["ssh-config", "db"], 1),
        (&["cp", "devbox.toml", "db:/tmp"], 1),
        (&["cp", "db:/etc/passwd", "."], 1),
        (&["sync", "db"], 1),
    ] {
        let said = exits(&mut project.devbox(words), code);
        insist(
            &said,
            &["`db` is not entered by SSH", "`login = \"agent\"`", "`devbox exec db -- "],
        );
    }
    // The seed that it was made with brings no key: the spec cannot change that.
    let open = fs::read_to_string(project.dir().join("devbox.toml")).expect("the spec");
    fs::write(project.dir().join("devbox.toml"), open.replace("\"agent\"", "\"ssh\"")).expect("it");
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(
        said.err.contains("`db` was made with `login = \"agent\"`, and the spec says `ssh`"),
        "{}",
        said.err
    );
    assert!(said.err.contains("devbox destroy"), "{}", said.err);
    project.clear();
}

#[test]
fn it_is_suspended_saved_cloned_and_given_settings_as_every_other_machine() {
    let rest = format!("{CLOSED}proxy = true\n[machines.twin]\nlogin = \"agent\"\n");
    let project = Project::on_the_tiny_box_with("kept", &rest)
        .with_env("http_proxy", "http://proxy.example:3128");
    run(&mut project.devbox(&["up", "db"]));
    exec(&project, &["sh", "-c", "echo one > /root/work"], 0);
    let told = exec(&project, &["cat", "/etc/environment"], 0).out;
    assert!(told.contains("http_proxy=http://proxy.example:3128/"), "{told}");
    run(&mut project.devbox(&["snapshot", "save", "-m", "db", "one"]));
    exec(&project, &["sh", "-c", "echo two > /root/work; sync"], 0);
    run(&mut project.devbox(&["suspend", "--to-disk", "db"]));
    insist(&exits(&mut project.devbox(&["exec", "db", "--", "true"]), 255), &["is suspended"]);
    run(&mut project.devbox(&["resume", "db"]));
    assert_eq!(exec(&project, &["cat", "/root/work"], 0).out, "two\n");
    run(&mut project.devbox(&["suspend", "db"]));
    run(&mut project.devbox(&["resume", "db"]));
    run(&mut project.devbox(&["compact", "db"]));
    run(&mut project.devbox(&["clone", "db", "twin"]));
    run(&mut project.devbox(&["up", "twin"]));
    let twin = |words: &[&str]| {
        exits(&mut project.devbox(&[&["exec", "twin", "--"], words].concat()), 0).out
    };
    assert_eq!(twin(&["sh", "-c", "cat /root/work; hostname"]), "two\ntwin\n");
    let ids =
        [twin(&["cat", "/etc/machine-id"]), exec(&project, &["cat", "/etc/machine-id"], 0).out];
    assert_ne!(ids[0], ids[1]);
    run(&mut project.devbox(&["snapshot", "restore", "-m", "db", "one"]));
    assert_eq!(exec(&project, &["cat", "/root/work"], 0).out, "one\n");
    run(&mut project.devbox(&["halt", "db"]));
    run(&mut project.devbox(&["up", "db"]));

    // The machine ends while something runs in it.
    let child = sleeper(&project, "612");
    let qemu = project.qemu_of("db").expect("it runs");
    run(Command::new("kill").args(["-KILL", &qemu.to_string()]));
    let out = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(255), "{err}");
    assert!(err.contains("`db` ended while the command ran in it"), "{err}");
    project.clear();
}

#[test]
fn an_agent_that_may_not_run_programs_and_an_image_without_one_are_said_at_once() {
    let closed = format!("{CLOSED}timeout = \"30m\"\n");
    let project = Project::on_the_tiny_box_with("unable", &closed);
    run(&mut project.devbox(&["up"]));
    // As distributions forbid it: the agent's own configuration.
    let forbid = "mkdir -p /etc/qemu; printf '[general]\\nblacklist=guest-exec\\nblock-rpcs=guest-exec\\n' > /etc/qemu/qemu-ga.conf; sync";
    exec(&project, &["sh", "-c", forbid], 0);
    run(&mut project.devbox(&["halt"]));
    let begun = Instant::now();
    let said = exits(&mut project.devbox(&["up"]), 1);
    insist(&said, &["`db` cannot be ready", "does not allow `guest-exec`", "`login = \"ssh\"`"]);
    assert!(begun.elapsed() < Duration::from_secs(300), "it waited");
    project.clear();

    let without = "[[steps]]\ntype = \"shell\"\ninline = \"rm /bin/qemu-ga\"\n";
    let open = format!("{}{TINY_MACHINE}", tiny_spec("agentless", without));
    let project = Project::new("unable-image", &open).alone();
    let spec = project.dir().join("devbox.toml");
    fs::write(&spec, format!("{open}{CLOSED}")).expect("written");
    let said = exits(&mut project.devbox(&["build"]), 1);
    insist(
        &said,
        &["nobody could enter a machine", "there is no guest agent", "`qemu-guest-agent`"],
    );
    fs::write(&spec, &open).expect("written");
    run(&mut project.devbox(&["build"]));
    fs::write(&spec, format!("{open}{CLOSED}")).expect("written");
    insist(&exits(&mut project.devbox(&["up"]), 1), &["the image of `db` has no guest agent"]);
    assert_eq!(project.status()["state"], "absent");
    project.clear();
}
