//! Images made by `qemu-img`, and the same ones damaged.

use std::fs;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Backing, Container, Format, Options, open};
use crate::error::{Error, Kind};

use crate::image::oracle::{Numbers, contents, data_ranges, patchwork, run, tool};

const MIB: usize = 1 << 20;

pub(in crate::image::container) fn opened(path: &Path) -> Container {
    open(path, &Options::default()).expect("it opens")
}

pub(in crate::image::container) fn refused(path: &Path, options: &Options) -> Error {
    open(path, options).expect_err("it is refused")
}

pub(in crate::image::container) fn image(
    dir: &Path,
    name: &str,
    args: &[&str],
    raw: &str,
) -> Option<std::path::PathBuf> {
    let qemu = tool("qemu-img", "container")?;
    let mut all = vec!["convert", "-f", "raw"];
    all.extend(args);
    all.extend([raw, name]);
    run(dir, &qemu, &all);
    Some(dir.join(name))
}

/// Reads all that a container says may be data; errors are of kind `Undetermined`.
pub(in crate::image::container) fn read_all(path: &Path) -> Result<u64, Error> {
    let limits = crate::image::Limits { disk_size: 64 << 20, ..Default::default() };
    let read = || {
        let reader = open(path, &Options { limits, ..Options::default() })?.reader;
        let (mut at, mut sum) = (0, 0);
        while let Some(range) = reader.next_data(at)? {
            assert!(range.start >= at && range.start < range.end && range.end <= reader.size());
            let mut buf = vec![0; (range.end - range.start).min(1 << 20) as usize];
            reader.read_at(&mut buf, range.start)?;
            sum += buf.len() as u64;
            at = range.end;
        }
        Ok(sum)
    };
    let found = read();
    if let Err(e) = &found {
        let e: &Error = e;
        assert_eq!(e.kind(), Kind::Undetermined, "{e}");
    }
    found
}

/// Reads the image of `good` with one byte changed, `count` times; `tables` says where it is worth
/// while. Never a panic, never a hang; returns how many were noticed.
pub(in crate::image::container) fn one_byte_changed(
    path: &Path,
    good: &[u8],
    tables: &[std::ops::Range<usize>],
    count: usize,
) -> usize {
    let mut numbers = Numbers::new(good.len() as u64);
    let began = Instant::now();
    let mut noticed = 0;
    fs::write(path, good).expect("write");
    let file = fs::File::options().write(true).open(path).expect("open");
    for turn in 0..count {
        let range = if turn % 8 == 7 { 0..good.len() } else { tables[turn % tables.len()].clone() };
        let at = range.start + numbers.below(range.len() as u64) as usize;
        let byte = good[at] ^ (numbers.below(255) + 1) as u8;
        file.write_all_at(&[byte], at as u64).expect("write");
        noticed += usize::from(read_all(path).is_err());
        file.write_all_at(&good[at..=at], at as u64).expect("write");
    }
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    noticed
}

/// The reader gives `data`, in one piece and in odd ones, and no data range misses a byte.
pub(in crate::image::container) fn assert_same(container: &Container, data: &[u8]) {
    let reader = &*container.reader;
    assert_eq!(reader.size(), data.len() as u64);
    assert!(contents(reader) == data, "the contents differ");
    let mut numbers = Numbers::new(7);
    for _ in 0..200 {
        let at = numbers.below(data.len() as u64);
        let len = numbers.below(200_000).min(data.len() as u64 - at);
        let mut buf = vec![1; len as usize];
        reader.read_at(&mut buf, at).expect("it reads");
        assert!(buf[..] == data[at as usize..(at + len) as usize], "{len} bytes at {at} differ");
    }
    let mut covered = vec![0; data.len()];
    for range in data_ranges(reader) {
        let range = range.start as usize..range.end as usize;
        covered[range.clone()].copy_from_slice(&data[range]);
    }
    assert!(covered == data, "a hole holds data");
    assert!(reader.read_at(&mut [0], data.len() as u64).is_err());
    assert!(reader.read_at(&mut [0], u64::MAX).is_err());
}

