//! Directories: in the inode, or in blocks of entries; the hash tree and the index of free space
//! above them are checked, but not used. Linux, fs/xfs/libxfs/xfs_da_format.h, "Directory version 2".

use super::fault::damaged;
use super::field::Fields as _;
use super::inode::Type;
use super::superblock::Superblock;
use super::volume::{Stamp, Volume};
use crate::error::{Error, Result};

/// Magic numbers of version 4 and 5: all entries in one block, one of several blocks of entries.
const BLOCK: [u32; 2] = [0x5844_3242, 0x5844_4233];
const DATA: [u32; 2] = [0x5844_3244, 0x5844_4433];
/// Index of free space, the only leaf, a leaf below nodes, a node.
const FREE: [u32; 2] = [0x5844_3246, 0x5844_4633];
const LEAF_1: [u16; 2] = [0xd2f1, 0x3df1];
const LEAF_N: [u16; 2] = [0xd2ff, 0x3dff];
const NODE: [u16; 2] = [0xfebe, 0x3ebe];

/// Marks space without an entry.
const UNUSED: u16 = 0xffff;
/// Bytes that end a block with all entries, and of each of its hashes.
const TAIL: usize = 8;
const HASH: usize = 8;

/// Where the hash tree and the index of free space start, in bytes of the fork.
const LEAVES: u64 = 1 << 35;
const FREES: u64 = 2 << 35;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) inode: u64,
    /// What the entry says the inode is; `None` if it says nothing.
    pub(super) kind: Option<Type>,
}

fn bad(number: u64, why: impl std::fmt::Display) -> Error {
    damaged(format_args!("directory inode {number}"), why)
}

/// The entries of directory `number` that stand in the inode, `.` and `..` among them.
///
/// # Errors
/// Damage.
pub(super) fn short(sb: &Superblock, number: u64, list: &[u8]) -> Result<Vec<Entry>> {
    let (count, wide_count) = (list.u8_at(0)?, list.u8_at(1)?);
    // Either all numbers have 32 bits, or all have 64.
    let wide = wide_count > 0;
    let inode = |at: usize| {
        if wide { list.u64_at(at) } else { list.u32_at(at).map(u64::from) }
    };
    let width = if wide { 8 } else { 4 };
    let kind = Some(Type::Directory);
    let mut entries = vec![
        Entry { name: b".".to_vec(), inode: number, kind },
        Entry { name: b"..".to_vec(), inode: inode(2)?, kind },
    ];
    let mut at = 2 + width;
    for _ in 0..count {
        let length = usize::from(list.u8_at(at)?);
        let name = name(number, list.bytes_at(at + 3, length)?)?;
        at += 3 + length;
        let mut kind = None;
        if sb.features.ftype() {
            kind = self::kind(number, list.u8_at(at)?)?;
            at += 1;
        }
        entries.push(Entry { name, inode: inode(at)?, kind });
        at += width;
    }
    if at != list.len() {
        return Err(bad(number, "its list has another length than its entries"));
    }
    Ok(entries)
}

/// Whether directory block `logical` (counted in directory blocks) holds entries.
pub(super) fn has_entries(sb: &Superblock, logical: u64) -> bool {
    logical < LEAVES / sb.directory_size() as u64
}

/// Checks `block`, the `logical`-th of directory `number`, at byte `offset`, and takes its entries.
/// `only` says that no other block can hold entries.
///
/// # Errors
/// Damage.
pub(super) fn block(
    volume: &Volume,
    number: u64,
    (logical, only): (u64, bool),
    block: &[u8],
    offset: u64,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let sb = &volume.sb;
    let bad =
        |why: String| damaged(format_args!("block {logical} of directory inode {number}"), why);
    let version = usize::from(sb.features.v5());
    let size = sb.directory_size() as u64;
    let magic = block.u32_at(0)?;
    let (short_magic, owner) = (block.u16_at(8)?, Some(number));
    let (known, stamp) = if logical < LEAVES / size {
        (magic == BLOCK[version] && only || magic == DATA[version], Stamp::DIRECTORY)
    } else if logical < FREES / size {
        ([LEAF_1, LEAF_N, NODE].iter().any(|m| m[version] == short_magic), Stamp::LEAF)
    } else {
        (magic == FREE[version], Stamp::DIRECTORY)
    };
    if !known {
        return Err(bad("it has no magic number".into()));
    }
    volume.verify(block, stamp, offset, owner).map_err(bad)?;
    if !has_entries(sb, logical) {
        return Ok(());
    }
    let mut end = block.len();
    if magic == BLOCK[version] {
        let hashes = block.u32_at(block.len() - TAIL)? as usize;
        end = hashes
            .checked_mul(HASH)
            .and_then(|hashes| (block.len() - TAIL).checked_sub(hashes))
            .ok_or_else(|| bad(format!("it has {hashes} hashes")))?;
    }
    let header = if version == 1 { 64 } else { 16 };
    let area = block.get(..end).filter(|area| area.len() >= header);
    let area = area.ok_or_else(|| bad("it has no place for entries".into()))?;
    list(sb, number, area, header, entries)
}

/// Takes the entries from byte `at` of `area` on, which they must fill.
fn list(
    sb: &Superblock,
    number: u64,
    area: &[u8],
    mut at: usize,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    while at < area.len() {
        let bad = |why: &str| bad(number, format_args!("the entry at byte {at} of a block {why}"));
        if area.u16_at(at)? == UNUSED {
            let length = usize::from(area.u16_at(at + 2)?);
            if length == 0 || !length.is_multiple_of(8) || length > area.len() - at {
                return Err(bad("has a bad length"));
            }
            if usize::from(area.u16_at(at + length - 2)?) != at {
                return Err(bad("is out of place"));
            }
            at += length;
            continue;
        }
        let length = usize::from(area.u8_at(at + 8)?);
        let name = name(number, area.bytes_at(at + 9, length)?)?;
        let typed = sb.features.ftype();
        let kind = if typed { kind(number, area.u8_at(at + 9 + length)?)? } else { None };
        let whole = (9 + length + usize::from(typed) + 2).next_multiple_of(8);
        if usize::from(area.u16_at(at + whole - 2)?) != at {
            return Err(bad("is out of place"));
        }
        entries.push(Entry { name, inode: area.u64_at(at)?, kind });
        at += whole;
    }
    Ok(())
}

fn name(number: u64, name: &[u8]) -> Result<Vec<u8>> {
    if name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
        let why = format_args!("it has the impossible name `{}`", name.escape_ascii());
        return Err(bad(number, why));
    }
    Ok(name.to_vec())
}

fn kind(number: u64, stored: u8) -> Result<Option<Type>> {
    Ok(match stored {
        0 => None,
        1 => Some(Type::File),
        2 => Some(Type::Directory),
        3 => Some(Type::CharDevice),
        4 => Some(Type::BlockDevice),
        5 => Some(Type::Fifo),
        6 => Some(Type::Socket),
        7 => Some(Type::Symlink),
        // A whiteout of overlayfs is a character device.
        8 => Some(Type::CharDevice),
        _ => {
            let why = format_args!("an entry has the unknown file type {stored}");
            return Err(bad(number, why));
        }
    })
}
