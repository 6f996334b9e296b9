//! XFS, version 4 and 5, read inode by inode in the order of the disk.
//!
//! Read-only and in this process: the reader never mounts and never writes. A log that was not left
//! empty is replayed in memory, so what is read is what a mount would show. The superblock, inode trees, inodes, block maps, directories (their hash trees and free-space
//! indexes too), attributes and targets is verified: checksum, place, owner and UUID where version 5
//! has them. The trees of free and shared blocks say nothing of files, and are not read.
//!
//! ```text
//! volume (device + log)  superblock, group  ->  scan (inode, attribute)  ->  listing (directory)  ->  walk
//!                                               content (extent) for read_file
//! ```

mod acl;
mod attribute;
mod checksum;
mod content;
mod directory;
mod extent;
mod fault;
mod feature;
mod field;
mod group;
mod inode;
mod listing;
mod log;
mod scan;
mod superblock;
mod volume;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::inode::{Inode, Type};
use self::volume::{Budget, Volume};
use crate::error::{Error, Result};
use crate::image::tree::{Filesystem, Identity, Node, NodeKind, Stretch, Tree};
use crate::image::{Limits, ReadAt};

/// Whether `reader` starts with an XFS filesystem, by its magic number.
///
/// # Errors
/// The reader's.
pub fn probe(reader: &dyn ReadAt) -> Result<bool> {
    superblock::probe(reader)
}

/// An opened XFS filesystem. Threads may share it.
pub struct Xfs {
    volume: Volume,
    identity: Identity,
    limits: Limits,
    notes: Vec<String>,
}

impl Xfs {
    /// Opens the filesystem on `reader`, which must start with it, and replays its log in memory.
    ///
    /// # Errors
    /// Kind `Undetermined`: damage, a feature that is not read here (by name), a limit; or the
    /// reader's.
    pub fn open(reader: Arc<dyn ReadAt>, limits: &Limits) -> Result<Xfs> {
        let mut volume = Volume::new(reader)?;
        let mut notes = Vec::new();
        if let Some(transactions) = log::replay(&mut volume)? {
            notes.push(format!(
                "the filesystem was not cleanly unmounted: {transactions} transactions ({} sectors) \
                 of its log were replayed in memory",
                volume.overlay.len()
            ));
        }
        let unknown = volume.sb.features.unknown_ro_compat();
        if unknown != 0 {
            notes.push(format!("unknown read-only compatible features {unknown:#x} are ignored"));
        }
        let sb = &volume.sb;
        let identity = Identity { kind: "xfs", label: sb.label.clone(), uuid: sb.uuid_text() };
        Ok(Xfs { volume, identity, limits: *limits, notes })
    }

    /// Facts about the state of the filesystem that are no difference in content, for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Filesystem for Xfs {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tree(&self) -> Result<Tree> {
        let mut budget = Budget::new(&self.volume);
        let inodes = scan::scan(&self.volume, &self.limits, &mut budget)?;
        let entries = listing::read(&self.volume, &inodes, &self.limits, &mut budget)?;
        walk::tree(&inodes, entries, self.volume.sb.root, &self.limits)
    }

    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        content::stream(&self.volume, &self.file(node)?, sink)
    }

    fn stretches(&self, node: &Node) -> Result<Option<Vec<Stretch>>> {
        content::stretches(&self.volume, &self.file(node)?)
    }
}

impl Xfs {
    /// The inode of a regular file.
    fn file(&self, node: &Node) -> Result<Inode> {
        let not_here = || {
            let name = node.name.escape_ascii();
            Error::failed(format!("`{name}` is not a regular file of this filesystem"))
        };
        let NodeKind::File { inode: number, .. } = node.kind else { return Err(not_here()) };
        let inode = inode::read(&self.volume, number)?;
        if inode.kind == Type::File { Ok(inode) } else { Err(not_here()) }
    }
}