#[test]
fn every_kind_of_qcow2_that_qemu_writes_gives_the_raw_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = patchwork(24 * MIB + 512, 1);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let kinds: &[&[&str]] = &[
        &["-O", "qcow2"],
        &["-O", "qcow2", "-o", "compat=0.10"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-c", "-o", "compat=0.10"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        &["-O", "qcow2", "-c", "-o", "cluster_size=2M"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=2M"],
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-c", "-o", "cluster_size=4096"],
        &["-O", "qcow2", "-o", "preallocation=metadata"],
        &["-O", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=1"],
        &["-O", "qcow2", "-S", "0"],
        &["-O", "qcow2", "-o", "cluster_size=2M"],
        &["-O", "qcow2", "-o", "extended_l2=on"],
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k"],
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=2M"],
        &["-O", "qcow2", "-c", "-o", "extended_l2=on"],
        &["-O", "qcow2", "-c", "-o", "extended_l2=on,compression_type=zstd,cluster_size=128k"],
        &["-O", "qcow2", "-o", "extended_l2=on,preallocation=metadata"],
        &["-O", "qcow2", "-o", "refcount_bits=64,cluster_size=1M"],
    ];
    for args in kinds {
        let Some(path) = image(dir.path(), "image.bin", args, "raw") else { return };
        let container = opened(&path);
        assert_eq!(container.format, Format::Qcow2, "{args:?}");
        assert_same(&container, &data);
    }
}

#[test]
fn holes_of_a_sparse_disk_cost_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(qemu) = tool("qemu-img", "holes") else { return };
    run(dir.path(), &qemu, &["create", "-q", "-f", "qcow2", "big.qcow2", "60T"]);
    fs::File::create(dir.path().join("big.raw")).and_then(|f| f.set_len(1 << 40)).expect("file");
    for name in ["big.qcow2", "big.raw"] {
        let began = Instant::now();
        assert_eq!(data_ranges(&*opened(&dir.path().join(name)).reader), []);
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
    }
    // One byte at the end of a sparse file is found, and nothing else.
    let file = fs::File::options().write(true).open(dir.path().join("big.raw")).expect("open");
    std::os::unix::fs::FileExt::write_at(&file, b"x", (1 << 40) - 1).expect("write");
    let ranges = data_ranges(&*opened(&dir.path().join("big.raw")).reader);
    assert_eq!(ranges.len(), 1);
    assert!(ranges[0].contains(&((1 << 40) - 1)) && ranges[0].start > (1 << 39), "{ranges:?}");
}

#[test]
fn other_formats_are_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("raw"), patchwork(MIB, 4)).expect("write");
    let Some(path) = image(dir.path(), "other", &["-O", "vdi"], "raw") else { return };
    let e = refused(&path, &Options::default());
    assert!(e.what().contains("VDI") && e.kind() == Kind::Undetermined, "{e}");
    fs::write(dir.path().join("empty"), b"").expect("write");
    assert!(refused(&dir.path().join("empty"), &Options::default()).what().contains("empty"));
    assert!(refused(dir.path(), &Options::default()).what().contains("not a disk image"));
}

