//! A directory of this host as a filesystem: one mount, without what is mounted over parts of it.
//!
//! All is opened relative to one file descriptor and never through a link (`openat2`), so a tree
//! that changes under the reader cannot lead it elsewhere. A file that changes while it is read is
//! an error.

mod walk;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::Limits;
use super::tree::{Filesystem, Identity, Node, NodeKind, Tree};
use crate::error::{Error, Result};

/// Most bytes passed on at once.
const PIECE: usize = 1 << 20;

/// A directory of this host, its metadata read when it was opened.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    root: OwnedFd,
    identity: Identity,
    tree: Tree,
    files: Vec<FileRecord>,
    notes: Vec<String>,
}

/// What a file was when the tree was read; its index is the node's inode number.
#[derive(Debug)]
struct FileRecord {
    path: Vec<u8>,
    stamp: Stamp,
}

/// What changes when somebody writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    device: (u32, u32),
    inode: u64,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Stamp {
    fn of(stat: &Statx) -> Self {
        let time = |t: StatxTimestamp| (t.tv_sec, t.tv_nsec);
        Stamp {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
        }
    }
}

impl Directory {
    /// Opens the directory `path` and reads all metadata below it.
    ///
    /// # Errors
    /// Of kind `Undetermined`: something cannot be read, is mounted over (and this user may not
    /// look beneath it), or is beyond a limit. Of kind `Failed` if `path` is no directory.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let plain = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(path, plain, Mode::empty()).map_err(|e| {
            Error::failed(format!("cannot open the directory `{}`", path.display())).cause(e)
        })?;
        // A clone of the mount without the mounts below it. Needs CAP_SYS_ADMIN; without it, mount
        // points are found and named instead.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let root = rustix::mount::open_tree(&open, "", flags).unwrap_or(open);
        let identity = Identity { kind: "directory", label: vec![], uuid: String::new() };
        let (tree, files) = walk::read(path, &root, limits)?;
        let notes = notes();
        Ok(Directory { path: path.to_owned(), root, identity, tree, files, notes })
    }

    /// What this user cannot see of the directory, in sentences without a full stop.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// What the kernel hides from this process.
fn notes() -> Vec<String> {
    let mut notes = vec![];
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let identity = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if !identity {
        notes.push("owners are as this user namespace shows them".to_owned());
    }
    if !identity || !rustix::process::geteuid().is_root() {
        notes.push("attributes `trusted.*` are visible to root alone".to_owned());
    }
    notes
}

impl Filesystem for Directory {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tree(&self) -> Result<Tree> {
        Ok(self.tree.clone())
    }

    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let record = match node.kind {
            NodeKind::File { inode, .. } => {
                usize::try_from(inode).ok().and_then(|i| self.files.get(i))
            }
            _ => None,
        };
        let record = record.ok_or_else(|| Error::undetermined("not a file of this directory"))?;
        let at = |e: Errno| {
            Error::undetermined(format!("cannot read `{}`", show(&self.path, &record.path)))
                .cause(e)
        };
        let file = open_file(&self.root, &record.path).map_err(at)?;
        self.unchanged(record, &file)?;
        let mut buf = vec![0; PIECE];
        loop {
            match rustix::io::read(&file, &mut buf) {
                Ok(0) => break,
                Ok(len) => sink(&buf[..len])?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(at(e)),
            }
        }
        self.unchanged(record, &file)
    }
}

impl Directory {
    fn unchanged(&self, record: &FileRecord, file: &OwnedFd) -> Result<()> {
        let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
        if stat.is_ok_and(|stat| Stamp::of(&stat) == record.stamp) {
            return Ok(());
        }
        let path = show(&self.path, &record.path);
        Err(Error::undetermined(format!("`{path}` changed while it was read"))
            .hint("Stop what writes to it, or hash a snapshot of the filesystem."))
    }
}

/// Opens one regular file for reading, without touching its access time where that is allowed.
fn open_file(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags | OFlags::NOATIME, Mode::empty(), INSIDE) {
        Err(Errno::PERM) => rustix::fs::openat2(root, path, flags, Mode::empty(), INSIDE),
        other => other,
    }
}

