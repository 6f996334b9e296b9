//! Level `content`: a disk as a system. Boot code, partitions, filesystems, boot entries.

use std::sync::Arc;

use super::boot_code;
use super::bytes::Chunks;
use super::canonical::{self, BootEntry, Content as Leaf, System};
use super::hashed::Hashed;
use super::layout;
use super::listed::Listed;
use super::lookup::Files;
use crate::digest::{BoxDigest, BytesDigest, DiskDigest, FileDigest, GroupDigest};
use crate::error::{Error, Result};
use crate::image::boot;
use crate::image::disk::{Disk, Group, Holder, Located};
use crate::image::tree::{Filesystem, Identity, NodeKind};
use crate::image::{Limits, ReadAt};

/// One disk as a system, with all its files.
#[derive(Debug)]
pub struct Content {
    /// What `box1` hashes.
    pub system: System,
    /// What `disk1` hashes.
    pub disk: canonical::Disk,
    /// What each partition of [`Content::disk`] holds, in the same order.
    pub held: Vec<Held>,
    /// The volume groups, in the order of the first partition of each.
    pub groups: Vec<Volumes>,
}

/// What one partition or logical volume holds.
#[derive(Debug)]
pub enum Held {
    /// A filesystem that is understood.
    Filesystem {
        /// Its files.
        tree: Box<Hashed>,
        /// Its boot code, as in `fs1`.
        boot: FileDigest,
    },
    /// A part of a volume group: an index into [`Content::groups`]. Never in a logical volume.
    Group(usize),
    /// Anything else.
    Bytes,
}

/// One volume group.
#[derive(Debug)]
pub struct Volumes {
    /// What `vg1` hashes.
    pub line: canonical::Group,
    /// What each of its logical volumes holds, in the same order.
    pub held: Vec<Held>,
}

impl Content {
    /// Reads all of the disk's content.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(disk: &Disk) -> Result<Self> {
        Self::read_by(disk, &All)
    }

    /// As [`Content::read`], with the contents as `hashing` has them.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn read_by(disk: &Disk, hashing: &dyn Hashing) -> Result<Self> {
        let mut seen = Seen::default();
        let (mut lines, mut held, mut groups) = (vec![], vec![], vec![]);
        let mut has_loader = false;
        for part in &disk.parts {
            let (leaf, one) = match part.group.and_then(|i| Some((i, disk.groups.get(i)?))) {
                Some((index, group)) => {
                    // Groups are in the order of the first partition of each.
                    if groups.len() <= index {
                        groups.push(volumes(group, &disk.limits, hashing, &mut seen)?);
                    }
                    let digest = GroupDigest::of(&canonical::group(&groups[index].line));
                    (Leaf::Group(digest), Held::Group(index))
                }
                None => {
                    let holder = Holder::Partition(part.partition.index);
                    let (reader, fs) = (&part.reader, &part.filesystem);
                    let read = Read::named(&holder, reader, fs, &disk.limits, hashing)?;
                    has_loader |= layout::is_esp(&part.partition.type_id) && read.has_loader;
                    seen.take(read)
                }
            };
            lines.push(layout::line(disk, part, leaf));
            held.push(one);
        }
        let disk1 = layout::disk(disk, lines)?;
        let mut firmware = vec![];
        if layout::bios(disk)? {
            firmware.push("bios");
        }
        if has_loader {
            firmware.push("uefi");
        }
        let arch = seen.arch();
        let disks = vec![DiskDigest::of(&canonical::disk(&disk1))];
        let system = System { arch, firmware, disks, boot: seen.boot };
        Ok(Content { system, disk: disk1, held, groups })
    }

    /// The files of the root filesystem alone, as [`root_tree`] finds it.
    ///
    /// # Errors
    /// As [`root_tree`].
    pub fn into_root(self) -> Result<Box<Hashed>> {
        let mut found = vec![];
        let mut take = |holder: Holder, held: Held| {
            if let Held::Filesystem { tree, .. } = held
                && may_be_root(&tree.identity)
            {
                found.push((holder, tree));
            }
        };
        for (part, held) in self.disk.partitions.iter().zip(self.held) {
            take(Holder::Partition(part.number), held);
        }
        for group in self.groups {
            for (volume, held) in group.line.volumes.into_iter().zip(group.held) {
                let holder = Holder::Volume { group: group.line.name.clone(), volume: volume.name };
                take(holder, held);
            }
        }
        let title = |(holder, _): &(Holder, _)| holder.to_string();
        only_root(found, |(_, tree)| tree, title)?.1.rooted().map(Box::new)
    }

    /// `box1`.
    #[must_use]
    pub fn digest(&self) -> BoxDigest {
        canonical::system_digest(&self.system)
    }
}

/// The file tree of the root filesystem alone (level `tree`).
///
/// # Errors
/// What cannot be read; no filesystem, or several that could be the root.
pub fn root_tree(disk: &Disk) -> Result<Hashed> {
    Ok(root(disk)?.1)
}

