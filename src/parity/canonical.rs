//! The preimages: the exact text that each digest hashes (`docs/identity.md`).

use super::spelling::spell_into;
use crate::digest::{
    BoxDigest, BytesDigest, DiskDigest, FileDigest, FsDigest, GroupDigest, LinksDigest,
    TimedTreeDigest, TreeDigest, hex,
};
use crate::image::tree::{Node, NodeKind};

/// What stands in a line for what is below or inside an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// A regular file's contents.
    File(FileDigest),
    /// A directory.
    Directory(TreeDigest),
    /// A directory in a tree with times.
    TimedDirectory(TimedTreeDigest),
    /// Anything else says all in its line.
    Nothing,
}

/// Appends one entry's line in `tree1`; `None` if an entry of this kind has no line (a socket, or a
/// leaf of another kind).
#[must_use]
pub fn entry(node: &Node, leaf: Leaf, out: &mut Vec<u8>) -> Option<()> {
    if matches!(leaf, Leaf::TimedDirectory(_)) {
        return None;
    }
    line(&node.name, node, leaf, out)?;
    out.push(b'\n');
    Some(())
}

/// Appends one entry's line in `tree1t`; `None` as [`entry`].
#[must_use]
pub fn timed_entry(node: &Node, leaf: Leaf, out: &mut Vec<u8>) -> Option<()> {
    if matches!(leaf, Leaf::Directory(_)) {
        return None;
    }
    line(&node.name, node, leaf, out)?;
    text(out, &format!(" @{}\n", node.mtime));
    Some(())
}

/// Appends an entry's line without its end, under the given name.
pub(super) fn line(name: &[u8], node: &Node, leaf: Leaf, out: &mut Vec<u8>) -> Option<()> {
    let start = |letter: u8, out: &mut Vec<u8>| {
        out.extend_from_slice(&[letter, b' ']);
        spell_into(name, out);
    };
    let owner = format!("{} {}", node.uid, node.gid);
    let mode = format!("{:04o}", node.mode);
    let directory = |digest: &dyn std::fmt::Display, out: &mut Vec<u8>| {
        start(b'd', out);
        text(out, &format!(" {mode} {owner} {digest}"));
    };
    match (&node.kind, leaf) {
        (NodeKind::File { size, .. }, Leaf::File(digest)) => {
            start(b'f', out);
            text(out, &format!(" {mode} {owner} {size} {digest}"));
        }
        (NodeKind::Directory { .. }, Leaf::Directory(digest)) => directory(&digest, out),
        (NodeKind::Directory { .. }, Leaf::TimedDirectory(digest)) => directory(&digest, out),
        (NodeKind::Symlink { target }, Leaf::Nothing) => {
            start(b'l', out);
            text(out, &format!(" {owner} "));
            spell_into(target, out);
        }
        (NodeKind::CharDevice { major, minor }, Leaf::Nothing) => {
            start(b'c', out);
            text(out, &format!(" {mode} {owner} {major},{minor}"));
        }
        (NodeKind::BlockDevice { major, minor }, Leaf::Nothing) => {
            start(b'b', out);
            text(out, &format!(" {mode} {owner} {major},{minor}"));
        }
        (NodeKind::Fifo, Leaf::Nothing) => {
            start(b'p', out);
            text(out, &format!(" {mode} {owner}"));
        }
        _ => return None,
    }
    tail(node, out);
    Some(())
}

/// The letters of the file flags that are hashed.
#[must_use]
pub fn flags(node: &Node) -> &'static str {
    match (node.append_only, node.immutable) {
        (true, true) => "ai",
        (true, false) => "a",
        (false, true) => "i",
        (false, false) => "",
    }
}

/// Attributes and flags.
fn tail(node: &Node, out: &mut Vec<u8>) {
    for (key, value) in &node.xattrs {
        text(out, " x:");
        spell_into(key, out);
        text(out, "=");
        text(out, &hex(value));
    }
    let flags = flags(node);
    if !flags.is_empty() {
        text(out, " i:");
        text(out, flags);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A line of a key and a spelled value.
fn field(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    text(out, key);
    out.push(b' ');
    spell_into(value, out);
    out.push(b'\n');
}

/// The beginning of a `tree1` preimage; the lines of [`entry`] follow, sorted by name.
pub const TREE: &[u8] = b"devbox/tree/1\n";

/// The beginning of a `tree1t` preimage; the lines of [`timed_entry`] follow, sorted by name.
pub const TIMED_TREE: &[u8] = b"devbox/tree/1t\n";

/// The preimage of `links1`. `groups` and each group are sorted by path.
#[must_use]
pub fn links(groups: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut out = b"devbox/links/1\n".to_vec();
    for group in groups {
        for (i, path) in group.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            spell_into(path, &mut out);
        }
        out.push(b'\n');
    }
    out
}

/// A part of a filesystem that can be mounted on its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subvolume {
    /// Its path from the root of the filesystem without a leading `/`.
    pub path: Vec<u8>,
    /// Whether nothing in it can be changed.
    pub read_only: bool,
    /// Whether it is the one that is mounted when nobody names one.
    pub default: bool,
}

