//! ext2, ext3 and ext4, read inode by inode in the order of the disk.
//!
//! Read-only and in this process: the reader never mounts and never writes. Checksums of the
//! superblock, group descriptors, bitmaps, inodes, extent blocks, directory blocks and attributes
//! are verified where the filesystem has them. A journal that was not written back is replayed in
//! memory, so what is read is what a mount would show. Fast commits in it, external journals,
//! encrypted files and directories that compare names without case are refused by name.
//!
//! ```text
//! volume (device + journal)  superblock, group  ->  scan (inodes, xattr)  ->  walk (directory)
//!                                                   content (blockmap) for read_file
//! ```

mod acl;
mod blockmap;
mod checksum;
mod content;
mod directory;
mod fault;
mod feature;
mod field;
mod group;
mod inode;
mod journal;
mod scan;
mod superblock;
mod volume;
mod walk;
mod xattr;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use self::group::Group;
use self::inode::{INLINE_DATA, Inode, Type};
use self::volume::Volume;
use self::xattr::Reader;
use crate::error::{Error, Result};
use crate::image::tree::{Filesystem, Identity, Node, NodeKind, Stretch, Tree};
use crate::image::{Limits, ReadAt};

/// Whether `reader` holds an ext2, ext3 or ext4 filesystem, by its magic number.
///
/// # Errors
/// The reader's.
pub fn probe(reader: &dyn ReadAt) -> Result<bool> {
    superblock::probe(reader)
}

/// An opened ext2, ext3 or ext4 filesystem. Threads may share it.
pub struct Ext4 {
    volume: Volume,
    groups: Vec<Group>,
    identity: Identity,
    limits: Limits,
    notes: Vec<String>,
}

impl Ext4 {
    /// Opens the filesystem on `reader`, which must start with it, and replays its journal in memory.
    ///
    /// # Errors
    /// Kind `Undetermined`: damage, a feature that is not read here (by name), a limit, a
    /// filesystem without a journal that was not cleanly unmounted; or the reader's.
    pub fn open(reader: Arc<dyn ReadAt>, limits: &Limits) -> Result<Ext4> {
        let mut volume = Volume::new(reader)?;
        let mut notes = Vec::new();
        let features = volume.sb.features;
        if features.incompat(feature::RECOVER) {
            let replay = journal::replay(&volume)?;
            notes.push(format!(
                "the filesystem was not cleanly unmounted: {} transactions ({} blocks) of its journal \
                 were replayed in memory",
                replay.transactions,
                replay.overlay.len()
            ));
            volume.replay(replay.overlay)?;
        } else if !volume.sb.clean && !features.compat(feature::HAS_JOURNAL) {
            return Err(Error::undetermined("the ext filesystem was not cleanly unmounted")
                .cause("it has no journal, so what was being written is unknown")
                .hint(
                    "Unmount it where it is in use, or run `e2fsck -f` on a copy of the image.",
                ));
        }
        notes.extend(facts(&volume));
        let groups = group::read_all(&volume)?;
        let sb = &volume.sb;
        let identity =
            Identity { kind: sb.features.kind(), label: sb.label.clone(), uuid: sb.uuid_text() };
        Ok(Ext4 { volume, groups, identity, limits: *limits, notes })
    }

    /// Facts about the state of the filesystem that are no difference in content, for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Ext4 {
    /// The inode of a regular file.
    fn file(&self, node: &Node) -> Result<Inode> {
        let number = match node.kind {
            NodeKind::File { inode, .. } => u32::try_from(inode).ok(),
            _ => None,
        };
        let not_here = || {
            let name = node.name.escape_ascii();
            Error::failed(format!("`{name}` is not a regular file of this filesystem"))
        };
        let inode = inode::read(&self.volume, &self.groups, number.ok_or_else(not_here)?)?;
        if inode.kind == Type::File { Ok(inode) } else { Err(not_here()) }
    }
}

fn facts(volume: &Volume) -> Vec<String> {
    let sb = &volume.sb;
    let mut facts = Vec::new();
    if sb.errors {
        facts.push("the kernel recorded errors in the filesystem".into());
    }
    let unknown = sb.features.unknown_ro_compat();
    if unknown != 0 {
        facts.push(format!("unknown read-only compatible features {unknown:#x} are ignored"));
    }
    facts
}

impl Filesystem for Ext4 {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tree(&self) -> Result<Tree> {
        let inodes = scan::scan(&self.volume, &self.groups, &self.limits)?;
        walk::tree(&self.volume, &inodes, &self.limits)
    }

    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let inode = self.file(node)?;
        if !inode.has(INLINE_DATA) {
            return content::stream(&self.volume, &inode, sink);
        }
        let reader = Reader { volume: &self.volume, groups: &self.groups, limits: &self.limits };
        let rest = reader.in_inode(&inode)?.inline;
        sink(&content::inline(&inode, rest.as_deref())?)
    }

    fn stretches(&self, node: &Node) -> Result<Option<Vec<Stretch>>> {
        content::stretches(&self.volume, &self.file(node)?)
    }

    fn spent(&self) -> Result<Vec<Range<u64>>> {
        let features = &self.volume.sb.features;
        if features.incompat(feature::RECOVER) || !features.compat(feature::HAS_JOURNAL) {
            return Ok(vec![]);
        }
        journal::spent(&self.volume)
    }
}
