//! Random operations on a mounted directory: everything that programs do to files, by system calls.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, Timespec,
    Timestamps, XattrFlags,
};

use super::numbers::Numbers;

/// Largest size of a file in bytes; what lies between its pieces is a hole.
const FILE: u64 = 6 << 20;
/// Largest piece that is written at once.
const PIECE: u64 = 96 << 10;

/// `cap_net_raw=ep`, as `setcap` writes it (version 2, linux/capability.h).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A directory tree that is played with.
pub(crate) struct Playground {
    numbers: Numbers,
    directories: Vec<PathBuf>,
    /// Names of anything that is not a directory.
    names: Vec<PathBuf>,
    /// Files that stay open, so that their contents stay when their last name goes.
    open: Vec<File>,
}

impl Playground {
    pub(crate) fn new(root: &Path, numbers: Numbers) -> Self {
        Playground { numbers, directories: vec![root.to_owned()], names: vec![], open: vec![] }
    }

    /// Goes on in a tree that was played with before.
    pub(crate) fn resume(root: &Path, numbers: Numbers) -> Self {
        let mut playground = Playground::new(root, numbers);
        let mut todo = vec![root.to_owned()];
        while let Some(folder) = todo.pop() {
            // Sorted: one seed gives one workload.
            let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read"));
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort_unstable();
            for path in paths {
                if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                    playground.directories.push(path.clone());
                    todo.push(path);
                } else {
                    playground.names.push(path);
                }
            }
        }
        playground
    }

    /// Does `count` operations; how many worked. They may fail, as on a full disk.
    pub(crate) fn play(&mut self, count: u64) -> u64 {
        (0..count).filter(|_| self.step().is_ok()).count() as u64
    }

    fn step(&mut self) -> io::Result<()> {
        if self.names.len() < 4 {
            return self.create();
        }
        match self.numbers.below(36) {
            0..=5 => self.create(),
            6 | 7 => self.write(),
            8 => self.append(),
            9 => self.overwrite(),
            10 => self.truncate(),
            11 | 12 => self.allocate(),
            13 | 14 => self.rename(),
            15 => self.exchange(),
            16 => self.hard_link(),
            17 | 18 => self.unlink(),
            19 => self.symlink(),
            20 | 21 => self.make_directory(),
            22 => self.remove_directory(),
            23 => self.special(),
            24 => self.mode(),
            25 => self.owner(),
            26 | 27 => self.attribute(),
            28 => self.remove_attribute(),
            29 => self.acl(),
            30 => self.capability(),
            31 => self.flags(),
            32 => self.times(),
            33 => self.sync(),
            34 => self.hold(),
            _ => self.many(),
        }
    }

    fn directory(&mut self) -> PathBuf {
        self.numbers.pick(&self.directories).clone()
    }

    fn name(&mut self) -> PathBuf {
        self.numbers.pick(&self.names).clone()
    }

    /// A file or, one time in four, a directory.
    fn any(&mut self) -> PathBuf {
        if self.numbers.one_in(4) { self.directory() } else { self.name() }
    }

    /// A path that is likely new.
    fn fresh(&mut self) -> PathBuf {
        let number = self.numbers.next();
        let name = match self.numbers.below(8) {
            0 => vec![b'n'; 255],
            1 => format!("a name\n{number}").into_bytes(),
            2 => [b"\xff\xfe\\".as_slice(), &number.to_string().into_bytes()].concat(),
            3 => format!("{}-{number}", "long".repeat(40)).into_bytes(),
            _ => format!("f{}", number % 100_000).into_bytes(),
        };
        self.directory().join(OsStr::from_bytes(&name))
    }

    fn writable(&mut self) -> io::Result<File> {
        let name = self.name();
        // Only a regular file: a device's or a pipe's end may wait.
        if !fs::symlink_metadata(&name)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        OpenOptions::new().read(true).write(true).open(name)
    }

    fn create(&mut self) -> io::Result<()> {
        let path = self.fresh();
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        self.names.push(path);
        let length = self.numbers.length(PIECE);
        file.write_all_at(&self.numbers.bytes(length), 0)
    }

    /// A piece anywhere, so that holes come to be.
    fn write(&mut self) -> io::Result<()> {
        let file = self.writable()?;
        let at = self.numbers.length(FILE);
        let length = self.numbers.length(PIECE);
        file.write_all_at(&self.numbers.bytes(length), at)
    }

    fn append(&mut self) -> io::Result<()> {
        let file = self.writable()?;
        let length = self.numbers.length(PIECE);
        file.write_all_at(&self.numbers.bytes(length), file.metadata()?.len())
    }

    fn overwrite(&mut self) -> io::Result<()> {
        let file = self.writable()?;
        let size = file.metadata()?.len();
        let at = self.numbers.below(size.max(1));
        let length = self.numbers.length(PIECE).min(size - at.min(size));
        file.write_all_at(&self.numbers.bytes(length), at)
    }

    fn truncate(&mut self) -> io::Result<()> {
        let file = self.writable()?;
        let length = match self.numbers.below(3) {
            0 => self.numbers.length(FILE),
            1 => file.metadata()?.len() / 2,
            _ => 0,
        };
        file.set_len(length)
    }

    /// Unwritten space, holes, zeros, and pieces cut out or put in.
    fn allocate(&mut self) -> io::Result<()> {
        let file = self.writable()?;
        let flags = match self.numbers.below(7) {
            0 => FallocateFlags::empty(),
            1 => FallocateFlags::KEEP_SIZE,
            2 | 3 => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            4 => FallocateFlags::ZERO_RANGE,
            5 => FallocateFlags::COLLAPSE_RANGE,
            _ => FallocateFlags::INSERT_RANGE,
        };
        let whole = flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE);
        let unit = if whole { 4096 } else { 1 };
        let size = file.metadata()?.len();
        let at = self.numbers.below(size.max(1)) / unit * unit;
        let length = (self.numbers.length(PIECE) + 1).next_multiple_of(unit);
        Ok(rustix::fs::fallocate(&file, flags, at, length)?)
    }

    /// Renames a file or a directory, now and then over another one.
    fn rename(&mut self) -> io::Result<()> {
        let from = self.any();
        if from == self.directories[0] {
            return Err(io::Error::other("the root cannot be renamed"));
        }
        let over = self.numbers.one_in(3);
        let to = if over { self.any() } else { self.fresh() };
        fs::rename(&from, &to)?;
        if from != to && !same_file(&from, &to) {
            self.forget(&to);
            self.moved(&from, &to);
        }
        Ok(())
    }

    fn exchange(&mut self) -> io::Result<()> {
        let (a, b) = (self.name(), self.name());
        let flags = match self.numbers.one_in(4) {
            // What moves leaves a whiteout behind: a character device 0,0.
            true => RenameFlags::WHITEOUT,
            false => RenameFlags::EXCHANGE,
        };
        Ok(rustix::fs::renameat_with(CWD, a, CWD, b, flags)?)
    }

    fn hard_link(&mut self) -> io::Result<()> {
        let (name, path) = (self.name(), self.fresh());
        fs::hard_link(name, &path)?;
        self.names.push(path);
        Ok(())
    }

    fn unlink(&mut self) -> io::Result<()> {
        let name = self.name();
        fs::remove_file(&name)?;
        self.forget(&name);
        Ok(())
    }

    fn symlink(&mut self) -> io::Result<()> {
        let path = self.fresh();
        let length = 1 + self.numbers.length(1200);
        let target: Vec<u8> =
            (0..length).map(|_| b"abc/.\xe9"[self.numbers.below(6) as usize]).collect();
        symlink(OsStr::from_bytes(&target), &path)?;
        self.names.push(path);
        Ok(())
    }

    fn make_directory(&mut self) -> io::Result<()> {
        let path = self.fresh();
        fs::create_dir(&path)?;
        self.directories.push(path);
        Ok(())
    }

    fn remove_directory(&mut self) -> io::Result<()> {
        let path = self.directory();
        if path == self.directories[0] {
            return Err(io::Error::other("the root stays"));
        }
        if self.numbers.one_in(2) {
            fs::remove_dir(&path)?;
        } else {
            fs::remove_dir_all(&path)?;
        }
        self.forget(&path);
        Ok(())
    }

    /// Devices and pipes; no socket, which is no part of an image.
    fn special(&mut self) -> io::Result<()> {
        let path = self.fresh();
        let kind =
            *self.numbers.pick(&[FileType::CharacterDevice, FileType::BlockDevice, FileType::Fifo]);
        let numbers = self.numbers.pick(&[(1, 3), (8, 255), (300, 70_000), (4095, 1_048_575)]);
        let device = rustix::fs::makedev(numbers.0, numbers.1);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from(0o640), device)?;
        self.names.push(path);
        Ok(())
    }

    fn mode(&mut self) -> io::Result<()> {
        let path = self.any();
        if fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::Error::other("a link has no mode"));
        }
        let mode = self.numbers.below(0o10000) as u32;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn owner(&mut self) -> io::Result<()> {
        let path = self.any();
        let ids = [0, 33, 1000, 70_000, 4_000_000_000];
        let (uid, gid) = (*self.numbers.pick(&ids), *self.numbers.pick(&ids));
        lchown(path, Some(uid), Some(gid))
    }

    fn attribute(&mut self) -> io::Result<()> {
        let path = self.any();
        let number = self.numbers.below(6);
        let length = match self.numbers.below(8) {
            0 => self.numbers.length(60_000),
            1 => 0,
            _ => self.numbers.length(2000),
        };
        let value = self.numbers.bytes(length);
        let key = match self.numbers.below(4) {
            0 => "security.selinux".to_owned(),
            1 => format!("trusted.note-{number}"),
            _ => format!("user.{number}{}", "x".repeat(self.numbers.below(40) as usize)),
        };
        Ok(rustix::fs::lsetxattr(path, &key, &value, XattrFlags::empty())?)
    }

    fn remove_attribute(&mut self) -> io::Result<()> {
        let path = self.any();
        let mut keys = vec![0; 65536];
        let length = rustix::fs::llistxattr(&path, &mut keys[..])?;
        let keys: Vec<&[u8]> =
            keys[..length].split(|b| *b == 0).filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            return Err(io::Error::other("no attribute"));
        }
        Ok(rustix::fs::lremovexattr(&path, *self.numbers.pick(&keys))?)
    }

    /// The kernel's form (linux/posix_acl_xattr.h): a version, then tag, permissions and id each.
    fn acl(&mut self) -> io::Result<()> {
        let default = self.numbers.one_in(3);
        let path = if default { self.directory() } else { self.any() };
        let mut acl = 2u32.to_le_bytes().to_vec();
        let nobody = u32::MAX;
        let users = self.numbers.below(5) as u32;
        let mut entries = vec![(1u16, 7u16, nobody)];
        entries.extend((0..users).map(|i| (2, 5, 1000 + i * 7)));
        entries.extend([(4, 5, nobody), (8, 4, 50), (16, 7, nobody), (32, 1, nobody)]);
        for (tag, permissions, id) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        let key = if default { "system.posix_acl_default" } else { "system.posix_acl_access" };
        Ok(rustix::fs::lsetxattr(path, key, &acl, XattrFlags::empty())?)
    }

    fn capability(&mut self) -> io::Result<()> {
        let name = self.name();
        Ok(rustix::fs::lsetxattr(name, "security.capability", CAPABILITY, XattrFlags::empty())?)
    }

    /// Sets or clears `chattr` `i` and `a`.
    fn flags(&mut self) -> io::Result<()> {
        let path = self.any();
        if path == self.directories[0] {
            return Err(io::Error::other("the root stays open for changes"));
        }
        let meta = fs::symlink_metadata(&path)?;
        if !meta.is_file() && !meta.is_dir() {
            return Err(io::Error::other("it has no flags"));
        }
        let file = File::open(path)?;
        let mut flags = rustix::fs::ioctl_getflags(&file)?;
        flags.toggle(*self.numbers.pick(&[IFlags::IMMUTABLE, IFlags::APPEND]));
        Ok(rustix::fs::ioctl_setflags(&file, flags)?)
    }

    fn times(&mut self) -> io::Result<()> {
        let path = self.any();
        let seconds = *self.numbers.pick(&[0, -1_000_000, 1_700_000_000, 0x7fff_ffff]);
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        let is_all = self.numbers.one_in(3);
        let path = if is_all { self.directory() } else { self.any() };
        let meta = fs::symlink_metadata(&path)?;
        if !meta.is_file() && !meta.is_dir() {
            return Err(io::Error::other("it cannot be synced"));
        }
        let file = File::open(path)?;
        if is_all { Ok(rustix::fs::syncfs(&file)?) } else { file.sync_all() }
    }

    /// Keeps a file open, or one that never had a name.
    fn hold(&mut self) -> io::Result<()> {
        if self.numbers.one_in(2) {
            let file = self.writable()?;
            self.open.push(file);
            return Ok(());
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(self.directory(), flags, Mode::from(0o600))?);
        let length = self.numbers.length(PIECE);
        file.write_all_at(&self.numbers.bytes(length), 0)?;
        self.open.push(file);
        Ok(())
    }

    /// Many small files in one directory, some of them removed again.
    fn many(&mut self) -> io::Result<()> {
        let directory = self.directory();
        let batch = self.numbers.below(1000);
        for i in 0..self.numbers.below(150) {
            let path = directory.join(format!("{batch:03}-entry-number-{i:05}"));
            fs::write(&path, i.to_string())?;
            if self.numbers.one_in(4) { fs::remove_file(path)? } else { self.names.push(path) }
        }
        Ok(())
    }

    /// A path, and all below it, is gone.
    fn forget(&mut self, path: &Path) {
        self.names.retain(|name| !name.starts_with(path));
        self.directories.retain(|name| !name.starts_with(path));
    }

    fn moved(&mut self, from: &Path, to: &Path) {
        for name in self.names.iter_mut().chain(&mut self.directories) {
            if let Ok(rest) = name.strip_prefix(from) {
                // Joining nothing would put a slash behind a file's name.
                *name = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }
}

/// Whether both names are there: renaming a file over its own hard link does nothing.
fn same_file(from: &Path, to: &Path) -> bool {
    fs::symlink_metadata(from).is_ok() && fs::symlink_metadata(to).is_ok()
}
