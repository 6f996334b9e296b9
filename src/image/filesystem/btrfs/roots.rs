//! The root tree: where each subvolume starts, what it is called where, which one is the default.
//!
//! Kernel header `uapi/linux/btrfs_tree.h` (`btrfs_root_item`, `btrfs_root_ref`).

use std::collections::{BTreeMap, HashMap};

use super::entry;
use super::fault::{damaged, fixed_limit};
use super::field::Fields as _;
use super::key::{self, Key, kind};
use super::superblock::{LEVELS, Root};
use super::volume::Volume;
use super::walk::Cursor;
use crate::error::Result;

/// Most subvolumes; [`super::number`] has room for as many.
const SUBVOLUMES: usize = 1 << super::number::SUBVOLUME_BITS;
/// Shortest root item, of filesystems before Linux 3.6.
const ROOT_ITEM: usize = 239;
/// Flag of a root item: read-only.
const READ_ONLY: u64 = 1;
/// Bytes of a reference before its name.
const REFERENCE: usize = 18;

/// One subvolume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subvolume {
    pub(super) root: Root,
    /// Number of its root directory.
    pub(super) directory: u64,
    pub(super) read_only: bool,
    /// No name leads to it any more, and its blocks are being freed.
    deleted: bool,
}

/// Where a subvolume hangs in another one.
#[derive(Debug)]
struct Reference {
    directory: u64,
    name: Vec<u8>,
}

/// What the root tree says.
#[derive(Debug)]
pub(super) struct Roots {
    /// By number, deleted ones included.
    subvolumes: Vec<(u64, Subvolume)>,
    /// By number of the parent and of the child.
    references: HashMap<(u64, u64), Reference>,
    /// The tree of the checksums of contents.
    pub(super) sums: Root,
    /// Number of the default subvolume.
    pub(super) default: u64,
}

impl Roots {
    /// Reads the root tree.
    ///
    /// # Errors
    /// Damage, a limit, or the reader's.
    pub(super) fn read(volume: &Volume) -> Result<Self> {
        let mut subvolumes = BTreeMap::new();
        let mut references = HashMap::new();
        let (mut sums, mut default) = (None, key::TOP_LEVEL);
        let mut cursor = Cursor::once(volume, volume.sb.root_tree)?;
        while let Some((key, item)) = cursor.item()? {
            match key.kind {
                // Of several the last one counts.
                kind::ROOT if key.object == key::CSUM_TREE => {
                    sums = Some(subvolume(key, item)?.root)
                }
                kind::ROOT if key::is_subvolume(key.object) => {
                    subvolumes.insert(key.object, subvolume(key, item)?);
                }
                kind::ROOT_REF => {
                    let name = item.bytes_at(REFERENCE, usize::from(item.u16_at(16)?))?.to_vec();
                    let reference = Reference { directory: item.u64_at(0)?, name };
                    references.insert((key.object, key.offset), reference);
                }
                kind::DIR_ITEM if key.object == volume.sb.root_directory => {
                    entry::each(key, item, |entry| {
                        if entry.name == b"default" {
                            default = entry.target.object;
                        }
                        Ok(())
                    })?;
                }
                _ => {}
            }
            if subvolumes.len() > SUBVOLUMES || references.len() > SUBVOLUMES {
                return Err(fixed_limit("subvolumes", SUBVOLUMES));
            }
            cursor.advance()?;
        }
        let missing = |what: &str| damaged("the root tree", format_args!("it has no {what}"));
        let sums = sums.ok_or_else(|| missing("tree of checksums"))?;
        let subvolumes = subvolumes.into_iter().collect();
        let roots = Roots { subvolumes, references, sums, default };
        if roots.get(key::TOP_LEVEL).is_none() {
            return Err(missing("top-level subvolume"));
        }
        if roots.get(default).is_none() {
            return Err(missing("default subvolume"));
        }
        Ok(roots)
    }

    /// The subvolume `number`; none if it is not there or deleted.
    pub(super) fn get(&self, number: u64) -> Option<&Subvolume> {
        let rank = usize::try_from(self.rank(number)?).ok()?;
        self.by_rank(rank).filter(|subvolume| !subvolume.deleted)
    }

    /// The subvolume `child`, if the entry `name` of the directory `directory` of the subvolume
    /// `parent` is its own. In a snapshot such an entry is a copy, and leads nowhere.
    pub(super) fn entered(
        &self,
        parent: u64,
        child: u64,
        directory: u64,
        name: &[u8],
    ) -> Option<&Subvolume> {
        let reference = self.references.get(&(parent, child))?;
        let same = reference.directory == directory && reference.name == name;
        if same { self.get(child) } else { None }
    }

    /// The place of a subvolume among all, deleted ones included.
    pub(super) fn rank(&self, number: u64) -> Option<u64> {
        let found = self.subvolumes.binary_search_by_key(&number, |(number, _)| *number);
        found.ok().map(|rank| rank as u64)
    }

    /// The subvolume at place `rank`.
    pub(super) fn by_rank(&self, rank: usize) -> Option<&Subvolume> {
        self.subvolumes.get(rank).map(|(_, subvolume)| subvolume)
    }
}

fn subvolume(key: Key, item: &[u8]) -> Result<Subvolume> {
    let bad = |why: &str| damaged(format_args!("root item {key}"), why);
    if item.len() < ROOT_ITEM {
        return Err(bad("it is too short"));
    }
    let root = Root {
        owner: key.object,
        address: item.u64_at(176)?,
        level: item.u8_at(238)?,
        generation: item.u64_at(160)?,
    };
    if root.level >= LEVELS {
        return Err(bad("its level is none"));
    }
    Ok(Subvolume {
        root,
        directory: item.u64_at(168)?,
        read_only: item.u64_at(208)? & READ_ONLY != 0,
        deleted: item.u32_at(216)? == 0,
    })
}
