//! A store with the tiny guest's box in it, and small projects on it: faults by the hundred.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::people::{Said, run};
use crate::tiny;

/// Where the tests of one run keep their things; emptied at the start of the next run.
fn home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("workbench");
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).expect("target/ can be written");
        home
    })
}

/// The tiny guest's disk as a qcow2, and its SHA-256.
pub(crate) fn tiny_disk() -> (&'static Path, &'static str) {
    static DISK: OnceLock<(PathBuf, String)> = OnceLock::new();
    let (path, sha256) = DISK.get_or_init(|| disk_with(tiny::KERNEL));
    (path, sha256)
}

/// The same with a kernel that has all drivers.
pub(crate) fn full_disk() -> (&'static Path, &'static str) {
    static DISK: OnceLock<(PathBuf, String)> = OnceLock::new();
    let (path, sha256) = DISK.get_or_init(|| disk_with("amd64"));
    (path, sha256)
}

pub(crate) fn disk_with(kernel: &str) -> (PathBuf, String) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let path = runtime.block_on(tiny::qcow2(kernel));
    let sha256 = sha256(&path);
    (path, sha256)
}

/// A file's SHA-256, by the system's own program.
pub(crate) fn sha256(path: &Path) -> String {
    let out = run(Command::new("sha256sum").arg(path));
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("a digest").to_owned()
}

/// A project folder with a spec, and a devbox home: the shared one, or its own.
#[derive(Debug)]
pub(crate) struct Project {
    dir: PathBuf,
    devbox_home: PathBuf,
    env: Vec<(&'static str, String)>,
}

impl Project {
    /// A project on the tiny guest's box, which is built once and shared by all tests.
    pub(crate) fn on_the_tiny_box(name: &str) -> Project {
        static BUILT: OnceLock<()> = OnceLock::new();
        let project = Project::new(name, &format!("{}{TINY_MACHINE}", tiny_spec("tiny", "")));
        BUILT.get_or_init(|| {
            run(&mut project.devbox(&["build"]));
        });
        project
    }

    /// The same with `rest` behind its spec.
    pub(crate) fn on_the_tiny_box_with(name: &str, rest: &str) -> Project {
        let project = Project::on_the_tiny_box(name);
        let spec = format!("{}{TINY_MACHINE}\n{rest}", tiny_spec("tiny", ""));
        fs::write(project.dir.join("devbox.toml"), spec).expect("write the spec");
        project
    }

    /// A project on the tiny guest's box with a kernel that has 9p, and `rest` behind its spec.
    pub(crate) fn with_9p(name: &str, rest: &str) -> Project {
        static BUILT: OnceLock<()> = OnceLock::new();
        let project = Project::new(name, &full_spec(rest));
        BUILT.get_or_init(|| {
            run(&mut project.devbox(&["build"]));
        });
        project
    }

    /// A project with this spec, in the shared devbox home.
    pub(crate) fn new(name: &str, spec: &str) -> Project {
        let dir = home().join(name);
        fs::create_dir_all(&dir).expect("target/ can be written");
        fs::write(dir.join("devbox.toml"), spec).expect("write the spec");
        Project { dir, devbox_home: home().join("devbox-home"), env: vec![] }
    }

    /// The same with a devbox home of its own.
    pub(crate) fn alone(mut self) -> Project {
        self.devbox_home = self.dir.join("devbox-home");
        self
    }

    /// The same with all of devbox's files below `home`.
    pub(crate) fn with_home(mut self, home: &Path) -> Project {
        self.devbox_home = home.to_owned();
        self
    }

    /// The same with another variable in the environment.
    pub(crate) fn with_env(mut self, key: &'static str, value: &str) -> Project {
        self.env.push((key, value.to_owned()));
        self
    }

    /// The folder with the spec.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder with devbox's files.
    pub(crate) fn devbox_home(&self) -> &Path {
        &self.devbox_home
    }

    /// `devbox` with these words, in the project's folder.
    pub(crate) fn devbox(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command
            .args(args)
            .current_dir(&self.dir)
            .env("DEVBOX_HOME", &self.devbox_home)
            .env_remove("DEVBOX_CRASH")
            .stdin(std::process::Stdio::null());
        for (key, value) in &self.env {
            command.env(key, value);
        }
        command
    }

    /// The project's first machine in `devbox status --json`.
    pub(crate) fn status(&self) -> Value {
        self.machines().into_iter().next().expect("a machine")
    }

