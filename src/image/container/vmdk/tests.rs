//! VMDK disks made by `qemu-img`, streams made here by the specification, and the same ones damaged.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::super::tests::{assert_same, image, one_byte_changed, opened, read_all, refused};
use super::super::{Format, Options, open};
use crate::error::Kind;
use crate::image::oracle::{Numbers, data_ranges, patchwork, run, tool};

const MIB: usize = 1 << 20;

/// Puts the numbers of the grains into the order in which they are written.
type Order<'a> = &'a mut dyn FnMut(&mut Vec<usize>);

/// A stream-optimised disk as VMware's programs write it: the grains in the given order, the
/// directory behind them, a footer that names it.
fn stream(data: &[u8], order: Order<'_>) -> Vec<u8> {
    const GRAIN: usize = 128 * 512;
    let sectors = data.len() / 512;
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=7e5b80a7\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\nRDONLY {sectors} SPARSE \"call-me-stream.vmdk\"\nddb.adapterType = \"lsilogic\"\n"
    );
    let header = |directory: u64| {
        let mut h = vec![0; 512];
        h[..4].copy_from_slice(b"KDMV");
        h[4..8].copy_from_slice(&3u32.to_le_bytes());
        h[8..12].copy_from_slice(&0x3_0001u32.to_le_bytes());
        h[12..20].copy_from_slice(&(sectors as u64).to_le_bytes());
        h[20..28].copy_from_slice(&128u64.to_le_bytes());
        h[28..36].copy_from_slice(&1u64.to_le_bytes());
        h[36..44].copy_from_slice(&20u64.to_le_bytes());
        h[44..48].copy_from_slice(&512u32.to_le_bytes());
        h[56..64].copy_from_slice(&directory.to_le_bytes());
        h[64..72].copy_from_slice(&128u64.to_le_bytes());
        h[73..77].copy_from_slice(b"\n \r\n");
        h[77..79].copy_from_slice(&1u16.to_le_bytes());
        h
    };
    let mut out = header(u64::MAX);
    out.extend_from_slice(text.as_bytes());
    out.resize(128 * 512, 0);
    let grains: Vec<&[u8]> = data.chunks(GRAIN).collect();
    let mut numbers: Vec<usize> = (0..grains.len()).collect();
    numbers.retain(|n| grains[*n].iter().any(|b| *b != 0));
    order(&mut numbers);
    let mut table = vec![0u32; grains.len().next_multiple_of(512)];
    for number in numbers {
        let mut whole = grains[number].to_vec();
        whole.resize(GRAIN, 0);
        let mut packer = ZlibEncoder::new(vec![], Compression::fast());
        packer.write_all(&whole).expect("memory");
        let packed = packer.finish().expect("memory");
        table[number] = (out.len() / 512) as u32;
        out.extend_from_slice(&(number as u64 * 128).to_le_bytes());
        out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        out.extend_from_slice(&packed);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    let marker = |out: &mut Vec<u8>, sectors: u64, kind: u32| {
        let end = out.len() + 512;
        out.extend_from_slice(&sectors.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.resize(end, 0);
    };
    let mut directory = vec![];
    for table in table.chunks(512) {
        if table.iter().all(|entry| *entry == 0) {
            directory.push(0u32);
            continue;
        }
        marker(&mut out, 4, 1);
        directory.push((out.len() / 512) as u32);
        table.iter().for_each(|entry| out.extend_from_slice(&entry.to_le_bytes()));
    }
    marker(&mut out, 1, 2);
    let at = (out.len() / 512) as u64;
    directory.iter().for_each(|entry| out.extend_from_slice(&entry.to_le_bytes()));
    out.resize(out.len().next_multiple_of(512), 0);
    marker(&mut out, 1, 3);
    out.extend_from_slice(&header(at));
    marker(&mut out, 0, 0);
    out
}

#[test]
fn every_kind_that_qemu_writes_gives_the_raw_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (size, seed) in [(24 * MIB + 512, 31), (40 * MIB, 32), (512, 33), (65536, 34)] {
        let data = patchwork(size, seed);
        fs::write(dir.path().join("raw"), &data).expect("write");
        let kinds: &[(&str, usize)] = &[
            ("subformat=monolithicSparse", 0),
            ("subformat=monolithicSparse,zeroed_grain=on", 0),
            ("subformat=monolithicSparse,adapter_type=lsilogic,hwversion=10", 0),
            ("subformat=monolithicSparse,compat6=on", 0),
            ("subformat=streamOptimized", 0),
            ("subformat=streamOptimized,adapter_type=buslogic", 0),
            ("subformat=monolithicFlat", 1),
            ("subformat=monolithicFlat,adapter_type=legacyESX", 1),
            ("subformat=twoGbMaxExtentSparse", 1),
            ("subformat=twoGbMaxExtentFlat", 1),
        ];
        for (kind, files) in kinds {
            let args = ["-O", "vmdk", "-o", kind];
            let Some(path) = image(dir.path(), "image.bin", &args, "raw") else { return };
            let container = opened(&path);
            assert_eq!(container.format, Format::Vmdk, "{kind}");
            assert_eq!(container.others().count(), *files, "{kind}");
            assert_same(&container, &data);
        }
    }
}

