//! First pass: all used inodes in the order of the disk, with their attributes.

use std::collections::HashMap;

use super::fault::{damaged, fixed_limit, limit};
use super::group::Group;
use super::inode::{self, EA_INODE, INLINE_DATA, Inode, Type};
use super::volume::Volume;
use super::xattr::{self, Pairs, Reader};
use crate::error::Result;
use crate::image::Limits;
use crate::image::limits::Limit;

/// Largest read of an inode table in bytes.
const CHUNK: usize = 1 << 20;
/// A gap of unused inodes above this many bytes is skipped, not read.
const GAP: u32 = 64 << 10;
/// Most bytes of attributes of one filesystem. Many inodes can share one block of them, so a small
/// image could claim any amount.
pub(super) const XATTRS: usize = 1 << 30;

/// An inode that may have a name.
pub(super) struct Used {
    pub(super) inode: Inode,
    pub(super) xattrs: Pairs,
    /// Value of `system.data`.
    pub(super) inline: Option<Vec<u8>>,
}

/// All used inodes by ascending number.
pub(super) struct Inodes {
    used: Vec<Used>,
}

impl Inodes {
    /// The index of inode `number`, if it is in use.
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        self.used.binary_search_by_key(&number, |u| u.inode.number).ok()
    }

    pub(super) fn all(&self) -> &[Used] {
        &self.used
    }
}

/// Reads all used inodes.
///
/// # Errors
/// Damage, an inode's unread feature, or a limit.
pub(super) fn scan(volume: &Volume, groups: &[Group], limits: &Limits) -> Result<Inodes> {
    let reader = Reader { volume, groups, limits };
    let mut scan = Scan { reader, used: Vec::new(), xattrs: 0, contents: 0 };
    for (number, group) in (0..).zip(groups) {
        if let Some(bitmap) = group.used_inodes(volume, number)? {
            scan.group(number, group, &bitmap)?;
        }
    }
    scan.blocks()?;
    Ok(Inodes { used: scan.used })
}

struct Scan<'a> {
    reader: Reader<'a>,
    used: Vec<Used>,
    /// Bytes of attributes so far.
    xattrs: usize,
    /// Bytes of files so far, holes included.
    contents: u64,
}

impl Scan<'_> {
    /// The used inodes of one group, in reads of whole stretches.
    fn group(&mut self, number: u32, group: &Group, bitmap: &[u8]) -> Result<()> {
        let volume = self.reader.volume;
        let sb = &volume.sb;
        let size = u32::from(sb.inode_size);
        let is_used = |i: u32| bitmap.get((i / 8) as usize).is_some_and(|b| b >> (i % 8) & 1 == 1);
        let used: Vec<u32> = (0..sb.inodes_per_group).filter(|&i| is_used(i)).collect();
        let mut rest = used.as_slice();
        let mut buffer = Vec::new();
        while let Some(&first) = rest.first() {
            let mut count = 1;
            while let Some(&next) = rest.get(count)
                && (next - rest[count - 1]) * size <= GAP
                && (next - first + 1) as usize * size as usize <= CHUNK
            {
                count += 1;
            }
            let (stretch, behind) = rest.split_at(count);
            rest = behind;
            let last = stretch[stretch.len() - 1];
            buffer.resize((last - first + 1) as usize * size as usize, 0);
            volume.read(&mut buffer, inode::offset(sb, group, first))?;
            for &index in stretch {
                let at = (index - first) as usize * size as usize;
                let raw = &buffer[at..at + size as usize];
                self.inode(number * sb.inodes_per_group + index + 1, raw)?;
            }
        }
        Ok(())
    }

    fn inode(&mut self, number: u32, raw: &[u8]) -> Result<()> {
        let volume = self.reader.volume;
        // The journal, quota files, the resize inode: no names lead there.
        if number < volume.sb.first_inode && number != inode::ROOT || inode::links(raw)? == 0 {
            return Ok(());
        }
        let mut inode = inode::parse(&volume.sb, number, raw)?;
        if inode.has(EA_INODE) {
            return Ok(());
        }
        if self.used.len() as u64 >= self.reader.limits.entries {
            return Err(limit(Limit::Entries, "files", self.reader.limits.entries));
        }
        if inode.kind == Type::File {
            self.contents = self.contents.saturating_add(inode.size);
            if self.contents > self.reader.limits.contents {
                return Err(limit(
                    Limit::Contents,
                    "bytes in its files, holes included",
                    self.reader.limits.contents,
                ));
            }
        }
        let mut attributes = self.reader.in_inode(&inode)?;
        inode.extra = Vec::new();
        self.count(&attributes.pairs)?;
        attributes.pairs.sort_unstable();
        let inline = attributes.inline.filter(|_| {
            inode.has(INLINE_DATA) && matches!(inode.kind, Type::Directory | Type::Symlink)
        });
        self.used.push(Used { inode, xattrs: attributes.pairs, inline });
        Ok(())
    }

    /// The attribute blocks in disk order, each read once.
    fn blocks(&mut self) -> Result<()> {
        let mut wanted: Vec<(u64, usize)> = Vec::new();
        for (i, used) in self.used.iter().enumerate() {
            if used.inode.xattr_block != 0 {
                wanted.push((used.inode.xattr_block, i));
            }
        }
        wanted.sort_unstable();
        let mut held = None;
        for (block, i) in wanted {
            let pairs = match held.take() {
                Some((number, pairs)) if number == block => pairs,
                _ => self.reader.in_block(block)?.pairs,
            };
            self.count(&pairs)?;
            let used = &mut self.used[i];
            let own = std::mem::take(&mut used.xattrs);
            used.xattrs = xattr::merge(used.inode.number, own, &pairs)?;
            let total: usize = used.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
            if total > self.reader.limits.xattrs {
                let most = self.reader.limits.xattrs;
                return Err(limit(Limit::Xattrs, "bytes of extended attributes of one file", most)
                    .detail(format!("on inode {}", used.inode.number)));
            }
            held = Some((block, pairs));
        }
        Ok(())
    }

    fn count(&mut self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.xattrs += pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        if self.xattrs > XATTRS {
            return Err(fixed_limit("bytes of extended attributes", XATTRS));
        }
        Ok(())
    }
}

/// How many names each inode got, to compare with its link count.
#[derive(Default)]
pub(super) struct Names(HashMap<u32, u32>);

impl Names {
    /// Counts a name of `inode`.
    ///
    /// # Errors
    /// More names than links.
    pub(super) fn add(&mut self, inode: &Inode) -> Result<()> {
        let names = self.0.entry(inode.number).or_default();
        *names += 1;
        if *names > u32::from(inode.links) {
            let why = format_args!("it has more names than its link count of {}", inode.links);
            return Err(damaged(inode::name(inode.number), why));
        }
        Ok(())
    }

    /// Whether `inode` got more than one name.
    pub(super) fn shared(&self, inode: u64) -> bool {
        u32::try_from(inode).is_ok_and(|i| self.0.get(&i).is_some_and(|&n| n > 1))
    }
}
