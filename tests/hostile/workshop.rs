//! A folder in which images are made.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that goes with the test.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Workshop { dir: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs shell commands in the folder; they must succeed.
    pub(crate) fn sh(&self, script: &str) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let out = Command::new("sh")
            .args(["-euc", script])
            .current_dir(self.dir())
            .env("PATH", path)
            .env("LC_ALL", "C")
            .env("MTOOLS_SKIP_CHECK", "1")
            .output()
            .expect("sh starts");
        assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Runs requests of `debugfs` on an image of the folder.
    pub(crate) fn debugfs(&self, image: &str, requests: &[&str]) {
        std::fs::write(self.path("requests"), requests.join("\n")).expect("write");
        self.sh(&format!("debugfs -w -f requests {image}"));
    }

    /// Overwrites bytes of a file.
    pub(crate) fn put(&self, name: &str, offset: u64, bytes: &[u8]) {
        let file = std::fs::File::options().write(true).open(self.path(name)).expect("open");
        file.write_all_at(bytes, offset).expect("write");
    }

    /// Bytes of a file.
    pub(crate) fn get(&self, name: &str, offset: u64, len: usize) -> Vec<u8> {
        let file = std::fs::File::open(self.path(name)).expect("open");
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).expect("read");
        bytes
    }

    /// Overwrites the only place where `old` stands with `new`, which is as long.
    pub(crate) fn replace(&self, name: &str, old: &[u8], new: &[u8]) {
        assert_eq!(old.len(), new.len());
        let mut data = std::fs::read(self.path(name)).expect("read");
        let at: Vec<usize> = data
            .windows(old.len())
            .enumerate()
            .filter(|(_, w)| *w == old)
            .map(|(i, _)| i)
            .collect();
        let [at] = at[..] else { panic!("`{}` stands at {at:?}", old.escape_ascii()) };
        data[at..at + new.len()].copy_from_slice(new);
        std::fs::write(self.path(name), data).expect("write");
    }
}
