//! A host to log in to: an sshd of this test's own on loopback, and what it leaves behind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What is different on a host.
pub(crate) enum Place {
    /// A program in front of the system's: its name and its shell script.
    Command(&'static str, &'static str),
    /// A tmpfs at a path of the test's own folder.
    Tmpfs(&'static str),
    /// A folder in which no program runs.
    NoExec(&'static str),
}

/// An sshd that runs, and a key that it lets in.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    port: u16,
    /// Commands of a shell.
    mounts: Vec<String>,
    sshd: Mutex<Option<Child>>,
    /// Hosts leave nothing behind; that can be seen of one at a time.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// devbox as it is, and as a static program, by the command of `docs/live.md`. Cargo puts both at one
/// place, one after the other.
fn programs() -> &'static (PathBuf, PathBuf) {
    static PROGRAMS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_devbox"));
        let release = built.parent().is_some_and(|folder| folder.ends_with("release"));
        let features: &[&str] =
            if cfg!(feature = "crash-points") { &["--features", "crash-points"] } else { &[] };
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let cargo = |verb: &str, name: &str, rest: &[&str]| {
            let mut command = Command::new(env!("CARGO"));
            command.args([verb, "--quiet", "--locked", "--bin", "devbox"]).args(features);
            command.args(release.then_some("--release")).args(rest);
            let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo");
            assert!(status.success(), "{command:?}");
            let to = folder.join(name);
            // A file that somebody runs cannot be written to.
            let _ = std::fs::remove_file(&to);
            std::fs::copy(built, &to).expect("copy");
            to
        };
        let fixed = cargo("rustc", "devbox-static", &["--", "-C", "target-feature=+crt-static"]);
        (cargo("build", "devbox-dynamic", &[]), fixed)
    })
}

