//! Disks made by `qemu-img`, and the same ones damaged.

use std::fs;
use std::path::Path;

use super::super::tests::{assert_same, image, one_byte_changed, opened, refused};
use super::super::{Format, Options, open};
use super::footer::checksum;
use crate::error::Kind;
use crate::image::oracle::{contents, data_ranges, patchwork, run, tool};

const MIB: usize = 1 << 20;

fn given(format: Format) -> Options {
    Options { format: Some(format), ..Options::default() }
}

/// A change to a footer or a header at `at`, with its checksum made good again.
fn changed(good: &[u8], at: usize, field: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = good.to_vec();
    image[at + field..at + field + bytes.len()].copy_from_slice(bytes);
    let (length, own) = if image[at..].starts_with(b"cxsparse") { (1024, 36) } else { (512, 64) };
    let sum = checksum(&image[at..at + length], own..own + 4);
    image[at + own..at + own + 4].copy_from_slice(&sum.to_be_bytes());
    image
}

/// Both copies of a dynamic disk's footer.
fn both(good: &[u8], field: usize, bytes: &[u8]) -> Vec<u8> {
    changed(&changed(good, 0, field, bytes), good.len() - 512, field, bytes)
}

#[test]
fn a_fixed_disk_shows_the_size_of_its_footer() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = patchwork(9 * MIB, 2);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let args = ["-O", "vpc", "-o", "subformat=fixed,force_size=on"];
    let Some(path) = image(dir.path(), "disk", &args, "raw") else { return };
    let container = opened(&path);
    assert_eq!(container.format, Format::Vhd);
    assert_same(&container, &data);
    assert!(container.notes[0].contains("give its format as `raw`"), "{:?}", container.notes);

    // Asked for raw, the footer is data, and a note says so.
    let raw = open(&path, &given(Format::Raw)).expect("raw");
    assert_eq!(raw.reader.size(), data.len() as u64 + 512);
    assert!(raw.notes[0].contains("vhd"), "{:?}", raw.notes);

    // Without `force_size` QEMU rounds the disk up to a geometry; the tail is zeros.
    let path =
        image(dir.path(), "chs", &["-O", "vpc", "-o", "subformat=fixed"], "raw").expect("made");
    let all = contents(&*opened(&path).reader);
    assert!(all[..data.len()] == data && all[data.len()..].iter().all(|b| *b == 0));
}

#[test]
fn every_dynamic_disk_that_qemu_writes_gives_the_raw_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (size, seed) in [(24 * MIB + 512, 51), (40 * MIB, 52), (512, 53)] {
        let mut data = patchwork(size, seed);
        fs::write(dir.path().join("raw"), &data).expect("write");
        let args = ["-O", "vpc", "-o", "force_size=on"];
        let Some(path) = image(dir.path(), "d", &args, "raw") else { return };
        let container = opened(&path);
        assert_eq!((container.format, container.notes.len()), (Format::Vhd, 0));
        assert_same(&container, &data);
        // Without `force_size` QEMU rounds the disk up to a geometry.
        let path = image(dir.path(), "d", &["-O", "vpc"], "raw").expect("made");
        let container = opened(&path);
        data.resize(container.reader.size() as usize, 0);
        assert_same(&container, &data);
    }
}

#[test]
fn a_big_empty_dynamic_disk_costs_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (Some(qemu), Some(io)) = (tool("qemu-img", "big vhd"), tool("qemu-io", "big vhd")) else {
        return;
    };
    run(dir.path(), &qemu, &["create", "-q", "-f", "vpc", "-o", "force_size=on", "b", "2000G"]);
    let last = (2000u64 << 30) - 512;
    run(dir.path(), &io, &["-f", "vpc", "-c", &format!("write -P 3 {last} 512"), "b"]);
    let reader = opened(&dir.path().join("b")).reader;
    assert_eq!(reader.size(), 2000 << 30);
    let ranges = data_ranges(&*reader);
    let sum: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert!(sum < 64 << 10 && ranges.iter().any(|r| r.contains(&last)), "{ranges:?}");
}

