//! `devbox build` with the tiny guest as its source image: the whole way on a real guest, and what
//! is left when something on the way fails.

mod asked;
mod faults;
mod full_disk;
mod killed;
mod project;
mod remembered;
#[path = "../support/tiny.rs"]
mod tiny;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use devbox::digest::FileDigest;

use crate::project::{Project, processes_naming, shell, text, wait_for};

const STEPS: &str = r#"
[[steps]]
type = "file"
name = "page"
source = "site"
target = "/srv/site"

[[steps]]
type = "file"
source = "motd"
target = "/etc/motd"
mode = "0600"

[[steps]]
type = "shell"
name = "install"
env = { GREETING = "it's here" }
inline = """
echo "$GREETING" > /srv/greeting
echo "epoch $SOURCE_DATE_EPOCH"
id -u > /srv/uid
"""
"#;

#[tokio::test]
async fn two_builds_of_the_same_inputs_have_the_same_content_in_all_formats() {
    let project = Project::new(STEPS).await;
    std::fs::create_dir(project.path("site")).expect("made");
    std::fs::write(project.path("site/index.html"), "<p>hello").expect("written");
    std::fs::write(project.path("motd"), "welcome\n").expect("written");

    let first = project.run(&["build", "--json"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stderr).contains("epoch 1700000000"), "{}", text(&first.stderr));
    project.nothing_left();
    let first: serde_json::Value = serde_json::from_slice(&first.stdout).expect("JSON");
    assert_eq!(first["reused"], false);

    // The outputs hold the same disk, and the box's.
    for format in ["raw", "vhd"] {
        let other = format!("dist/tiny-1.0.0-dev.{format}");
        for level in ["disk", "content"] {
            let qcow2 = "dist/tiny-1.0.0-dev.qcow2";
            let out = project.run(&["parity", "--level", level, qcow2, &other]);
            assert!(out.status.success(), "{format} {level}: {}", text(&out.stdout));
        }
    }
    let vhd = std::fs::metadata(project.path("dist/tiny-1.0.0-dev.vhd")).expect("there").len();
    assert_eq!((vhd - 512) % (1 << 20), 0, "whole MiB and the footer, as Azure wants");

    // What the steps wrote is there, and nothing of the build.
    let files = tree(&project.path("dist/tiny-1.0.0-dev.raw"));
    let get =
        |path: &str| files.iter().find(|(p, ..)| p == path).map(|(_, mode, t)| (*mode, t.as_str()));
    assert_eq!(get("/srv/site/index.html"), Some((0o644, "<p>hello")));
    assert_eq!(get("/etc/motd"), Some((0o600, "welcome\n")));
    assert_eq!(get("/srv/greeting"), Some((0o644, "it's here\n")));
    assert_eq!(get("/srv/uid"), Some((0o644, "0\n")));
    assert_eq!(get("/etc/hostname"), Some((0o644, "tiny\n")));
    assert!(!get("/etc/passwd").expect("there").1.contains("devbox-build"));
    assert!(files.iter().all(|(p, ..)| !p.starts_with("/home/")), "{files:?}");

    // Sealed, as a check of its own says, of the box and of an output of it.
    for image in ["tiny:1.0.0-dev", "dist/tiny-1.0.0-dev.vhd"] {
        let out = project.run(&["seal", "--check", image]);
        assert!(out.status.success(), "{image}: {}{}", text(&out.stdout), text(&out.stderr));
    }

    // Not built again, then built again: nothing differs.
    let reused = project.run(&["build", "--json"]);
    let reused: serde_json::Value = serde_json::from_slice(&reused.stdout).expect("JSON");
    assert_eq!(reused["reused"], true);
    let again = Command::new(env!("CARGO_BIN_EXE_devbox"))
        .args(["build", "--json", "--output-dir", "again"])
        .current_dir(project.dir())
        .env("DEVBOX_HOME", project.path("home-2"))
        .env("XDG_RUNTIME_DIR", project.dir())
        .output()
        .expect("runs");
    assert!(again.status.success(), "{}", text(&again.stderr));
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let parity = project.run(&["parity", "dist/tiny-1.0.0-dev.raw", "again/tiny-1.0.0-dev.raw"]);
    assert!(parity.status.success(), "{}", text(&parity.stdout));
    assert_eq!(first["config"]["box1"], again["config"]["box1"]);
    assert_eq!(first["config"]["spec1"], again["config"]["spec1"]);
    assert_eq!(project.boxes().as_array().map(Vec::len), Some(1));
}