#[test]
fn a_backing_file_is_read_only_where_it_is_allowed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| dir.path().join(name);
    let Some(qemu) = tool("qemu-img", "backing files") else { return };
    let mut data = patchwork(8 * MIB, 5);
    fs::create_dir(at("base")).expect("mkdir");
    fs::write(at("base/raw"), &data).expect("write");
    let convert = ["convert", "-f", "raw", "-O", "qcow2", "-c", "base/raw", "base/base.qcow2"];
    run(dir.path(), &qemu, &convert);
    let create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "../base/base.qcow2"];
    fs::create_dir(at("top")).expect("mkdir");
    run(dir.path(), &qemu, &[&create[..], &["top/top.qcow2", "10M"]].concat());
    if let Some(io) = tool("qemu-io", "backing files") {
        run(
            dir.path(),
            &io,
            &["-c", "write -P 7 1000000 70000", "-c", "write -z 3M 1M", "top/top.qcow2"],
        );
        data[1_000_000..1_070_000].fill(7);
        data[3 * MIB..4 * MIB].fill(0);
    }
    data.resize(10 * MIB, 0);
    let within = |names: &[&str]| Options {
        backing: Backing::Within(names.iter().map(|n| at(n)).collect()),
        ..Options::default()
    };
    let container = open(&at("top/top.qcow2"), &within(&["base"])).expect("allowed");
    assert_same(&container, &data);
    let base = at("base/base.qcow2").canonicalize().expect("there");
    assert_eq!(container.others().collect::<Vec<_>>(), [base]);

    let e = refused(&at("top/top.qcow2"), &Options::default());
    assert!(e.what().contains("`../base/base.qcow2`, which was not opened"), "{e}");
    assert_eq!(e.kind(), Kind::Undetermined);
    let e = refused(&at("top/top.qcow2"), &within(&["top"]));
    assert!(e.to_string().contains("outside the folders"), "{e}");

    // A link inside an allowed folder does not lead out of it.
    std::os::unix::fs::symlink(at("base/base.qcow2"), at("top/inside.qcow2")).expect("link");
    run(dir.path(), &qemu, &["rebase", "-u", "-F", "qcow2", "-b", "inside.qcow2", "top/top.qcow2"]);
    refused(&at("top/top.qcow2"), &within(&["top"]));

    // An image that is its own backing file ends in an error.
    run(dir.path(), &qemu, &["rebase", "-u", "-F", "qcow2", "-b", "top.qcow2", "top/top.qcow2"]);
    let e = refused(&at("top/top.qcow2"), &within(&["top"]));
    assert!(e.what().contains("does not end"), "{e}");
}

#[test]
fn a_refused_backing_file_is_never_touched() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(qemu) = tool("qemu-img", "refused backing file") else { return };
    let pipe = dir.path().join("pipe");
    run(dir.path(), Path::new("mkfifo"), &["pipe"]);
    let args = [
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        pipe.to_str().expect("utf-8"),
        "top.qcow2",
        "1M",
    ];
    run(dir.path(), &qemu, &args);
    // Someone who writes to a pipe waits until a reader opens it, or is told at once that there is none.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("small");
    let reader_there =
        || fs::File::options().write(true).custom_flags(nonblock).open(&pipe).is_ok();
    let waiting = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::File::options().write(true).open(pipe)
    });
    std::thread::sleep(Duration::from_millis(100));
    let e = refused(&dir.path().join("top.qcow2"), &Options::default());
    assert!(e.what().contains("which was not opened"), "{e}");
    assert!(!reader_there() && !waiting.is_finished(), "the backing file was opened");
    // A reader lets the writer go; it stays open until the writer has gone, or has not come yet.
    let reader = fs::File::options().read(true).custom_flags(nonblock).open(&pipe).expect("open");
    waiting.join().expect("joins").expect("opened");
    drop(reader);

    for name in ["json:{\"driver\":\"null-co\"}", "nbd://127.0.0.1:9/x"] {
        let args =
            ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, "odd.qcow2", "1M"];
        run(dir.path(), &qemu, &args);
        refused(&dir.path().join("odd.qcow2"), &Options::default());
        let within = Options { backing: Backing::Within(vec!["/".into()]), ..Options::default() };
        let e = refused(&dir.path().join("odd.qcow2"), &within);
        assert!(e.to_string().contains("not a plain path"), "{e}");
    }
}