/// The same with what holds that filesystem.
///
/// # Errors
/// As [`root_tree`].
pub fn root(disk: &Disk) -> Result<(Holder, Hashed)> {
    let (at, listed) = root_files(disk)?;
    let tree = Hashed::of(listed, &**at.filesystem, &disk.limits)
        .map_err(|e| e.context(format!("cannot hash {}", at.holder)))?;
    Ok((at.holder, tree))
}

/// The root filesystem with its names, no contents read.
///
/// # Errors
/// As [`root_tree`].
pub fn root_files(disk: &Disk) -> Result<(Located<'_>, Listed)> {
    let mut found = vec![];
    for at in disk.filesystems().filter(|at| may_be_root(at.filesystem.identity())) {
        let listed = Listed::read(&**at.filesystem, &disk.limits)
            .map_err(|e| e.context(format!("cannot hash {}", at.holder)))?;
        found.push((at, listed));
    }
    let title = |(at, _): &(Located<'_>, _)| at.holder.to_string();
    let (at, listed) = only_root(found, |(_, listed)| listed, title)?;
    let (listed, _) = listed.rooted()?;
    Ok((at, listed))
}

/// Whether a filesystem of this type can hold a system.
fn may_be_root(identity: &Identity) -> bool {
    identity.kind != "vfat"
}

/// The only one of the candidates, or of several the only one that is a system.
///
/// # Errors
/// Kind `Undetermined`: there is none, or there are several.
fn only_root<T>(
    mut found: Vec<T>,
    listed: impl Fn(&T) -> &Listed,
    title: impl Fn(&T) -> String,
) -> Result<T> {
    if found.len() > 1 {
        found.retain(|one| listed(one).is_system());
    }
    let titles: Vec<_> = found.iter().map(title).collect();
    match (found.pop(), found.is_empty()) {
        (Some(root), true) => Ok(root),
        (Some(_), false) => Err(Error::undetermined("several filesystems could be the root")
            .detail(titles.join(", "))
            .hint("Compare at `--level content`.")),
        _ => Err(Error::undetermined("the disk has no filesystem that could be its root")
            .hint("Compare at `--level content` or `--level disk`.")),
    }
}

/// How the contents of a disk become digests.
pub(super) trait Hashing {
    /// The files of the filesystem that `holder` holds; `reader` has its bytes.
    fn tree(
        &self,
        holder: &Holder,
        reader: &dyn ReadAt,
        fs: &dyn Filesystem,
        limits: &Limits,
    ) -> Result<Hashed>;

    /// The bytes of `holder`, which holds no filesystem that is read here.
    fn bytes(&self, holder: &Holder, reader: &dyn ReadAt) -> Result<BytesDigest>;
}

/// Everything is read.
struct All;

impl Hashing for All {
    fn tree(
        &self,
        _: &Holder,
        _: &dyn ReadAt,
        fs: &dyn Filesystem,
        limits: &Limits,
    ) -> Result<Hashed> {
        Hashed::read(fs, limits)
    }

    fn bytes(&self, _: &Holder, reader: &dyn ReadAt) -> Result<BytesDigest> {
        Ok(Chunks::read(reader)?.digest())
    }
}

/// What of the system was seen so far.
#[derive(Default)]
struct Seen {
    boot: Vec<BootEntry>,
    /// Filesystems that could be the root: whether they say that they are, and the architecture.
    candidates: Vec<(bool, Option<String>)>,
}

impl Seen {
    /// Takes what counts for the system; the rest stays with its partition or volume.
    fn take(&mut self, read: Read) -> (Leaf, Held) {
        self.boot.extend(read.boot);
        if read.is_candidate {
            self.candidates.push((read.is_system, read.arch));
        }
        (read.leaf, read.held)
    }

    /// The architecture of the root: the only candidate, or of several the only system.
    fn arch(&self) -> String {
        let several = self.candidates.len() > 1;
        let mut roots = self.candidates.iter().filter(|(is_system, _)| *is_system || !several);
        match (roots.next(), roots.next()) {
            (Some((_, arch)), None) => arch.clone().unwrap_or_default(),
            _ => String::new(),
        }
    }
}

/// Reads all volumes of a group.
fn volumes(
    group: &Group,
    limits: &Limits,
    hashing: &dyn Hashing,
    seen: &mut Seen,
) -> Result<Volumes> {
    let (mut volumes, mut held) = (vec![], vec![]);
    for volume in &group.volumes {
        let holder = group.holder(volume);
        let read = Read::named(&holder, &volume.reader, &volume.filesystem, limits, hashing)?;
        let (content, one) = seen.take(read);
        let (name, uuid) = (volume.name.clone(), volume.uuid.clone());
        volumes.push(canonical::Volume { name, uuid, content });
        held.push(one);
    }
    let (name, uuid) = (group.name.clone(), group.uuid.clone());
    let line = canonical::Group { name, uuid, physical: group.physical.clone(), volumes };
    Ok(Volumes { line, held })
}

/// What was found in one partition or logical volume.
struct Read {
    leaf: Leaf,
    held: Held,
    boot: Vec<BootEntry>,
    /// Whether it has a loader where UEFI looks for one on removable media.
    has_loader: bool,
    is_candidate: bool,
    is_system: bool,
    arch: Option<String>,
}

impl Read {
    fn named(
        holder: &Holder,
        reader: &Arc<dyn ReadAt>,
        filesystem: &Option<Arc<dyn Filesystem>>,
        limits: &Limits,
        hashing: &dyn Hashing,
    ) -> Result<Self> {
        Self::of(holder, &**reader, filesystem.as_deref(), limits, hashing)
            .map_err(|e| e.context(format!("cannot hash {holder}")))
    }

    fn of(
        holder: &Holder,
        reader: &dyn ReadAt,
        fs: Option<&dyn Filesystem>,
        limits: &Limits,
        hashing: &dyn Hashing,
    ) -> Result<Self> {
        let Some(fs) = fs else {
            return Ok(Read {
                leaf: Leaf::Bytes(hashing.bytes(holder, reader)?),
                held: Held::Bytes,
                boot: vec![],
                has_loader: false,
                is_candidate: false,
                is_system: false,
                arch: None,
            });
        };
        let tree = hashing.tree(holder, reader, fs, limits)?;
        let code = boot_code::of(reader, tree.identity.kind)?;
        let files = Files { fs, tree: &tree };
        let entries = boot::entries(&files)?.into_iter().map(|entry| BootEntry {
            title: entry.title,
            kernel: entry.kernel,
            command_line: entry.cmdline,
        });
        Ok(Read {
            leaf: Leaf::Filesystem(tree.fs1(code)),
            boot: entries.collect(),
            has_loader: has_loader(&tree),
            is_candidate: may_be_root(&tree.identity),
            is_system: tree.is_system(),
            arch: arch(files)?,
            held: Held::Filesystem { boot: code, tree: Box::new(tree) },
        })
    }
}

/// `\EFI\BOOT\BOOT<arch>.EFI` (UEFI 2.10, section 3.5.1.1).
pub(super) fn has_loader(tree: &Listed) -> bool {
    // Firmware has to read vfat alone (section 13.3).
    let folder = tree.find(b"/EFI/BOOT").filter(|_| tree.identity.kind == "vfat");
    folder.is_some_and(|folder| {
        tree.children(folder).iter().any(|id| {
            let name = tree.node(*id).name.to_ascii_lowercase();
            name.starts_with(b"boot") && name.ends_with(b".efi")
        })
    })
}

/// Debian's name of the machine that the system's first programs are made for.
fn arch(files: Files<'_>) -> Result<Option<String>> {
    for path in ["/sbin/init", "/bin/sh", "/bin/busybox"] {
        let Some(node) = files.find(path.as_bytes()) else { continue };
        if !matches!(node.kind, NodeKind::File { .. }) {
            continue;
        }
        if let Some(arch) = elf_machine(&files.head(node, 20)?) {
            return Ok(Some(arch));
        }
    }
    Ok(None)
}

/// ELF-64 Object File Format, ELF header; machine numbers of `linux/elf-em.h`.
fn elf_machine(head: &[u8]) -> Option<String> {
    let [0x7f, b'E', b'L', b'F', class, data, ..] = *head else { return None };
    let pair: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    let machine = if data == 2 { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
    Some(match (machine, class, data) {
        (62, 2, 1) => "amd64".to_owned(),
        (183, 2, 1) => "arm64".to_owned(),
        (40, 1, 1) => "armhf".to_owned(),
        (3, 1, 1) => "i386".to_owned(),
        (21, 2, 1) => "ppc64el".to_owned(),
        (243, 2, 1) => "riscv64".to_owned(),
        (22, 2, 2) => "s390x".to_owned(),
        _ => format!("elf-{machine}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_by_number_class_and_byte_order() {
        let head = |class: u8, data: u8, machine: [u8; 2]| {
            let mut head = vec![0x7f, b'E', b'L', b'F', class, data];
            head.resize(18, 0);
            head.extend(machine);
            elf_machine(&head)
        };
        assert_eq!(head(2, 1, [62, 0]).as_deref(), Some("amd64"));
        assert_eq!(head(2, 2, [0, 22]).as_deref(), Some("s390x"));
        assert_eq!(head(1, 1, [62, 0]).as_deref(), Some("elf-62"));
        assert_eq!(elf_machine(b"#!/bin/sh and so on, a script"), None);
        assert_eq!(elf_machine(b"\x7fELF\x02\x01"), None);
    }
}
