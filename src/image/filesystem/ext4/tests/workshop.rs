//! Makes and mounts images in a folder of its own.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::filesystem::ext4::Ext4;
use crate::image::oracle::{Mount, mount};
use crate::image::{Limits, ReadAt};

/// A file as a device.
pub(super) struct Disk(pub(super) File);

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset).map_err(Error::from)
    }
}

/// Bytes as a device.
pub(super) struct Bytes(pub(super) Vec<u8>);

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(from.ok_or_else(|| Error::undetermined("outside the device"))?);
        Ok(())
    }
}

/// A folder for images and mount points, removed at the end.
pub(super) struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    pub(super) fn new() -> Self {
        Workshop { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image of `size` (as `mke2fs` spells it) with `arguments`.
    pub(super) fn image(&self, size: &str, arguments: &[&str]) -> PathBuf {
        let path = self.path("image");
        let _ = std::fs::remove_file(&path);
        run(Command::new("mke2fs").args(["-q", "-F"]).args(arguments).arg(&path).arg(size));
        path
    }

    /// Mounts `image` with `options`; `None`, said aloud, where this host does not let us.
    pub(super) fn mount(&self, test: &str, image: &Path, options: &str) -> Option<Mount> {
        let point = self.path("mounted");
        std::fs::create_dir_all(&point).unwrap();
        let options = format!("loop,{options}");
        let out = mount(&["-o", &options], image, &point);
        if out.status.success() {
            return Some(Mount(point));
        }
        if rustix::process::getuid().is_root() && Path::new("/dev/loop-control").exists() {
            panic!("mount failed: {}", String::from_utf8_lossy(&out.stderr));
        }
        not_run(test, "mounting needs root and loop devices");
        None
    }
}

/// Says that a test did not run.
#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
pub(super) fn not_run(test: &str, reason: &str) {
    eprintln!("not run: {test}: {reason}");
}

/// Runs a program that must succeed, and returns its output.
pub(super) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub(super) fn open(image: &Path) -> Result<Ext4> {
    Ext4::open(Arc::new(Disk(File::open(image).unwrap())), &Limits::default())
}
