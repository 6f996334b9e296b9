//! What was found, with both trees to look into.

use std::borrow::Cow;

use super::Drift;
use crate::error::{Error, Result};
use crate::image::disk::{Disk, Holder};
use crate::image::tree::{Node, NodeKind};
use crate::parity::content::{Content, Held};
use crate::parity::difference::Difference;
use crate::parity::hashed::Hashed;
use crate::parity::lookup::Files;
use crate::parity::packages::Packages;

/// Longest file that is looked into, in bytes.
const LONGEST: u64 = 16 << 20;

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Sorted by place.
    pub differences: Vec<Difference>,
    /// How many files had to be read to tell, both sides together.
    pub read: usize,
    /// How many bytes of the disk are in blocks that changed.
    pub bytes: u64,
    /// The image's side.
    pub(super) base: Content,
    /// The machine's side.
    pub(super) now: Content,
}

impl Found {
    /// `path` of the filesystem of `holder` as a path of the system, if that filesystem is its root.
    #[must_use]
    pub fn in_system<'a>(&self, holder: &Holder, path: &'a [u8]) -> Option<&'a [u8]> {
        let (root, tree) = trees(&self.base).find(|(_, tree)| tree.is_system())?;
        if root != *holder {
            return None;
        }
        // The system can start in a subvolume.
        let start = tree.path(tree.start);
        if start.is_empty() {
            return Some(path);
        }
        path.strip_prefix(&start[..])?.strip_prefix(b"/")
    }

    /// What holds the system.
    #[must_use]
    pub fn system(&self) -> Option<Holder> {
        trees(&self.base).find(|(_, tree)| tree.is_system()).map(|(holder, _)| holder)
    }

    /// The contents of the regular file at `path` of the system in the image, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is longer than 16 MiB.
    pub fn before(&self, drift: &Drift, holder: &Holder, path: &[u8]) -> Result<Option<Vec<u8>>> {
        contents(&drift.base, &self.base, holder, path)
    }

    /// The same in the machine.
    ///
    /// # Errors
    /// As [`Found::before`].
    pub fn after(&self, drift: &Drift, holder: &Holder, path: &[u8]) -> Result<Option<Vec<u8>>> {
        contents(&drift.now, &self.now, holder, path)
    }

    /// What the package databases of the image and of the machine say; none where there is none.
    ///
    /// # Errors
    /// A database is damaged.
    pub fn packages(&self, drift: &Drift) -> Result<(Option<Packages>, Option<Packages>)> {
        Ok((packages(&drift.base, &self.base)?, packages(&drift.now, &self.now)?))
    }

    /// What stands at `path` of the system in the machine, links not followed.
    #[must_use]
    pub fn node(&self, holder: &Holder, path: &[u8]) -> Option<&Node> {
        let (_, tree) = trees(&self.now).find(|(other, _)| other == holder)?;
        find(tree, path)
    }
}

fn find<'a>(tree: &'a Hashed, path: &[u8]) -> Option<&'a Node> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let id = parts.into_iter().try_fold(tree.start, |at, part| tree.child(at, part))?;
    Some(tree.node(id))
}

fn packages(disk: &Disk, content: &Content) -> Result<Option<Packages>> {
    let Some((holder, tree)) = trees(content).find(|(_, tree)| tree.is_system()) else {
        return Ok(None);
    };
    let Some(at) = disk.filesystems().find(|at| at.holder == holder) else { return Ok(None) };
    let files = Files { fs: &**at.filesystem, tree };
    if files.find(b"/var/lib/dpkg/status").is_none() {
        return Ok(None);
    }
    Packages::read(files).map(Some)
}

fn contents(
    disk: &Disk,
    content: &Content,
    holder: &Holder,
    path: &[u8],
) -> Result<Option<Vec<u8>>> {
    let tree = trees(content).find(|(other, _)| other == holder);
    let at = disk.filesystems().find(|at| at.holder == *holder);
    let (Some((_, tree)), Some(at)) = (tree, at) else { return Ok(None) };
    let Some(node) = find(tree, path) else { return Ok(None) };
    let NodeKind::File { size, .. } = node.kind else { return Ok(None) };
    if size > LONGEST {
        let path: Cow<'_, str> = String::from_utf8_lossy(path);
        return Err(Error::undetermined(format!(
            "`/{path}` has {size} bytes, too many to look into"
        )));
    }
    let files = Files { fs: &**at.filesystem, tree };
    files.head(node, usize::try_from(size).unwrap_or(usize::MAX)).map(Some)
}

/// All trees of one side with what holds them.
fn trees(content: &Content) -> impl Iterator<Item = (Holder, &Hashed)> {
    let parts = content.disk.partitions.iter().zip(&content.held).filter_map(|(part, held)| {
        let Held::Filesystem { tree, .. } = held else { return None };
        Some((Holder::Partition(part.number), &**tree))
    });
    let volumes = content.groups.iter().flat_map(|group| {
        group.line.volumes.iter().zip(&group.held).filter_map(|(volume, held)| {
            let Held::Filesystem { tree, .. } = held else { return None };
            let (group, volume) = (group.line.name.clone(), volume.name.clone());
            Some((Holder::Volume { group, volume }, &**tree))
        })
    });
    parts.chain(volumes)
}
