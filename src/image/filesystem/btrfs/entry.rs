//! Directory entries and extended attributes, which share one form, several in an item where their
//! hashes are the same. Kernel header `uapi/linux/btrfs_tree.h` (`btrfs_dir_item`).

use super::checksum::name_hash;
use super::fault::damaged;
use super::field::Fields as _;
use super::key::{Key, kind};
use crate::error::Result;

/// Bytes before the name.
const BASE: usize = 30;
/// Longest name in bytes (`BTRFS_NAME_LEN`).
const NAME: usize = 255;
/// The type of an attribute.
const XATTR: u8 = 8;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Where it leads; zeros for an attribute.
    pub(super) target: Key,
    pub(super) name: &'a [u8],
    /// An attribute's value.
    pub(super) value: &'a [u8],
    /// File type, by number.
    pub(super) kind: u8,
}

/// Passes each entry of `item` to `take`; checks that each has the hash in `key`.
///
/// # Errors
/// Damage, or `take`'s.
pub(super) fn each<'a>(
    key: Key,
    item: &'a [u8],
    mut take: impl FnMut(Entry<'a>) -> Result<()>,
) -> Result<()> {
    let bad = |why: &str| damaged(format_args!("item {key}"), why);
    let mut rest = item;
    if rest.is_empty() {
        return Err(bad("it has no entry"));
    }
    while !rest.is_empty() {
        let (value, name) = (usize::from(rest.u16_at(25)?), usize::from(rest.u16_at(27)?));
        let kind = rest.u8_at(29)?;
        let entry = Entry {
            target: Key::at(rest, 0)?,
            name: rest.bytes_at(BASE, name)?,
            value: rest.bytes_at(BASE + name, value)?,
            kind,
        };
        if name == 0 || name > NAME || entry.name.contains(&0) {
            return Err(bad("it has a name that is none"));
        }
        let is_attribute = key.kind == kind::XATTR;
        if is_attribute != (kind == XATTR) || !is_attribute && value != 0 {
            return Err(bad("it mixes directory entries and attributes"));
        }
        if !is_attribute && (entry.name.contains(&b'/') || matches!(entry.name, b"." | b"..")) {
            return Err(bad("it has a name that is none"));
        }
        if key.kind != kind::DIR_INDEX && key.offset != u64::from(name_hash(entry.name)) {
            return Err(bad("the hash of a name is another one"));
        }
        take(entry)?;
        rest = rest.get(BASE + name + value..).unwrap_or_default();
    }
    Ok(())
}