#[test]
fn features_that_are_not_read_are_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(qemu) = tool("qemu-img", "unread features") else { return };
    let cases: &[(&[&str], &str)] = &[
        (&["-o", "data_file=outside.raw"], "external data file `outside.raw`"),
        (&["-o", "data_file=outside.raw,data_file_raw=on"], "external data file `outside.raw`"),
    ];
    for (args, word) in cases {
        run(
            dir.path(),
            &qemu,
            &[&["create", "-q", "-f", "qcow2"], *args, &["x.qcow2", "4M"]].concat(),
        );
        let e = refused(&dir.path().join("x.qcow2"), &Options::default());
        assert!(e.what().contains(word) && e.kind() == Kind::Undetermined, "{e}");
    }
    // Encryption by its field in the header: `qemu-img` gives up making a LUKS disk where the time
    // of its processor is short.
    run(dir.path(), &qemu, &["create", "-q", "-f", "qcow2", "y.qcow2", "4M"]);
    let path = dir.path().join("y.qcow2");
    let good = fs::read(&path).expect("read");
    for (byte, bit, word) in [
        (35, 0, "encryption (AES)"),
        (35, 1, "encryption (LUKS)"),
        (79, 1, "corrupt"),
        (78, 0, "unknown feature bit 8"),
        (72, 7, "unknown feature bit 63"),
    ] {
        let mut bytes = good.clone();
        bytes[byte] |= 1 << bit;
        fs::write(&path, &bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.what().contains(word), "{e}");
    }
    let mut dirty = good;
    dirty[79] |= 1;
    fs::write(&path, &dirty).expect("write");
    assert!(opened(&path).notes[0].contains("not closed properly"));
    run(dir.path(), &qemu, &["snapshot", "-c", "s", "y.qcow2"]);
    assert!(opened(&path).notes.iter().any(|n| n.starts_with("1 internal snapshot")));
}

/// Writes of odd sizes, zeros and discards inside of subclusters, over a backing file that shows
/// through, as `qemu-img convert` sees it.
#[test]
fn subclusters_are_read_as_qemu_reads_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| dir.path().join(name);
    let (Some(qemu), Some(io)) = (tool("qemu-img", "subclusters"), tool("qemu-io", "subclusters"))
    else {
        return;
    };
    fs::write(at("base"), patchwork(5 * MIB, 10)).expect("write");
    let mut numbers = Numbers::new(11);
    for options in ["extended_l2=on", "extended_l2=on,cluster_size=16k", "cluster_size=4k"] {
        let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base", "-o", options];
        run(dir.path(), &qemu, &[&create[..], &["top", "8M"]].concat());
        let mut script = String::new();
        for _ in 0..120 {
            let from = numbers.below(8 * 2048) * 512;
            let len = ((numbers.below(160) + 1) * 512).min(8 * MIB as u64 - from);
            script += &match numbers.below(5) {
                0 => format!("write -z {from} {len}\n"),
                1 => format!("write -z -u {from} {len}\n"),
                2 => format!("discard {from} {len}\n"),
                _ => format!("write -P {} {from} {len}\n", numbers.below(255) + 1),
            };
        }
        fs::write(at("script"), script).expect("write");
        let command = format!("{} -f qcow2 -d unmap top < script > log", io.display());
        run(dir.path(), Path::new("sh"), &["-ec", &command]);
        run(dir.path(), &qemu, &["convert", "-f", "qcow2", "-O", "raw", "top", "flat"]);
        let within = Backing::Within(vec![dir.path().to_path_buf()]);
        let options = Options { backing: within, ..Options::default() };
        let container = open(&at("top"), &options).expect("allowed");
        assert_same(&container, &fs::read(at("flat")).expect("read"));
    }
}

#[test]
fn snapshots_and_bitmaps_are_said_and_left_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(qemu) = tool("qemu-img", "snapshots and bitmaps") else { return };
    let data = patchwork(2 * MIB, 12);
    fs::write(dir.path().join("raw"), &data).expect("write");
    let Some(path) = image(dir.path(), "x.qcow2", &["-O", "qcow2"], "raw") else { return };
    run(dir.path(), &qemu, &["snapshot", "-c", "first", "x.qcow2"]);
    run(dir.path(), &qemu, &["bitmap", "--add", "x.qcow2", "b"]);
    let container = opened(&path);
    assert_same(&container, &data);
    let expected = [
        "1 internal snapshots of the image are not looked at",
        "1 bitmaps of the image are not looked at",
    ];
    assert_eq!(container.notes, expected);
}

/// An image that came packed has no files beside it, even where backing files are allowed.
#[test]
fn a_packed_image_names_no_other_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (Some(qemu), Some(tar)) =
        (tool("qemu-img", "packed overlay"), tool("tar", "packed overlay"))
    else {
        return;
    };
    fs::write(dir.path().join("base"), patchwork(MIB, 13)).expect("write");
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base", "top.qcow2"];
    run(dir.path(), &qemu, &create);
    run(dir.path(), &tar, &["-cf", "top.tar", "top.qcow2"]);
    let within = Backing::Within(vec![dir.path().to_path_buf()]);
    let options = Options { backing: within, ..Options::default() };
    open(&dir.path().join("top.qcow2"), &options).expect("allowed");
    let e = refused(&dir.path().join("top.tar"), &options);
    assert!(e.to_string().contains("must be whole in itself"), "{e}");
}

