//! Directory blocks: a list of entries, read linearly also where a hash tree lies above them.
//!
//! Kernel documentation, "Directory Entries". The nodes of a hash tree look like unused entries to
//! a linear reader; they matter here only for their checksums.

use super::checksum::crc32c;
use super::fault::{checksum, damaged};
use super::feature;
use super::field::Fields;
use super::inode::{self, INDEX, Inode, Type};
use super::volume::Volume;
use crate::error::Result;
use crate::image::field::sum_holds;

/// Bytes of the checksum that ends a block, shaped as an unused entry.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) inode: u32,
    /// What the entry says the inode is; `None` if it says nothing.
    pub(super) kind: Option<Type>,
}

/// Takes the entries of `block`, the `logical`-th of directory `inode`, verified, to `entries`.
///
/// # Errors
/// Damage.
pub(super) fn block(
    volume: &Volume,
    inode: &Inode,
    logical: u64,
    block: &[u8],
    entries: &mut Vec<Entry>,
) -> Result<()> {
    if volume.sb.metadata_csum() {
        verify(inode, logical, block)?;
    }
    list(volume, inode, block, entries)
}

/// Takes all entries of `area`, which they must fill, to `entries`.
///
/// # Errors
/// Damage.
pub(super) fn list(
    volume: &Volume,
    inode: &Inode,
    area: &[u8],
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let bad = |why: String| damaged(format_args!("directory inode {}", inode.number), why);
    let typed = volume.sb.features.incompat(feature::FILETYPE);
    let mut at = 0;
    while at < area.len() {
        let number = area.u32_at(at)?;
        let length = record_length(area.u16_at(at + 4)?, area.len());
        let name_length = if typed {
            usize::from(area.u8_at(at + 6)?)
        } else {
            usize::from(area.u16_at(at + 6)?)
        };
        let fits = length.is_multiple_of(4) && length >= 8 && length <= area.len() - at;
        if !fits || number != 0 && 8 + name_length > length {
            return Err(bad(format!("the entry at byte {at} of a block has a bad length")));
        }
        if number != 0 {
            if number > volume.sb.inodes {
                return Err(bad(format!("an entry names inode {number}")));
            }
            let name = area.bytes_at(at + 8, name_length)?.to_vec();
            let kind = if typed { kind(area.u8_at(at + 7)?).map_err(bad)? } else { None };
            if name.is_empty() || name.len() > 255 || name.iter().any(|b| matches!(b, 0 | b'/')) {
                return Err(bad(format!("it has the impossible name `{}`", name.escape_ascii())));
            }
            entries.push(Entry { name, inode: number, kind });
        }
        at += length;
    }
    Ok(())
}

/// The stored length of an entry; blocks of 64 KiB need one bit more than the field has.
fn record_length(stored: u16, block: usize) -> usize {
    let stored = usize::from(stored);
    if block < 65536 {
        stored
    } else if stored == 65535 || stored == 0 {
        block
    } else {
        stored & 65532 | (stored & 3) << 16
    }
}

fn kind(stored: u8) -> Result<Option<Type>, String> {
    Ok(match stored {
        0 => None,
        1 => Some(Type::File),
        2 => Some(Type::Directory),
        3 => Some(Type::CharDevice),
        4 => Some(Type::BlockDevice),
        5 => Some(Type::Fifo),
        6 => Some(Type::Socket),
        7 => Some(Type::Symlink),
        _ => return Err(format!("an entry has the unknown file type {stored}")),
    })
}

fn verify(inode: &Inode, logical: u64, block: &[u8]) -> Result<()> {
    let name = || format!("block {logical} of directory {}", inode::name(inode.number));
    // A root of a hash tree may still end with the checksum of the leaf it was, so trees go first.
    let tree = if inode.has(INDEX) { hash_entries(logical, block)? } else { None };
    let (stored, computed) = if let Some(at) = tree {
        // Limit and count take the place of the first entry's hash.
        let (limit, count) = (usize::from(block.u16_at(at)?), usize::from(block.u16_at(at + 2)?));
        let (used, tail) = (at + 8 * count, at + 8 * limit);
        if count > limit {
            return Err(damaged(name(), "its hash tree has more entries than fit"));
        }
        let crc = crc32c(inode.seed, block.bytes_at(0, used)?);
        let crc = crc32c(crc, block.bytes_at(tail, 4)?);
        (block.u32_at(tail + 4)?, crc32c(crc, &[0; 4]))
    } else {
        let tail = block.len().saturating_sub(TAIL);
        let shape = (block.u32_at(tail)?, block.u16_at(tail + 4)?, block.u8_at(tail + 7)?);
        if shape != (0, TAIL as u16, TAIL_TYPE) {
            return Err(damaged(name(), "it has no checksum"));
        }
        (block.u32_at(tail + 8)?, crc32c(inode.seed, block.bytes_at(0, tail)?))
    };
    if sum_holds(stored, computed) { Ok(()) } else { Err(checksum(name(), stored, computed)) }
}

/// Where the hash entries of a tree node start; `None` if `block` is no node.
/// Kernel, `get_dx_countlimit`.
fn hash_entries(logical: u64, block: &[u8]) -> Result<Option<usize>> {
    let first = record_length(block.u16_at(4)?, block.len());
    if first == block.len() {
        return Ok(Some(8));
    }
    let second = record_length(block.u16_at(12 + 4)?, block.len());
    let is_root = logical == 0
        && first == 12
        && second == block.len() - 12
        && block.u32_at(0x18)? == 0
        && block.u8_at(0x1d)? == 8;
    Ok(is_root.then_some(0x20))
}