/// The size that QEMU shows for each creator is the one that is shown here.
#[test]
fn the_size_is_the_one_that_qemu_sees() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(qemu) = tool("qemu-img", "sizes of a vhd") else { return };
    fs::write(dir.path().join("raw"), vec![1; 3 * MIB + 512]).expect("write");
    for kind in ["subformat=fixed,force_size=on", "subformat=dynamic,force_size=on"] {
        let Some(made) = image(dir.path(), "made", &["-O", "vpc", "-o", kind], "raw") else {
            return;
        };
        let good = fs::read(made).expect("read");
        for creator in ["vpc ", "qemu", "qem2", "win ", "d2v ", "tap\0", "CTXS", "vbox"] {
            for geometry in [[0, 90, 4, 17], [0xff, 0xff, 16, 255]] {
                let at = good.len() - 512;
                let mut bytes = changed(&good, at, 28, creator.as_bytes());
                bytes = changed(&bytes, at, 56, &geometry);
                if kind.contains("dynamic") {
                    bytes = changed(&changed(&bytes, 0, 28, creator.as_bytes()), 0, 56, &geometry);
                }
                fs::write(dir.path().join("x"), &bytes).expect("write");
                let info = ["info", "-f", "vpc", "--output=json", "x"];
                let info = String::from_utf8(run(dir.path(), &qemu, &info)).expect("text");
                let info: serde_json::Value = serde_json::from_str(&info).expect("json");
                let container = opened(&dir.path().join("x"));
                assert_eq!(info["virtual-size"], container.reader.size(), "{creator} {geometry:?}");
                let noted = container.notes.iter().any(|n| n.contains("as QEMU does"));
                assert_eq!(noted, container.reader.size() != 3 * MIB as u64 + 512);
            }
        }
    }
}

#[test]
fn a_raw_disk_with_a_stray_footer_is_reported() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("raw"), patchwork(2 * MIB, 3)).expect("write");
    let args = ["-O", "vpc", "-o", "subformat=fixed,force_size=on"];
    let Some(made) = image(dir.path(), "disk", &args, "raw") else { return };
    let good = fs::read(&made).expect("read");
    let path = dir.path().join("x");
    let footer = 2 * MIB;
    let mut longer = good[..footer].to_vec();
    longer.extend([0; 4096]);
    longer.extend(&good[footer..]);
    let mut sum = good.clone();
    sum[footer + 100] ^= 1;
    let cases: &[(Vec<u8>, &str)] = &[
        (sum, "checksum"),
        (good[MIB..].to_vec(), "a disk of 2097152 bytes; there are 1048576"),
        (longer.clone(), "a disk of 2097152 bytes; there are 2101248"),
        (changed(&good, footer, 60, &3u32.to_be_bytes()), "dynamic disk"),
        (changed(&good, footer, 60, &7u32.to_be_bytes()), "unknown disk type 7"),
        (changed(&good, footer, 12, &0x2_0000u32.to_be_bytes()), "unknown version 2.0"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.what().contains("or a raw disk that ends with a VHD footer"), "{e}");
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
        // Whoever knows that it is raw can say so.
        let raw = open(&path, &given(Format::Raw)).expect("raw");
        assert_eq!(raw.reader.size(), bytes.len() as u64);
    }
    // Whoever knows that it is a VHD gets the disk that the footer tells of, if it is there.
    fs::write(&path, &longer).expect("write");
    let container = open(&path, &given(Format::Vhd)).expect("vhd");
    assert_same(&container, &good[..footer]);
    assert!(container.notes[0].starts_with("4096 bytes between"), "{:?}", container.notes);
    fs::write(&path, &good[MIB..]).expect("write");
    let e = open(&path, &given(Format::Vhd)).expect_err("cut");
    assert!(e.what().contains("cut short"), "{e}");
    fs::write(&path, &good[..footer + 511]).expect("write");
    assert!(open(&path, &given(Format::Vhd)).is_err());

    // A disk whose guest wrote the first bytes of another format.
    let mut both = good.clone();
    both[..4].copy_from_slice(b"QFI\xfb");
    fs::write(&path, &both).expect("write");
    let e = refused(&path, &Options::default());
    assert!(e.what().contains("begins as qcow2 and ends as a VHD"), "{e}");
    // A footer of 511 bytes.
    let mut old = good[..footer].to_vec();
    old.extend_from_slice(b"conectix");
    old.resize(footer + 511, 0);
    fs::write(&path, &old).expect("write");
    assert!(refused(&path, &Options::default()).what().contains("511 bytes"));
}