#[test]
fn zeros_written_into_a_disk_are_zeros() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (Some(qemu), Some(io)) = (tool("qemu-img", "zero grains"), tool("qemu-io", "zero grains"))
    else {
        return;
    };
    let options = "subformat=monolithicSparse,zeroed_grain=on";
    run(dir.path(), &qemu, &["create", "-q", "-f", "vmdk", "-o", options, "z.vmdk", "40M"]);
    let write = ["-f", "vmdk", "-c", "write -P 7 0 33M", "-c", "write -z 1M 2M", "z.vmdk"];
    run(dir.path(), &io, &write);
    let mut data = vec![7; 33 * MIB];
    data.resize(40 * MIB, 0);
    data[MIB..3 * MIB].fill(0);
    let container = opened(&dir.path().join("z.vmdk"));
    assert_same(&container, &data);
    let data = data_ranges(&*container.reader);
    assert!(data.iter().all(|r| r.end <= MIB as u64 || r.start >= 3 * MIB as u64), "{data:?}");
}

#[test]
fn a_big_sparse_disk_in_pieces_costs_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (Some(qemu), Some(io)) = (tool("qemu-img", "pieces"), tool("qemu-io", "pieces")) else {
        return;
    };
    for (kind, count) in
        [("twoGbMaxExtentSparse", 3), ("twoGbMaxExtentFlat", 3), ("monolithicSparse", 0)]
    {
        let options = format!("subformat={kind}");
        run(dir.path(), &qemu, &["create", "-q", "-f", "vmdk", "-o", &options, "b.vmdk", "5G"]);
        let write =
            ["-f", "vmdk", "-c", "write -P 9 2147418112 128k", "-c", "write -P 8 5368708608 512"];
        run(dir.path(), &io, &[&write[..], &["b.vmdk"]].concat());
        let container = opened(&dir.path().join("b.vmdk"));
        assert_eq!(container.others().count(), count);
        assert_eq!(container.reader.size(), 5 << 30);
        let mut buf = vec![1; 3 * 65536];
        container.reader.read_at(&mut buf, (2 << 30) - 2 * 65536).expect("it reads");
        assert!(buf[..65536].iter().all(|b| *b == 0) && buf[65536..].iter().all(|b| *b == 9));
        let ranges = data_ranges(&*container.reader);
        let sum: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        assert!(sum <= 3 * 65536, "{kind}: {ranges:?}");
        assert!(ranges.iter().any(|r| r.contains(&(5368708608))), "{kind}: {ranges:?}");
    }
}

#[test]
fn a_stream_with_its_directory_at_the_end_gives_the_raw_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("s.vmdk");
    // Beyond one grain table, with a cut last grain.
    let mut data = patchwork(6 * MIB + 512, 35);
    data.resize(64 * MIB, 0);
    data.extend(patchwork(3 * MIB + 1024, 36));
    let mut numbers = Numbers::new(37);
    let mut shuffle = |order: &mut Vec<usize>| {
        (1..order.len()).for_each(|i| order.swap(i, numbers.below(i as u64 + 1) as usize));
    };
    let orders: [Order<'_>; 3] = [&mut |_| {}, &mut |order| order.reverse(), &mut shuffle];
    for order in orders {
        fs::write(&path, stream(&data, order)).expect("write");
        assert_same(&opened(&path), &data);
        let Some(qemu) = tool("qemu-img", "stream") else { continue };
        fs::write(dir.path().join("raw"), &data).expect("write");
        run(dir.path(), &qemu, &["compare", "-f", "vmdk", "-F", "raw", "s.vmdk", "raw"]);
    }
}

#[test]
fn many_threads_read_one_stream_at_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("s.vmdk");
    let data = patchwork(9 * MIB, 38);
    fs::write(&path, stream(&data, &mut |_| {})).expect("write");
    let reader = opened(&path).reader;
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (reader, data) = (&reader, &data);
            scope.spawn(move || {
                let mut numbers = Numbers::new(seed);
                for _ in 0..300 {
                    let at = numbers.below(data.len() as u64) as usize;
                    let len = numbers.below(1 << 18).min((data.len() - at) as u64) as usize;
                    let mut buf = vec![1; len];
                    reader.read_at(&mut buf, at as u64).expect("it reads");
                    assert!(buf[..] == data[at..at + len]);
                }
            });
        }
    });
}