/// Bytes as text.
pub(crate) fn lines(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Host {
    pub(crate) fn start(places: &[Place]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        for name in ["bin", "root"] {
            std::fs::create_dir(at(name)).expect("mkdir");
        }
        for name in ["host", "key", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(name))
                .status();
            assert!(made.expect("ssh-keygen").success());
        }
        std::fs::copy(at("key.pub"), at("authorized")).expect("copy");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
        let port = port.expect("a port").port();
        let mut mounts = vec![];
        for place in places {
            match place {
                Place::Command(name, script) => {
                    std::fs::write(at("bin").join(name), format!("#!/bin/sh\n{script}\n"))
                        .expect("write");
                    let mode = std::fs::Permissions::from_mode(0o755);
                    std::fs::set_permissions(at("bin").join(name), mode).expect("chmod");
                }
                Place::Tmpfs(path) => {
                    let path = at(path);
                    std::fs::create_dir_all(&path).expect("mkdir");
                    mounts.push(format!("mount -t tmpfs tmpfs {}", path.display()));
                }
                Place::NoExec(path) => mounts.push(format!(
                    "mount --bind {path} {path} && mount -o remount,bind,noexec {path}"
                )),
            }
        }
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
             StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n\
             SetEnv PATH={0}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
            dir.path().display()
        );
        std::fs::write(at("sshd_config"), config).expect("write");
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").expect("sshd's own folder");
        }
        let host = Host { dir, port, mounts, sshd: Mutex::new(None), _alone: alone };
        host.know_host_key();
        host.restart();
        host
    }

    /// Starts sshd, again if it runs; what is mounted there is mounted for it alone.
    pub(crate) fn restart(&self) {
        let mut sshd = self.sshd.lock().expect("sshd");
        end(sshd.take());
        let config = self.path("sshd_config");
        let mut command = if self.mounts.is_empty() {
            Command::new("/usr/sbin/sshd")
        } else {
            let script = format!("{} && exec /usr/sbin/sshd \"$@\"", self.mounts.join(" && "));
            let mut command = Command::new("unshare");
            command.args(["-m", "--", "sh", "-c", &script, "sshd"]);
            command
        };
        let log = std::fs::File::create(self.path("sshd.log")).expect("create");
        command.args(["-D", "-e", "-f"]).arg(config).stdin(Stdio::null()).stderr(log);
        *sshd = Some(command.spawn().expect("sshd is needed for this test"));
        drop(sshd);
        self.wait_until("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The address of a directory of the test's folder.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("ssh://127.0.0.1:{}{}{path}", self.port, self.dir.path().display())
    }

    /// The static devbox.
    pub(crate) fn program(&self) -> &'static str {
        programs().1.to_str().expect("UTF-8")
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("DEVBOX_HOME", self.path("home")).current_dir(self.dir.path());
        let known = format!("UserKnownHostsFile={}", self.path("known").display());
        let key = format!("IdentityFile={}", self.path("key").display());
        if args.iter().any(|arg| arg.starts_with("ssh://")) {
            for option in [
                &known,
                &key,
                "GlobalKnownHostsFile=none",
                "IdentitiesOnly=yes",
                "IdentityAgent=none",
            ] {
                command.args(["--ssh-option", option]);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Exit code and both streams of the static devbox.
    pub(crate) fn devbox(&self, args: &[&str]) -> (i32, String, String) {
        told(&self.command(&programs().1, args).output().expect("devbox runs"))
    }

    /// The same of the one with libraries.
    pub(crate) fn dynamic(&self, args: &[&str]) -> (i32, String, String) {
        told(&self.command(&programs().0, args).output().expect("devbox runs"))
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(&programs().1, args).spawn().expect("devbox runs")
    }

    /// Ends devbox, or the ssh that it started, without a chance to clean up.
    pub(crate) fn kill(&self, devbox: Child, victim: &str) -> Output {
        let pid = if victim == "devbox" {
            devbox.id()
        } else {
            let children = format!("/proc/{0}/task/{0}/children", devbox.id());
            let children = std::fs::read_to_string(children).expect("children");
            children.split_whitespace().next().expect("ssh").parse().expect("a number")
        };
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        devbox.wait_with_output().expect("devbox ends")
    }

    pub(crate) fn forget_host_key(&self) {
        std::fs::write(self.path("known"), "").expect("write");
    }

    pub(crate) fn know_host_key(&self) {
        let key = std::fs::read_to_string(self.path("host.pub")).expect("read");
        let line = format!("[127.0.0.1]:{} {key}", self.port);
        std::fs::write(self.path("known"), line).expect("write");
    }

    pub(crate) fn refuse_key(&self) {
        std::fs::copy(self.path("other.pub"), self.path("authorized")).expect("copy");
    }

    /// The devbox processes that hash a directory of this test over there.
    pub(crate) fn hashing(&self) -> Vec<String> {
        self.processes(|words| words[0].ends_with("/fd/3"))
    }

    fn processes(&self, wanted: impl Fn(&[&str]) -> bool) -> Vec<String> {
        let mine = self.dir.path().to_str().expect("UTF-8");
        let mut found = vec![];
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let line = lines(&line);
            let words: Vec<_> = line.split('\0').collect();
            if words.iter().any(|word| word.starts_with(&format!("dir:{mine}"))) && wanted(&words) {
                found.push(words.join(" "));
            }
        }
        found
    }

    /// Files that devbox put on the host.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = vec![];
        for folder in ["/dev/shm", "/run", "/tmp", "/var/tmp"] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.path().display().to_string();
                if name.contains("devbox-live") {
                    found.push(name);
                }
            }
        }
        found
    }

    /// Everything that devbox left on the host: processes and files.
    pub(crate) fn left(&self) -> Vec<String> {
        // Also a shell that still has the script.
        let script = |words: &[&str]| !words[0].contains("devbox-static");
        [self.processes(script), self.files()].concat()
    }

    pub(crate) fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !done() {
            let log = std::fs::read_to_string(self.path("sshd.log")).unwrap_or_default();
            assert!(Instant::now() < end, "not until now: {what}: {:?}\n{log}", self.left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        end(self.sshd.get_mut().map(Option::take).unwrap_or_default());
    }
}

fn end(sshd: Option<Child>) {
    if let Some(mut sshd) = sshd {
        let _ = sshd.kill();
        let _ = sshd.wait();
    }
}

fn told(out: &Output) -> (i32, String, String) {
    (out.status.code().unwrap_or(-1), lines(&out.stdout), lines(&out.stderr))
}
