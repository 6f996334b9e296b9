//! Extended attributes: in the inode, in leaves, or with long values in blocks of their own. Linux,
//! fs/xfs/libxfs/xfs_da_format.h, "Attribute storage layout".

use std::collections::HashSet;

use super::acl;
use super::content::REMOTE_HEADER;
use super::extent::{self, Extent};
use super::fault::{damaged, limit};
use super::field::Fields as _;
use super::inode::{self, Fork};
use super::volume::{Budget, Stamp, Volume};
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::limits::Limit;

/// Attributes as full keys with values.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

const NODE: [u16; 2] = [0xfebe, 0x3ebe];
const LEAF: [u16; 2] = [0xfbee, 0x3bee];
const REMOTE_MAGIC: u32 = 0x5841_524d;

/// Flags of an entry.
const LOCAL: u8 = 0x1;
const ROOT: u8 = 0x2;
const SECURE: u8 = 0x4;
const PARENT: u8 = 0x8;
const INCOMPLETE: u8 = 0x80;

/// Most levels of nodes (`XFS_DA_NODE_MAXDEPTH`).
const MAX_LEVEL: u16 = 5;
/// Most blocks and extents of the attributes of one inode.
const BLOCKS: u64 = 1 << 16;

/// Reads attributes.
pub(super) struct Reader<'a> {
    pub(super) volume: &'a Volume,
    pub(super) limits: &'a Limits,
}

impl Reader<'_> {
    /// The attributes that stand in inode `number` itself, sorted by key.
    ///
    /// # Errors
    /// Damage, or a limit.
    pub(super) fn in_inode(&self, number: u64, list: &[u8]) -> Result<Pairs> {
        let mut found = Found::new(number, self.limits);
        let (total, count) = (usize::from(list.u16_at(0)?), list.u8_at(2)?);
        let list = list.get(..total).ok_or_else(|| found.bad("its list is too long"))?;
        let mut at = 4;
        for _ in 0..count {
            let (name, value) = (usize::from(list.u8_at(at)?), usize::from(list.u8_at(at + 1)?));
            let flags = list.u8_at(at + 2)?;
            let key = list.bytes_at(at + 3, name)?;
            found.add(flags, key, value, || Ok(list.bytes_at(at + 3 + name, value)?.to_vec()))?;
            at += 3 + name + value;
        }
        if at != total {
            return Err(found.bad("its list has another length than its entries"));
        }
        found.sorted()
    }

    /// The attributes of inode `number` that stand in the blocks of `fork`, sorted by key.
    ///
    /// # Errors
    /// Damage, or a limit.
    pub(super) fn in_blocks(&self, number: u64, fork: &Fork, budget: &mut Budget) -> Result<Pairs> {
        let extents = extent::all(self.volume, number, fork, budget, BLOCKS as usize)?;
        let mut walk = Walk {
            volume: self.volume,
            extents,
            budget,
            found: Found::new(number, self.limits),
            seen: HashSet::new(),
        };
        walk.block(0, None)?;
        walk.found.sorted()
    }
}

/// Attributes of one inode so far.
struct Found<'a> {
    number: u64,
    limits: &'a Limits,
    pairs: Pairs,
    total: usize,
}

impl<'a> Found<'a> {
    fn new(number: u64, limits: &'a Limits) -> Self {
        Found { number, limits, pairs: Vec::new(), total: 0 }
    }

    fn bad(&self, why: impl std::fmt::Display) -> Error {
        damaged(format_args!("the attributes of {}", inode::name(self.number)), why)
    }

    /// Takes an attribute, its value only if programs see it and it is not too long.
    fn add(
        &mut self,
        flags: u8,
        name: &[u8],
        length: usize,
        value: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<()> {
        // Half written or half removed when the system stopped: the kernel does not show it.
        if flags & INCOMPLETE != 0 {
            return Ok(());
        }
        let key = match flags & !LOCAL {
            0 => [b"user.", name].concat(),
            ROOT if name == b"SGI_ACL_FILE" => b"system.posix_acl_access".to_vec(),
            ROOT if name == b"SGI_ACL_DEFAULT" => b"system.posix_acl_default".to_vec(),
            ROOT => [b"trusted.", name].concat(),
            SECURE => [b"security.", name].concat(),
            // Where the inode hangs, for the filesystem's own use.
            PARENT => return Ok(()),
            kind => return Err(self.bad(format_args!("one is of unknown kind {kind:#x}"))),
        };
        if name.is_empty() || name.contains(&0) {
            return Err(self.bad(format_args!("`{}` is no name", name.escape_ascii())));
        }
        let detail = format!("on {}, attribute `{}`", inode::name(self.number), key.escape_ascii());
        if length > self.limits.xattr {
            return Err(limit(Limit::Xattr, "bytes in one extended attribute", self.limits.xattr)
                .detail(detail));
        }
        self.total += key.len() + length;
        if self.total > self.limits.xattrs {
            let most = self.limits.xattrs;
            return Err(limit(Limit::Xattrs, "bytes of extended attributes of one file", most)
                .detail(detail));
        }
        let value = value()?;
        let is_acl = key.starts_with(b"system.");
        let value = if is_acl { acl::to_xattr(&value).map_err(|e| self.bad(e))? } else { value };
        self.pairs.push((key, value));
        Ok(())
    }

    fn sorted(mut self) -> Result<Pairs> {
        self.pairs.sort_unstable();
        if let Some(twice) = self.pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(self.bad(format_args!("`{}` is there twice", twice[0].0.escape_ascii())));
        }
        Ok(self.pairs)
    }
}