/// A good image, and a change to it.
fn changed(good: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = good.to_vec();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
fn each_damaged_field_of_a_sparse_disk_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    fs::write(dir.path().join("raw"), patchwork(40 * MIB, 41)).expect("write");
    let Some(made) = image(dir.path(), "d.vmdk", &["-O", "vmdk"], "raw") else { return };
    let good = fs::read(made).expect("read");
    let le64 = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().expect("eight")) as usize;
    let (copy, directory) = (le64(48) * 512, le64(56) * 512);
    let table = u32::from_le_bytes(good[directory..directory + 4].try_into().expect("four"));
    let table_at = table as usize * 512;
    let first = (0..512).map(|n| table_at + n * 4).find(|at| good[*at..*at + 4] != [0; 4]);
    let first = first.expect("data");
    let text = String::from_utf8_lossy(&good[512..1536]).into_owned();
    let word = |word: &str| 512 + text.find(word).expect("there");
    let cases: &[(Vec<u8>, &str)] = &[
        (changed(&good, 4, &9u32.to_le_bytes()), "version 9"),
        (changed(&good, 8, &0x103u32.to_le_bytes()), "flag bit 8"),
        (changed(&good, 8, &0x1_0003u32.to_le_bytes()), "disagree"),
        (changed(&good, 8, &0x2_0003u32.to_le_bytes()), "markers alone"),
        (changed(&good, 77, &1u16.to_le_bytes()), "disagree"),
        (changed(&good, 12, &(1u64 << 60).to_le_bytes()), "directory is outside"),
        (changed(&good, 20, &7u64.to_le_bytes()), "grains of 7 sectors"),
        (changed(&good, 20, &0u64.to_le_bytes()), "grains of 0 sectors"),
        (changed(&good, 20, &(1u64 << 40).to_le_bytes()), "grains of 1099511627776 sectors"),
        (changed(&good, 28, &0u64.to_le_bytes()), "one extent of a disk"),
        (changed(&good, 28, &(1u64 << 62).to_le_bytes()), "outside the file"),
        (changed(&good, 36, &(1u64 << 30).to_le_bytes()), "too big"),
        (changed(&good, 44, &1024u32.to_le_bytes()), "tables of 1024 entries"),
        (changed(&good, 48, &(1u64 << 40).to_le_bytes()), "directory is outside"),
        (changed(&good, 56, &(1u64 << 61).to_le_bytes()), "directory is outside"),
        (changed(&good, 56, &u64::MAX.to_le_bytes()), "no footer"),
        (changed(&good, 73, b" "), "text mode"),
        (changed(&good, directory, &u32::MAX.to_le_bytes()), "table outside the file"),
        (changed(&good, directory, &0u32.to_le_bytes()), "redundant one disagree"),
        (changed(&good, directory + 4, &table.to_le_bytes()), "same table"),
        (changed(&good, directory + 4, &(table + 1).to_le_bytes()), "same table"),
        (changed(&good, copy, &u32::MAX.to_le_bytes()), "redundant"),
        (changed(&good, first, &u32::MAX.to_le_bytes()), "disagree"),
        (changed(&good, word("SPARSE"), b"SESPAR"), "type `SESPAR`"),
        (changed(&good, word("ffffffff"), b"0badcafe"), "parentCID 0badcafe"),
        (changed(&good, word("monolithicSparse"), b"monolithicSpars3"), "createType"),
        (changed(&good, word("81920 "), b"81921 "), "descriptor 81921"),
        (changed(&good, word("version"), b"Version"), ""),
        (good[..good.len() - 65536].to_vec(), "outside the file"),
        (good[..100].to_vec(), "header"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        if word.is_empty() {
            opened(&path);
            continue;
        }
        let e = refused(&path, &Options::default());
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
    for (magic, word) in [(b"COWD\x01\0\0\0", "COWD"), (b"\xbe\xba\xfe\xca\0\0\0\0", "SESPARSE")] {
        fs::write(&path, changed(&good, 0, magic)).expect("write");
        assert!(refused(&path, &Options::default()).what().contains(word));
    }
}

#[test]
fn grains_that_share_their_bytes_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    let mut data = vec![5; 65536];
    data.resize(64 * MIB, 0);
    fs::write(dir.path().join("raw"), &data).expect("write");
    for kind in ["subformat=monolithicSparse", "subformat=streamOptimized"] {
        let args = ["-O", "vmdk", "-o", kind];
        let Some(made) = image(dir.path(), "d.vmdk", &args, "raw") else { return };
        let mut bytes = fs::read(made).expect("read");
        let le = |bytes: &[u8], at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize
        };
        for root in [48, 56] {
            for entry in 0..2 {
                let table = le(&bytes, le(&bytes, root) * 512 + entry * 4) * 512;
                let first = le(&bytes, le(&bytes, le(&bytes, root) * 512) * 512) as u32;
                for n in 0..512 {
                    bytes[table + n * 4..table + n * 4 + 4].copy_from_slice(&first.to_le_bytes());
                }
            }
        }
        fs::write(&path, &bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.to_string().contains("has room for"), "{kind}: {e}");
    }
}

