//! LVM. The physical volumes are made here byte by byte (LVM2, lib/label/label.h and
//! lib/format_text/layout.h): its own programs need block devices.

use std::fmt::Write as _;

use crate::workshop::Workshop;

const CONTENT: &[&str] = &["content"];

/// Where the one partition begins, and where in it the metadata area is.
const START: u64 = 1 << 20;
const AREA: u64 = 4096;
/// Bytes of the area.
const SIZE: u64 = (1 << 20) - 4096;
/// Bytes of its header.
const HEADER: usize = 512;

/// UUIDs of a physical volume, the group, its volumes.
const PV: &str = "aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg";
const VG: &str = "vvvvvv-bbbb-cccc-dddd-eeee-ffff-gggggg";
const LV: [&str; 2] =
    ["llllll-bbbb-cccc-dddd-eeee-ffff-gggggg", "mmmmmm-bbbb-cccc-dddd-eeee-ffff-gggggg"];

/// LVM2's CRC-32, bit by bit (lib/misc/crc.c).
fn crc(data: &[u8]) -> [u8; 4] {
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), bit);
    data.iter().fold(0xf597_a6cf, step).to_le_bytes()
}

/// A volume of one segment of three extents on `pv0` from `first` on.
fn volume(name: &str, id: &str, first: u64) -> String {
    format!(
        "{name} {{\nid = \"{id}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\n\
         segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 3\ntype = \"striped\"\n\
         stripe_count = 1\nstripes = [\n\"pv0\", {first}\n]\n}}\n}}\n"
    )
}

/// The text of the group `vg0` with the volumes `root` and `home`.
fn text() -> String {
    let volumes = volume("root", LV[0], 0) + &volume("home", LV[1], 3);
    format!(
        "vg0 {{\nid = \"{VG}\"\nseqno = 3\nformat = \"lvm2\"\nstatus = [\"RESIZEABLE\", \"READ\"]\n\
         extent_size = 2048\nmax_lv = 0\nmax_pv = 0\nmetadata_copies = 0\nphysical_volumes {{\n\
         pv0 {{\nid = \"{PV}\"\ndevice = \"/dev/sda\"\nstatus = [\"ALLOCATABLE\"]\n\
         dev_size = 28672\npe_start = 2048\npe_count = 13\n}}\n}}\n\
         logical_volumes {{\n{volumes}}}\n}}\ncontents = \"Text Format Volume Group\"\nversion = 1\n"
    )
}

/// A disk of 16 MiB with a partition that is a physical volume with this text; `/` of the group is an
/// ext4 filesystem.
fn disk(text: &str) -> Workshop {
    let shop = Workshop::new();
    shop.sh(
        "truncate -s 16M disk.raw; printf 'label: dos\nstart=2048,type=8e\n' | sfdisk -q disk.raw
         mkdir -p root/etc; echo ID=lab > root/etc/os-release
         truncate -s 3M ext.raw; mke2fs -q -t ext4 -d root ext.raw
         dd if=ext.raw of=disk.raw bs=1M seek=2 conv=notrunc status=none",
    );
    label(&shop, START, PV, &[(AREA, SIZE)]);
    area(&shop, START + AREA, AREA, SIZE, text);
    shop
}

/// The label in the second sector of a partition: two lists of places, of data and of metadata.
fn label(shop: &Workshop, partition: u64, uuid: &str, areas: &[(u64, u64)]) {
    let mut sector = vec![0; 512];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8..16].copy_from_slice(&1u64.to_le_bytes());
    sector[20..24].copy_from_slice(&32u32.to_le_bytes());
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(uuid.replace('-', "").as_bytes());
    sector[64..72].copy_from_slice(&(15u64 << 20).to_le_bytes());
    let mut places = vec![(1u64 << 20, 0), (0, 0)];
    places.extend_from_slice(areas);
    for (room, (offset, size)) in sector[72..].chunks_exact_mut(16).zip(&places) {
        room[..8].copy_from_slice(&offset.to_le_bytes());
        room[8..].copy_from_slice(&size.to_le_bytes());
    }
    let sum = crc(&sector[20..]);
    sector[16..20].copy_from_slice(&sum);
    shop.put("disk.raw", partition + 512, &sector);
}

/// A metadata area: its header, and the text behind it.
fn area(shop: &Workshop, at: u64, offset: u64, size: u64, text: &str) {
    let text = [text.as_bytes(), b"\0"].concat();
    header(shop, at, offset, size, (HEADER as u64, text.len() as u64, crc(&text)));
    shop.put("disk.raw", at + HEADER as u64, &text);
}