/// The tree of attributes of one inode.
struct Walk<'a> {
    volume: &'a Volume,
    extents: Vec<Extent>,
    budget: &'a mut Budget,
    found: Found<'a>,
    /// Blocks of the tree that were read.
    seen: HashSet<u32>,
}

impl Walk<'_> {
    /// Byte offset of block `logical` of the fork.
    fn offset(&self, logical: u64) -> Result<u64> {
        let behind = self.extents.partition_point(|extent| extent.logical <= logical);
        let extent = behind.checked_sub(1).and_then(|i| self.extents.get(i));
        match extent.filter(|e| logical - e.logical < e.count && !e.unwritten) {
            Some(extent) => {
                Ok(extent.offset + ((logical - extent.logical) << self.volume.sb.block_log))
            }
            None => Err(self.found.bad(format_args!("block {logical} is not there"))),
        }
    }

    /// One block of the fork, with its byte offset.
    fn read(&mut self, logical: u64) -> Result<(Vec<u8>, u64)> {
        self.budget.take(1, format_args!("the attributes of inode {}", self.found.number))?;
        let offset = self.offset(logical)?;
        Ok((self.volume.bytes(offset, self.volume.sb.block_size())?, offset))
    }

    /// A node or leaf, which has to be of `level`, 0 being a leaf; the root may be of any.
    fn block(&mut self, logical: u32, level: Option<u16>) -> Result<()> {
        if !self.seen.insert(logical) {
            return Err(self.found.bad(format_args!("block {logical} is used twice")));
        }
        let (block, offset) = self.read(u64::from(logical))?;
        let owner = Some(self.found.number);
        let checked = self.volume.verify(&block, Stamp::LEAF, offset, owner);
        checked.map_err(|why| self.found.bad(format_args!("block {logical}: {why}")))?;
        let version = usize::from(self.volume.sb.features.v5());
        let magic = block.u16_at(8)?;
        if magic == LEAF[version] && level.is_none_or(|level| level == 0) {
            return self.leaf(&block);
        }
        let (count_at, entries) = if version == 1 { (56, 64) } else { (12, 16) };
        let (count, own) = (usize::from(block.u16_at(count_at)?), block.u16_at(count_at + 2)?);
        let fits = own > 0 && own <= MAX_LEVEL && level.is_none_or(|level| level == own);
        if magic != NODE[version] || !fits || count == 0 {
            return Err(self.found.bad(format_args!("block {logical} is no part of a tree")));
        }
        for i in 0..count {
            let child = block.u32_at(entries + i * 8 + 4)?;
            self.block(child, Some(own - 1))?;
        }
        Ok(())
    }

    fn leaf(&mut self, block: &[u8]) -> Result<()> {
        let v5 = self.volume.sb.features.v5();
        let (count_at, entries) = if v5 { (56, 80) } else { (12, 32) };
        for i in 0..usize::from(block.u16_at(count_at)?) {
            let entry = block.bytes_at(entries + i * 8, 8)?;
            let (at, flags) = (usize::from(entry.u16_at(4)?), entry.u8_at(6)?);
            if flags & LOCAL != 0 {
                let value = usize::from(block.u16_at(at)?);
                let length = usize::from(block.u8_at(at + 2)?);
                let name = block.bytes_at(at + 3, length)?;
                self.found.add(flags, name, value, || {
                    Ok(block.bytes_at(at + 3 + length, value)?.to_vec())
                })?;
                continue;
            }
            let (first, length) = (block.u32_at(at)?, block.u32_at(at + 4)? as usize);
            let name = block.bytes_at(at + 9, usize::from(block.u8_at(at + 8)?))?;
            // The value is read before the place for it is made, in blocks that are counted.
            let mut value = Vec::new();
            if flags & INCOMPLETE == 0 && length <= self.found.limits.xattr {
                value = self.remote(u64::from(first), length)?;
            }
            self.found.add(flags, name, length, || Ok(value))?;
        }
        Ok(())
    }

    /// A value in blocks of its own.
    fn remote(&mut self, first: u64, length: usize) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        let mut logical = first;
        while value.len() < length {
            let (block, offset) = self.read(logical)?;
            let left = length - value.len();
            if self.volume.sb.features.v5() {
                let bad =
                    |why: &str| self.found.bad(format_args!("block {logical} of a value: {why}"));
                let owner = Some(self.found.number);
                let checked = self.volume.verify(&block, Stamp::REMOTE, offset, owner);
                checked.map_err(|why| bad(&why))?;
                let (at, bytes) = (block.u32_at(4)? as usize, block.u32_at(8)? as usize);
                let room = block.len() - REMOTE_HEADER;
                if block.u32_at(0)? != REMOTE_MAGIC || at != value.len() || bytes != left.min(room)
                {
                    return Err(bad("it is out of place"));
                }
                value.extend_from_slice(block.bytes_at(REMOTE_HEADER, bytes)?);
            } else {
                value.extend_from_slice(&block[..left.min(block.len())]);
            }
            logical += 1;
        }
        Ok(value)
    }
}
