//! Hermetic tests of the command line: the real program in a clean environment, exact output.
//!
//! One file a topic. [`Sandbox`] gives a folder of its own as home and current folder, and a command
//! that sees nothing else of the host's settings. No test here boots a machine.

mod docs;
mod folder_server;
mod init;
mod machines;
mod schema;
mod usage;
mod validate;

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// A home and a project folder of its own, removed at the end.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("devbox-cli-").tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("project")).expect("made");
        Sandbox { dir }
    }

    /// The folder in which commands run.
    pub(crate) fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    /// Writes a file below the project.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.project().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    /// `devbox` with a clean environment.
    pub(crate) fn devbox(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("DEVBOX_HOME", self.dir.path().join("devbox"))
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.project())
            .timeout(std::time::Duration::from_secs(60));
        command
    }

    /// Runs to the end: exit code, standard output and standard error as one text for a snapshot,
    /// with the sandbox's folder written as `SANDBOX`.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let out = self.devbox().args(args).output().expect("it runs");
        let code = out.status.code().map_or("killed".to_owned(), |c| c.to_string());
        let text = format!(
            "exit {code}\n--- stdout\n{}--- stderr\n{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        text.replace(&self.dir.path().display().to_string(), "SANDBOX")
    }
}

/// A folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every spec that the repository ships.
pub(crate) fn shipped() -> Vec<PathBuf> {
    let mut files = vec![];
    for folder in ["boxes", "examples"] {
        for entry in std::fs::read_dir(repository(folder)).expect("a folder") {
            files.push(entry.expect("an entry").path().join("devbox.toml"));
        }
    }
    files.retain(|file| file.is_file());
    assert!(files.len() >= 2, "{files:?}");
    files
}
