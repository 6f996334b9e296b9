//! One inode. Kernel header `uapi/linux/btrfs_tree.h` (`btrfs_inode_item`).

use super::fault::{damaged, unsupported};
use super::field::Fields as _;
use crate::error::Result;

/// Bytes of an inode item.
pub(super) const LENGTH: usize = 160;

/// Flag: contents have no checksums.
const NO_SUMS: u64 = 1 << 0;
/// Flag: cannot be changed.
const IMMUTABLE: u64 = 1 << 6;
/// Flag: can only be appended to.
const APPEND: u64 = 1 << 7;
/// Flags that are known: 0 to 11, the one that says that a root item has them, and verity.
const KNOWN: u64 = 0xfff | 1 << 31 | 1 << 32;

/// What an inode is; the numbers are those of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    File = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

impl Type {
    /// The type by the format bits of a mode (inode(7)).
    fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode >> 12 {
            0o10 => Type::File,
            0o4 => Type::Directory,
            0o2 => Type::CharDevice,
            0o6 => Type::BlockDevice,
            0o1 => Type::Fifo,
            0o14 => Type::Socket,
            0o12 => Type::Symlink,
            _ => return None,
        })
    }
}

/// What is read of an inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub(super) kind: Type,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Length in bytes.
    pub(super) size: u64,
    /// Seconds since 1970 UTC.
    pub(super) mtime: i64,
    /// Device number in the kernel's own form: 12 bits major, 20 bits minor.
    pub(super) device: u32,
    flags: u64,
}

impl Inode {
    /// Reads the inode item of inode `number`.
    ///
    /// # Errors
    /// Damage, or a flag that is not known.
    pub(super) fn parse(number: u64, item: &[u8]) -> Result<Self> {
        let bad = |why: &dyn std::fmt::Display| damaged(name(number), why);
        if item.len() != LENGTH {
            return Err(bad(&format_args!("it has {} bytes", item.len())));
        }
        let mode = item.u32_at(52)?;
        let kind = Type::of_mode(mode).ok_or_else(|| bad(&format_args!("its mode is {mode:o}")))?;
        let flags = item.u64_at(64)?;
        if flags & !KNOWN != 0 {
            let unknown = flags & !KNOWN;
            return Err(unsupported(format_args!("inodes with unknown flags ({unknown:#x})"))
                .detail(format!("on {}", name(number))));
        }
        let size = item.u64_at(16)?;
        if i64::try_from(size).is_err() {
            return Err(bad(&format_args!("its size is {size}")));
        }
        Ok(Inode {
            kind,
            // Twelve bits.
            mode: (mode & 0o7777) as u16,
            uid: item.u32_at(44)?,
            gid: item.u32_at(48)?,
            size,
            mtime: item.u64_at(136)?.cast_signed(),
            // The kernel's device numbers have 32 bits; it drops the rest too.
            device: item.u64_at(56)? as u32,
            flags,
        })
    }

    /// Whether the contents have checksums.
    pub(super) fn has_sums(&self) -> bool {
        self.flags & NO_SUMS == 0
    }

    pub(super) fn is_immutable(&self) -> bool {
        self.flags & IMMUTABLE != 0
    }

    pub(super) fn is_append_only(&self) -> bool {
        self.flags & APPEND != 0
    }
}

/// What to call inode `number`.
pub(super) fn name(number: u64) -> String {
    format!("inode {number}")
}
