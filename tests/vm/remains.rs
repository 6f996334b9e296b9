//! What machines leave behind: processes, sockets, locks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::workbench::Project;

/// What ends with a machine ends within this, on a loaded host.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of its own for sockets, so that those of a test are seen.
pub(crate) struct Watch {
    runtime: tempfile::TempDir,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch { runtime: tempfile::tempdir().expect("a folder") }
    }

    /// The project with its sockets in this folder.
    pub(crate) fn over(&self, project: Project) -> Project {
        project.with_env("XDG_RUNTIME_DIR", self.runtime.path().to_str().expect("text"))
    }

    /// Where the sockets are.
    pub(crate) fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// Waits until no program of these machines runs, and no socket and no lock of theirs is there.
    pub(crate) fn insist_on_nothing(&self, project: &Project) {
        self.insist_on_no_process(project);
        assert_eq!(self.files(), Vec::<PathBuf>::new(), "left behind");
        let out = project.devbox(&["status", "--json"]).output().expect("runs").stdout;
        let status: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        for machine in status["machines"].as_array().expect("machines") {
            assert_eq!(machine["state"], "absent", "{machine}");
        }
    }

    /// Waits until no program of these machines runs.
    pub(crate) fn insist_on_no_process(&self, project: &Project) {
        let began = Instant::now();
        while let left = self.processes(project)
            && !left.is_empty()
        {
            assert!(began.elapsed() < PATIENCE, "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All programs that were started with this folder for their sockets.
    pub(crate) fn processes(&self, project: &Project) -> Vec<String> {
        let mark = format!("XDG_RUNTIME_DIR={}", self.runtime.path().display());
        let mut found = vec![];
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let read = |name| fs::read(entry.path().join(name)).unwrap_or_default();
            let environment = read("environ");
            if environment.split(|b| *b == 0).any(|word| word == mark.as_bytes()) {
                let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                found.push(format!("{} {line}", entry.file_name().display()));
            }
        }
        // A helper and a QEMU of another environment are theirs, too.
        found.extend(project.guests().into_iter().filter(|line| line.contains(&mark[16..])));
        found
    }

    fn files(&self) -> Vec<PathBuf> {
        let all = walkdir::WalkDir::new(self.runtime.path()).into_iter().flatten();
        all.filter(|e| !e.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect()
    }
}