/// Never outside the directory, never through a link, never into another mount.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

fn show(root: &Path, path: &[u8]) -> String {
    root.join(std::ffi::OsStr::from_bytes(path)).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::parity::hashed::Hashed;

    /// The tree of the vector `tree1/root`; its owners are this user's.
    fn example() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, mode: u32, text: &str| {
            std::fs::write(at(name), text).expect("write");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(at(name), mode).expect("chmod");
        };
        for (name, mode) in [("b", 0o755), ("tmp", 0o1777)] {
            std::fs::create_dir(at(name)).expect("mkdir");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(at(name), mode).expect("chmod");
        }
        write("a", 0o644, "hi\n");
        std::fs::hard_link(at("a"), at("c")).expect("link");
        symlink("../a", at("b/l")).expect("symlink");
        write("b/ping", 0o755, "hi\n");
        write("b/é =x", 0o644, "");
        let mode = Mode::from_raw_mode(0o644);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("b/p"), kind, mode, 0).expect("mkfifo");
        rustix::fs::chmod(at("b/p"), mode).expect("chmod");
        dir
    }

    /// Hashed as if root owned all of it, so that any user can run the test.
    fn hash(dir: &Path) -> Result<Hashed> {
        let mut directory = Directory::open(dir, &Limits::default())?;
        for node in &mut directory.tree.nodes {
            (node.uid, node.gid) = (0, 0);
        }
        Hashed::read(&directory, &Limits::default())
    }

    #[test]
    fn a_directory_gives_the_vectors() {
        let dir = example();
        let hashed = hash(dir.path()).expect("hash");
        let vector = |name| crate::parity::hashed::tests::vector(name).1;
        assert_eq!(hashed.tree1().to_string(), vector("tree1/root"));
        assert_eq!(hashed.links1().to_string(), vector("links1/root"));
    }

    #[test]
    fn a_file_that_changes_after_the_metadata_was_read_is_an_error() {
        let dir = example();
        let directory = Directory::open(dir.path(), &Limits::default()).expect("open");
        std::fs::write(dir.path().join("b/ping"), "ho\n").expect("write");
        let e = Hashed::read(&directory, &Limits::default()).expect_err("it changed");
        assert!(e.to_string().contains("b/ping` changed while it was read"), "{e}");
        std::fs::remove_file(dir.path().join("b/ping")).expect("remove");
        symlink("../a", dir.path().join("b/ping")).expect("symlink");
        let e = Hashed::read(&directory, &Limits::default()).expect_err("it became a link");
        assert!(e.to_string().contains("cannot read `/b/ping`"), "{e}");
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that could not run says so")]
    fn attributes_are_read_with_their_values() {
        let dir = example();
        let path = dir.path().join("a");
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(e) = rustix::fs::setxattr(&path, "user.note", b"1", flags) {
            eprintln!("not run: attributes_are_read_with_their_values: no attributes here: {e}");
            return;
        }
        let directory = Directory::open(dir.path(), &Limits::default()).expect("open");
        let node = directory.tree.nodes.iter().find(|n| n.name == b"a").expect("a");
        assert_eq!(node.xattrs, [(b"user.note".to_vec(), b"1".to_vec())]);
    }

    #[test]
    fn a_limit_is_an_error_that_names_it() {
        let dir = example();
        let limits = Limits { entries: 3, ..Limits::default() };
        let e = Directory::open(dir.path(), &limits).expect_err("too many");
        assert!(e.what().contains("more than 3 entries"), "{e}");
        let e = Directory::open(&dir.path().join("a"), &limits).expect_err("a file");
        assert!(e.what().contains("cannot open the directory"), "{e}");
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that could not run says so")]
    fn an_unreadable_file_is_an_error_for_a_plain_user() {
        if rustix::process::geteuid().is_root() {
            eprintln!("not run: an_unreadable_file_is_an_error_for_a_plain_user: root reads all");
            return;
        }
        let dir = example();
        let none = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(dir.path().join("a"), none).expect("chmod");
        let e = hash(dir.path()).expect_err("unreadable");
        assert!(e.to_string().contains("Permission denied"), "{e}");
    }
}
