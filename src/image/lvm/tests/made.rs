//! Whole disks with groups on them.

use std::path::Path;

use super::workshop::Workshop;
use crate::error::Kind;
use crate::image::Limits;
use crate::image::container::Options;
use crate::image::disk::Disk;
use crate::image::field::le64;
use crate::image::oracle::{contents, data_ranges};
use crate::parity::Level;
use crate::parity::compare::{Verdict, compare, digests};
use crate::parity::content::Content;
use crate::parity::subject::Reference;

const MIB: u64 = 1 << 20;
const EXTENT: u64 = 4 * MIB;

fn open(path: &Path) -> Disk {
    Disk::open(path, &Options::default()).expect("it opens")
}

fn refusal(path: &Path) -> String {
    let e = Disk::open(path, &Options::default()).expect_err("refused");
    assert_eq!(e.kind(), Kind::Undetermined, "{e}");
    e.to_string()
}

#[test]
fn volumes_are_the_bytes_at_the_extents_that_lvm_names() {
    let test = "volumes_are_the_bytes_at_the_extents_that_lvm_names";
    let Some(lab) = Workshop::new(test, 3, 64) else { return };
    lab.lvm("pvcreate -q D0 D1 D2");
    lab.lvm("vgcreate -q vg0 D0 D1 D2");
    lab.volume("-n first -L 20M");
    lab.volume("-n between -L 8M");
    lab.volume("-n stripes -i 2 -I 64k -L 16M");
    lab.volume("-n thirds -i 3 -I 4k -L 12M");
    // Grows around its neighbours and over the end of the first physical volume.
    lab.lvm("lvextend -q vg0/first -L 56M");
    lab.lvm("lvremove -q -y vg0/between");
    lab.volume("-n last -l 1");
    let sizes = [("first", 56), ("stripes", 16), ("thirds", 12), ("last", 4)];
    let data: Vec<_> = (1..)
        .zip(sizes)
        .map(|(seed, (name, mib))| lab.random(name, EXTENT, mib * MIB, seed))
        .collect();
    let disk = open(&lab.disk(&[2, 0, 1]));
    let [group] = &disk.groups[..] else { panic!("{:?}", disk.groups) };
    assert_eq!((group.name.as_str(), group.physical.len()), ("vg0", 3));
    assert!(disk.parts.iter().all(|part| part.group == Some(0)));
    let uuids = lab.lvm("lvs --noheadings -o lv_name,lv_uuid vg0");
    for ((volume, (name, _)), data) in group.volumes.iter().zip(sizes).zip(&data) {
        assert_eq!(volume.name, name);
        let line = uuids.lines().find(|line| line.trim().starts_with(name)).expect("listed");
        assert_eq!(line.split_whitespace().nth(1), Some(volume.uuid.as_str()));
        assert!(contents(&*volume.reader) == *data, "{name}");
        // Whatever is not said to be data is zeros.
        let mut at = 0;
        for range in data_ranges(&*volume.reader) {
            assert!(data[at..range.start as usize].iter().all(|b| *b == 0), "{name}");
            at = range.end as usize;
        }
        assert!(data[at..].iter().all(|b| *b == 0), "{name}");
        // Odd pieces are the same bytes.
        for offset in [0, 1, 4095, 65_535, EXTENT - 7] {
            let mut piece = vec![0; 100_001.min(data.len() - offset as usize)];
            volume.reader.read_at(&mut piece, offset).expect("it reads");
            assert!(piece == data[offset as usize..][..piece.len()], "{name} at {offset}");
        }
    }
}

#[test]
fn a_ring_of_metadata_that_turned_around_is_read() {
    let test = "a_ring_of_metadata_that_turned_around_is_read";
    let Some(lab) = Workshop::new(test, 1, 16) else { return };
    lab.lvm("pvcreate -q --metadatasize 32k --dataalignment 64k --pvmetadatacopies 2 D0");
    // Long tags make a text of some KiB, so that a few changes are enough.
    let tags: Vec<_> = (0..9).map(|i| format!("--addtag {}{i}", "t".repeat(1000))).collect();
    lab.lvm(&format!("vgcreate -q -s 1M {} vg0 D0", tags.join(" ")));
    lab.volume("-n root -l 3");
    let mut turned = 0;
    for i in 0..16 {
        let change = if i % 2 == 0 { "--addtag" } else { "--deltag" };
        lab.lvm(&format!("vgchange -q {change} tag vg0"));
        let data = std::fs::read(lab.path("pv0")).expect("it reads");
        // The first area's header is at byte 4096; its first place says where the text is.
        let (size, at, length) =
            (le64(&data, 4096 + 32), le64(&data, 4096 + 40), le64(&data, 4096 + 48));
        turned += u32::from(at + length > size);
        let disk = open(&lab.path("pv0"));
        assert_eq!(disk.groups[0].volumes[0].name, "root", "after {i} changes");
    }
    assert!(turned > 0, "no text lay over the end of its area");
}