/// Path, mode and contents of the small files of an image's root filesystem.
fn tree(image: &Path) -> Vec<(String, u16, String)> {
    use devbox::image::tree::NodeKind;
    let disk = devbox::image::disk::Disk::open(image, &Default::default()).expect("opens");
    let mut fs = disk.parts.iter().filter_map(|p| p.filesystem.as_ref());
    let fs = fs.rfind(|fs| fs.identity().kind == "ext4").expect("a root");
    let tree = fs.tree().expect("reads");
    let mut out = vec![];
    let mut todo = vec![(0, String::new())];
    while let Some((id, path)) = todo.pop() {
        let node = &tree.nodes[id as usize];
        match &node.kind {
            NodeKind::Directory { children } => todo.extend(children.iter().map(|c| {
                (*c, format!("{path}/{}", String::from_utf8_lossy(&tree.nodes[*c as usize].name)))
            })),
            NodeKind::File { size, .. } if *size < 65_536 => {
                let mut bytes = vec![];
                let mut take = |piece: &[u8]| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                };
                fs.read_file(node, &mut take).expect("reads");
                out.push((path, node.mode, String::from_utf8_lossy(&bytes).into_owned()));
            }
            _ => {}
        }
    }
    out
}

#[tokio::test]
async fn a_failing_step_says_which_and_shows_its_last_lines() {
    let project =
        Project::new(&shell("install", "echo reading\nls /no/such/thing\necho never", "")).await;
    let out = project.run(&["build"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("step 1 install failed with exit code"), "{said}");
    assert!(said.contains("| reading") && said.contains("/no/such/thing"), "{said}");
    assert!(!said.contains("never"), "{said}");
    let log = said.lines().find_map(|l| l.trim().strip_prefix("serial log: ")).expect("a path");
    assert!(std::fs::metadata(log).expect("is kept").len() > 0);
    project.nothing_left();
    assert_eq!(project.boxes(), serde_json::json!([]));
    assert!(!project.path("dist").exists());
    // Keys and seeds are no evidence.
    let kept: Vec<_> = walkdir::WalkDir::new(project.path("home/cache/logs"))
        .into_iter()
        .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    assert!(!kept.iter().any(|n| n.contains("ed25519") || n.ends_with(".iso")), "{kept:?}");
}

#[tokio::test]
async fn a_hanging_step_is_stopped_after_its_timeout() {
    let steps = shell("wait", "echo waiting\nsleep 600", "timeout = \"3s\"");
    let project = Project::of(tiny::qcow2(tiny::KERNEL).await, &steps);
    let out = project.run(&["build"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("step 1 wait took longer than 3 s and was stopped"), "{said}");
    assert!(said.contains("| waiting"), "{said}");
    project.nothing_left();
}

#[tokio::test]
async fn an_interrupt_leaves_nothing() {
    let project = Project::new(&shell("wait", "echo waiting; sleep 600", "")).await;
    let mut child = project.command(&["build"]).stderr(Stdio::piped()).spawn().expect("runs");
    let rest = wait_for(&mut child, "step 1 wait: waiting");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    let status = child.wait().expect("ends");
    let said = rest.join().expect("read");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    project.nothing_left();
}

#[tokio::test]
async fn a_killed_build_leaves_no_machine_and_the_next_one_cleans_up() {
    let project =
        Project::new(&shell("wait", "echo waiting; [ -e /marker ] || sleep 600", "")).await;
    let mut child = project.command(&["build"]).stderr(Stdio::piped()).spawn().expect("runs");
    let rest = wait_for(&mut child, "step 1 wait: waiting");
    child.kill().expect("killed");
    child.wait().expect("ends");
    rest.join().expect("read");
    let until = Instant::now() + Duration::from_secs(10);
    let qemu = |p: &String| p.contains("qemu-system");
    while processes_naming(&project.dir().to_string_lossy()).iter().any(qemu) {
        assert!(Instant::now() < until, "QEMU outlives a killed build");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(project.boxes(), serde_json::json!([]));
    // The next build, of other steps, is not disturbed by what is left.
    let spec = std::fs::read_to_string(project.path("devbox.toml")).expect("reads");
    project.spec(&spec.replace("[ -e /marker ] || sleep 600", "true"));
    let out = project.run(&["build"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    project.nothing_left();
}

#[tokio::test]
async fn a_disk_without_a_system_is_refused_before_anything_boots() {
    let project = Project::new("").await;
    let disk = project.path("empty.raw");
    std::fs::File::create(&disk).expect("made").set_len(8 << 20).expect("sized");
    let sha256 = FileDigest::of(&std::fs::read(&disk).expect("reads")).hex();
    project.spec(&format!(
        "name = \"tiny\"\nversion = \"1.0.0\"\narch = \"amd64\"\noutputs = [\"raw\"]\n\
         [source]\ntype = \"image\"\npath = \"empty.raw\"\nformat = \"raw\"\nsha256 = \"{sha256}\"\n[seal]\nepoch = 1700000000\n"
    ));
    let out = project.run(&["build"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(!said.contains("Booting"), "{said}");
    project.nothing_left();
}
