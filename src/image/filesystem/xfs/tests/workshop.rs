//! Makes and mounts images in a folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::error::Result;
use crate::image::Limits;
use crate::image::container::raw::Raw;
use crate::image::filesystem::xfs::Xfs;
use crate::image::oracle::{Mount, mount};

/// A folder for images and mount points, removed at the end.
pub(super) struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    /// `None`, said aloud, where this host cannot make and mount XFS filesystems.
    pub(super) fn new(test: &str) -> Option<Self> {
        let known = || {
            let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
            all.lines().any(|line| line.split_whitespace().last() == Some("xfs"))
        };
        // A module is listed once it is loaded.
        if !known() {
            let _ = Command::new("modprobe").arg("xfs").output();
        }
        let reason = if Command::new("mkfs.xfs").arg("-V").output().is_err() {
            "`mkfs.xfs` is not installed"
        } else if !rustix::process::getuid().is_root() || !Path::new("/dev/loop-control").exists() {
            "mounting needs root and loop devices"
        } else if !known() {
            "the kernel of this host has no xfs"
        } else {
            return Some(Workshop { folder: tempfile::tempdir().unwrap() });
        };
        not_run(test, reason);
        None
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a sparse image of `mib` MiB with `arguments` of `mkfs.xfs`.
    pub(super) fn image(&self, mib: u64, arguments: &[&str]) -> PathBuf {
        let path = self.path("image");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        // Below 300 MiB it makes filesystems for tests only.
        let small: &[&str] = if mib < 300 { &["--unsupported"] } else { &[] };
        run(Command::new("mkfs.xfs").args(small).args(["-q", "-f"]).args(arguments).arg(&path));
        path
    }

    /// Mounts `image`; `None`, said aloud, where the kernel is too old for its features.
    pub(super) fn try_mount(&self, test: &str, image: &Path) -> Option<Mount> {
        let point = self.path("mounted");
        std::fs::create_dir_all(&point).unwrap();
        if !mount(&["-t", "xfs", "-o", "loop"], image, &point).status.success() {
            not_run(test, "the kernel of this host does not know these features of XFS");
            return None;
        }
        Some(Mount(point))
    }

    /// Mounts `image` with `options`.
    pub(super) fn mount(&self, image: &Path, options: &str) -> Mount {
        let point = self.path("mounted");
        std::fs::create_dir_all(&point).unwrap();
        let options = format!("loop,{options}");
        let out = mount(&["-t", "xfs", "-o", &options], image, &point);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Mount(point)
    }
}

/// Says that a test did not run.
#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn not_run(test: &str, reason: &str) {
    eprintln!("not run: {test}: {reason}");
}

/// Runs a program that must succeed, and returns its output.
pub(super) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub(super) fn open(image: &Path) -> Result<Xfs> {
    let limits = Limits { contents: 16 << 40, file_size: 16 << 40, ..Limits::default() };
    Xfs::open(Arc::new(Raw::open(image).unwrap()), &limits)
}
