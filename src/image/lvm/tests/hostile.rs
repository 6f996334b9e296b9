//! Damaged and lying metadata: what LVM2 wrote, changed, with checksums that fit again.

use std::sync::Arc;

use super::workshop::Workshop;
use crate::error::Kind;
use crate::image::ReadAt;
use crate::image::field::le64;
use crate::image::lvm::checksum::sum;
use crate::image::lvm::{assemble, physical};
use crate::image::oracle::Memory;

/// Where `pvcreate` puts the one metadata area.
const AREA: usize = 4096;

/// A physical volume with the group `vg0` and the volumes `root` and `home`.
fn made(test: &str) -> Option<Vec<u8>> {
    let lab = Workshop::new(test, 1, 16)?;
    lab.lvm("pvcreate -q D0");
    lab.lvm("vgcreate -q -s 1M vg0 D0");
    lab.volume("-n root -l 3");
    lab.volume("-n home -l 2");
    Some(std::fs::read(lab.path("pv0")).expect("it reads"))
}

fn text(image: &[u8]) -> String {
    let (at, length) = (le64(image, AREA + 40) as usize, le64(image, AREA + 48) as usize);
    String::from_utf8(image[AREA + at..AREA + at + length - 1].to_vec()).expect("UTF-8")
}

/// The image with another text, and checksums of it.
fn with_text(image: &[u8], text: &str) -> Vec<u8> {
    let mut image = image.to_vec();
    let at = 512;
    let raw = [text.as_bytes(), b"\0"].concat();
    image[AREA + at..AREA + at + raw.len()].copy_from_slice(&raw);
    image[AREA + 40..AREA + 48].copy_from_slice(&(at as u64).to_le_bytes());
    image[AREA + 48..AREA + 56].copy_from_slice(&(raw.len() as u64).to_le_bytes());
    image[AREA + 56..AREA + 60].copy_from_slice(&sum(&raw).to_le_bytes());
    let header = sum(&image[AREA + 4..AREA + 512]);
    image[AREA..AREA + 4].copy_from_slice(&header.to_le_bytes());
    image
}

/// What is wrong with a disk of these physical volumes; empty if nothing.
fn fault(images: Vec<Vec<u8>>) -> String {
    let read = || {
        let mut all = vec![];
        for image in images {
            let reader: Arc<dyn ReadAt> = Memory::shared(image);
            all.extend(physical(&reader)?);
        }
        assemble(&all)
    };
    match read() {
        Ok(_) => String::new(),
        Err(e) => {
            assert_eq!(e.kind(), Kind::Undetermined, "{e}");
            e.to_string()
        }
    }
}

#[test]
fn changed_metadata_is_refused_with_its_fault() {
    let Some(image) = made("changed_metadata_is_refused_with_its_fault") else { return };
    let whole = text(&image);
    assert_eq!(fault(vec![with_text(&image, &whole)]), "");
    let deep = format!("{}x = 1", "a {".repeat(50_000));
    for (from, to, expected) in [
        ("type = \"striped\"", "type = \"thin-pool\"", "`thin-pool`"),
        ("type = \"striped\"", "type = \"snapshot\"", "`snapshot`"),
        ("type = \"striped\"", "type = \"cache\"", "`cache`"),
        ("type = \"striped\"", "type = \"raid5_ls\"", "`raid5_ls`"),
        ("type = \"striped\"", "type = \"vdo\"", "`vdo`"),
        ("\"WRITE\", \"VISIBLE\"", "\"WRITE\"", "`hidden volume`"),
        ("\"WRITE\", \"VISIBLE\"", "\"LOCKED\", \"VISIBLE\"", "`LOCKED`"),
        ("stripe_count = 1", "stripe_count = 2", "not the stripes"),
        ("stripe_count = 1", "stripe_count = 9223372036854775809", "not the stripes"),
        ("\"pv0\", 0", "\"pv1\", 0", "no physical volume"),
        ("\"pv0\", 0", "\"pv0\", 18446744073709551615", "outside its physical volume"),
        ("\"pv0\", 3", "\"pv0\", 2", "two volumes use extent 2"),
        ("extent_count = 3", "extent_count = 0", "no extents"),
        ("extent_count = 3", "extent_count = 18446744073709551615", "outside"),
        ("start_extent = 0", "start_extent = 1", "do not follow"),
        ("segment_count = 1", "segment_count = 2", "number of segments"),
        ("extent_size = 2048", "extent_size = 0", "0 sectors"),
        ("extent_size = 2048", "extent_size = 9223372036854775808", "behind its partition"),
        ("pe_start = 2048", "pe_start = 18446744073709551615", "behind its partition"),
        ("pe_count = 15", "pe_count = 16", "behind its partition"),
        ("format = \"lvm2\"", "format = \"lvm3\"", "`format lvm3`"),
        ("seqno = ", "seqno = \"", "neither `{` nor `=`"),
        ("version = 1\n", "version = 2\n", "not a volume group"),
        ("root {", "root.home {", ""),
        ("root {", "home {", "`home` is there twice"),
        ("status = [\"RESIZEABLE\"", "status = [\"EXPORTED\"", ""),
        ("vg0 {", "vg0 { x", "neither `{` nor `=`"),
        ("vg0 {", &deep, "too deep"),
    ] {
        assert!(whole.contains(from), "{from}");
        let found = fault(vec![with_text(&image, &whole.replacen(from, to, 1))]);
        let fits = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
        assert!(fits, "{from} -> {}: {found}", &to[..to.len().min(60)]);
    }
}

