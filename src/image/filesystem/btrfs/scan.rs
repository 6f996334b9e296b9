//! One pass over the tree of a subvolume: all inodes, attributes and names, each leaf read once.
//!
//! The items of an inode stand together: the inode, its attributes, its entries if it is a directory
//! (once by hash, once by index), then where its contents are.

use super::entry;
use super::extent::{Extent, Place};
use super::fault::{damaged, fixed_limit, limit, unsupported};
use super::inode::{self, Inode, Type};
use super::key::{self, Key, kind};
use super::superblock::Root;
use super::volume::Volume;
use super::walk::Cursor;
use crate::error::Result;
use crate::image::Limits;
use crate::image::limits::Limit;

/// Most bytes of attributes of a whole filesystem that are held in memory.
pub(super) const XATTRS: usize = 1 << 30;

/// An inode with what belongs to it.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) number: u64,
    pub(super) inode: Inode,
    /// Full key and value.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// A symbolic link's target.
    pub(super) target: Vec<u8>,
    /// A directory's entries.
    pub(super) names: Vec<Name>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) name: Box<[u8]>,
    pub(super) target: Target,
    /// File type, by number.
    pub(super) kind: u8,
}

/// Where a name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Inode(u64),
    Subvolume(u64),
}

/// What has been counted in all subvolumes so far.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) names: u64,
    pub(super) xattrs: usize,
    pub(super) contents: u64,
}

/// Reads the tree of the subvolume at `root`; inodes come in the order of their numbers.
///
/// # Errors
/// Damage, a limit, or the reader's.
pub(super) fn scan(
    volume: &Volume,
    root: Root,
    limits: &Limits,
    totals: &mut Totals,
) -> Result<Vec<Used>> {
    let mut scan = Scan { limits, totals, used: Vec::new(), by_hash: Vec::new() };
    let mut cursor = Cursor::once(volume, root)?;
    while let Some((key, item)) = cursor.item()? {
        // Below and above are orphans and what old kernels kept of free inode numbers.
        if key::is_free(key.object) {
            scan.item(key, item)?;
        }
        cursor.advance()?;
    }
    scan.finish()?;
    Ok(scan.used)
}

struct Scan<'a> {
    limits: &'a Limits,
    totals: &'a mut Totals,
    used: Vec<Used>,
    /// The last directory's entries as they stand under their hashes.
    by_hash: Vec<Name>,
}