#[test]
fn files_in_volumes_are_compared_by_path() {
    let test = "files_in_volumes_are_compared_by_path";
    let Some(lab) = Workshop::new(test, 1, 48) else { return };
    lab.lvm("pvcreate -q D0");
    lab.lvm("vgcreate -q vg0 D0");
    lab.volume("-n root -L 16M");
    lab.volume("-n swap -L 4M");
    let files = [("etc/os-release", "ID=lab\n"), ("etc/motd", "hello\n")];
    lab.fill("root", EXTENT, &lab.ext4(16, "root", &files));
    let a = lab.path("a.raw");
    std::fs::rename(lab.disk(&[0]), &a).expect("the same folder");
    let disk = open(&a);
    let content = Content::read(&disk).expect("it reads");
    let line = &content.groups[0].line;
    assert_eq!((line.name.as_str(), line.volumes.len()), ("vg0", 2));
    let (a, limits) = (Reference::Image(a), Limits::default());
    let tree = digests(&a, Level::Tree, &limits).expect("the root is in a volume").0;
    assert_eq!(tree.len(), 2);

    lab.fill("root", EXTENT, &lab.ext4(16, "root", &[files[0], ("etc/motd", "other\n")]));
    lab.fill("swap", EXTENT, b"page");
    let b = lab.path("b.raw");
    std::fs::rename(lab.disk(&[0]), &b).expect("the same folder");
    let b = Reference::Image(b);
    let found = compare(&a, &b, Level::Content, &limits).expect("compared");
    assert_eq!(found.verdict, Verdict::Different);
    let lines: Vec<_> = found.differences.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "volume vg0/swap: content");
    assert!(lines[1].starts_with("vg0/root:/etc/motd: content"), "{lines:?}");

    lab.lvm("lvrename -q vg0 swap other");
    lab.lvm("lvextend -q vg0/root -l +1");
    let c = Reference::Image(lab.disk(&[0]));
    let found = compare(&b, &c, Level::Content, &limits).expect("compared");
    let lines: Vec<_> = found.differences.iter().map(ToString::to_string).collect();
    // The same file: only the name and what stands on top of it are others.
    assert_eq!(lines, ["volume vg0/other: added", "volume vg0/swap: removed"]);
}

#[test]
fn a_physical_volume_without_a_group_is_bytes() {
    let test = "a_physical_volume_without_a_group_is_bytes";
    let Some(lab) = Workshop::new(test, 2, 16) else { return };
    lab.lvm("pvcreate -q D0 D1");
    lab.lvm("vgcreate -q vg0 D0");
    lab.lvm("vgremove -q vg0");
    let disk = open(&lab.disk(&[0, 1]));
    assert!(disk.groups.is_empty() && disk.parts.iter().all(|part| part.group.is_none()));
}

#[test]
fn a_whole_disk_can_be_a_physical_volume() {
    let test = "a_whole_disk_can_be_a_physical_volume";
    let Some(lab) = Workshop::new(test, 1, 16) else { return };
    lab.lvm("pvcreate -q --labelsector 3 D0");
    lab.lvm("vgcreate -q vg0 D0");
    lab.volume("-n root -L 8M");
    lab.fill("root", EXTENT, &lab.ext4(8, "root", &[("etc/motd", "hello\n")]));
    let disk = open(&lab.path("pv0"));
    assert_eq!((disk.parts.len(), disk.groups.len()), (1, 1));
    let titles: Vec<_> = disk.filesystems().map(|at| at.holder.to_string()).collect();
    assert_eq!(titles, ["volume root of group vg0"]);
    Content::read(&disk).expect("it reads");
}

#[test]
fn a_group_that_is_not_whole_is_refused() {
    let test = "a_group_that_is_not_whole_is_refused";
    let Some(lab) = Workshop::new(test, 2, 16) else { return };
    lab.lvm("pvcreate -q D0 D1");
    lab.lvm("vgcreate -q vg0 D0 D1");
    let text = refusal(&lab.disk(&[1]));
    assert!(text.contains("`vg0`") && text.contains("is not here"), "{text}");
    let text = refusal(&lab.disk(&[0, 1, 0]));
    assert!(text.contains("two partitions are"), "{text}");
}

#[test]
fn other_kinds_of_volumes_are_refused_by_name() {
    for (kind, words) in
        [("zero", "--type zero -n nothing -L 8M"), ("error", "--type error -n nothing -L 8M")]
    {
        let Some(lab) = Workshop::new("other_kinds_of_volumes_are_refused_by_name", 2, 64) else {
            return;
        };
        lab.lvm("pvcreate -q D0 D1");
        lab.lvm("vgcreate -q vg0 D0 D1");
        lab.volume(words);
        let text = refusal(&lab.disk(&[0, 1]));
        assert!(text.contains(&format!("`{kind}`")), "{kind}: {text}");
    }
}
