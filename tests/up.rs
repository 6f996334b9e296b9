//! The life of a dev box, verb by verb, on the tiny guest under the real QEMU.

#[path = "support/tiny.rs"]
mod tiny;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use devbox::digest::{BoxDigest, BytesDigest, SpecDigest};
use devbox::store::{BoxConfig, Existing, Store};

/// A home, a project and a store with one box: the tiny guest.
struct World {
    root: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary folder");
        let project = root.path().join("project");
        std::fs::create_dir_all(&project).expect("project");
        let spec = "name = \"tiny\"\nversion = \"1.0.0\"\n\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n\n\
            [machine]\ncpus = 1\nmemory = \"256MiB\"\nuser = \"dev\"\n";
        std::fs::write(project.join("devbox.toml"), spec).expect("spec");
        let store = Store::open(&root.path().join("home/store")).expect("store");
        let staged = store.stage().expect("staged");
        std::fs::copy(tiny::qcow2(tiny::KERNEL).await, staged.path()).expect("copied");
        let text = b"tiny";
        let config = BoxConfig {
            name: "tiny".into(),
            version: "1.0.0".into(),
            arch: "amd64".into(),
            firmware: "bios".into(),
            spec1: SpecDigest::of(text),
            bytes1: BytesDigest::of(text),
            box1: BoxDigest::of(text),
            disk_size: tiny::SIZE,
            cmdline: String::new(),
            epoch: tiny::EPOCH,
            seal: "seal/1".into(),
            devbox: "0".into(),
        };
        store.add(&config, staged, Existing::Refuse).expect("added");
        World { root }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(words).current_dir(self.root.path().join("project"));
        command.env("DEVBOX_HOME", self.root.path().join("home"));
        command.env("XDG_RUNTIME_DIR", self.root.path());
        command
    }

    fn devbox(&self, words: &[&str]) -> Answer {
        let out = self.command(words).output().expect("devbox runs");
        Answer::new(words, &out)
    }

    fn status(&self) -> serde_json::Value {
        let answer = self.devbox(&["status", "--json"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let status: serde_json::Value = serde_json::from_str(&answer.out).expect("JSON");
        assert_eq!(status["schema"], 1, "{status}");
        status["machines"][0].clone()
    }

    fn pid(&self) -> Option<i32> {
        i32::try_from(self.status()["pid"].as_i64()?).ok()
    }
}

/// Ends what a failed test left.
impl Drop for World {
    fn drop(&mut self) {
        let _ = self.command(&["destroy", "-f"]).output();
    }
}

#[derive(Debug)]
struct Answer {
    #[expect(dead_code, reason = "shown when a test fails")]
    words: Vec<String>,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn new(words: &[&str], out: &Output) -> Self {
        Answer {
            words: words.iter().map(|w| (*w).to_owned()).collect(),
            code: out.status.code(),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }
}

fn kill(pid: i32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
    let gone =
        || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).map_or(true, |c| c.is_empty());
    let start = Instant::now();
    while !gone() {
        assert!(start.elapsed() < Duration::from_secs(10), "pid {pid} does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_dev_box_lives_from_up_to_destroy_and_survives_the_death_of_qemu() {
    let world = World::new().await;
    assert_eq!(world.status()["state"], "absent");
    let none = world.devbox(&["ssh", "-c", "true"]);
    assert_eq!(none.code, Some(255), "{none:?}");
    assert!(none.err.contains("hint: Make and start it with `devbox up`."), "{none:?}");

    let up = world.devbox(&["up", "--timeout", "90s"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    assert!(up.err.contains("emulation (TCG): ") || up.err.contains("KVM: "), "{up:?}");
    let status = world.status();
    assert_eq!(status["state"], "running", "{status}");
    let again = world.devbox(&["up"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.err.contains("`tiny` runs already"), "{again:?}");

    let hello = world.devbox(&["ssh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((hello.code, hello.out.as_str()), (Some(7), "out\n"), "{hello:?}");
    assert!(hello.err.contains("err"), "{hello:?}");
    let config = world.devbox(&["ssh-config", "--host", "default"]);
    assert!(
        config.out.starts_with("Host default\n  HostName 127.0.0.1\n  User dev\n"),
        "{config:?}"
    );
    let file = world.root.path().join("ssh_config");
    std::fs::write(&file, &config.out).expect("written");
    let direct = Command::new("ssh").arg("-F").arg(&file).args(["default", "hostname"]).output();
    assert_eq!(String::from_utf8_lossy(&direct.expect("ssh runs").stdout), "tiny\n");

    let first = world.pid().expect("it runs");
    kill(first);
    let died = world.status();
    assert_eq!(died["text"], "stopped (QEMU ended unexpectedly)", "{died}");
    let refused = world.devbox(&["ssh", "-c", "true"]);
    assert_eq!(refused.code, Some(255), "{refused:?}");
    assert!(refused.err.contains("QEMU ended unexpectedly"), "{refused:?}");
    let revived = world.devbox(&["up", "--timeout", "90s"]);
    assert_eq!(revived.code, Some(0), "{revived:?}");
    let port = world.status()["ssh_port"].clone();
    assert_eq!(port, status["ssh_port"], "the port stays");

    let halted = world.devbox(&["halt"]);
    assert_eq!(halted.code, Some(0), "{halted:?}");
    assert!(halted.err.contains("`tiny` shut down"), "{halted:?}");
    assert_eq!(world.status()["state"], "stopped");
    let asked = world.devbox(&["destroy"]);
    assert_eq!(asked.code, Some(2), "not without -f: {asked:?}");
    let destroyed = world.devbox(&["destroy", "-f"]);
    assert_eq!(destroyed.code, Some(0), "{destroyed:?}");
    assert_eq!(world.status()["state"], "absent");
    let left = std::fs::read_dir(world.root.path().join("home/machines")).expect("folder").count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[tokio::test]
async fn a_second_up_is_told_at_once_who_is_at_work_and_ctrl_c_leaves_no_process() {
    let world = World::new().await;
    let mut first = world.command(&["up"]).spawn().expect("devbox runs");
    let pid = loop {
        if let Some(pid) = world.pid() {
            break pid;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let start = Instant::now();
    let second = world.devbox(&["up"]);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(
        second.err.contains(&format!("`devbox up` (pid {}) is working", first.id())),
        "{second:?}"
    );
    let status = Command::new("kill").args(["-INT", &first.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
    assert_eq!(first.wait().expect("ends").code(), Some(130));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "QEMU is gone");
    // A machine that had not become itself yet is gone; one that was waited for is stopped.
    let state = world.status()["state"].clone();
    assert!(state == "absent" || state == "stopped", "{state}");
    assert_eq!(world.devbox(&["up"]).code, Some(0), "the next one comes up");
    world.devbox(&["destroy", "-f"]);
}