impl Scan<'_> {
    fn item(&mut self, key: Key, item: &[u8]) -> Result<()> {
        if key.kind == kind::INODE {
            self.finish()?;
            return self.inode(key.object, item);
        }
        let Some(used) = self.used.last_mut().filter(|used| used.number == key.object) else {
            return Err(damaged(inode::name(key.object), format_args!("only item {key} is there")));
        };
        match key.kind {
            kind::XATTR => {
                let before = used.xattrs.len();
                entry::each(key, item, |entry| {
                    used.xattrs.push((entry.name.to_vec(), entry.value.to_vec()));
                    Ok(())
                })?;
                self.count_xattrs(before)
            }
            kind::DIR_ITEM => self.names(key, item),
            kind::DIR_INDEX => self.names(key, item),
            kind::EXTENT_DATA if used.inode.kind == Type::Symlink => {
                used.target = target(used, key, item)?;
                Ok(())
            }
            kind::INODE_REF
            | kind::INODE_EXTREF
            | kind::ORPHAN
            | kind::VERITY_DESCRIPTOR
            | kind::VERITY_MERKLE
            | kind::EXTENT_DATA => Ok(()),
            other => Err(unsupported(format_args!("items of the unknown type {other}"))
                .detail(format!("at {key}"))),
        }
    }

    fn inode(&mut self, number: u64, item: &[u8]) -> Result<()> {
        let inode = Inode::parse(number, item)?;
        // Inodes that lost their last name are there until they are freed.
        if self.used.len() as u64 > self.limits.entries {
            return Err(limit(Limit::Entries, "files", self.limits.entries));
        }
        if inode.kind == Type::File {
            self.totals.contents = self.totals.contents.saturating_add(inode.size);
            if self.totals.contents > self.limits.contents {
                return Err(limit(
                    Limit::Contents,
                    "bytes in its files, holes included",
                    self.limits.contents,
                ));
            }
        }
        let (xattrs, target, names) = (Vec::new(), Vec::new(), Vec::new());
        self.used.push(Used { number, inode, xattrs, target, names });
        Ok(())
    }

    /// Checks the limits after the attributes of the last inode from `before` on came in.
    fn count_xattrs(&mut self, before: usize) -> Result<()> {
        let Some(used) = self.used.last() else { return Ok(()) };
        let bytes = |pairs: &[(Vec<u8>, Vec<u8>)]| -> usize {
            pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
        };
        let new = used.xattrs.get(before..).unwrap_or_default();
        let most = self.limits.xattr;
        if new.iter().any(|(_, value)| value.len() > most) {
            return Err(limit(Limit::Xattr, "bytes in an extended attribute", most)
                .detail(format!("on {}", inode::name(used.number))));
        }
        let most = self.limits.xattrs;
        if bytes(&used.xattrs) > most {
            return Err(limit(Limit::Xattrs, "bytes of extended attributes of one file", most)
                .detail(format!("on {}", inode::name(used.number))));
        }
        self.totals.xattrs += bytes(new);
        if self.totals.xattrs > XATTRS {
            return Err(fixed_limit("bytes of extended attributes", XATTRS));
        }
        Ok(())
    }

    fn names(&mut self, key: Key, item: &[u8]) -> Result<()> {
        let Some(used) = self.used.last_mut() else { return Ok(()) };
        if used.inode.kind != Type::Directory {
            let why = "it has entries, but is no directory";
            return Err(damaged(inode::name(used.number), why));
        }
        let names = if key.kind == kind::DIR_ITEM { &mut self.by_hash } else { &mut used.names };
        let before = names.len();
        entry::each(key, item, |entry| {
            let target = match entry.target.kind {
                kind::INODE => Target::Inode(entry.target.object),
                kind::ROOT => Target::Subvolume(entry.target.object),
                _ => {
                    let why = format_args!("entry {key} leads to {}", entry.target);
                    return Err(damaged(inode::name(key.object), why));
                }
            };
            names.push(Name { name: entry.name.into(), target, kind: entry.kind });
            Ok(())
        })?;
        self.totals.names += (names.len() - before) as u64;
        // Every name is there twice.
        if self.totals.names / 2 > self.limits.entries {
            return Err(limit(Limit::Entries, "entries", self.limits.entries));
        }
        Ok(())
    }

    /// Ends the last inode. The kernel lists a directory by index and looks names up by hash: both
    /// have to say the same.
    fn finish(&mut self) -> Result<()> {
        let Some(used) = self.used.last_mut() else { return Ok(()) };
        if used.inode.kind == Type::Symlink && used.target.is_empty() {
            return Err(damaged(inode::name(used.number), "it is a link without a target"));
        }
        used.xattrs.sort_unstable();
        used.names.sort_unstable();
        self.by_hash.sort_unstable();
        let mut pairs = used.names.iter().zip(&self.by_hash);
        let odd = pairs.find(|(index, hash)| index != hash).map(|(index, _)| &index.name);
        if odd.is_some() || used.names.len() != self.by_hash.len() {
            let name =
                odd.map_or_else(String::new, |name| format!(" at `{}`", name.escape_ascii()));
            let why = format!("its entries by hash and by index differ{name}");
            return Err(damaged(format_args!("directory {}", inode::name(used.number)), why));
        }
        if let Some(two) = used.names.windows(2).find(|two| two[0].name == two[1].name) {
            let why = format!("it has the name `{}` twice", two[0].name.escape_ascii());
            return Err(damaged(format_args!("directory {}", inode::name(used.number)), why));
        }
        self.by_hash.clear();
        Ok(())
    }
}

/// A link's target is an inline extent without compression.
fn target(used: &Used, key: Key, item: &[u8]) -> Result<Vec<u8>> {
    let bad = |why: &str| damaged(inode::name(used.number), why);
    let extent = Extent::parse(key, item, 1)?;
    let Place::Inline { bytes, compression: None } = extent.place else {
        return Err(bad("its target is not in the tree"));
    };
    let size = usize::try_from(used.inode.size).unwrap_or(usize::MAX);
    let target = bytes.get(..size).ok_or_else(|| bad("its target is shorter than its size"))?;
    if key.offset != 0 || target.is_empty() || target.contains(&0) {
        return Err(bad("its target is none"));
    }
    Ok(target.to_vec())
}
