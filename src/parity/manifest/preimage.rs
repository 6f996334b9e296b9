//! The lines of a digest's block back into what the digest hashes (`canonical` writes them).
//!
//! Each function gives `None` for a text that it does not understand; that the text is the only
//! spelling is seen by writing it again.

use super::entry;
use super::lines::Fields;
use crate::digest::FileDigest;
use crate::image::tree::{Identity, Node, NodeKind};
use crate::parity::canonical::{
    BootEntry, Content as Leaf, Disk, Group, Package, Partition, Subvolume, System, Volume,
    known_type,
};

/// The lines of a block that was read, and the number of the one before the next.
pub(super) struct Text<'a> {
    pub(super) rest: &'a [u8],
    pub(super) number: u64,
}

impl<'a> Text<'a> {
    /// The fields of the next line.
    pub(super) fn line(&mut self) -> Option<Fields<'a>> {
        let end = self.rest.iter().position(|b| *b == b'\n')?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..)?;
        self.number += 1;
        Some(Fields::of(line))
    }

    /// The fields of the next line behind its key.
    pub(super) fn keyed(&mut self, key: &str) -> Option<Fields<'a>> {
        let mut fields = self.line()?;
        fields.word(key)?;
        Some(fields)
    }
}

/// 32 bytes from exactly 64 lower-case hex digits.
pub(super) fn sum(text: &[u8]) -> Option<[u8; 32]> {
    let digest: FileDigest = format!("sha256:{}", std::str::from_utf8(text).ok()?).parse().ok()?;
    Some(*digest.as_bytes())
}

pub(super) fn system(text: &mut Text<'_>) -> Option<System> {
    let arch = text.keyed("arch")?.text()?;
    let firmware = match text.keyed("firmware")?.text()?.as_str() {
        "" => vec![],
        "bios" => vec!["bios"],
        "bios,uefi" => vec!["bios", "uefi"],
        "uefi" => vec!["uefi"],
        _ => return None,
    };
    text.keyed("signers")?;
    let disks = vec![text.keyed("disk")?.parsed()?];
    let mut boot = vec![];
    while !text.rest.is_empty() {
        let mut fields = text.keyed("boot")?;
        boot.push(BootEntry {
            title: fields.bytes()?,
            kernel: fields.bytes()?,
            command_line: fields.bytes()?,
        });
    }
    Some(System { arch, firmware, disks, boot })
}

pub(super) fn disk(text: &mut Text<'_>) -> Option<Disk> {
    let table = text.keyed("table")?.text()?;
    let table = ["gpt", "mbr", "none"].into_iter().find(|known| *known == table)?;
    let id = text.keyed("id")?.text()?;
    let boot440 = text.keyed("boot440")?.parsed()?;
    let gap = text.keyed("gap")?.parsed()?;
    let mut partitions = vec![];
    while !text.rest.is_empty() {
        let mut fields = text.keyed("part")?;
        partitions.push(Partition {
            number: fields.parsed()?,
            type_id: fields.text()?,
            id: fields.text()?,
            name: fields.bytes()?,
            attributes: u64::from_str_radix(std::str::from_utf8(fields.raw()?).ok()?, 16).ok()?,
            content: leaf(std::str::from_utf8(fields.raw()?).ok()?)?,
        });
    }
    Some(Disk { table, id, boot440, gap, partitions })
}

fn leaf(text: &str) -> Option<Leaf> {
    let filesystem = || text.parse().map(Leaf::Filesystem).ok();
    let group = || text.parse().map(Leaf::Group).ok();
    filesystem().or_else(group).or_else(|| text.parse().map(Leaf::Bytes).ok())
}

pub(super) fn group(text: &mut Text<'_>) -> Option<Group> {
    let (name, uuid) = (text.keyed("name")?.text()?, text.keyed("uuid")?.text()?);
    let (mut physical, mut volumes) = (vec![], vec![]);
    while !text.rest.is_empty() {
        let mut fields = text.line()?;
        match fields.raw()? {
            b"pv" => physical.push(fields.text()?),
            b"lv" => volumes.push(Volume {
                name: fields.text()?,
                uuid: fields.text()?,
                content: leaf(std::str::from_utf8(fields.raw()?).ok()?)?,
            }),
            _ => return None,
        }
    }
    Some(Group { name, uuid, physical, volumes })
}

/// Identity, boot code and root directory; what else is there follows from the tree.
pub(super) fn filesystem(text: &mut Text<'_>) -> Option<(Identity, FileDigest, Node)> {
    let kind = known_type(&text.keyed("type")?.text()?)?;
    let label = text.keyed("label")?.bytes()?;
    let uuid = text.keyed("uuid")?.text()?;
    let boot = text.keyed("boot")?.parsed()?;
    text.keyed("policy")?;
    let mut fields = text.keyed("root")?;
    let mut root = bare_root();
    root.mode = entry::octal(fields.raw()?)?;
    (root.uid, root.gid) = (fields.parsed()?, fields.parsed()?);
    entry::tail(&mut fields, &mut root)?.is_empty().then_some(())?;
    Some((Identity { kind, label, uuid }, boot, root))
}

/// The lines of subvolumes, if there are any.
pub(super) fn subvolumes(text: &mut Text<'_>) -> Option<Vec<Subvolume>> {
    if !text.rest.starts_with(b"default ") {
        return Some(vec![]);
    }
    let named = text.keyed("default")?.bytes()?;
    let mut all = vec![];
    while text.rest.starts_with(b"subvolume ") {
        let mut fields = text.keyed("subvolume")?;
        let path = fields.bytes()?;
        let read_only = match fields.raw()? {
            b"ro" => true,
            b"rw" => false,
            _ => return None,
        };
        let default = path == named;
        all.push(Subvolume { path, read_only, default });
    }
    Some(all)
}

pub(super) fn packages(text: &mut Text<'_>) -> Option<Vec<Package>> {
    let mut list = vec![];
    while !text.rest.is_empty() {
        let mut fields = text.line()?;
        let kind = fields.raw()?;
        list.push(Package {
            kind: ["apk", "deb", "rpm"].into_iter().find(|known| known.as_bytes() == kind)?,
            name: fields.bytes()?,
            arch: fields.bytes()?,
            version: fields.bytes()?,
            status: fields.bytes()?,
        });
    }
    Some(list)
}

/// A root directory of which nothing is known.
pub(super) fn bare_root() -> Node {
    Node {
        name: vec![],
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: vec![],
        immutable: false,
        append_only: false,
        kind: NodeKind::Directory { children: vec![] },
    }
}
