//! What no image holds, though its digests would be right: a text that says so was not written for
//! one. Each function gives the reason.

use crate::digest::FileDigest;
use crate::image::partition::BOOT_CODE;
use crate::image::tree::{Node, NodeKind};
use crate::parity::canonical::{Content as Leaf, Disk, Leaf as Below, Partition, System, flags};
use crate::parity::content::{Content, Held, has_loader};
use crate::parity::hashed::Hashed;
use crate::parity::layout;

type Why = Result<(), &'static str>;

fn ensure(holds: bool, why: &'static str) -> Why {
    if holds { Ok(()) } else { Err(why) }
}

/// An entry's line by itself.
pub(super) fn entry(node: &Node, leaf: Below) -> Why {
    let NodeKind::File { size, .. } = node.kind else { return Ok(()) };
    let empty = leaf == Below::File(FileDigest::of(b""));
    ensure(empty == (size == 0), "its size and its digest contradict each other")
}

/// One filesystem.
pub(super) fn filesystem(tree: &Hashed, boot: FileDigest) -> Why {
    let kind = tree.identity.kind;
    let subvolumes = tree.subvolumes();
    if kind == "btrfs" {
        let top = subvolumes.first().is_some_and(|first| first.path.is_empty());
        ensure(top, "the top level of btrfs is a subvolume")?;
        let one_each = subvolumes.windows(2).all(|pair| pair[0].path != pair[1].path);
        ensure(one_each, "a subvolume is there twice")?;
        let defaults = subvolumes.iter().filter(|one| one.default).count();
        ensure(defaults == 1, "one subvolume of btrfs is the default")?;
    } else {
        ensure(subvolumes.is_empty(), "btrfs alone has subvolumes")?;
    }
    if kind == "xfs" {
        ensure(boot == FileDigest::of(b""), "xfs has no boot code")?;
    }
    if kind == "vfat" {
        ensure(tree.links.is_empty(), "vfat has no hard links")?;
        let root = tree.node(0);
        ensure(root.mode == 0o755, "vfat has no such mode")?;
        tree.tree.nodes.iter().try_for_each(of_vfat)?;
    }
    Ok(())
}

fn of_vfat(node: &Node) -> Why {
    let mode = match node.kind {
        NodeKind::File { .. } => 0o644,
        NodeKind::Directory { .. } => 0o755,
        _ => return Err("vfat has files and directories alone"),
    };
    ensure(node.mode == mode || node.mode == mode & !0o222, "vfat has no such mode")?;
    ensure((node.uid, node.gid) == (0, 0), "vfat has no owners")?;
    ensure(node.xattrs.is_empty() && flags(node).is_empty(), "vfat has no attributes")?;
    ensure(std::str::from_utf8(&node.name).is_ok(), "names in vfat are UTF-8")
}

/// A disk without what is in its partitions.
pub(super) fn disk(disk: &Disk) -> Why {
    let nothing = FileDigest::of(b"");
    let numbers = disk.partitions.windows(2).all(|pair| pair[0].number < pair[1].number);
    ensure(numbers, "partitions are in the order of their numbers")?;
    if disk.table == "none" {
        let [part] = disk.partitions.as_slice() else {
            return Err("a disk without a table has one line `part`");
        };
        let bare = part.number == 0 && part.attributes == 0;
        let unnamed = part.type_id.is_empty() && part.id.is_empty() && part.name.is_empty();
        ensure(bare && unnamed && disk.id.is_empty(), "a disk without a table has no ids")?;
        ensure(!matches!(part.content, Leaf::Bytes(_)), "a disk without a table holds something")?;
        return ensure(disk.boot440 == nothing && disk.gap == nothing, "without a table, no gap");
    }
    ensure(disk.boot440 != nothing, "440 bytes are not none")?;
    let part = if disk.table == "gpt" { of_gpt } else { of_mbr };
    let id = if disk.table == "gpt" { is_guid(&disk.id) } else { is_hex(&disk.id, 8) };
    ensure(id, "a disk with this table has no such id")?;
    ensure(disk.partitions.iter().all(part), "this table has no such partition")
}

fn of_gpt(part: &Partition) -> bool {
    part.number > 0 && is_guid(&part.type_id) && is_guid(&part.id) && !part.name.contains(&0)
}

fn of_mbr(part: &Partition) -> bool {
    let bare = part.id.is_empty() && part.name.is_empty();
    bare && part.number > 0 && part.attributes <= 0xff && is_hex(&part.type_id, 2)
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<_> = text.split('-').collect();
    parts.len() == lengths.len() && parts.iter().zip(lengths).all(|(part, len)| is_hex(part, len))
}

/// What `box1` says by itself.
pub(super) fn system(system: &System) -> Why {
    const KNOWN: [&str; 8] = ["", "amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"];
    let other = system.arch.strip_prefix("elf-").and_then(|number| number.parse::<u16>().ok());
    let named = other.is_some_and(|number| system.arch == format!("elf-{number}"));
    ensure(named || KNOWN.contains(&system.arch.as_str()), "there is no such architecture")
}

