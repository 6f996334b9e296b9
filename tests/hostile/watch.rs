//! `devbox` under `strace` and resource limits: what it says, and what it touched.

use std::path::Path;
use std::process::Command;

use crate::workshop::Workshop;

/// Most processor time of all threads, in seconds.
const SECONDS: u32 = 10;
/// Most memory for data, in KiB. The product's own bound is lower; stacks of threads count here.
const MEMORY: u32 = 256 << 10;

/// Where a program of the system finds itself: libraries, its own process, how many processors there are.
const SYSTEM: &[&str] = &[
    "/lib/",
    "/lib64/",
    "/usr/lib/",
    "/etc/ld.so.",
    "/proc/self/",
    "/sys/fs/cgroup/",
    "/sys/devices/system/cpu/",
    "/proc/cpuinfo",
    "/dev/urandom",
];

/// What one run said.
pub(crate) struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Workshop {
    /// Runs `devbox` on `inputs`, files of the folder; fails if it touched anything else.
    fn watched(&self, args: &[&str], inputs: &[&str]) -> Said {
        let (trace, scratch) = (self.path("trace"), self.dir().join("scratch"));
        std::fs::create_dir_all(&scratch).expect("a folder");
        let limits = format!("ulimit -t {SECONDS} -d {MEMORY} && exec \"$@\"");
        let out = Command::new("bash")
            .args(["-c", &limits, "bash", "strace", "-f", "-qq", "-y", "--seccomp-bpf"])
            .args(["-s", "4096", "-e", "trace=%file,%network,ftruncate", "-o"])
            .arg(&trace)
            .arg(env!("CARGO_BIN_EXE_devbox"))
            .args(args)
            .current_dir(self.dir())
            .env_clear()
            .env("HOME", self.dir().join("home"))
            .env("TMPDIR", &scratch)
            .output()
            .expect("bash starts");
        let said = Said {
            code: out.status.code(),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        };
        let trace = std::fs::read_to_string(&trace)
            .unwrap_or_else(|e| panic!("strace is needed for this test: {e}\n{}", said.err));
        check_trace(&trace, inputs, args, self.dir());
        let left = std::fs::read_dir(scratch).expect("a folder").count();
        assert_eq!(left, 0, "{args:?} left scratch files behind");
        said
    }

    /// `digest` and `parity` of `file` at each level end in one error with `words`, and exit code 3.
    pub(crate) fn refused(&self, file: &str, levels: &[&str], words: &str) {
        for level in levels {
            for args in [
                vec!["digest", file, "--recompute", "--level", level],
                vec!["parity", file, file, "--recompute", "--level", level],
            ] {
                let Said { code, out, err } = self.watched(&args, &[file]);
                assert_eq!(code, Some(3), "{args:?}: {out}{err}");
                assert_eq!(out, "", "{args:?}: a digest of what could not be read");
                let errors = err.lines().filter(|line| line.starts_with("error:")).count();
                assert_eq!(errors, 1, "{args:?}: {err}");
                assert!(err.contains(words), "{args:?} does not say `{words}`: {err}");
                assert!(!err.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {err:?}");
            }
        }
    }

    /// What `digest` prints for `file`, and its notes.
    pub(crate) fn read(&self, file: &str, level: &str) -> (String, String) {
        let Said { code, out, err } =
            self.watched(&["digest", file, "--recompute", "--level", level], &[file]);
        assert_eq!(code, Some(0), "{file}: {err}");
        assert!(!err.contains(|c: char| c.is_control() && c != '\n'), "{err:?}");
        (out, err)
    }
}

/// Fails unless the program opened only `inputs` and what [`SYSTEM`] allows, only to read, wrote only
/// to scratch files without a name, and asked for no socket.
fn check_trace(trace: &str, inputs: &[&str], args: &[&str], dir: &Path) {
    let mut opened = 0;
    for line in trace.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let name = call.split('(').next().unwrap_or(call);
        let path = call.split('"').nth(1).unwrap_or("");
        let own = inputs.contains(&path) || inputs.iter().any(|i| dir.join(i) == Path::new(path));
        // What stands beside the input may be looked at, and not opened.
        let beside = !path.starts_with('/') && !path.contains("..");
        let system = SYSTEM.iter().any(|place| path.starts_with(place));
        // A project in this folder or above would say which differences are meant.
        let project = Path::new(path).ends_with("devbox.toml")
            && dir.ancestors().any(|d| Path::new(path).parent() == Some(d));
        // What devbox keeps for itself is in the home that this test gave it.
        let home = Path::new(path).starts_with(dir.join("home"));
        let scratch = Path::new(path) == dir.join("scratch") && call.contains("O_TMPFILE");
        let fine = match name {
            "open" | "openat" | "openat2" => {
                opened += u32::from(own);
                let reads = !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
                    .iter()
                    .any(|flag| call.contains(flag));
                home || scratch || reads && (own || system)
            }
            "execve" => path == env!("CARGO_BIN_EXE_devbox"),
            "stat" | "lstat" | "newfstatat" | "statx" | "access" | "faccessat" | "faccessat2"
            | "readlink" | "readlinkat" | "statfs" => {
                let this = path == env!("CARGO_BIN_EXE_devbox");
                beside || own || system || home || project || this
            }
            "ftruncate" => call.contains(&format!("<{}/scratch/#", dir.display())),
            // Where it stands, and signals and exits that strace shows among the calls.
            "getcwd" => true,
            // A thread that the end of the process met on its way into a call, which is not made: it is detached,
            // unfinished, or has no result.
            "???" => {
                call.contains("<detached ...>")
                    || call.contains("<unfinished ...>")
                    || call.trim_end().ends_with("= ?")
            }
            _ => {
                home || call.starts_with("---")
                    || call.starts_with("+++")
                    || call.starts_with("<...")
            }
        };
        assert!(fine, "{args:?}: {line}");
    }
    assert!(opened > 0, "{args:?} never opened its input: the watch is broken\n{trace}");
}