#[test]
fn each_damaged_byte_of_label_and_metadata_is_noticed() {
    let made = made("each_damaged_byte_of_label_and_metadata_is_noticed");
    let Some(mut image) = made else { return };
    // The extents begin behind.
    image.truncate(1 << 20);
    let (at, length) = (le64(&image, AREA + 40) as usize, le64(&image, AREA + 48) as usize);
    let areas = [512..1024, AREA..AREA + 512, AREA + at..AREA + at + length];
    for offset in areas.into_iter().flatten() {
        let mut damaged = image.clone();
        damaged[offset] ^= 0x10;
        let reader: Arc<dyn ReadAt> = Memory::shared(damaged);
        match physical(&reader) {
            // Without its mark it is no physical volume; then the partition is bytes, all hashed.
            Ok(None) => assert!((512..520).contains(&offset) || (536..544).contains(&offset)),
            Ok(Some(_)) => panic!("byte {offset}"),
            Err(e) => assert_eq!(e.kind(), Kind::Undetermined),
        }
    }
}

#[test]
fn copies_that_contradict_each_other_are_refused() {
    let Some(image) = made("copies_that_contradict_each_other_are_refused") else { return };
    let whole = text(&image);
    // The same volume twice, and another group of the same name.
    assert!(fault(vec![image.clone(), image.clone()]).contains("two partitions are"));
    let mut other = image.clone();
    other[544] = if other[544] == b'a' { b'b' } else { b'a' };
    let crc = sum(&other[532..1024]);
    other[528..532].copy_from_slice(&crc.to_le_bytes());
    // What the text says of its only physical volume is then not this one.
    let found = fault(vec![other.clone()]);
    assert!(found.contains("whose copy names one"), "{found}");
    let id = whole.find("id = \"").expect("an id") + 6;
    let mut renamed = whole.clone();
    renamed.replace_range(id..id + 1, if &whole[id..=id] == "a" { "b" } else { "a" });
    let found = fault(vec![image.clone(), with_text(&other, &renamed)]);
    assert!(found.contains("two LVM groups have the name `vg0`"), "{found}");
    let changed = whole.replacen("home {", "away {", 1);
    let found = fault(vec![image, with_text(&other, &changed)]);
    assert!(found.contains("differ and are of one age"), "{found}");
}

#[test]
fn more_copies_of_the_metadata_than_any_disk_has_are_refused() {
    let test = "more_copies_of_the_metadata_than_any_disk_has_are_refused";
    let Some(image) = made(test) else { return };
    let mut three = image.clone();
    // Behind the list of data: 512 + 32 is the header, 40 bytes of it, one place and the end mark.
    let list = 512 + 32 + 40 + 32;
    let place = image[list..list + 16].to_vec();
    for n in 1..3 {
        three[list + n * 16..list + n * 16 + 16].copy_from_slice(&place);
    }
    let crc = sum(&three[532..1024]);
    three[528..532].copy_from_slice(&crc.to_le_bytes());
    assert!(fault(vec![three]).contains("more than two metadata areas"));
    let reader: Arc<dyn ReadAt> = Memory::shared(image);
    let mut one = physical(&reader).expect("it reads").expect("a physical volume");
    one.areas = vec![crate::image::lvm::area::Area::Text(vec![0; 1 << 20])];
    crate::image::lvm::check_texts(&vec![one.clone(); 32]).expect("32 MiB");
    let e = crate::image::lvm::check_texts(&vec![one; 33]).expect_err("too many");
    assert!(e.to_string().contains("bytes together"), "{e}");
}