#[test]
fn each_damaged_field_of_a_stream_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    let mut data = patchwork(3 * MIB, 42);
    data[..65536].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * at / 7) as u8);
    let good = stream(&data, &mut |_| {});
    let (end, grain) = (good.len(), 128 * 512);
    let cases: &[(Vec<u8>, &str)] = &[
        (good[..end - 512].to_vec(), "no footer"),
        (good[..end - 100].to_vec(), "ends before its footer"),
        (changed(&good, end - 1536 + 12, &2u32.to_le_bytes()), "no footer"),
        (changed(&good, end - 512 + 12, &1u32.to_le_bytes()), "no footer"),
        (changed(&good, end - 1024 + 12, &1u64.to_le_bytes()), "footer disagree"),
        (changed(&good, end - 1024 + 20, &64u64.to_le_bytes()), "footer disagree"),
        (changed(&good, end - 1024 + 56, &u64::MAX.to_le_bytes()), "does not say where"),
        (changed(&good, end - 1024 + 56, &(1u64 << 50).to_le_bytes()), "outside the file"),
        (changed(&good, grain, &1u64.to_le_bytes()), "the marker of sector 1"),
        (changed(&good, grain + 8, &0u32.to_le_bytes()), "packed length of 0"),
        (changed(&good, grain + 8, &u32::MAX.to_le_bytes()), "packed length of 4294967295"),
        (changed(&good, grain + 8, &20u32.to_le_bytes()), "cut short"),
        (changed(&good, grain + 12, &[0xff; 2]), "damaged"),
        (changed(&good, grain + 30, &[0xff; 8]), "cannot be unpacked"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        let read = || {
            let reader = open(&path, &Options::default())?.reader;
            reader.read_at(&mut vec![0; data.len()], 0)
        };
        let e = read().expect_err("it is damaged");
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
        // The same in small pieces, which go through the cache.
        if let Ok(container) = open(&path, &Options::default()) {
            assert!(container.reader.read_at(&mut [0; 100], 0).is_err(), "{word}");
        }
    }
}

/// A descriptor with these extent lines.
fn descriptor(dir: &Path, lines: &str) -> PathBuf {
    let head = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n";
    let path = dir.join("d.vmdk");
    fs::write(&path, format!("{head}createType=\"custom\"\n{lines}\n")).expect("write");
    path
}

#[test]
fn extents_are_joined_as_the_descriptor_says() {
    let dir = tempfile::tempdir().expect("tempdir");
    let flat = patchwork(MIB, 43);
    fs::write(dir.path().join("f"), &flat).expect("write");
    let lines = "RW 8 FLAT \"f\" 4\nRW 10 ZERO\nRDONLY 2 FLAT \"f\" 0\nRW 1 FLAT \"f\" 2047";
    let container = opened(&descriptor(dir.path(), lines));
    let mut data = flat[4 * 512..12 * 512].to_vec();
    data.extend([0; 5120]);
    data.extend(&flat[..1024]);
    data.extend(&flat[2047 * 512..]);
    assert_same(&container, &data);
    assert_eq!(container.others().collect::<Vec<_>>(), [dir.path().join("f")]);
    assert!(container.notes.iter().any(|note| note.contains("in one more file")));
    for (lines, word) in [
        ("RW 2049 FLAT \"f\" 0", "shorter than the descriptor says"),
        ("RW 1 FLAT \"f\" 18446744073709551615", "shorter than the descriptor says"),
        ("RW 8 FLAT \"f\" 0\nRW 8 FLAT \"f\" 7", "the same bytes of `f`"),
        ("RW 8 SPARSE \"f\"", "does not begin with a VMDK header"),
        ("RW 18446744073709551615 ZERO", "claims a disk of"),
        ("RW 9223372036854775808 ZERO\nRW 9223372036854775808 ZERO", "claims a disk of"),
    ] {
        let e = refused(&descriptor(dir.path(), lines), &Options::default());
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
}

#[test]
fn an_extent_alone_is_not_a_disk() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("raw"), patchwork(MIB, 44)).expect("write");
    let args = ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"];
    if image(dir.path(), "d.vmdk", &args, "raw").is_none() {
        return;
    }
    let e = refused(&dir.path().join("d-s001.vmdk"), &Options::default());
    assert!(e.what().contains("one extent of a disk"), "{e}");
    let text = fs::read_to_string(dir.path().join("d.vmdk")).expect("text");
    fs::write(dir.path().join("d.vmdk"), text.replace("RW 2048", "RW 2049")).expect("write");
    let e = refused(&dir.path().join("d.vmdk"), &Options::default());
    assert!(e.to_string().contains("which itself says 2048"), "{e}");
}

