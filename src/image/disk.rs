//! A whole disk: its container, its partition table, and what is in each partition: a filesystem,
//! a part of a volume group with filesystems in its volumes, or bytes.

use std::path::Path;
use std::sync::Arc;

use super::container::{self, Container, Options};
use super::filesystem::{self, vfat};
use super::lvm;
use super::partition::{self, Kind, Partition, Table};
use super::tree::Filesystem;
use super::{Limits, ReadAt};
use crate::error::{Error, Result};

/// An open disk image.
pub struct Disk {
    /// The file and the guest-visible bytes.
    pub container: Container,
    /// The partition table; of kind [`Kind::None`] if the whole disk is a filesystem.
    pub table: Table,
    /// The partitions in the order of the table; the whole disk as the only one without a table.
    pub parts: Vec<Part>,
    /// The volume groups, in the order of the first partition of each.
    pub groups: Vec<Group>,
    /// The limits that it was opened with, which hold for reading its files too.
    pub limits: Limits,
}

/// One partition and what is in it.
pub struct Part {
    /// Its place and its identity.
    pub partition: Partition,
    /// Its bytes.
    pub reader: Arc<dyn ReadAt>,
    /// The filesystem; none if the content is none of those that are read here, as in a BIOS-boot
    /// partition or in swap.
    pub filesystem: Option<Arc<dyn Filesystem>>,
    /// Index into [`Disk::groups`], if it is a physical volume of one.
    pub group: Option<usize>,
    /// What a person should know about the filesystem, in sentences without a full stop.
    pub notes: Vec<String>,
}

/// A volume group of LVM2.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// UUIDs of its physical volumes, in the order of its metadata.
    pub physical: Vec<String>,
    /// Its logical volumes, in the order of its metadata.
    pub volumes: Vec<Volume>,
    /// What a person should know about it, in sentences without a full stop.
    pub notes: Vec<String>,
}

/// A logical volume and what is in it.
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its bytes.
    pub reader: Arc<dyn ReadAt>,
    /// As [`Part::filesystem`].
    pub filesystem: Option<Arc<dyn Filesystem>>,
    /// As [`Part::notes`].
    pub notes: Vec<String>,
}

/// What can hold a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A partition, by its number; 0 is a disk without a table.
    Partition(u32),
    /// A logical volume.
    Volume {
        /// Name of its group.
        group: String,
        /// Its own name.
        volume: String,
    },
}

/// As in `cannot hash partition 2`.
impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Partition(0) => f.write_str("the filesystem"),
            Holder::Partition(number) => write!(f, "partition {number}"),
            Holder::Volume { group, volume } => write!(f, "volume {volume} of group {group}"),
        }
    }
}

/// A filesystem of a disk, and where it is.
pub struct Located<'a> {
    /// What it lies in.
    pub holder: Holder,
    /// The bytes of that.
    pub reader: &'a Arc<dyn ReadAt>,
    /// The filesystem.
    pub filesystem: &'a Arc<dyn Filesystem>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.filesystem.as_ref().map(|filesystem| filesystem.identity().kind);
        f.debug_struct("Volume").field("name", &self.name).field("filesystem", &kind).finish()
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("container", &self.container)
            .field("table", &self.table)
            .field("parts", &self.parts)
            .field("groups", &self.groups)
            .finish()
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.filesystem.as_ref().map(|filesystem| filesystem.identity().kind);
        f.debug_struct("Part")
            .field("index", &self.partition.index)
            .field("filesystem", &kind)
            .field("group", &self.group)
            .finish()
    }
}

impl Disk {
    /// Opens the image at `path` and what is in it.
    ///
    /// # Errors
    /// As [`container::open`] and [`partition::read`]; a damaged filesystem; or, of kind
    /// `Undetermined`, a disk that has neither a partition table nor a filesystem.
    pub fn open(path: &Path, options: &Options) -> Result<Disk> {
        Disk::read(container::open(path, options)?, &options.limits)
    }

