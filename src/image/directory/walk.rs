//! Reads all metadata below a directory, within one mount.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, IFlags, Mode, OFlags, Statx, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::{FileRecord, INSIDE, Stamp, open_file, show};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::limits::Limit;
use crate::image::tree::{Node, NodeId, NodeKind, Tree};

/// The kernel's bound of a list of attribute names and of one value (`XATTR_LIST_MAX`,
/// `XATTR_SIZE_MAX` in linux/limits.h).
const XATTR_MAX: usize = 64 << 10;
/// `XFS_SUPER_MAGIC` (linux/magic.h).
const XFS: u64 = 0x5846_5342;
/// XFS shows an ACL to root a second time, as it stores it: beside `system.posix_acl_access` and
/// `system.posix_acl_default` (fs/xfs/xfs_xattr.c `xfs_xattr_put_listent`).
const XFS_ACLS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];
/// How many mount points an error names.
const NAMED: usize = 10;

/// All metadata below `root`, which was opened from `path`.
pub(super) fn read(
    path: &Path,
    root: &OwnedFd,
    limits: &Limits,
) -> Result<(Tree, Vec<FileRecord>)> {
    let mut walk = Walk::new(path, root, limits)?;
    walk.run()?;
    walk.finish()
}

/// The state of reading all metadata.
struct Walk<'a> {
    path: &'a Path,
    root: &'a OwnedFd,
    limits: &'a Limits,
    mount: Option<u64>,
    device: (u32, u32),
    xfs: bool,
    tree: Tree,
    /// Directories still to be listed, with their path and depth.
    todo: Vec<(NodeId, Vec<u8>, u32)>,
    files: Vec<FileRecord>,
    by_inode: HashMap<((u32, u32), u64), u64>,
    mounts: Vec<Vec<u8>>,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(path: &'a Path, root: &'a OwnedFd, limits: &'a Limits) -> Result<Self> {
        let mut walk = Walk {
            path,
            root,
            limits,
            mount: None,
            device: (0, 0),
            xfs: false,
            tree: Tree::default(),
            todo: vec![],
            files: vec![],
            by_inode: HashMap::new(),
            mounts: vec![],
            names: vec![0; XATTR_MAX],
            value: vec![0; XATTR_MAX],
        };
        let here = walk.open_dir(b".")?;
        let stat = walk.stat(&here, b"", b"")?;
        walk.mount = mount_id(&stat);
        walk.device = (stat.stx_dev_major, stat.stx_dev_minor);
        let filesystem = rustix::fs::fstatfs(&here).map_err(|e| walk.fail("look at", b"", e))?;
        walk.xfs = filesystem.f_type as u64 == XFS;
        walk.add(None, &here, b"", b"", &stat, 0)?;
        Ok(walk)
    }

    fn fail(&self, what: &str, path: &[u8], e: Errno) -> Error {
        let error = Error::undetermined(format!("cannot {what} `{}`", show(self.path, path)));
        let error = error.cause(e);
        match e {
            Errno::ACCESS | Errno::PERM => error.hint("Run the same command as root."),
            _ => error,
        }
    }

    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(self.root, path, flags, Mode::empty(), INSIDE)
            .map_err(|e| self.fail("list", path, e))
    }

    fn stat(&self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Statx> {
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        if name.is_empty() {
            flags |= AtFlags::EMPTY_PATH;
        }
        rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
            .map_err(|e| self.fail("look at", path, e))
    }

    fn run(&mut self) -> Result<()> {
        while let Some((id, path, depth)) = self.todo.pop() {
            let dir = self.open_dir(if path.is_empty() { b"." } else { &path })?;
            let mut entries = Dir::read_from(&dir).map_err(|e| self.fail("list", &path, e))?;
            while let Some(entry) = entries.read() {
                let entry = entry.map_err(|e| self.fail("list", &path, e))?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name);
                let stat = self.stat(&dir, name, &below)?;
                if self.is_elsewhere(&stat) {
                    self.mounts.push(below);
                    continue;
                }
                self.add(Some(id), &dir, name, &below, &stat, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Whether an entry belongs to another mount. Kernels before 5.8 do not say; there, another
    /// device tells.
    fn is_elsewhere(&self, stat: &Statx) -> bool {
        match (self.mount, mount_id(stat)) {
            (Some(root), Some(here)) => root != here,
            _ => {
                stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
                    || (stat.stx_dev_major, stat.stx_dev_minor) != self.device
            }
        }
    }

    fn add(
        &mut self,
        parent: Option<NodeId>,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Statx,
        depth: u32,
    ) -> Result<()> {
        self.check_limits(path, depth)?;
        let id = self.tree.nodes.len() as NodeId;
        let (immutable, append_only) = self.flags(stat, path)?;
        let kind = self.kind(dir, name, path, stat)?;
        if matches!(kind, NodeKind::Directory { .. }) {
            self.todo.push((id, path.to_vec(), depth));
        }
        let xattrs = self.xattrs(dir, name, path)?;
        self.tree.nodes.push(Node {
            name: name.to_vec(),
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mtime: stat.stx_mtime.tv_sec,
            xattrs,
            immutable,
            append_only,
            kind,
        });
        if let Some(parent) = parent
            && let NodeKind::Directory { children } = &mut self.tree.nodes[parent as usize].kind
        {
            children.push(id);
        }
        Ok(())
    }

    fn check_limits(&self, path: &[u8], depth: u32) -> Result<()> {
        let limits = self.limits;
        let over = |what: String, limit: Limit| {
            Error::undetermined(format!("`{}` is too large: {what}", self.path.display()))
                .hint(limit.hint())
        };
        if self.tree.nodes.len() as u64 >= limits.entries {
            let what = format!("it has more than {} entries", limits.entries);
            return Err(over(what, Limit::Entries));
        }
        if depth > limits.depth {
            let what = format!("it is more than {} directories deep", limits.depth);
            return Err(over(what, Limit::Depth));
        }
        if path.len() >= limits.path {
            let what = format!("a path is longer than {} bytes", limits.path);
            return Err(over(what, Limit::Path));
        }
        Ok(())
    }

    fn kind(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Statx) -> Result<NodeKind> {
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        Ok(match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            FileType::RegularFile => {
                let stamp = Stamp::of(stat);
                let next = self.files.len() as u64;
                let inode = *self.by_inode.entry((stamp.device, stamp.inode)).or_insert(next);
                if inode == next {
                    self.files.push(FileRecord { path: path.to_vec(), stamp });
                }
                NodeKind::File { size: stat.stx_size, inode, shared: stat.stx_nlink > 1 }
            }
            FileType::Directory => NodeKind::Directory { children: vec![] },
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, vec![])
                    .map_err(|e| self.fail("read the link", path, e))?;
                NodeKind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => NodeKind::CharDevice { major, minor },
            FileType::BlockDevice => NodeKind::BlockDevice { major, minor },
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            FileType::Unknown => return Err(self.fail("tell the type of", path, Errno::INVAL)),
        })
    }

    /// Immutable and append-only. `statx` says so for most filesystems; the rest are asked by ioctl.
    fn flags(&self, stat: &Statx, path: &[u8]) -> Result<(bool, bool)> {
        let both = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        if stat.stx_attributes_mask.contains(both) {
            let has = |flag| stat.stx_attributes.contains(flag);
            return Ok((has(StatxAttributes::IMMUTABLE), has(StatxAttributes::APPEND)));
        }
        let file = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            FileType::RegularFile => {
                open_file(self.root, path).map_err(|e| self.fail("open", path, e))?
            }
            FileType::Directory => self.open_dir(if path.is_empty() { b"." } else { path })?,
            _ => return Ok((false, false)),
        };
        match rustix::fs::ioctl_getflags(&file) {
            Ok(flags) => Ok((flags.contains(IFlags::IMMUTABLE), flags.contains(IFlags::APPEND))),
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok((false, false)),
            Err(e) => Err(self.fail("read the flags of", path, e)),
        }
    }

    /// Attributes through the directory's descriptor: the calls that do not open the file take a
    /// path, and this one cannot be moved elsewhere.
    fn xattrs(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut at = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        at.extend_from_slice(if name.is_empty() { b"." } else { name });
        let what = "read the attributes of";
        let len = match rustix::fs::llistxattr(&at, self.names.as_mut_slice()) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(vec![]),
            Ok(len) => len,
            Err(e) => return Err(self.fail(what, path, e)),
        };
        let mut xattrs = vec![];
        let mut total = 0;
        for key in self.names[..len].split(|b| *b == 0).filter(|key| !key.is_empty()) {
            if self.xfs && XFS_ACLS.contains(&key) {
                continue;
            }
            let len = match rustix::fs::lgetxattr(&at, key, self.value.as_mut_slice()) {
                Ok(len) => len,
                Err(e) => return Err(self.fail(what, path, e)),
            };
            total += len;
            if len > self.limits.xattr || total > self.limits.xattrs {
                return Err(Error::undetermined(format!(
                    "`{}` has too many bytes of attributes",
                    show(self.path, path)
                ))
                .hint(Limit::Xattrs.hint()));
            }
            xattrs.push((key.to_vec(), self.value[..len].to_vec()));
        }
        xattrs.sort();
        Ok(xattrs)
    }

    /// Renumbers the files in the order of the disk's inodes.
    fn finish(mut self) -> Result<(Tree, Vec<FileRecord>)> {
        if !self.mounts.is_empty() {
            let more = self.mounts.len().saturating_sub(NAMED);
            let mut error = Error::undetermined(format!(
                "`{}` holds mount points, and what lies beneath them cannot be read",
                self.path.display()
            ));
            self.mounts.sort_unstable();
            for mount in self.mounts.iter().take(NAMED) {
                error = error.detail(show(self.path, mount));
            }
            if more > 0 {
                error = error.detail(format!("and {more} more"));
            }
            return Err(error.hint("Run the same command as root, or unmount them."));
        }
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_unstable_by_key(|i| self.files[*i].stamp);
        let mut rank = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            rank[*old] = new as u64;
        }
        for node in &mut self.tree.nodes {
            if let NodeKind::File { inode, .. } = &mut node.kind {
                *inode = usize::try_from(*inode).map_or(*inode, |i| rank[i]);
            }
        }
        let mut files: Vec<_> = self.files.into_iter().zip(rank).collect();
        files.sort_unstable_by_key(|(_, rank)| *rank);
        Ok((self.tree, files.into_iter().map(|(file, _)| file).collect()))
    }
}

fn mount_id(stat: &Statx) -> Option<u64> {
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}