/// What `box1` says of firmware, as far as the lines below tell it; and that volume groups are whole.
pub(super) fn content(content: &Content) -> Why {
    let firmware = |name: &str| content.system.firmware.contains(&name);
    let parts = || content.disk.partitions.iter().zip(&content.held);
    let uefi = parts().any(|(part, held)| {
        let Held::Filesystem { tree, .. } = held else { return false };
        layout::is_esp(&part.type_id) && has_loader(tree)
    });
    ensure(firmware("uefi") == uefi, "`firmware` says something else than the files of the ESP")?;
    // Without a table, the sector's last bytes are not known. With one they are right.
    if content.disk.table != "none" {
        let zeros = FileDigest::of(&[0; BOOT_CODE]);
        let bios = content.disk.boot440 != zeros;
        ensure(firmware("bios") == bios, "`firmware` says something else than `boot440`")?;
    }
    for (index, group) in content.groups.iter().enumerate() {
        let is_this = |held: &&Held| matches!(held, Held::Group(one) if *one == index);
        let there = content.held.iter().filter(is_this).count();
        ensure(
            there == group.line.physical.len(),
            "a volume group has another number of partitions",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, read, text};
    use super::super::{Held as Whole, Manifest};
    use super::*;
    use crate::digest::{DiskDigest, GroupDigest};
    use crate::parity::canonical;

    /// Why a manifest is refused of which every digest is right.
    fn refusal(change: impl FnOnce(&mut Content)) -> String {
        let mut manifest = manifest();
        let Whole::System(content) = &mut manifest.held else { panic!("a system") };
        change(content);
        for (part, held) in content.disk.partitions.iter_mut().zip(&content.held) {
            part.content = match held {
                Held::Filesystem { tree, boot } => Leaf::Filesystem(tree.fs1(*boot)),
                Held::Group(index) => {
                    let group = canonical::group(&content.groups[*index].line);
                    Leaf::Group(GroupDigest::of(&group))
                }
                Held::Bytes => part.content,
            };
        }
        content.system.disks = vec![DiskDigest::of(&canonical::disk(&content.disk))];
        refused(&manifest)
    }

    fn refused(manifest: &Manifest) -> String {
        let e = read(&text(manifest)).expect_err("impossible").to_string();
        assert!(e.contains("line "), "{e}");
        e
    }

    fn of_type(kind: &'static str) -> String {
        refusal(|content| {
            let Held::Filesystem { tree, .. } = &mut content.held[0] else { return };
            tree.listed_mut().identity.kind = kind;
        })
    }

    #[test]
    fn what_no_image_holds_is_refused() {
        let part = |change: fn(&mut Partition)| refusal(|c| change(&mut c.disk.partitions[0]));
        let disk = |change: fn(&mut Disk)| refusal(|c| change(&mut c.disk));
        let system = |change: fn(&mut System)| refusal(|c| change(&mut c.system));
        let cases = [
            (disk(|disk| disk.table = "none"), "one line `part`"),
            (disk(|disk| disk.table = "mbr"), "no such id"),
            (disk(|disk| disk.id = "1".to_owned()), "no such id"),
            (disk(|disk| disk.boot440 = FileDigest::of(b"")), "440 bytes are not none"),
            (disk(|disk| disk.boot440 = FileDigest::of(&[0; 440])), "than `boot440`"),
            (part(|part| part.number = 0), "no such partition"),
            (part(|part| part.number = 9), "in the order of their numbers"),
            (part(|part| part.type_id = "83".to_owned()), "no such partition"),
            (part(|part| part.id.clear()), "no such partition"),
            (system(|system| system.arch = "vax".to_owned()), "no such architecture"),
            (system(|system| system.arch = "elf-062".to_owned()), "no such architecture"),
            (system(|system| system.firmware.push("uefi")), "the files of the ESP"),
            (system(|system| system.firmware.clear()), "than `boot440`"),
            (refusal(|c| c.groups[0].line.physical.truncate(1)), "another number of partitions"),
            (of_type("xfs"), "xfs has no boot code"),
            (of_type("vfat"), "vfat has no hard links"),
            (of_type("btrfs"), "the top level of btrfs"),
        ];
        for (e, expected) in cases {
            assert!(e.contains(expected), "{e}\nlacks {expected}");
        }
    }

    #[test]
    fn padding_of_zeros_is_zeros() {
        let mut manifest = manifest();
        let Some(chunks) = &mut manifest.bytes else { panic!("a disk") };
        chunks.chunks = vec![[1; 32], crate::digest::sha256(&[0; 512])].into();
        let e = refused(&manifest);
        assert!(e.contains("zeros are followed by zeros"), "{e}");
    }
}