    /// Reads what is in an open container.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn read(container: Container, limits: &Limits) -> Result<Disk> {
        let name = container.path.display().to_string();
        let inside = |e: Error| e.context(format!("cannot read the disk `{name}`"));
        let (table, parts, groups) = read_table(&container.reader, limits).map_err(inside)?;
        Ok(Disk { container, table, parts, groups, limits: *limits })
    }

    /// All filesystems: partitions in the order of the table, a group's volumes at the place of the
    /// first of its partitions.
    pub fn filesystems(&self) -> impl Iterator<Item = Located<'_>> {
        self.parts.iter().enumerate().flat_map(|(i, part)| {
            let own = part.filesystem.as_ref().map(|filesystem| Located {
                holder: Holder::Partition(part.partition.index),
                reader: &part.reader,
                filesystem,
            });
            let is_first = self.parts[..i].iter().all(|other| other.group != part.group);
            let group = part.group.filter(|_| is_first).and_then(|group| self.groups.get(group));
            own.into_iter().chain(group.into_iter().flat_map(Group::filesystems))
        })
    }

    /// Everything that a person should know about the disk, container first.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let parts = self.parts.iter().flat_map(|part| {
            let late = part.filesystem.iter().flat_map(|fs| fs.late_notes());
            let notes = part.notes.iter().cloned().chain(late);
            notes.map(|note| format!("partition {}: {note}", part.partition.index))
        });
        let groups = self.groups.iter().flat_map(Group::all_notes);
        let whole = self.container.notes.iter().chain(&self.table.notes).cloned();
        whole.chain(parts).chain(groups).collect()
    }
}

impl Group {
    /// What holds the filesystem of `volume`.
    #[must_use]
    pub fn holder(&self, volume: &Volume) -> Holder {
        Holder::Volume { group: self.name.clone(), volume: volume.name.clone() }
    }

    fn filesystems(&self) -> impl Iterator<Item = Located<'_>> {
        self.volumes.iter().filter_map(|volume| {
            let (holder, reader) = (self.holder(volume), &volume.reader);
            volume.filesystem.as_ref().map(|filesystem| Located { holder, reader, filesystem })
        })
    }

    fn all_notes(&self) -> impl Iterator<Item = String> {
        let own = self.notes.iter().map(|note| format!("group {}: {note}", self.name));
        own.chain(self.volumes.iter().flat_map(|volume| {
            volume.notes.iter().map(|note| format!("{}: {note}", self.holder(volume)))
        }))
    }
}

type Contents = (Table, Vec<Part>, Vec<Group>);

fn read_table(disk: &Arc<dyn ReadAt>, limits: &Limits) -> Result<Contents> {
    let table = partition::read(&**disk)?;
    // A FAT boot sector ends with the same two bytes as an MBR, and has code where the MBR's
    // entries are.
    if table.kind == Kind::Mbr && vfat::probe(&**disk)? {
        return Err(Error::undetermined(
            "sector 0 is both an MBR and the start of a vfat filesystem",
        )
        .hint("Erase one of the two, so that every system sees the same disk."));
    }
    if table.kind == Kind::None {
        let whole = Partition {
            index: 0,
            type_id: String::new(),
            unique_id: String::new(),
            name: String::new(),
            attributes: 0,
            start: 0,
            length: disk.size(),
        };
        let (parts, groups) = parts(disk, vec![whole], limits)?;
        if parts.iter().all(|part| part.filesystem.is_none() && part.group.is_none()) {
            return Err(Error::undetermined(
                "the disk has no partition table and no filesystem that is known",
            )
            .hint("Check that the file is the right one and that it is whole."));
        }
        return Ok((table, parts, groups));
    }
    let (parts, groups) = parts(disk, table.partitions.clone(), limits)?;
    Ok((table, parts, groups))
}

/// What is in the partitions, found by content: the type id in the table is only a claim.
fn parts(
    disk: &Arc<dyn ReadAt>,
    partitions: Vec<Partition>,
    limits: &Limits,
) -> Result<(Vec<Part>, Vec<Group>)> {
    let mut physical = vec![];
    let mut parts = vec![];
    for partition in partitions {
        let number = partition.index;
        let reader = partition.reader(disk)?;
        let read = inside(&reader, limits).and_then(|(filesystem, notes)| {
            let label = lvm::physical(&reader)?;
            if label.is_some() && filesystem.is_some() {
                let what = "it looks both like a filesystem and like an LVM physical volume";
                return Err(Error::undetermined(what)
                    .hint("Erase the signature of the old one with `wipefs` on a copy."));
            }
            Ok((filesystem, notes, label))
        });
        let (filesystem, notes, label) = read.map_err(|e| match number {
            0 => e,
            n => e.context(format!("partition {n} cannot be read")),
        })?;
        // For now the index of the physical volume.
        let group = label.as_ref().map(|_| physical.len());
        physical.extend(label);
        lvm::check_texts(&physical)?;
        parts.push(Part { partition, reader, filesystem, group, notes });
    }
    let (groups, owners) = lvm::assemble(&physical)?;
    for part in &mut parts {
        part.group = part.group.and_then(|index| owners.get(index).copied().flatten());
    }
    let groups = groups.into_iter().map(|group| volumes(group, limits));
    Ok((parts, groups.collect::<Result<_>>()?))
}