/// What `fs1` hashes.
#[derive(Debug, Clone, Copy)]
pub struct Filesystem<'a> {
    /// Type, by its usual name.
    pub kind: &'a str,
    /// Volume label.
    pub label: &'a [u8],
    /// UUID or serial.
    pub uuid: &'a str,
    /// Boot code, trailing zeros cut.
    pub boot: FileDigest,
    /// The root directory, attributes canonical.
    pub root: &'a Node,
    /// The parts that can be mounted on their own, sorted by path; none where the type has none.
    pub subvolumes: &'a [Subvolume],
    /// Its tree.
    pub tree: TreeDigest,
    /// Its hard links.
    pub links: LinksDigest,
}

/// What is covered of an entry besides type, name and contents, by type of filesystem.
fn policy(kind: &str) -> &'static str {
    match kind {
        "vfat" => "mode",
        "btrfs" => "flags,links,mode,owner,subvolumes,xattr",
        _ => "flags,links,mode,owner,xattr",
    }
}

/// The types that `fs1` has rules for.
const TYPES: [&str; 6] = ["btrfs", "ext2", "ext3", "ext4", "vfat", "xfs"];

/// The type of that name, if there are rules for it.
#[must_use]
pub fn known_type(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == name)
}

/// The preimage of `fs1`.
#[must_use]
pub fn filesystem(fs: &Filesystem<'_>) -> Vec<u8> {
    let mut out = b"devbox/fs/1\n".to_vec();
    field(&mut out, "type", fs.kind.as_bytes());
    field(&mut out, "label", fs.label);
    field(&mut out, "uuid", fs.uuid.as_bytes());
    text(&mut out, &format!("boot {}\n", fs.boot));
    text(&mut out, &format!("policy {}\n", policy(fs.kind)));
    text(&mut out, &format!("root {:04o} {} {}", fs.root.mode, fs.root.uid, fs.root.gid));
    tail(fs.root, &mut out);
    out.push(b'\n');
    for subvolume in fs.subvolumes.iter().filter(|subvolume| subvolume.default) {
        field(&mut out, "default", &subvolume.path);
    }
    for Subvolume { path, read_only, .. } in fs.subvolumes {
        text(&mut out, "subvolume ");
        spell_into(path, &mut out);
        text(&mut out, if *read_only { " ro\n" } else { " rw\n" });
    }
    text(&mut out, &format!("{}\n{}\n", fs.tree, fs.links));
    out
}

/// What a partition holds, as a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A filesystem that is understood.
    Filesystem(FsDigest),
    /// A physical volume of a volume group; never in a logical volume.
    Group(GroupDigest),
    /// Anything else.
    Bytes(BytesDigest),
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::Filesystem(digest) => digest.fmt(f),
            Content::Group(digest) => digest.fmt(f),
            Content::Bytes(digest) => digest.fmt(f),
        }
    }
}

/// One line of `disk1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number as the guest sees it; 0 without a table.
    pub number: u32,
    /// GPT type GUID, or MBR type as two hex digits.
    pub type_id: String,
    /// Unique GUID; empty for MBR.
    pub id: String,
    /// GPT name in UTF-8; empty for MBR.
    pub name: Vec<u8>,
    /// GPT attribute bits, or the MBR status byte.
    pub attributes: u64,
    /// What it holds.
    pub content: Content,
}

/// One line of `pkgs1`; the order of the fields is that of the lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// The kind of package manager: `apk`, `deb`, `rpm`.
    pub kind: &'static str,
    /// Its name.
    pub name: Vec<u8>,
    /// Its architecture; empty if the database has none.
    pub arch: Vec<u8>,
    /// Its version; empty if the database has none.
    pub version: Vec<u8>,
    /// Its state; empty if the database has none.
    pub status: Vec<u8>,
}

/// The preimage of `pkgs1`. `packages` is sorted.
#[must_use]
pub fn packages(packages: &[Package]) -> Vec<u8> {
    let mut out = b"devbox/pkgs/1\n".to_vec();
    for package in packages {
        text(&mut out, package.kind);
        for value in [&package.name, &package.arch, &package.version, &package.status] {
            out.push(b' ');
            spell_into(value, &mut out);
        }
        out.push(b'\n');
    }
    out
}