fn header(shop: &Workshop, at: u64, offset: u64, size: u64, text: (u64, u64, [u8; 4])) {
    let mut header = vec![0; HEADER];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20..24].copy_from_slice(&1u32.to_le_bytes());
    header[24..32].copy_from_slice(&offset.to_le_bytes());
    header[32..40].copy_from_slice(&size.to_le_bytes());
    header[40..48].copy_from_slice(&text.0.to_le_bytes());
    header[48..56].copy_from_slice(&text.1.to_le_bytes());
    header[56..60].copy_from_slice(&text.2);
    let sum = crc(&header[4..]);
    header[..4].copy_from_slice(&sum);
    shop.put("disk.raw", at, &header);
}

#[test]
fn a_whole_group_is_read() {
    let shop = disk(&text());
    let (_, notes) = shop.read("disk.raw", "content");
    assert_eq!(notes, "");
}

#[test]
fn kinds_of_volumes_that_are_not_read_are_named() {
    for kind in ["thin", "thin-pool", "raid1", "raid5_ls", "mirror", "snapshot", "cache", "vdo"] {
        let text = text().replacen("type = \"striped\"", &format!("type = \"{kind}\""), 1);
        disk(&text).refused("disk.raw", CONTENT, &format!("`{kind}`"));
    }
    for (from, to, words) in [
        ("\"VISIBLE\"", "\"PVMOVE\"", "`PVMOVE`"),
        ("\"WRITE\", \"VISIBLE\"", "\"WRITE\"", "`hidden volume`"),
        ("format = \"lvm2\"", "format = \"lvm3\"", "`format lvm3`"),
        ("type = \"striped\"", "type = \"\u{1b}[2J\"", "not supported"),
    ] {
        disk(&text().replacen(from, to, 1)).refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn texts_that_lie_are_refused() {
    let other = PV.replace('a', "b");
    let second =
        format!("pv1 {{\nid = \"{other}\"\npe_start = 2048\npe_count = 13\n}}\n}}\nlogical");
    let twice = second.replace(&other, PV);
    let huge = u64::MAX;
    for (from, to, words) in [
        // A physical volume of another disk, the same one twice, one that nobody has.
        (PV, &other[..], "whose copy names one"),
        ("}\nlogical", &second, "is not on this disk as a whole"),
        ("}\nlogical", &twice, "two physical volumes have one id"),
        ("\"pv0\", 0", "\"pv7\", 0", "no physical volume"),
        ("\"pv0\", 0", "\"/dev/sda\", 0", "no physical volume"),
        // Extents of two volumes in one place, outside, none, behind the partition.
        ("\"pv0\", 3", "\"pv0\", 2", "two volumes use extent 2"),
        ("\"pv0\", 3", "\"pv0\", 11", "outside its physical volume"),
        ("\"pv0\", 3", &format!("\"pv0\", {huge}"), "outside its physical volume"),
        ("\"pv0\", 3", "\"pv0\", 99999999999999999999", "too large"),
        ("\"pv0\", 3", "\"pv0\", -1", "a value is missing"),
        ("extent_count = 3", "extent_count = 0", "no extents"),
        ("extent_count = 3", &format!("extent_count = {huge}"), "outside"),
        ("start_extent = 0", "start_extent = 1", "do not follow"),
        ("segment_count = 1", "segment_count = 9", "number of segments"),
        ("stripe_count = 1", "stripe_count = 2", "not the stripes"),
        ("stripe_count = 1", &format!("stripe_count = {huge}"), "not the stripes"),
        ("pe_count = 13", "pe_count = 15", "behind its partition"),
        ("pe_count = 13", &format!("pe_count = {huge}"), "behind its partition"),
        ("pe_start = 2048", &format!("pe_start = {huge}"), "behind its partition"),
        ("extent_size = 2048", "extent_size = 0", "0 sectors"),
        ("extent_size = 2048", &format!("extent_size = {huge}"), "behind its partition"),
        // The text itself.
        ("home {", "root {", "`root` is there twice"),
        ("vg0 {", "vg0", "neither `{` nor `=`"),
        ("vg0 {", "vg0 { \"", "a name is missing"),
        ("version = 1", "version = 2", "not a volume group of version 1"),
        ("id = \"vvv", "id = \"../", "is not one"),
    ] {
        let lie = text().replacen(from, to, 1);
        assert_ne!(lie, text(), "{from}");
        disk(&lie).refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn one_physical_volume_twice_is_refused() {
    let shop = disk(&text());
    shop.sh("truncate -s 31M disk.raw
         printf 'label: dos\nstart=2048,size=30720,type=8e\nstart=32768,type=8e\n' | sfdisk -q disk.raw
         dd if=disk.raw of=disk.raw bs=1M skip=1 seek=16 count=15 conv=notrunc status=none");
    shop.refused("disk.raw", CONTENT, &format!("two partitions are the LVM physical volume {PV}"));
    // Another one, whose text has the same number and says something else.
    let other = PV.replace('a', "b");
    label(&shop, 16 << 20, &other, &[(AREA, SIZE)]);
    area(&shop, (16 << 20) + AREA, AREA, SIZE, &text().replacen("home {", "away {", 1));
    shop.refused("disk.raw", CONTENT, "differ and are of one age");
    let group = text().replace(VG, &VG.replace('v', "w")).replace(PV, &other);
    area(&shop, (16 << 20) + AREA, AREA, SIZE, &group);
    shop.refused("disk.raw", CONTENT, "two LVM groups have the name `vg0`");
}

#[test]
fn labels_and_areas_that_lie_are_refused() {
    for (areas, words) in [
        (&[(u64::MAX, SIZE)][..], "outside its partition"),
        (&[(AREA, u64::MAX)], "outside its partition"),
        (&[(1 << 40, SIZE)], "outside its partition"),
        (&[(AREA, 512)], "outside its partition"),
        (&[(8192, SIZE)], "wrong mark or checksum"),
        // The same area again and again, each time with its text.
        (&[(AREA, SIZE); 20], "more than two metadata areas"),
        (&[(AREA, SIZE); 26], "lists of places do not end"),
    ] {
        let shop = disk(&text());
        label(&shop, START, PV, areas);
        shop.refused("disk.raw", CONTENT, words);
    }
    let long = 1 << 40;
    for (text, words) in [
        ((long, 100, [0; 4]), "its text is outside"),
        ((512, long, [0; 4]), "its text is outside"),
        ((1, 100, [0; 4]), "its text is outside"),
        ((u64::MAX, u64::MAX, [0; 4]), "its text is outside"),
        ((512, 100, [0; 4]), "wrong checksum"),
    ] {
        let shop = disk(&self::text());
        header(&shop, START + AREA, AREA, SIZE, text);
        shop.refused("disk.raw", CONTENT, words);
    }
    for (at, bytes, words) in [
        (8, &7u64.to_le_bytes()[..], "checksum or its own sector number"),
        (20, &u32::MAX.to_le_bytes(), "checksum or its own sector number"),
        (40, b"/", "checksum or its own sector number"),
    ] {
        let shop = disk(&self::text());
        shop.put("disk.raw", START + 512 + at, bytes);
        shop.refused("disk.raw", CONTENT, words);
    }
}

/// A disk whose area has room for texts of 8 MiB.
fn large(text: &str) -> Workshop {
    let shop = disk(&self::text());
    shop.sh(
        "truncate -s 32M disk.raw; printf 'label: dos\nstart=2048,type=8e\n' | sfdisk -q disk.raw",
    );
    let size = 10 << 20;
    label(&shop, START, PV, &[(AREA, size)]);
    area(&shop, START + AREA, AREA, size, text);
    shop
}

#[test]
fn texts_without_an_end_are_refused() {
    let mut names = String::new();
    for n in 0..300_000 {
        let _ = write!(names, "a{n:x}{{}}");
    }
    let small = 3 << 20;
    for (text, words) in [
        (" ".repeat(8 << 20), "its text is outside"),
        (" ".repeat(small), "`contents` is missing"),
        ("#".repeat(small), "`contents` is missing"),
        ("a{".repeat(small / 2), "nested too deep"),
        (format!("a = [{}", "1,".repeat(small / 2)), "more than 1000000 sections and values"),
        (format!("a = \"{}", "\\".repeat(small)), "a text does not end"),
        ("a".repeat(small), "neither `{` nor `=`"),
        (names, "`contents` is missing"),
    ] {
        large(&text).refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn many_texts_are_not_held_in_memory() {
    let shop = Workshop::new();
    // 60 logical partitions, each a physical volume with two texts of 4 MiB of zeros, as a sparse file.
    shop.sh(
        "truncate -s 1300M disk.raw
         { echo 'label: gpt'; for i in $(seq 60); do echo 'size=21M'; done; } | sfdisk -q disk.raw",
    );
    let zeros = vec![0; 4 << 20];
    let sum = crc(&zeros);
    let size = 8 << 20;
    for n in 0..60 {
        let start = (1 << 20) + n * (21 << 20);
        let uuid = format!("{n:06}-bbbb-cccc-dddd-eeee-ffff-gggggg");
        label(&shop, start, &uuid, &[(AREA, size), (10 << 20, size)]);
        for at in [AREA, 10 << 20] {
            header(&shop, start + at, at, size, (HEADER as u64, zeros.len() as u64, sum));
        }
    }
    shop.refused("disk.raw", CONTENT, "bytes together");
}

#[test]
fn volumes_that_lead_to_volumes_are_refused() {
    // The first volume holds the label of a physical volume: a group in a group is not looked for.
    let shop = disk(&text());
    let inside = shop.get("disk.raw", START, 1 << 20);
    shop.put("disk.raw", START + (1 << 20), &inside);
    shop.refused("disk.raw", &["tree"], "disk.raw");
}