#[test]
fn each_damaged_field_of_a_dynamic_disk_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    fs::write(dir.path().join("raw"), vec![7; 9 * MIB]).expect("write");
    let args = ["-O", "vpc", "-o", "force_size=on"];
    let Some(made) = image(dir.path(), "d", &args, "raw") else { return };
    let good = fs::read(made).expect("read");
    let be32 = |at: usize| u32::from_be_bytes(good[at..at + 4].try_into().expect("four"));
    let table = be32(512 + 20) as usize;
    let (first, second) = (be32(table), be32(table + 4));
    let put = |at: usize, value: u32| {
        let mut image = good.clone();
        image[at..at + 4].copy_from_slice(&value.to_be_bytes());
        image
    };
    let end = good.len() - 512;
    let cases: &[(Vec<u8>, &str)] = &[
        (both(&good, 60, &4u32.to_be_bytes()), "differencing"),
        (both(&good, 16, &(1u64 << 60).to_be_bytes()), "is not there"),
        (both(&good, 16, &u64::MAX.to_be_bytes()), "is not there"),
        (both(&good, 48, &(1u64 << 60).to_be_bytes()), "claims a disk of"),
        (both(&good, 48, &(1u64 << 40).to_be_bytes()), "entries, and the disk"),
        (changed(&good, 0, 48, &(5u64 << 20).to_be_bytes()), "disagree"),
        (changed(&good, end, 60, &2u32.to_be_bytes()), "ends as a fixed one"),
        (put(512 + 600, 1), "header does not match"),
        (changed(&good, 512, 24, &0x9_0000u32.to_be_bytes()), "header version 9.0"),
        (changed(&good, 512, 32, &1000u32.to_be_bytes()), "blocks of 1000 bytes"),
        (changed(&good, 512, 32, &0u32.to_be_bytes()), "blocks of 0 bytes"),
        (changed(&good, 512, 32, &(1u32 << 31).to_be_bytes()), "blocks of 2147483648 bytes"),
        (changed(&good, 512, 28, &2u32.to_be_bytes()), "its table has 2 entries"),
        (changed(&good, 512, 16, &(1u64 << 61).to_be_bytes()), "is outside the file"),
        (put(table, 0), "stands on something else"),
        (put(table, 1), "stands on something else"),
        (put(table, second), "stands on something else"),
        (put(table, first + 1), "stands on something else"),
        (put(table, u32::MAX - 1), "outside the file"),
        (good[..good.len() - 2 * MIB].to_vec(), "cut short"),
        (good[..700].to_vec(), "is not there"),
        (good[..100].to_vec(), "is not there"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
    // One of the two copies is enough, and a note says so.
    let mut head = good.clone();
    head[100] ^= 1;
    let mut tail = good.clone();
    tail[end + 100] ^= 1;
    for (bytes, word) in [(head, "at the start is damaged"), (tail, "its copy at the start")] {
        fs::write(&path, bytes).expect("write");
        let container = opened(&path);
        assert!(container.notes[0].contains(word), "{:?}", container.notes);
        assert_same(&container, &[7; 9 * MIB]);
    }
}

#[test]
fn a_bitmap_that_contradicts_the_data_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    let mut data = vec![7; 4 * MIB];
    data[3 * 512..5 * 512].fill(0);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let args = ["-O", "vpc", "-o", "force_size=on"];
    let Some(made) = image(dir.path(), "d", &args, "raw") else { return };
    let mut bytes = fs::read(made).expect("read");
    let be32 = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    let bitmap = be32(be32(512 + 20) as usize) as usize * 512;
    // Sectors 3 and 4 hold zeros: that they were never written is no contradiction.
    bytes[bitmap] = 0b1110_0111;
    fs::write(&path, &bytes).expect("write");
    assert_same(&opened(&path), &data);
    bytes[bitmap] = 0b1110_0110;
    fs::write(&path, &bytes).expect("write");
    let reader = opened(&path).reader;
    let e = reader.read_at(&mut [0; 1], 7 * 512 + 9).expect_err("contradiction");
    assert!(e.to_string().contains("sector 7 of the disk"), "{e}");
    assert!(reader.read_at(&mut [0; 512], 8 * 512).is_ok());
}

#[test]
fn one_changed_byte_is_an_error_or_data() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("damaged");
    fs::write(dir.path().join("raw"), patchwork(3 * MIB, 56)).expect("write");
    for kind in ["subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"] {
        let args = ["-O", "vpc", "-o", kind];
        let Some(made) = image(dir.path(), "made", &args, "raw") else { return };
        let good = fs::read(made).expect("read");
        let tail = good.len() - 512..good.len();
        let noticed = one_byte_changed(Path::new(&path), &good, &[0..2048, tail], 300);
        assert!(noticed > 60, "{kind}: {noticed}");
    }
}
