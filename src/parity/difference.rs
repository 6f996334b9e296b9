//! One place where two sides differ, and how.

use serde::Serialize;

use super::spelling::spell;
use crate::image::disk::Holder;

/// What about an object differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// File, directory, link, device; or the type of a table, partition or filesystem.
    Type,
    /// The bytes.
    Content,
    /// The size in bytes.
    Size,
    /// Permission bits.
    Mode,
    /// User and group.
    Owner,
    /// A link's target.
    Target,
    /// An extended attribute.
    Xattr,
    /// Immutable, append-only.
    Flags,
    /// Major and minor number.
    Device,
    /// The modification time, in seconds since 1970 UTC.
    Mtime,
    /// Which names are one file.
    HardLinks,
    /// Boot code of a disk or a filesystem.
    BootCode,
    /// The bytes between the partition table and the first partition.
    Gap,
    /// GUID, signature, UUID or serial.
    Id,
    /// A partition's name or a filesystem's label.
    Name,
    /// A partition's attribute bits.
    Attributes,
    /// Which parts of a filesystem can be mounted on their own, and how.
    Subvolumes,
    /// The architecture.
    Arch,
    /// The firmware that could start the disk.
    Firmware,
    /// The path of a boot entry's kernel.
    Kernel,
    /// A boot entry's kernel command line.
    CommandLine,
    /// The physical volumes of a volume group.
    PhysicalVolumes,
    /// The order of boot entries, partitions or volumes.
    Order,
    /// A package's version.
    Version,
    /// A package's state in the package manager's database.
    Status,
}

impl Kind {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Type => "type",
            Kind::Content => "content",
            Kind::Size => "size",
            Kind::Mode => "mode",
            Kind::Owner => "owner",
            Kind::Target => "target",
            Kind::Xattr => "xattr",
            Kind::Flags => "flags",
            Kind::Device => "device",
            Kind::Mtime => "mtime",
            Kind::HardLinks => "hard links",
            Kind::BootCode => "boot code",
            Kind::Gap => "gap before the first partition",
            Kind::Id => "id",
            Kind::Name => "name",
            Kind::Attributes => "attributes",
            Kind::Subvolumes => "subvolumes",
            Kind::Arch => "arch",
            Kind::Firmware => "firmware",
            Kind::Kernel => "kernel",
            Kind::CommandLine => "command line",
            Kind::PhysicalVolumes => "physical volumes",
            Kind::Order => "order",
            Kind::Version => "version",
            Kind::Status => "status",
        }
    }
}

/// One change of an object. Values are for people; absent where a value says nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// What differs.
    pub kind: Kind,
    /// Which one of several: an attribute's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// On the first side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// On the second side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

impl Change {
    /// A change that needs no values.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Change { kind, key: None, old: None, new: None }
    }

    /// A change from one value to another.
    #[must_use]
    pub fn values(kind: Kind, old: impl ToString, new: impl ToString) -> Self {
        Change { kind, key: None, old: Some(old.to_string()), new: Some(new.to_string()) }
    }
}

/// Where a difference is, in the order of a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file that holds the image.
    File,
    /// The whole system: architecture, firmware.
    System,
    /// A boot entry, by its title.
    BootEntry(Vec<u8>),
    /// The disk and its partition table.
    Disk,
    /// A range of guest-visible bytes.
    Bytes(u64, u64),
    /// A partition, by its number; 0 is a filesystem without a table.
    Partition(u32),
    /// A package, by its name and its architecture.
    Package(Vec<u8>, Vec<u8>),
    /// A volume group, by its name.
    Group(String),
    /// A logical volume, by the names of its group and its own.
    Volume(String, String),
    /// A path from the root of a filesystem, and what holds that (`None`: the only one compared).
    Path(Option<Holder>, Vec<u8>),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File => f.write_str("file"),
            Place::System => f.write_str("system"),
            Place::BootEntry(title) => write!(f, "boot entry {}", spell(title)),
            Place::Disk => f.write_str("disk"),
            Place::Bytes(start, end) => write!(f, "bytes {start}..{end}"),
            Place::Partition(0) => f.write_str("filesystem"),
            Place::Partition(number) => write!(f, "partition {number}"),
            Place::Package(name, arch) if arch.is_empty() => write!(f, "package {}", spell(name)),
            Place::Package(name, arch) => write!(f, "package {}:{}", spell(name), spell(arch)),
            Place::Group(name) => write!(f, "volume group {}", spell(name.as_bytes())),
            Place::Volume(group, name) => {
                write!(f, "volume {}/{}", spell(group.as_bytes()), spell(name.as_bytes()))
            }
            Place::Path(None | Some(Holder::Partition(0)), path) => f.write_str(&absolute(path)),
            Place::Path(Some(Holder::Partition(number)), path) => {
                write!(f, "{number}:{}", absolute(path))
            }
            Place::Path(Some(Holder::Volume { group, volume }), path) => {
                let (group, volume) = (spell(group.as_bytes()), spell(volume.as_bytes()));
                write!(f, "{group}/{volume}:{}", absolute(path))
            }
        }
    }
}

fn absolute(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { format!("/{}", spell(path)) }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// All changes of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// How; never empty.
    pub changes: Vec<Change>,
}

/// One line: the place, then each change with its values.
impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.place)?;
        for (i, change) in self.changes.iter().enumerate() {
            let separator = if i > 0 { ", " } else { "" };
            write!(f, "{separator}{}", change.kind.as_str())?;
            if let Some(key) = &change.key {
                write!(f, " {key}")?;
            }
            match (&change.old, &change.new) {
                (Some(old), Some(new)) => write!(f, " {old} -> {new}")?,
                (Some(value), None) | (None, Some(value)) => write!(f, " {value}")?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

/// Collects differences.
#[derive(Debug, Default)]
pub struct Differences(pub Vec<Difference>);

impl Differences {
    /// Adds the changes of one object, if there are any.
    pub fn push(&mut self, place: Place, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.0.push(Difference { place, changes });
        }
    }

    /// Sorted for a report.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Difference> {
        self.0.sort();
        self.0
    }
}

/// Adds a change if the values differ.
pub fn note<T: PartialEq + ToString>(changes: &mut Vec<Change>, kind: Kind, old: T, new: T) {
    if old != new {
        changes.push(Change::values(kind, old, new));
    }
}
