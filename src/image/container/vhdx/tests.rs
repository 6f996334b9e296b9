//! Disks made by `qemu-img`, logs made here by the specification, and the same ones damaged.

use std::fs;
use std::path::Path;

use super::super::tests::{assert_same, image, one_byte_changed, opened, refused};
use super::super::{Format, Options};
use super::header::checksum;
use crate::error::Kind;
use crate::image::oracle::{contents, data_ranges, patchwork, run, tool};

const MIB: usize = 1 << 20;
const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const REGIONS: [usize; 2] = [192 << 10, 256 << 10];

#[test]
fn every_kind_that_qemu_writes_gives_the_raw_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (size, seed) in [(24 * MIB + 512, 71), (40 * MIB, 72), (512, 73)] {
        let data = patchwork(size, seed);
        fs::write(dir.path().join("raw"), &data).expect("write");
        for kind in [
            "subformat=dynamic",
            "subformat=dynamic,block_size=1M",
            "subformat=dynamic,block_size=256M",
            "subformat=dynamic,log_size=4M",
            "subformat=fixed",
            "subformat=fixed,block_size=2M",
        ] {
            let args = ["-O", "vhdx", "-o", kind];
            let Some(path) = image(dir.path(), "disk", &args, "raw") else { return };
            let container = opened(&path);
            assert_eq!((container.format, container.notes.len()), (Format::Vhdx, 0), "{kind}");
            assert_same(&container, &data);
        }
    }
}

#[test]
fn blocks_in_any_order_and_blocks_of_zeros_are_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (Some(qemu), Some(io)) = (tool("qemu-img", "vhdx order"), tool("qemu-io", "vhdx order"))
    else {
        return;
    };
    run(dir.path(), &qemu, &["create", "-q", "-f", "vhdx", "-o", "block_size=1M", "d", "9000M"]);
    let mut data = vec![0; 40 * MIB];
    let mut commands = vec![];
    // Beyond block 4096, after which the first bitmap has its entry.
    for (block, byte) in [(30, 1u8), (2, 2), (31, 3), (3, 4), (39, 5), (4500, 6), (8999, 7)] {
        commands.push("-c".to_owned());
        commands.push(format!("write -P {byte} {}k 700k", block * 1024 + 100));
        if block < 40 {
            data[block * MIB + 100 * 1024..block * MIB + 800 * 1024].fill(byte);
        }
    }
    let mut args = vec!["-f", "vhdx"];
    args.extend(commands.iter().map(String::as_str));
    args.push("d");
    run(dir.path(), &io, &args);
    let reader = opened(&dir.path().join("d")).reader;
    assert_eq!(reader.size(), 9000 << 20);
    let mut buf = vec![9; data.len()];
    reader.read_at(&mut buf, 0).expect("it reads");
    assert!(buf == data);
    for (block, byte) in [(4500u64, 6), (8999, 7)] {
        let mut buf = vec![9; MIB];
        reader.read_at(&mut buf, block << 20).expect("it reads");
        assert!(buf[100 << 10..800 << 10].iter().all(|b| *b == byte) && buf[0] == 0);
    }
    let sum: u64 = data_ranges(&*reader).iter().map(|r| r.end - r.start).sum();
    assert!(sum <= 7 * MIB as u64, "{sum}");
}

