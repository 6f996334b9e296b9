//! Makes and mounts images in a folder of its own.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::directory::Directory;
use crate::image::filesystem::btrfs::Btrfs;
use crate::image::oracle::{Mount, mount};
use crate::image::tree::Filesystem as _;
use crate::image::{Limits, ReadAt};
use crate::parity::difference::Differences;
use crate::parity::hashed::Hashed;
use crate::parity::trees;

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

/// A folder for images and mount points, removed at the end.
pub(super) struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    pub(super) fn new() -> Self {
        // In memory where that is possible: a disk waits for each flush.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Workshop { folder: folder.unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image of `size` MiB with `arguments`.
    pub(super) fn image(&self, size: u64, arguments: &[&str]) -> PathBuf {
        let path = self.path("image");
        File::create(&path).unwrap().set_len(size << 20).unwrap();
        run(Command::new("mkfs.btrfs").args(["-q", "-f"]).args(arguments).arg(&path));
        path
    }

    /// Mounts `image` with `options`; `None`, said aloud, where this host does not let us.
    pub(super) fn mount(&self, test: &str, image: &Path, options: &str) -> Option<Mount> {
        if !is_possible(test) {
            return None;
        }
        let point = self.path("mounted");
        std::fs::create_dir_all(&point).unwrap();
        let options = format!("loop,subvolid=5,{options}");
        let out = mount(&["-t", "btrfs", "-o", &options], image, &point);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Some(Mount(point))
    }
}

/// Whether images can be made here; says why not.
pub(super) fn is_made(test: &str) -> bool {
    crate::image::oracle::tool("mkfs.btrfs", test).is_some()
}

/// Whether images can be mounted here; says why not.
#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
pub(super) fn is_possible(test: &str) -> bool {
    let listed = || std::fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.contains("btrfs"));
    let reason = if which::which("mkfs.btrfs").is_err() {
        "`mkfs.btrfs` is not installed"
    } else if !rustix::process::getuid().is_root() || !Path::new("/dev/loop-control").exists() {
        "mounting needs root and loop devices"
    } else if !(listed() || run_quietly("modprobe", "btrfs") && listed()) {
        "the kernel of this host has no btrfs"
    } else {
        return true;
    };
    eprintln!("not run: {test}: {reason}");
    false
}

fn run_quietly(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|out| out.status.success())
}

/// Runs a program that must succeed, and returns its output.
pub(super) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub(super) fn open(image: &Path) -> Result<Btrfs> {
    Btrfs::open(Arc::new(Disk(File::open(image).unwrap())), &Limits::default())
}

/// Fails unless the reader and the kernel, which has it mounted at `root`, see the same in `image`.
/// Times are compared too, except those of the empty directories that stand for subvolumes in
/// snapshots: the kernel shows the time at which it was asked.
pub(super) fn assert_equal(image: &Path, root: &Path) {
    let limits = Limits::default();
    let filesystem = open(image).unwrap();
    let ours = Hashed::read(&filesystem, &limits).unwrap();
    assert!(filesystem.late_notes().is_empty(), "{:?}", filesystem.late_notes());
    let theirs = Hashed::read(&Directory::open(root, &limits).unwrap(), &limits).unwrap();
    let mut differences = Differences::default();
    let scope = trees::Scope { root: true, ..trees::Scope::default() };
    trees::compare(&ours, &theirs, scope, &mut differences);
    let all = differences.sorted();
    let text: Vec<_> = all.iter().take(20).map(ToString::to_string).collect();
    assert!(all.is_empty(), "{} differences, ours -> theirs:\n{}", all.len(), text.join("\n"));
    assert_eq!(ours.tree1(), theirs.tree1());
    assert_eq!(ours.links1(), theirs.links1());
    assert!(ours.tree.nodes.len() > 1, "nothing was compared");
    let times = |hashed: &Hashed| -> std::collections::BTreeMap<Vec<u8>, i64> {
        let ids = 0..hashed.tree.nodes.len() as u32;
        let all = ids.map(|id| (hashed.path(id), hashed.node(id).mtime));
        all.filter(|(path, _)| !path.ends_with(b"placeholder")).collect()
    };
    assert_eq!(times(&ours), times(&theirs));
}