    /// All machines in `devbox status --json`.
    pub(crate) fn machines(&self) -> Vec<Value> {
        let out = run(&mut self.devbox(&["status", "--json"]));
        let status: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(status["schema"], 1, "{status}");
        status["machines"].as_array().expect("machines").clone()
    }

    /// QEMU processes that use files of this project's devbox home or its folder.
    pub(crate) fn guests(&self) -> Vec<String> {
        let places = [self.dir.to_string_lossy(), self.devbox_home.to_string_lossy()];
        let mut found = vec![];
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("qemu-system") && places.iter().any(|p| line.contains(p.as_ref())) {
                found.push(format!("{} {line}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }

    /// The image in the store that is below all machines.
    pub(crate) fn sealed_image(&self) -> PathBuf {
        let store = self.devbox_home.join("store/blobs/sha256");
        let blobs = fs::read_dir(store).expect("the store").flatten().map(|entry| entry.path());
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        blobs.max_by_key(size).expect("a blob")
    }

    /// The folder of the machine `name`, which no other project of this home has.
    pub(crate) fn machine_dir(&self, name: &str) -> Option<PathBuf> {
        let all = fs::read_dir(self.devbox_home.join("machines")).into_iter().flatten().flatten();
        let of = |path: &PathBuf| {
            let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            folder.rsplit_once('-').is_some_and(|(before, _)| before == name)
        };
        all.map(|entry| entry.path()).find(of)
    }

    /// The process id of that machine's QEMU, as QEMU wrote it, if it lives.
    pub(crate) fn qemu_of(&self, name: &str) -> Option<i32> {
        let file = self.machine_dir(name)?.join("qemu.pid");
        let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains("qemu-system").then_some(pid)
    }

    /// Waits until no guest of this project runs.
    pub(crate) fn insist_on_no_guest(&self) {
        let began = Instant::now();
        loop {
            let left = self.guests();
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All files below the folders that a failed build could have left half, but for what is said about
    /// outputs.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        walkdir::WalkDir::new(self.dir.join("dist"))
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .filter(|path| {
                !path.ends_with("SHA256SUMS") && path.extension() != Some("json".as_ref())
            })
            .collect()
    }

    /// Stops and deletes the machine, whatever the test did to it.
    pub(crate) fn clear(&self) {
        run(&mut self.devbox(&["destroy", "-f"]));
        self.insist_on_no_guest();
    }
}

/// A failed test leaves no machine for the next one to meet.
impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.devbox(&["destroy", "-f"]).output();
        }
    }
}

/// How the tiny guest runs.
pub(crate) const TINY_MACHINE: &str =
    "\n[machine]\ncpus = 1\nmemory = \"256MiB\"\ntimeout = \"2m\"\n";

/// A spec on the tiny guest's disk, with more tables behind.
pub(crate) fn tiny_spec(name: &str, rest: &str) -> String {
    let (disk, sha256) = tiny_disk();
    image_spec(name, &format!("path = \"{}\"\nsha256 = \"{sha256}\"", disk.display()), rest)
}

/// A spec on the tiny guest with a kernel that has all drivers, with more tables behind.
pub(crate) fn full_spec(rest: &str) -> String {
    let (disk, sha256) = full_disk();
    let source = format!("path = \"{}\"\nsha256 = \"{sha256}\"", disk.display());
    format!("{}{TINY_MACHINE}\n{rest}", image_spec("full", &source, ""))
}

/// A spec with a source of type `image`.
pub(crate) fn image_spec(name: &str, source: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\narch = \"amd64\"\noutputs = [\"qcow2\"]\n\n\
         [source]\ntype = \"image\"\n{source}\n\n{rest}"
    )
}

/// Insists that a message names the object and ends with a next step.
pub(crate) fn insist(said: &Said, words: &[&str]) {
    for word in words {
        assert!(said.err.contains(word), "`{word}` is not in:\n{}", said.err);
    }
    assert!(said.err.contains("hint:"), "no next step in:\n{}", said.err);
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

/// The spec of as small a Debian as boots and can be reached.
pub(crate) fn small_debian(name: &str) -> String {
    format!(
        r#"
name = "{name}"
version = "1.0.0"
arch = "amd64"
outputs = ["qcow2"]

[source]
type = "packages"
suite = "bookworm"
disk = "2GiB"

[machine]
cpus = 2
memory = "1GiB"
timeout = "10m"
"#
    )
}
