//! btrfs on one device: all subvolumes as one tree, from the top-level one down.
//!
//! Read-only and in this process. The superblock's features are checked against a list; checksums of
//! tree blocks and of contents are verified, and where the device holds two copies (the profile dup)
//! the second one is read if the first is damaged. Each leaf of a subvolume's tree is read once for
//! all metadata. What an `fsync` left in the log tree is not replayed: such a filesystem is refused.
//!
//! ```text
//! superblock, feature  ->  volume (chunk, node, checksum)  ->  walk: items in order
//! roots: subvolumes    ->  scan (inode, entry)  ->  assemble: the tree
//! content (extent, sums, unpack, lzo) for read_file
//! ```

mod assemble;
mod checksum;
mod chunk;
mod content;
mod entry;
mod extent;
mod fault;
mod feature;
mod field;
mod inode;
mod key;
mod lzo;
mod node;
mod number;
mod roots;
mod scan;
mod sums;
mod superblock;
mod unpack;
mod volume;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::content::File;
use self::inode::{Inode, Type};
use self::roots::Roots;
use self::volume::Volume;
use crate::error::{Error, Result};
use crate::image::tree::{Filesystem, Identity, Node, NodeKind, Stretch, Tree};
use crate::image::{Limits, ReadAt};

/// Whether `reader` holds a btrfs filesystem, by its magic number.
///
/// # Errors
/// The reader's.
pub fn probe(reader: &dyn ReadAt) -> Result<bool> {
    superblock::probe(reader)
}

/// An opened btrfs filesystem. Threads may share it.
pub struct Btrfs {
    volume: Volume,
    roots: Roots,
    identity: Identity,
    limits: Limits,
    notes: Vec<String>,
}

impl Btrfs {
    /// Opens the filesystem on `reader`, which must start with it.
    ///
    /// # Errors
    /// Kind `Undetermined`: damage, a feature that is not read here (by name), a limit, a log that
    /// was not replayed; or the reader's.
    pub fn open(reader: Arc<dyn ReadAt>, limits: &Limits) -> Result<Btrfs> {
        let sb = superblock::read(&*reader)?;
        if sb.has_log {
            return Err(Error::undetermined("the btrfs filesystem was not cleanly unmounted")
                .cause("its log tree holds changes that a mount would replay")
                .hint("Mount a copy of the image once and unmount it, so that the kernel replays the log."));
        }
        let mut notes = Vec::new();
        if sb.errors {
            notes.push("the kernel recorded errors in the filesystem".to_owned());
        }
        let unknown = feature::unknown_compat_ro(sb.compat_ro);
        if unknown != 0 {
            notes.push(format!("unknown read-only compatible features {unknown:#x} are ignored"));
        }
        let identity =
            Identity { kind: "btrfs", label: sb.label.clone(), uuid: uuid_text(&sb.uuid) };
        let volume = Volume::open(reader, sb)?;
        let roots = Roots::read(&volume)?;
        Ok(Btrfs { volume, roots, identity, limits: *limits, notes })
    }

    /// Facts about the state of the filesystem that are no difference in content, for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The spelling of `blkid`.
fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    parts.join("-")
}

impl Filesystem for Btrfs {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tree(&self) -> Result<Tree> {
        assemble::tree(&self.volume, &self.roots, &self.limits)
    }

    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (file, inode) = self.file(node)?;
        file.stream(&inode, sink)
    }

    fn stretches(&self, node: &Node) -> Result<Option<Vec<Stretch>>> {
        let (file, inode) = self.file(node)?;
        file.stretches(&inode)
    }

    fn late_notes(&self) -> Vec<String> {
        match self.volume.repairs() {
            0 => vec![],
            count => vec![format!("{count} damaged blocks were read from their second copy")],
        }
    }
}

impl Btrfs {
    /// A regular file and its inode.
    fn file(&self, node: &Node) -> Result<(File<'_>, Inode)> {
        let not_here = || {
            let name = node.name.escape_ascii();
            Error::failed(format!("`{name}` is not a regular file of this filesystem"))
        };
        let NodeKind::File { inode, .. } = node.kind else { return Err(not_here()) };
        let (rank, number) = number::split(inode);
        let rank = usize::try_from(rank).ok();
        let subvolume = rank.and_then(|rank| self.roots.by_rank(rank)).ok_or_else(not_here)?;
        let file =
            File { volume: &self.volume, root: subvolume.root, sums: self.roots.sums, number };
        let inode = file.inode()?;
        if inode.kind == Type::File { Ok((file, inode)) } else { Err(not_here()) }
    }
}