#[test]
fn impossible_headers_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x");
    fs::write(dir.path().join("raw"), patchwork(2 * MIB, 6)).expect("write");
    let Some(made) = image(dir.path(), "x.qcow2", &["-O", "qcow2"], "raw") else { return };
    let good = fs::read(made).expect("read");
    let l1 = u64::from_be_bytes(good[40..48].try_into().expect("eight")) as usize;
    let with = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let cases: &[(Vec<u8>, &str)] = &[
        (with(24, &(1u64 << 60).to_be_bytes()), "claims a disk of 1152921504606846976 bytes"),
        (with(24, &(1u64 << 40).to_be_bytes()), "too small"),
        (with(36, &u32::MAX.to_be_bytes()), "bigger than 32 MiB"),
        (with(40, &(1u64 << 40).to_be_bytes()), "outside the file"),
        (with(40, &(!0xffff_u64).to_be_bytes()), "outside the file"),
        (with(20, &40u32.to_be_bytes()), "clusters of 2^40"),
        (with(l1, &(0x0080_0000_0000_0000u64).to_be_bytes()), "outside the file"),
        (with(4, &9u32.to_be_bytes()), "version 9"),
        (good[..60].to_vec(), "inside the header"),
        (good[..l1].to_vec(), "outside the file"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).expect("write");
        let e = refused(&path, &Options::default());
        assert!(e.to_string().contains(word) && e.kind() == Kind::Undetermined, "{word}: {e}");
    }
    // Cut in the middle of its data: it opens, and reading says what is missing.
    fs::write(&path, &good[..good.len() - 100_000]).expect("write");
    let cut = opened(&path);
    let mut all = vec![0; 2 * MIB];
    let e = cut.reader.read_at(&mut all, 0).expect_err("bytes are missing");
    assert!(e.to_string().contains("outside the file") && e.kind() == Kind::Undetermined, "{e}");
}

/// Thousands of damaged images: an error or data, never a panic, never a hang.
#[test]
fn damage_anywhere_is_an_error_or_data() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("raw"), patchwork(MIB, 8)).expect("write");
    let path = dir.path().join("damaged");
    let kinds: [&[&str]; 5] = [
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-o", "extended_l2=on"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
    ];
    let mut numbers = Numbers::new(9);
    let began = Instant::now();
    let mut errors = 0;
    for args in kinds {
        let Some(made) = image(dir.path(), "made", args, "raw") else { return };
        let good = fs::read(made).expect("read");
        let tables = good.len().min(300_000) as u64;
        for _ in 0..800 {
            let mut bytes = good.clone();
            for _ in 0..=numbers.below(6) {
                let at = match numbers.below(4) {
                    0 => numbers.below(112),
                    1 => bytes.len() as u64 - 1 - numbers.below(512),
                    _ => numbers.below(tables),
                };
                bytes[at as usize] =
                    if numbers.below(2) == 0 { 0xff } else { numbers.next() as u8 };
            }
            if numbers.below(4) == 0 {
                bytes.truncate(numbers.below(good.len() as u64) as usize);
            }
            fs::write(&path, &bytes).expect("write");
            let limits = crate::image::Limits { disk_size: 64 << 20, ..Default::default() };
            let options = Options { limits, ..Options::default() };
            let read = || {
                let reader = open(&path, &options)?.reader;
                let mut at = 0;
                while let Some(range) = reader.next_data(at)? {
                    let mut buf = vec![0; (range.end - range.start).min(1 << 20) as usize];
                    reader.read_at(&mut buf, range.start)?;
                    at = range.end;
                }
                Ok::<_, Error>(())
            };
            if let Err(e) = read() {
                errors += 1;
                assert_eq!(e.kind(), Kind::Undetermined, "{e}");
            }
        }
    }
    assert!(errors > 800, "only {errors} of 4000 were noticed");
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}