#[test]
fn a_descriptor_cannot_make_anyone_open_another_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    run(dir.path(), Path::new("mkfifo"), &["pipe"]);
    for name in ["pipe", "/etc/shadow", "../x", "nbd://127.0.0.1:1", "\\\\.\\PhysicalDrive0"] {
        let lines = format!("RW 8 FLAT \"{name}\" 0");
        let e = refused(&descriptor(dir.path(), &lines), &Options::default());
        assert!(e.what().contains("which was not opened"), "{name}: {e}");
        assert_eq!(e.kind(), Kind::Undetermined);
    }
    // A descriptor inside of a sparse file opens nothing at all.
    fs::write(dir.path().join("raw"), patchwork(MIB, 45)).expect("write");
    let Some(made) = image(dir.path(), "m.vmdk", &["-O", "vmdk"], "raw") else { return };
    let good = fs::read(made).expect("read");
    let text = String::from_utf8_lossy(&good[512..1024]).into_owned();
    let at = 512 + text.find("RW 2048").expect("there");
    for (line, word) in [
        ("RW 2048 FLAT \"raw\" 0\n#", "names another extent"),
        ("RW 8 ZERO\nRW 8 ZERO\n#", "names 2 extents"),
    ] {
        fs::write(dir.path().join("x"), changed(&good, at, line.as_bytes())).expect("write");
        let e = refused(&dir.path().join("x"), &Options::default());
        assert!(e.what().contains(word), "{e}");
    }
}

#[test]
fn one_changed_byte_is_an_error_or_data() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("damaged");
    let data = patchwork(2 * MIB, 46);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let made = stream(&data, &mut |_| {});
    let tail = made.len() - 5 * 1024..made.len();
    let noticed = one_byte_changed(&path, &made, &[0..1024, 65536..65600, tail], 300);
    assert!(noticed > 60, "{noticed}");
    for kind in ["subformat=monolithicSparse", "subformat=streamOptimized"] {
        let args = ["-O", "vmdk", "-o", kind];
        let Some(made) = image(dir.path(), "made", &args, "raw") else { return };
        let good = fs::read(made).expect("read");
        let noticed = one_byte_changed(&path, &good, &[0..80, 512..1024, 10752..20480], 300);
        assert!(noticed > 60, "{kind}: {noticed}");
    }
    // A descriptor: most bytes of it are a name or a number that decides.
    let args = ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"];
    let Some(made) = image(dir.path(), "d.vmdk", &args, "raw") else { return };
    let good = fs::read(made).expect("read");
    let noticed = one_byte_changed(&path, &good, &[0..20, 20..180], 300);
    assert!(noticed > 60, "{noticed}");
    fs::write(&path, &good).expect("write");
    read_all(&path).expect("undamaged");
}

#[test]
fn a_huge_claim_costs_no_memory_and_no_time() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    let good = stream(&[1; 65536], &mut |_| {});
    let sectors = (64u64 << 40) / 512;
    let mut huge = good.clone();
    let text = String::from_utf8_lossy(&good[512..1024]).into_owned();
    let claim = text.replace("RDONLY 128 ", &format!("RDONLY {sectors} "));
    huge[512..512 + claim.len().min(1024)].copy_from_slice(claim.as_bytes());
    for at in [12, good.len() - 1024 + 12] {
        huge[at..at + 8].copy_from_slice(&sectors.to_le_bytes());
    }
    fs::write(&path, &huge).expect("write");
    let e = refused(&path, &Options::default());
    assert!(e.to_string().contains("directory is outside the file"), "{e}");
    // With a sparse file behind it the directory is there: 8 MiB, all zeros.
    fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(1 << 40)).expect("size");
    let e = refused(&path, &Options::default());
    assert!(e.to_string().contains("no footer"), "{e}");
}