type Inside = (Option<Arc<dyn Filesystem>>, Vec<String>);

/// The filesystem that fills `reader`, if there is one, with notes.
fn inside(reader: &Arc<dyn ReadAt>, limits: &Limits) -> Result<Inside> {
    Ok(match filesystem::open(reader, limits)? {
        Some(found) => (Some(found.filesystem), found.notes),
        None => (None, vec![]),
    })
}

/// Opens what is in the volumes of a group.
fn volumes(group: lvm::Group, limits: &Limits) -> Result<Group> {
    let open = |volume: lvm::Logical| {
        let (name, uuid, reader) = (volume.name, volume.uuid, volume.reader);
        let (filesystem, notes) = inside(&reader, limits).map_err(|e| {
            e.context(format!("volume {name} of group {} cannot be read", group.name))
        })?;
        Ok(Volume { name, uuid, reader, filesystem, notes })
    };
    let volumes = group.volumes.into_iter().map(open).collect::<Result<_>>()?;
    let (name, uuid, physical, notes) = (group.name, group.uuid, group.physical, group.notes);
    Ok(Group { name, uuid, physical, volumes, notes })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::error::Kind as ErrorKind;
    use crate::image::oracle::{run, tool};

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_partition_shows_its_filesystem_whatever_the_container() {
        let test = "disk with partitions";
        let dir = tempfile::tempdir().expect("tempdir");
        let (Some(sfdisk), Some(mke2fs), Some(mkfs), Some(qemu)) = (
            tool("sfdisk", test),
            tool("mke2fs", test),
            tool("mkfs.vfat", test),
            tool("qemu-img", test),
        ) else {
            return;
        };
        run(dir.path(), &mke2fs, &["-q", "-t", "ext4", "-L", "root", "ext4", "8M"]);
        run(dir.path(), &mkfs, &["-C", "-i", "89ABCDEF", "-n", "ESP", "vfat", "4096"]);
        let disk = fs::File::create(dir.path().join("raw")).expect("file");
        disk.set_len(20 * MIB).expect("size");
        fs::write(
            dir.path().join("script"),
            "label: gpt\nstart=2048, size=2048\nstart=4096, size=8192\nstart=12288, size=16384\n",
        )
        .expect("write");
        run(
            dir.path(),
            std::path::Path::new("sh"),
            &["-c", &format!("{} -q raw < script", sfdisk.display())],
        );
        disk.write_all_at(&fs::read(dir.path().join("vfat")).expect("read"), 2 * MIB)
            .expect("write");
        disk.write_all_at(&fs::read(dir.path().join("ext4")).expect("read"), 6 * MIB)
            .expect("write");
        run(dir.path(), &qemu, &["convert", "-f", "raw", "-O", "qcow2", "-c", "raw", "qcow2"]);
        let vpc = [
            "convert",
            "-f",
            "raw",
            "-O",
            "vpc",
            "-o",
            "subformat=fixed,force_size=on",
            "raw",
            "vhd",
        ];
        run(dir.path(), &qemu, &vpc);
        for name in ["raw", "qcow2", "vhd"] {
            let disk = Disk::open(&dir.path().join(name), &Options::default()).expect("it opens");
            assert_eq!(disk.container.format.as_str(), name);
            let found: Vec<_> = disk
                .parts
                .iter()
                .map(|part| part.filesystem.as_ref().map(|fs| fs.identity().clone()))
                .collect();
            let [None, Some(esp), Some(root)] = &found[..] else { panic!("{found:?}") };
            assert_eq!(
                (esp.kind, &esp.label[..], esp.uuid.as_str()),
                ("vfat", &b"ESP"[..], "89AB-CDEF")
            );
            assert_eq!((root.kind, &root.label[..]), ("ext4", &b"root"[..]));
        }
        // A filesystem without a table is a disk too.
        for name in ["ext4", "vfat"] {
            let disk = Disk::open(&dir.path().join(name), &Options::default()).expect("it opens");
            assert_eq!((disk.table.kind, disk.parts.len()), (Kind::None, 1));
            let kind = disk.parts[0].filesystem.as_ref().map(|fs| fs.identity().kind);
            assert_eq!(kind, Some(name));
        }
    }

    #[test]
    fn a_disk_with_nothing_on_it_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("blank.raw");
        fs::File::create(&path).and_then(|f| f.set_len(MIB)).expect("file");
        let e = Disk::open(&path, &Options::default()).expect_err("refused");
        assert_eq!(e.kind(), ErrorKind::Undetermined);
        assert!(
            e.to_string().contains("blank.raw") && e.to_string().contains("no partition table"),
            "{e}"
        );
    }
}