/// What `disk1` hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `gpt`, `mbr` or `none`.
    pub table: &'static str,
    /// Disk GUID or signature; empty without a table.
    pub id: String,
    /// The first 440 bytes.
    pub boot440: FileDigest,
    /// Between the table and the first partition, trailing zeros cut.
    pub gap: FileDigest,
    /// In the order of the table.
    pub partitions: Vec<Partition>,
}

/// The preimage of `disk1`.
#[must_use]
pub fn disk(disk: &Disk) -> Vec<u8> {
    let mut out = b"devbox/disk/1\n".to_vec();
    field(&mut out, "table", disk.table.as_bytes());
    field(&mut out, "id", disk.id.as_bytes());
    text(&mut out, &format!("boot440 {}\ngap {}\n", disk.boot440, disk.gap));
    for part in &disk.partitions {
        text(&mut out, &format!("part {}", part.number));
        for value in [part.type_id.as_bytes(), part.id.as_bytes(), &part.name] {
            out.push(b' ');
            spell_into(value, &mut out);
        }
        text(&mut out, &format!(" {:016x} ", part.attributes));
        text(&mut out, &format!("{}\n", part.content));
    }
    out
}

/// A logical volume's line in `vg1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// What it holds.
    pub content: Content,
}

/// What `vg1` hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// UUIDs of its physical volumes, in the order of the metadata.
    pub physical: Vec<String>,
    /// Its logical volumes, in the order of the metadata.
    pub volumes: Vec<Volume>,
}

/// The preimage of `vg1`.
#[must_use]
pub fn group(group: &Group) -> Vec<u8> {
    let mut out = b"devbox/vg/1\n".to_vec();
    field(&mut out, "name", group.name.as_bytes());
    field(&mut out, "uuid", group.uuid.as_bytes());
    for uuid in &group.physical {
        field(&mut out, "pv", uuid.as_bytes());
    }
    for volume in &group.volumes {
        text(&mut out, "lv ");
        spell_into(volume.name.as_bytes(), &mut out);
        out.push(b' ');
        spell_into(volume.uuid.as_bytes(), &mut out);
        text(&mut out, &format!(" {}\n", volume.content));
    }
    out
}

/// One entry of the boot menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// As the menu shows it.
    pub title: Vec<u8>,
    /// Path of the kernel as the boot loader names it.
    pub kernel: Vec<u8>,
    /// The kernel's command line without the kernel's path.
    pub command_line: Vec<u8>,
}

/// What `box1` hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Debian's name of the architecture; empty if the image shows none.
    pub arch: String,
    /// `bios`, `uefi`, sorted.
    pub firmware: Vec<&'static str>,
    /// One a disk.
    pub disks: Vec<DiskDigest>,
    /// In the order of the menu.
    pub boot: Vec<BootEntry>,
}

/// The preimage of `box1`.
#[must_use]
pub fn system(system: &System) -> Vec<u8> {
    let mut out = b"devbox/box/1\n".to_vec();
    field(&mut out, "arch", system.arch.as_bytes());
    field(&mut out, "firmware", system.firmware.join(",").as_bytes());
    field(&mut out, "signers", b"");
    for disk in &system.disks {
        text(&mut out, &format!("disk {disk}\n"));
    }
    for entry in &system.boot {
        text(&mut out, "boot");
        for value in [&entry.title, &entry.kernel, &entry.command_line] {
            out.push(b' ');
            spell_into(value, &mut out);
        }
        out.push(b'\n');
    }
    out
}

