//! Runs a helper program that reads bytes from outside without network and within bounds.
//!
//! The program gets a network namespace of its own, in which not even the loopback device is up, and
//! limits of the kernel (setrlimit(2)). Done by util-linux's `unshare` and `prlimit`, which replace
//! themselves by the program, so its process, its group and its files are those of a plain start.
//! A plain user needs a user namespace for it, which some hosts forbid; that is tried once.

use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::{last_lines, tools};
use crate::error::{Error, Result};

/// What the program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Address space in bytes.
    pub memory: u64,
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// Largest file that it may write, in bytes.
    pub file: u64,
}

impl Bounds {
    /// For a program that copies a disk of `size` bytes once.
    ///
    /// `qemu-img` reserves address space for up to 64 threads, 8 GiB with all they may ask for, and
    /// uses some ten MiB of it. A file is the disk, its tables (far below one eighth), and rounding.
    /// Compressing a MiB takes 0.1 s at worst.
    #[must_use]
    pub fn for_disk(size: u64) -> Self {
        Bounds {
            memory: 8 << 30,
            cpu: Duration::from_secs(600 + size / (10 << 20)),
            file: size.saturating_add(size / 8).saturating_add(64 << 20),
        }
    }
}

/// Whether a program may run where it cannot be isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// No: an error says why.
    #[default]
    Isolated,
    /// Yes: the user said so.
    Anyway,
}

impl Policy {
    /// What `--allow-unsandboxed` means.
    #[must_use]
    pub fn from_flag(allow_unsandboxed: bool) -> Self {
        if allow_unsandboxed { Policy::Anyway } else { Policy::Isolated }
    }
}

/// The words in front of `prlimit`: root needs no user namespace, and in one it could not read the
/// files of others any more.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-current-user", "--net"]];

/// `command` in isolation, within `bounds`. Its standard input is empty.
///
/// # Errors
/// Kind `Undetermined`: this host cannot isolate programs, and `policy` does not allow it without.
pub fn command(command: Command, bounds: &Bounds, policy: Policy) -> Result<Command> {
    match way(&command.get_program().to_string_lossy(), policy)? {
        Some(way) => wrap(&command, bounds, way),
        None => Ok(command),
    }
}

/// Fails if [`command`] would, before any work.
///
/// # Errors
/// As [`command`].
pub fn check(program: &str, policy: Policy) -> Result<()> {
    way(program, policy).map(|_| ())
}

/// The way that works here; none if the user lets `program` run without.
fn way(program: &str, policy: Policy) -> Result<Option<&'static [&'static str]>> {
    static WAY: OnceLock<Result<&'static [&'static str], String>> = OnceLock::new();
    match (WAY.get_or_init(find_way), policy) {
        (Ok(way), _) => Ok(Some(way)),
        (Err(_), Policy::Anyway) => Ok(None),
        (Err(why), Policy::Isolated) => Err(refused(program, why)),
    }
}

fn refused(program: &str, why: &str) -> Error {
    Error::undetermined(format!("`{program}` cannot be isolated on this host"))
        .cause(why)
        .detail("it reads a disk that others wrote, and would run with all your rights")
        .hint("Allow user namespaces on this host, or give `--allow-unsandboxed` if you trust where the image comes from.")
}

fn wrap(command: &Command, bounds: &Bounds, way: &[&str]) -> Result<Command> {
    let mut wrapped = tools::UNSHARE.command()?;
    wrapped.args(way).arg("--").arg(tools::PRLIMIT.find()?);
    wrapped.arg(format!("--as={}", bounds.memory));
    wrapped.arg(format!("--cpu={}", bounds.cpu.as_secs()));
    wrapped.arg(format!("--fsize={}", bounds.file));
    wrapped.args(["--core=0", "--"]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    Ok(wrapped)
}

/// Which way works here, tried with a program that does nothing.
fn find_way() -> Result<&'static [&'static str], String> {
    let mut why = String::new();
    let bounds = Bounds::for_disk(0);
    for way in WAYS {
        let mut probe = match wrap(&Command::new("true"), &bounds, way) {
            Ok(probe) => probe,
            Err(e) => return Err(e.what().to_owned()),
        };
        match probe.stdin(Stdio::null()).output() {
            Ok(out) if out.status.success() => return Ok(way),
            Ok(out) => why = last_lines(&out.stderr, 1).join(" "),
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::error::Kind;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    }

    fn run(script: &str, bounds: &Bounds) -> std::process::Output {
        let mut command = command(sh(script), bounds, Policy::Isolated).expect("isolated");
        command.output().expect("it starts")
    }

    #[test]
    fn a_program_in_the_sandbox_does_not_reach_the_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached");
        // Outside it reaches the listener, so the script is right.
        assert_eq!(sh(&script).output().expect("it starts").stdout, b"reached\n");
        let out = run(&script, &Bounds::for_disk(0));
        assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
    }

    #[test]
    fn its_memory_time_and_files_are_bounded() {
        let dir = tempfile::tempdir().expect("tempdir");
        let bounds = Bounds { memory: 512 << 20, cpu: Duration::from_secs(1), file: 1 << 20 };
        let limits = run("ulimit -v; ulimit -t; ulimit -f; ulimit -c", &bounds);
        assert_eq!(String::from_utf8_lossy(&limits.stdout), "524288\n1\n1024\n0\n");
        let out = run("x=$(head -c 600M /dev/zero | tr '\\0' x); echo ${#x}", &bounds);
        assert!(!out.status.success(), "600 MiB fit into 512");
        let path = dir.path().join("file");
        let out = run(&format!("head -c 3M /dev/zero > {}", path.display()), &bounds);
        assert!(!out.status.success());
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 1 << 20);
        let out = run("while :; do :; done", &bounds);
        assert!(!out.status.success(), "it ran for ever");
    }

    #[test]
    fn files_are_read_and_written_as_before() {
        let dir = tempfile::tempdir().expect("tempdir");
        let bounds = Bounds::for_disk(1 << 20);
        let mut inner = sh("id -u; echo made > file; echo $WORD");
        inner.current_dir(dir.path()).env("WORD", "kept");
        let mut command = command(inner, &bounds, Policy::Isolated).expect("isolated");
        let out = command.output().expect("it starts");
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{uid}\nkept\n"));
        assert_eq!(std::fs::read(dir.path().join("file")).expect("made"), b"made\n");
    }

    #[test]
    fn where_it_cannot_be_isolated_the_way_out_is_named() {
        let e = refused("qemu-img", "unshare failed: Operation not permitted");
        assert_eq!(e.kind(), Kind::Undetermined);
        assert!(e.to_string().contains("Operation not permitted"), "{e}");
        assert!(e.hints()[0].contains("--allow-unsandboxed"), "{e}");
    }

    /// Also as root, each way that this host allows isolates.
    #[test]
    fn each_way_that_works_has_no_network() {
        let mut works = 0;
        for way in WAYS {
            let list = sh("cat /proc/net/dev");
            let out = wrap(&list, &Bounds::for_disk(0), way).expect("tools").output();
            let out = out.expect("it starts");
            if out.status.success() {
                works += 1;
                let text = String::from_utf8_lossy(&out.stdout);
                let devices: Vec<_> = text.lines().filter(|line| line.contains(':')).collect();
                assert!(devices.iter().all(|line| line.trim_start().starts_with("lo:")), "{text}");
            }
        }
        assert!(works > 0, "no way works on this host");
    }
}
