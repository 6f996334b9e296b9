//! A project of the tiny guest, and what is left behind it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use devbox::digest::FileDigest;

use crate::tiny;

/// A project with a home of its own.
pub(crate) struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    /// A project whose steps are `steps` (TOML).
    pub(crate) async fn new(steps: &str) -> Self {
        Self::of(tiny::raw(tiny::KERNEL).await, steps)
    }

    /// The same with this source image.
    pub(crate) fn of(image: PathBuf, steps: &str) -> Self {
        let sha256 = FileDigest::of(&std::fs::read(&image).expect("the tiny disk")).hex();
        let project = Project { dir: tempfile::tempdir().expect("a folder") };
        project.spec(&format!(
            "name = \"tiny\"\nversion = \"1.0.0-dev\"\narch = \"amd64\"\n\
             outputs = [\"qcow2\", \"raw\", \"vhd\"]\n\n\
             [source]\ntype = \"image\"\npath = \"{}\"\nsha256 = \"{sha256}\"\n\n{steps}\n\
             [machine]\ncpus = 1\nmemory = \"512MiB\"\n",
            image.display()
        ));
        project
    }

    pub(crate) fn spec(&self, text: &str) {
        std::fs::write(self.path("devbox.toml"), text).expect("written");
    }

    /// Changes the spec.
    pub(crate) fn spec_with(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(self.path("devbox.toml")).expect("reads");
        self.spec(&change(text));
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("DEVBOX_HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.dir.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("devbox runs")
    }

    /// No process of this project, no half output, no work: whatever happened before.
    pub(crate) fn nothing_left(&self) {
        let home = self.dir.path().to_string_lossy().into_owned();
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let running = processes_naming(&home);
            if running.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "still running: {running:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let work = self.path("home/cache/build");
        let folders = list(&work).into_iter().filter(|p| p.is_dir()).collect::<Vec<_>>();
        assert!(folders.is_empty(), "{folders:?}");
        for path in list(&self.path("dist")) {
            assert!(!path.to_string_lossy().contains("partial"), "{}", path.display());
        }
        assert_eq!(list(&self.path("home/store/tmp")), Vec::<PathBuf>::new());
    }

    pub(crate) fn boxes(&self) -> serde_json::Value {
        let out = self.run(&["box", "list", "--json"]);
        serde_json::from_slice(&out.stdout).expect("JSON")
    }
}

pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    entries.filter_map(|e| Some(e.ok()?.path())).collect()
}

/// Command lines of living processes that name `text`.
pub(crate) fn processes_naming(text: &str) -> Vec<String> {
    let me = std::process::id().to_string();
    let mut found = vec![];
    for entry in list(Path::new("/proc")) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == me || name.parse::<u32>().is_err() {
            continue;
        }
        let line = std::fs::read(entry.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push(line);
        }
    }
    found
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until the program has said `what` on standard error, and goes on reading.
pub(crate) fn wait_for(
    child: &mut std::process::Child,
    what: &str,
) -> std::thread::JoinHandle<String> {
    use std::io::{BufRead as _, BufReader};
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        said.push_str(&line);
        said.push('\n');
        if line.contains(what) {
            return std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    said.push_str(&line);
                    said.push('\n');
                }
                said
            });
        }
    }
    panic!("never said `{what}`:\n{said}");
}

pub(crate) fn shell(name: &str, script: &str, more: &str) -> String {
    format!(
        "[[steps]]\ntype = \"shell\"\nname = \"{name}\"\n{more}\ninline = \"\"\"\n{script}\n\"\"\"\n"
    )
}
