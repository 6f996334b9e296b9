//! Image files on loop devices, mounted; all is undone at the end, also of a test that failed.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Longest time that a device or a mount may be busy after its last use.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whether this host lets a test mount filesystems of type `kind`; says why not.
pub(crate) fn possible(test: &str, kind: &str, programs: &[&str]) -> bool {
    let mut missing = programs
        .iter()
        .filter(|name| which::which_in(name, Some("/usr/bin:/bin:/usr/sbin:/sbin"), "/").is_err());
    let reason = if !rustix::process::geteuid().is_root() {
        "mounting needs root".to_owned()
    } else if !Path::new("/dev/loop-control").exists() {
        "mounting needs loop devices".to_owned()
    } else if let Some(name) = missing.next() {
        format!("`{name}` is not installed")
    } else if !known(kind) {
        format!("the kernel of this host has no {kind}")
    } else {
        return true;
    };
    eprintln!("not run: {test}: {reason}");
    false
}

fn known(kind: &str) -> bool {
    let listed = || {
        let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        all.lines().any(|line| line.split_whitespace().last() == Some(kind))
    };
    // A module is listed once it is loaded.
    listed() || run_quietly("modprobe", &[kind]) && listed()
}

fn run_quietly(program: &str, args: &[&str]) -> bool {
    let mut command = command(program, args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn command(program: &str, args: &[&str]) -> Command {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).stdin(Stdio::null());
    command
}

/// Runs a program that must succeed; its standard output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out = command(program, args).output();
    let out = out.unwrap_or_else(|e| panic!("{program} does not start: {e}"));
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Copies an image; its holes stay holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    run("cp", &["--sparse=always", text(from), text(to)]);
}

/// A loop device with a file below it.
struct Loop(String);

impl Loop {
    fn new(image: &Path) -> Self {
        let device = run("losetup", &["--find", "--show", text(image)]);
        Loop(device.trim().to_owned())
    }

    /// Waits until no filesystem has the device. One that is unmounted here lives on, and writes on, in every
    /// mount namespace that was made meanwhile (mount_namespaces(7)): what its file holds then is half of it.
    fn released(&self) -> Result<(), String> {
        let end = Instant::now() + DEADLINE;
        loop {
            // A block device opens with O_EXCL once nobody else claims it (open(2)).
            let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
            match rustix::fs::open(self.0.as_str(), flags, Mode::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < end => {}
                Err(e) => {
                    return Err(format!(
                        "another mount namespace still has the filesystem on {}: {e}; run these tests below `unshare --mount`",
                        self.0
                    ));
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE;
        while !run_quietly("losetup", &["--detach", &self.0]) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A mounted image.
pub(crate) struct Mounted {
    /// The root of the filesystem.
    pub(crate) root: PathBuf,
    mounted: bool,
    device: Loop,
}

impl Mounted {
    /// Mounts `image` at `root`, which is made, with `options` of that filesystem, comma between.
    pub(crate) fn new(kind: &str, image: &Path, root: &Path, options: &str, write: bool) -> Self {
        let device = Loop::new(image);
        std::fs::create_dir_all(root).expect("the mount point can be made");
        let flags = if write { MountFlags::NOATIME } else { MountFlags::RDONLY };
        let options = CString::new(options).expect("options have no NUL");
        let done = rustix::mount::mount(device.0.as_str(), root, kind, flags, &*options);
        if let Err(e) = done {
            let log = Command::new("dmesg").output().map(|out| out.stdout).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let last: Vec<&str> = log.lines().rev().take(8).collect();
            panic!(
                "the kernel does not mount {} as {kind} with {options:?}: {e}; its last words, the newest first:\n{}",
                image.display(),
                last.join("\n")
            );
        }
        Mounted { root: root.to_path_buf(), mounted: true, device }
    }

    /// Cuts the filesystem off: nothing more is written. With `flush`, its log is written before.
    pub(crate) fn shut_down(&self, flush: bool) {
        let request = if flush { "shutdown -f" } else { "shutdown" };
        run("xfs_io", &["-x", "-c", request, text(&self.root)]);
    }

    fn unmount(&mut self) {
        let end = Instant::now() + DEADLINE;
        // Children that other threads are just starting hold copies of our open files until they
        // become another program.
        while let Err(e) = rustix::mount::unmount(&self.root, UnmountFlags::empty()) {
            if Instant::now() > end {
                let _ = rustix::mount::unmount(&self.root, UnmountFlags::DETACH);
                self.mounted = false;
                // A second panic would end the whole test program.
                assert!(std::thread::panicking(), "cannot unmount {}: {e}", self.root.display());
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.mounted = false;
        let released = self.device.released();
        assert!(released.is_ok() || std::thread::panicking(), "{}", released.unwrap_err());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            self.unmount();
        }
    }
}
