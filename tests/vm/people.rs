//! Who runs devbox in a test: root, or a plain user that the test makes and removes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A person with a home of their own, and the binary under test in a place that they can reach.
#[derive(Debug)]
pub(crate) struct Person {
    name: Option<String>,
    home: PathBuf,
    devbox: PathBuf,
    /// More of the environment.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
}

impl Person {
    /// The user who runs the tests, with a fresh home below `desk`.
    pub(crate) fn me(desk: &Path) -> Person {
        let home = desk.join("me");
        fs::create_dir_all(&home).expect("a home");
        Person { name: None, home, devbox: install(desk), env: vec![] }
    }

    /// A plain user made for this test, with a range of subordinate ids as `useradd` gives one.
    /// `None` where this process may not make users.
    pub(crate) fn plain(desk: &Path) -> Option<Person> {
        if !is_root() {
            return None;
        }
        let name = format!("devbox-t{}", std::process::id());
        let home = desk.join(&name);
        let made = Command::new("/usr/sbin/useradd")
            .args(["--create-home", "--shell", "/bin/sh", "--home-dir"])
            .arg(&home)
            .arg(&name)
            .status()
            .expect("useradd runs");
        assert!(made.success(), "useradd {name}");
        Some(Person { name: Some(name), home, devbox: install(desk), env: vec![] })
    }

    /// The home folder.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// A command of any program as this person, in `dir`, with a clean environment and nothing on standard input.
    pub(crate) fn command(&self, program: &OsStr, dir: &Path) -> Command {
        let mut command = match &self.name {
            None => Command::new(program),
            Some(name) => {
                let mut c = Command::new("setpriv");
                c.args(["--reuid", name, "--regid", name, "--init-groups", "--"]).arg(program);
                c
            }
        };
        command
            .current_dir(dir)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("USER", self.name.as_deref().unwrap_or("root"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        // The way out to the package mirror, where this host needs one; and the mark by which
        // `./test` finds what a test left behind.
        for key in ["http_proxy", "https_proxy", "no_proxy", "DEVBOX_TEST_RUN", "DEVBOX_VIRTIOFSD"]
        {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// `devbox` with these words.
    pub(crate) fn devbox(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = self.command(self.devbox.as_os_str(), dir);
        command.args(args);
        command
    }

    /// Copies a folder into the home, owned by this person.
    pub(crate) fn copy_in(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.home.join(name);
        run(Command::new("cp").arg("-a").arg(from).arg(&to));
        if let Some(user) = &self.name {
            run(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(&to));
        }
        to
    }

    /// Running programs of this person by name, to show that nothing was left behind.
    pub(crate) fn processes(&self, program: &str) -> Vec<String> {
        let mut ps = Command::new("pgrep");
        ps.arg("-a");
        if let Some(user) = &self.name {
            ps.args(["-u", user]);
        }
        let out = ps.args(["-f", program]).output().expect("pgrep runs");
        let home = self.home.to_string_lossy().into_owned();
        String::from_utf8_lossy(&out.stdout)
            .lines()
            .filter(|l| self.name.is_some() || l.contains(&home))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        // Only this test's own user; whatever still runs as it is a leftover of a failed test.
        let _ = Command::new("pkill").args(["-KILL", "-u", name]).status();
        for _ in 0..50 {
            let gone = Command::new("pgrep").args(["-u", name]).output();
            if gone.is_ok_and(|o| o.stdout.is_empty()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let _ = Command::new("/usr/sbin/userdel").arg(name).stderr(Stdio::null()).status();
    }
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder for one test that everybody may enter, removed at the end.
pub(crate) fn desk() -> tempfile::TempDir {
    let desk = tempfile::Builder::new().prefix("devbox-vm-").tempdir().expect("a folder");
    fs::set_permissions(desk.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    desk
}

/// Runs to the end and insists on success.
pub(crate) fn run(command: &mut Command) -> Output {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{}", told(command, &out));
    out
}

/// Runs to the end and insists on an exit code; returns what was said on both streams.
pub(crate) fn exits(command: &mut Command, code: i32) -> Said {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert_eq!(out.status.code(), Some(code), "{}", told(command, &out));
    Said {
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

fn told(command: &Command, out: &Output) -> String {
    format!(
        "{command:?}\n{}\n--- stdout\n{}\n--- stderr\n{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// The binary under test, copied to where every user can execute it: a checkout in root's home cannot be entered by others.
fn install(desk: &Path) -> PathBuf {
    let to = desk.join("devbox");
    if !to.exists() {
        fs::copy(env!("CARGO_BIN_EXE_devbox"), &to).expect("copy the binary");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("mode");
    }
    to
}

/// Says that a part of a test did not run; `./test` counts these lines.
#[expect(clippy::print_stderr, reason = "a test's standard error is where it speaks")]
pub(crate) fn not_run(what: &str, why: &str) {
    eprintln!("not run: {what}: {why}");
}
