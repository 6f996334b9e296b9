//! Extended attributes: behind the inode, in a block that inodes share, or each in an inode of its own.

use super::checksum::{crc32c, crc32c_without};
use super::fault::{checksum, damaged, limit};
use super::field::Fields;
use super::group::Group;
use super::inode::{self, EA_INODE, Inode};
use super::volume::Volume;
use super::{acl, content};
use crate::error::Result;
use crate::image::Limits;
use crate::image::field::sum_holds;
use crate::image::limits::Limit;

const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER: usize = 32;
/// `system.data`: the rest of inline data; not an attribute for programs.
const INLINE_KEY: &[u8] = b"system.data";

/// Attributes as full keys with values.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What is needed to read attributes.
pub(super) struct Reader<'a> {
    pub(super) volume: &'a Volume,
    pub(super) groups: &'a [Group],
    pub(super) limits: &'a Limits,
}

/// Attributes of one place, the inline data apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    pub(super) pairs: Pairs,
    /// Value of `system.data`.
    pub(super) inline: Option<Vec<u8>>,
}

impl Reader<'_> {
    /// The attributes that stand behind the inode's fields.
    ///
    /// # Errors
    /// Damage, or a limit.
    pub(super) fn in_inode(&self, inode: &Inode) -> Result<Attributes> {
        let extra = inode.extra.as_slice();
        if extra.len() < 4 || extra.u32_at(0)? != MAGIC {
            return Ok(Attributes::default());
        }
        let whose = inode::name(inode.number);
        self.entries(&whose, extra.get(4..).unwrap_or_default(), 0)
    }

    /// The attributes in block `number`.
    ///
    /// # Errors
    /// Damage, or a limit.
    pub(super) fn in_block(&self, number: u64) -> Result<Attributes> {
        let block = self.volume.block(number)?;
        let whose = format!("attribute block {number}");
        if block.u32_at(0)? != MAGIC || block.u32_at(8)? != 1 {
            return Err(damaged(whose, "it has no magic number"));
        }
        if self.volume.sb.metadata_csum() {
            let seed = crc32c(self.volume.sb.seed, &number.to_le_bytes());
            let (stored, computed) = (block.u32_at(16)?, crc32c_without(seed, &block, &[(16, 4)]));
            if !sum_holds(stored, computed) {
                return Err(checksum(whose, stored, computed));
            }
        }
        self.entries(&whose, &block, BLOCK_HEADER)
    }

    /// Entries from `at` on; value offsets count from the start of `area`.
    fn entries(&self, whose: &str, area: &[u8], mut at: usize) -> Result<Attributes> {
        let mut found = Attributes::default();
        let mut total = 0;
        while area.u32_at(at)? != 0 {
            let name_length = usize::from(area.u8_at(at)?);
            let index = area.u8_at(at + 1)?;
            let offset = usize::from(area.u16_at(at + 2)?);
            let (value_inode, size) = (area.u32_at(at + 4)?, area.u32_at(at + 8)? as usize);
            let name = area.bytes_at(at + 16, name_length)?;
            at += (16 + name_length).next_multiple_of(4);
            if name.contains(&0) {
                return Err(damaged(whose, "the name of an attribute contains NUL"));
            }
            let key = [prefix(whose, index)?, name].concat();
            if size > self.limits.xattr {
                return Err(limit(
                    Limit::Xattr,
                    "bytes in one extended attribute",
                    self.limits.xattr,
                )
                .detail(format!("on {whose}, attribute `{}`", key.escape_ascii())));
            }
            total += key.len() + size;
            if total > self.limits.xattrs {
                return Err(limit(
                    Limit::Xattrs,
                    "bytes of extended attributes of one file",
                    self.limits.xattrs,
                )
                .detail(format!("on {whose}")));
            }
            let value = if value_inode != 0 {
                self.in_own_inode(value_inode, size)?
            } else {
                area.bytes_at(offset, size)
                    .map_err(|_| damaged(whose, "the value of an attribute is outside"))?
                    .to_vec()
            };
            if key == INLINE_KEY {
                found.inline = Some(value);
            } else if matches!(index, 2 | 3) {
                found.pairs.push((key, acl::to_xattr(&value).map_err(|e| damaged(whose, e))?));
            } else {
                found.pairs.push((key, value));
            }
        }
        Ok(found)
    }

    /// A value that is the contents of inode `number`, with its hash.
    fn in_own_inode(&self, number: u32, size: usize) -> Result<Vec<u8>> {
        let holder = inode::read(self.volume, self.groups, number)?;
        let whose = inode::name(number);
        if !holder.has(EA_INODE) || holder.size != size as u64 {
            return Err(damaged(whose, "it does not hold the value of an attribute that names it"));
        }
        let value = content::whole(self.volume, &holder)?;
        let computed = crc32c(self.volume.sb.seed, &value);
        if !sum_holds(holder.atime, computed) {
            return Err(checksum(whose, holder.atime, computed));
        }
        Ok(value)
    }
}

/// Puts attributes of two places together, sorted by key.
///
/// # Errors
/// A key that occurs twice.
pub(super) fn merge(number: u32, mut pairs: Pairs, more: &[(Vec<u8>, Vec<u8>)]) -> Result<Pairs> {
    pairs.extend_from_slice(more);
    pairs.sort_unstable();
    if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
        let why = format!("it has the attribute `{}` twice", twice[0].0.escape_ascii());
        return Err(damaged(inode::name(number), why));
    }
    Ok(pairs)
}

/// The part of a key that ext4 stores as a number.
fn prefix(whose: &str, index: u8) -> Result<&'static [u8]> {
    Ok(match index {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        7 => b"system.",
        8 => b"system.richacl",
        _ => {
            return Err(damaged(
                whose,
                format_args!("it has an attribute of unknown kind {index}"),
            ));
        }
    })
}