/// The digest of a [`System`].
#[must_use]
pub fn system_digest(of: &System) -> BoxDigest {
    BoxDigest::of(&system(of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::hashed::tests::vector;

    fn parsed<T: std::str::FromStr>(name: &str) -> T {
        vector(name).1.parse().ok().expect("a digest")
    }

    fn code() -> FileDigest {
        let mut code = [0; 440];
        code[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
        FileDigest::of(&code)
    }

    fn partition(number: u32, type_id: &str, id: &str, name: &str, attributes: u64) -> Partition {
        let content = Content::Filesystem(parsed("fs1/root"));
        let (type_id, id) = (type_id.to_owned(), id.to_owned());
        Partition { number, type_id, id, name: name.as_bytes().to_vec(), attributes, content }
    }

    fn gpt() -> Disk {
        let id = |n| format!("6d8e2a3c-1111-4222-8333-00000000000{n}");
        let bios = "21686148-6449-6e6f-744e-656564454649";
        let esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let root = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
        let mut partitions = vec![
            partition(1, bios, &id(1), "bios", 4),
            partition(2, esp, &id(2), "EFI System", 0),
            partition(15, root, &id(3), "é", 1 << 63 | 1),
        ];
        partitions[0].content = Content::Bytes(parsed("bytes1/small"));
        partitions[1].content = Content::Filesystem(parsed("fs1/vfat"));
        let id = "6d8e2a3c-1111-4222-8333-444455556666".to_owned();
        Disk { table: "gpt", id, boot440: code(), gap: FileDigest::of(b""), partitions }
    }

    fn none() -> Disk {
        let nothing = FileDigest::of(b"");
        let partitions = vec![partition(0, "", "", "", 0)];
        Disk { table: "none", id: String::new(), boot440: nothing, gap: nothing, partitions }
    }

    fn groups() -> [(&'static str, Group); 2] {
        let uuid = |start: &str| format!("{start}-bbbb-cccc-dddd-eeee-ffff-gggggg");
        let volume = |name: &str, start: &str, content| Volume {
            name: name.to_owned(),
            uuid: uuid(start),
            content,
        };
        let root = Group {
            name: "vg0".to_owned(),
            uuid: uuid("vGaaaa"),
            physical: vec![uuid("1pVaaa"), uuid("0pVaaa")],
            volumes: vec![
                volume("root", "rOOtaa", Content::Filesystem(parsed("fs1/root"))),
                volume("swap_1", "sWapaa", Content::Bytes(parsed("bytes1/zeros"))),
            ],
        };
        let empty = Group {
            name: "vg.empty+1".to_owned(),
            uuid: "vGaaaa-bbbb-cccc-dddd-eeee-ffff-hhhhhh".to_owned(),
            physical: vec![uuid("2pVaaa")],
            volumes: vec![],
        };
        [("root", root), ("empty", empty)]
    }

    #[test]
    fn volume_groups_are_the_vectors() {
        for (name, of) in groups() {
            let (preimage, digest) = vector(&format!("vg1/{name}"));
            assert_eq!(group(&of), preimage, "{name}");
            assert_eq!(GroupDigest::of(&group(&of)).to_string(), digest, "{name}");
        }
    }

    fn lvm() -> Disk {
        let mut partitions = vec![
            partition(1, "83", "", "", 0x80),
            partition(2, "8e", "", "", 0),
            partition(3, "8e", "", "", 0),
        ];
        partitions[1].content = Content::Group(parsed("vg1/root"));
        partitions[2].content = Content::Group(parsed("vg1/root"));
        let id = "89abcdef".to_owned();
        Disk { table: "mbr", id, boot440: code(), gap: FileDigest::of(b"core"), partitions }
    }

    #[test]
    fn disks_are_the_vectors() {
        let mut partitions = vec![partition(1, "83", "", "", 0x80), partition(5, "82", "", "", 0)];
        partitions[1].content = Content::Bytes(parsed("bytes1/zeros"));
        let gap = FileDigest::of(b"core");
        let mbr = Disk { table: "mbr", id: "89abcdef".into(), boot440: code(), gap, partitions };
        for (name, of) in [("gpt", gpt()), ("mbr", mbr), ("none", none()), ("lvm", lvm())] {
            let (preimage, digest) = vector(&format!("disk1/{name}"));
            assert_eq!(disk(&of), preimage, "{name}");
            assert_eq!(DiskDigest::of(&disk(&of)).to_string(), digest, "{name}");
        }
    }

    #[test]
    fn systems_are_the_vectors() {
        let root = "root=UUID=0b1c2d3e-4f50-4162-8384-95a6b7c8d9ea ro";
        let boot = [("Debian GNU/Linux", "quiet"), ("Debian (recovery)", "single")];
        let boot = boot.map(|(title, word)| BootEntry {
            title: title.into(),
            kernel: b"/vmlinuz".to_vec(),
            command_line: format!("{root} {word}").into(),
        });
        let disks = vec![parsed("disk1/gpt")];
        let firmware = vec!["bios", "uefi"];
        let full = System { arch: "amd64".into(), firmware, disks, boot: boot.into() };
        let disks = vec![parsed("disk1/none")];
        let bare = System { arch: String::new(), firmware: vec![], disks, boot: vec![] };
        for (name, of) in [("bios-uefi", full), ("bare", bare)] {
            let (preimage, digest) = vector(&format!("box1/{name}"));
            assert_eq!(system(&of), preimage, "{name}");
            assert_eq!(system_digest(&of).to_string(), digest, "{name}");
        }
    }

    #[test]
    fn links_without_a_group_are_the_vector() {
        assert_eq!(links(&[]), vector("links1/none").0);
    }
}