#[test]
fn a_big_empty_disk_costs_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(qemu) = tool("qemu-img", "big vhdx") else { return };
    let began = std::time::Instant::now();
    run(dir.path(), &qemu, &["create", "-q", "-f", "vhdx", "-o", "block_size=32M", "b", "64T"]);
    let reader = opened(&dir.path().join("b")).reader;
    assert_eq!((reader.size(), data_ranges(&*reader).len()), (64 << 40, 0));
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// Sets bytes of a structure that carries its checksum, in both copies.
fn changed(good: &[u8], copies: [usize; 2], field: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = good.to_vec();
    let length = if copies == HEADERS { 4096 } else { 64 << 10 };
    for at in copies {
        image[at + field..at + field + bytes.len()].copy_from_slice(bytes);
        let sum = checksum(&image[at..at + length]);
        image[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    image
}

fn le64(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight")) as usize
}

/// Where the block table and the metadata are.
fn regions(image: &[u8]) -> (usize, usize) {
    (le64(image, REGIONS[0] + 16 + 16), le64(image, REGIONS[0] + 48 + 16))
}

#[test]
fn each_damaged_field_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    fs::write(dir.path().join("raw"), vec![7; 5 * MIB]).expect("write");
    let args = ["-O", "vhdx", "-o", "block_size=1M"];
    let Some(made) = image(dir.path(), "d", &args, "raw") else { return };
    let good = fs::read(made).expect("read");
    let (table, metadata) = regions(&good);
    let put = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    // QEMU's order of the items: parameters, size, id, sector sizes.
    let item = |n: usize| metadata + 32 + 32 * n;
    let value = |n: usize| metadata + le64(&good, item(n) + 16) % (1 << 32);
    let first = le64(&good, table) as u64;
    let cases: &[(Vec<u8>, &str)] = &[
        (changed(&good, HEADERS, 66, &2u16.to_le_bytes()), "version 2"),
        (changed(&good, HEADERS, 0, b"haed"), "both of its headers"),
        (changed(&good, HEADERS, 72, &(1u64 << 60).to_le_bytes()), "log is outside"),
        (changed(&good, HEADERS, 72, &4096u64.to_le_bytes()), "log is outside"),
        (changed(&good, HEADERS, 68, &1000u32.to_le_bytes()), "log is outside"),
        (changed(&changed(&good, HEADERS, 48, &[1]), HEADERS, 64, &[1]), "log version 1"),
        (changed(&good, HEADERS, 48, &[1]), "nothing is in it"),
        (changed(&changed(&good, HEADERS, 48, &[1]), HEADERS, 68, &[0; 4]), "not there"),
        (changed(&good, HEADERS, 8, &5u64.to_le_bytes()), "none is newer"),
        (changed(&good, REGIONS, 0, b"rigi"), "both of its region tables"),
        (changed(&good, REGIONS, 8, &9999u32.to_le_bytes()), "claims 9999 entries"),
        (changed(&good, REGIONS, 8, &1u32.to_le_bytes()), "has no metadata"),
        (changed(&good, REGIONS, 8, &0u32.to_le_bytes()), "has no block table"),
        (changed(&good, REGIONS, 32, &(1u64 << 62).to_le_bytes()), "outside the file"),
        (changed(&good, REGIONS, 32, &4096u64.to_le_bytes()), "outside the file"),
        (changed(&good, REGIONS, 32, &(metadata as u64).to_le_bytes()), "the same bytes"),
        (changed(&good, REGIONS, 32, &0u64.to_le_bytes()), "the same bytes"),
        (changed(&good, REGIONS, 16, &[9; 16]), "has no block table"),
        (
            changed(&changed(&good, REGIONS, 16, &[9; 16]), REGIONS, 44, &[1]),
            "the region 09090909-0909-0909-0909-090909090909",
        ),
        (put(metadata, b"x"), "metadata table is not there"),
        (put(metadata + 10, &3000u16.to_le_bytes()), "claims 3000 entries"),
        (put(metadata + 10, &0u16.to_le_bytes()), "no block size"),
        (put(item(0), &[9; 16]), "the metadata 09090909"),
        (put(item(0) + 16, &[0; 4]), "outside their region"),
        (put(item(0) + 16, &[0xff; 4]), "outside their region"),
        (put(item(0) + 20, &[4, 0, 0, 0]), "block size has 4 bytes"),
        (put(item(3), &good[item(0)..item(0) + 16]), "are there twice"),
        (put(value(0), &3u32.to_le_bytes()), "blocks of 3 bytes"),
        (put(value(0), &(1u32 << 30).to_le_bytes()), "blocks of 1073741824 bytes"),
        (put(value(0) + 4, &2u32.to_le_bytes()), "differencing"),
        (put(value(0) + 4, &4u32.to_le_bytes()), "parameter bit 2"),
        (put(value(1), &(1u64 << 60).to_le_bytes()), "a disk of 1152921504606846976 bytes"),
        (put(value(1), &513u64.to_le_bytes()), "a disk of 513 bytes"),
        (put(value(1), &(64u64 << 40).to_le_bytes()), "too short for the disk"),
        (put(value(3), &1024u32.to_le_bytes()), "sectors of 1024 bytes"),
        (put(table, &7u64.to_le_bytes()), "in part"),
        (put(table, &4u64.to_le_bytes()), "unknown state 4"),
        (put(table, &(first | 8).to_le_bytes()), "reserved bits"),
        (put(table, &6u64.to_le_bytes()), "byte 0 is outside"),
        (put(table, &((1u64 << 60) | 6).to_le_bytes()), "outside the file"),
        (put(table, &((1u64 << 20) | 6).to_le_bytes()), "stands on something else"),
        (put(table + 8, &first.to_le_bytes()), "stands on something else"),
        (good[..good.len() - MIB].to_vec(), "outside the file"),
        (good[..300 << 10].to_vec(), "outside the file"),
        (good[..100].to_vec(), "both of its headers"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
    // The parent's locator alone names a parent too.
    let parent =
        super::guid::Guid::new(0xa8d3_5f2d, 0xb30b, 0x454d, *b"\xab\xf7\xd3\xd8\x48\x34\xab\x0c");
    fs::write(&path, put(item(2), &parent.0)).expect("write");
    assert!(refused(&path, &Options::default()).what().contains("differencing"));
    // One good header, or one good region table, is enough.
    let data = vec![7; 5 * MIB];
    for at in HEADERS {
        fs::write(&path, put(at + 100, b"x")).expect("write");
        let container = opened(&path);
        assert!(container.notes[0].contains("one of its two headers"), "{:?}", container.notes);
        assert_same(&container, &data);
    }
    for at in REGIONS {
        fs::write(&path, put(at + 100, b"x")).expect("write");
        assert_same(&opened(&path), &data);
    }
    // A disk of sectors of 4096 bytes is read, and a note says so.
    fs::write(&path, put(value(3), &4096u32.to_le_bytes())).expect("write");
    let container = opened(&path);
    assert!(container.notes[0].contains("4096 bytes"), "{:?}", container.notes);
    assert_same(&container, &data);
}

/// One entry of a log (section 2.3.1): the sectors that it writes, zeros if there is no data.
struct Entry<'a> {
    number: u64,
    tail: usize,
    flushed: usize,
    last: usize,
    changes: Vec<(usize, Option<&'a [u8]>)>,
}

const LOG_ID: [u8; 16] = *b"the log's own id";

impl Entry<'_> {
    fn bytes(&self) -> Vec<u8> {
        let data = self.changes.iter().filter_map(|(_, data)| *data);
        let mut out = vec![0; 64];
        out[..4].copy_from_slice(b"loge");
        out[12..16].copy_from_slice(&(self.tail as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..28].copy_from_slice(&(self.changes.len() as u32).to_le_bytes());
        out[32..48].copy_from_slice(&LOG_ID);
        out[48..56].copy_from_slice(&(self.flushed as u64).to_le_bytes());
        out[56..64].copy_from_slice(&(self.last as u64).to_le_bytes());
        for (at, data) in &self.changes {
            match data {
                Some(data) => {
                    out.extend_from_slice(b"desc");
                    out.extend_from_slice(&data[4092..4096]);
                    out.extend_from_slice(&data[..8]);
                }
                None => {
                    out.extend_from_slice(b"zero\0\0\0\0");
                    out.extend_from_slice(&4096u64.to_le_bytes());
                }
            }
            out.extend_from_slice(&(*at as u64).to_le_bytes());
            out.extend_from_slice(&self.number.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(4096), 0);
        for data in data {
            out.extend_from_slice(b"data");
            out.extend_from_slice(&((self.number >> 32) as u32).to_le_bytes());
            out.extend_from_slice(&data[8..4092]);
            out.extend_from_slice(&(self.number as u32).to_le_bytes());
        }
        let length = out.len() as u32;
        out[8..12].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&out);
        out[4..8].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// Writes entries around the end of the log, from `at` on, and names the log in both headers.
fn with_log(image: &[u8], mut at: usize, entries: &[Entry<'_>]) -> Vec<u8> {
    let mut image = changed(image, HEADERS, 48, &LOG_ID);
    let (log, length) = (le64(&image, HEADERS[0] + 72), le64(&image, HEADERS[0] + 68) % (1 << 32));
    for entry in entries {
        for byte in entry.bytes() {
            image[log + at % length] = byte;
            at += 1;
        }
    }
    image
}

/// A disk whose block table is in its log alone.
#[test]
fn a_log_that_was_not_applied_is_applied_in_memory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    let data = patchwork(9 * MIB, 75);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let args = ["-O", "vhdx", "-o", "block_size=1M"];
    let Some(made) = image(dir.path(), "d", &args, "raw") else { return };
    let good = fs::read(made).expect("read");
    let (table, metadata) = regions(&good);
    let size = good.len();
    let true_table = good[table..table + 4096].to_vec();
    let true_metadata = good[metadata..metadata + 4096].to_vec();
    let garbage = vec![0xee; 4096];
    let mut torn = good.clone();
    torn[table..table + 4096].fill(0x77);
    torn[metadata..metadata + 4096].fill(0);
    // A place that the disk does not use: the table's second sector, which the log sets to zeros.
    torn[table + 4096..table + 8192].fill(0x66);
    let high = (7 << 32) + 0xffff_ffff;
    let entry = |number: u64, tail: usize, changes| Entry {
        number,
        tail,
        flushed: size,
        last: size,
        changes,
    };
    let end = MIB - 8192;
    for at in [0, 4096 * 5, end] {
        let first = entry(high, at, vec![(table, Some(&garbage)), (table + 4096, None)]);
        let second_at = (at + first.bytes().len()) % MIB;
        let second = entry(
            high + 1,
            at,
            vec![(metadata, Some(&true_metadata)), (table, None), (table, Some(&true_table))],
        );
        // What an older use of the log left: the same id, lower numbers, and a lie.
        let stale = entry(3, 4096 * 40, vec![(table, Some(&garbage))]);
        let mut bytes = with_log(&torn, 4096 * 40, &[stale]);
        bytes = with_log(&bytes, at, &[first, second]);
        fs::write(&path, &bytes).expect("write");
        let container = opened(&path);
        assert!(container.notes[0].contains("its log was applied"), "{:?}", container.notes);
        assert_same(&container, &data);
        assert_eq!(fs::read(&path).expect("read"), bytes, "the file itself is not written");
        if let Some(qemu) = tool("qemu-img", "replay of a vhdx log") {
            fs::copy(&path, dir.path().join("copy")).expect("copy");
            run(dir.path(), &qemu, &["check", "-q", "-r", "all", "-f", "vhdx", "copy"]);
            run(dir.path(), &qemu, &["compare", "-f", "vhdx", "-F", "raw", "copy", "raw"]);
        }
        // With the second entry torn, the first one alone would show garbage.
        let log = le64(&good, HEADERS[0] + 72);
        let mut half = bytes.clone();
        half[log + (second_at + 4096 + 20) % MIB] ^= 1;
        fs::write(&path, &half).expect("write");
        refused(&path, &Options::default());
    }
}

#[test]
fn a_log_that_cannot_be_right_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    fs::write(dir.path().join("raw"), patchwork(3 * MIB, 76)).expect("write");
    let Some(made) = image(dir.path(), "d", &["-O", "vhdx"], "raw") else { return };
    let good = fs::read(made).expect("read");
    let size = good.len();
    let sector = vec![5; 4096];
    let entry = |number, tail, at| Entry {
        number,
        tail,
        flushed: size,
        last: size,
        changes: vec![(at, Some(&sector[..]))],
    };
    let truncated = Entry { flushed: size + MIB, ..entry(1, 0, 8192) };
    let huge = Entry { last: 1 << 60, ..entry(1, 0, 8192) };
    let cases = [
        (with_log(&good, 0, &[entry(0, 0, 8192)]), "nothing is in it"),
        (with_log(&good, 0, &[entry(1, 4096, 8192)]), "nothing is in it"),
        (with_log(&good, 0, &[entry(1, 0, 8192 + 512)]), "nothing is in it"),
        (with_log(&good, 0, &[entry(1, 0, size)]), "outside the file"),
        (with_log(&good, 0, &[entry(1, 0, usize::MAX / 4096 * 4096)]), "outside the file"),
        (with_log(&good, 0, &[truncated]), "its log was written when"),
        (with_log(&good, 0, &[huge]), "more than 128 TiB"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
    // An entry that claims the whole log, at each of its sectors: refused, and soon.
    let mut hostile = changed(&good, HEADERS, 48, &LOG_ID);
    let log = le64(&good, HEADERS[0] + 72);
    let mut head = entry(1, 0, 8192).bytes();
    head[8..12].copy_from_slice(&(MIB as u32).to_le_bytes());
    for at in (log..log + MIB).step_by(4096) {
        hostile[at..at + 64].copy_from_slice(&head[..64]);
    }
    fs::write(&path, hostile).expect("write");
    let e = refused(&path, &Options::default());
    assert!(e.to_string().contains("long entries"), "{e}");
}

#[test]
fn a_log_can_make_the_file_longer() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    let mut data = vec![7; 3 * MIB];
    fs::write(dir.path().join("raw"), &data).expect("write");
    let args = ["-O", "vhdx", "-o", "block_size=1M"];
    let Some(made) = image(dir.path(), "d", &args, "raw") else { return };
    let good = fs::read(made).expect("read");
    let (table, _) = regions(&good);
    let size = good.len();
    // The second block moves behind the end of the file, which a crash left short: zeros there.
    let mut sector = good[table..table + 4096].to_vec();
    sector[8..16].copy_from_slice(&(size as u64 | 6).to_le_bytes());
    let entry = Entry {
        number: 9,
        tail: 0,
        flushed: size,
        last: size + MIB,
        changes: vec![(table, Some(&sector))],
    };
    fs::write(&path, with_log(&good, 0, &[entry])).expect("write");
    data[MIB..2 * MIB].fill(0);
    let container = opened(&path);
    assert!(contents(&*container.reader) == data);
    assert_same(&container, &data);
}

#[test]
fn one_changed_byte_is_an_error_or_data() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("damaged");
    let data = patchwork(2 * MIB, 77);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let args = ["-O", "vhdx", "-o", "block_size=1M"];
    let Some(made) = image(dir.path(), "made", &args, "raw") else { return };
    let good = fs::read(made).expect("read");
    let (table, metadata) = regions(&good);
    let places = [
        HEADERS[0]..HEADERS[0] + 80,
        HEADERS[1]..HEADERS[1] + 80,
        REGIONS[0]..REGIONS[0] + 80,
        metadata..metadata + 192,
        metadata + (64 << 10)..metadata + (64 << 10) + 64,
        table..table + 16,
    ];
    let noticed = one_byte_changed(Path::new(&path), &good, &places, 300);
    assert!(noticed > 60, "{noticed}");
    // The same with a log that has to be applied.
    let sector = good[table..table + 4096].to_vec();
    let entry = Entry {
        number: 9,
        tail: 0,
        flushed: good.len(),
        last: good.len(),
        changes: vec![(table, Some(&sector))],
    };
    let dirty = with_log(&good, 0, &[entry]);
    let log = le64(&good, HEADERS[0] + 72);
    let noticed = one_byte_changed(&path, &dirty, &[log..log + 100, log..log + 8192], 300);
    assert!(noticed > 200, "{noticed}");
}
