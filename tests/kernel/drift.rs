//! What a machine changed, found by the layer above its image, against a comparison that hashes
//! everything of both.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use devbox::image::Limits;
use devbox::image::container::qcow2::Layers;
use devbox::image::container::{self, Backing, Options};
use devbox::image::disk::Disk;
use devbox::image::slice::Whole;
use devbox::image::tree::{NodeKind, Stretch};
use devbox::parity::before::Before;
use devbox::parity::bytes::Chunks;
use devbox::parity::content::Content;
use devbox::parity::drift::{Drift, Found};
use devbox::parity::subject::Reference;
use devbox::parity::{Level, compare};

use super::campaign::{Ending, keep};
use super::mounted::{self, Mounted, copy, run, text};
use super::numbers::Numbers;
use super::operations::Playground;
use super::overlay;

/// Kind, options, program that makes it.
type Shape = (&'static str, &'static str, &'static [&'static str]);

const SHAPES: &[Shape] = &[
    ("ext4", "discard", &["mke2fs", "-q", "-F", "-t", "ext4"]),
    ("ext4", "data=journal", &["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024"]),
    ("xfs", "discard", &["mkfs.xfs", "--unsupported", "-q"]),
    ("ext4", "discard", &["mke2fs", "-q", "-F", "-t", "ext4", "-O", "inline_data,ea_inode"]),
    ("btrfs", "discard", &["mkfs.btrfs", "-q"]),
    ("ext4", "data=writeback", &["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^extent,^64bit"]),
    ("xfs", "discard", &["mkfs.xfs", "--unsupported", "-q", "-b", "size=1024", "-m", "rmapbt=1"]),
    ("btrfs", "discard,compress=zstd", &["mkfs.btrfs", "-q"]),
    ("ext4", "", &["mke2fs", "-q", "-F", "-t", "ext4", "-O", "bigalloc", "-C", "16384"]),
    ("ext4", "discard", &["mke2fs", "-q", "-F", "-t", "ext3"]),
];
const ENDINGS: &[Ending] = &[Ending::Clean, Ending::Copied, Ending::Cut, Ending::CutAfterLog];
/// How many workloads there are.
const WORKLOADS: u64 = 80;
const SIZE: u64 = 128 << 20;

#[test]
fn eighty_workloads_changed_what_a_full_comparison_says() {
    let test = "eighty_workloads_changed_what_a_full_comparison_says";
    let programs =
        ["mke2fs", "mkfs.xfs", "mkfs.btrfs", "losetup", "xfs_io", "cp", "qemu-img", "sfdisk"];
    if ["ext4", "xfs", "btrfs"].iter().any(|kind| !mounted::possible(test, kind, &programs)) {
        return;
    }
    let only = std::env::var("DEVBOX_KERNEL_SEED").ok();
    let only = only.map(|seed| seed.parse::<u64>().expect("DEVBOX_KERNEL_SEED is a number"));
    let (next, read, files) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(vec![]);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= WORKLOADS {
                break;
            }
            if only.is_some_and(|only| only != seed) {
                continue;
            }
            let one = || workload(seed);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one));
            match done.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
                Ok(found) => {
                    read.fetch_add(found.read as u64, Ordering::Relaxed);
                    files.fetch_add(found.differences.len() as u64, Ordering::Relaxed);
                }
                Err(why) => failures.lock().expect("whole").push(format!("seed {seed}: {why}")),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failures = failures.into_inner().expect("whole");
    eprintln!(
        "{test}: {} changed places; {} files were read to tell",
        files.into_inner(),
        read.into_inner()
    );
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// An image, a random workload on it, and what is found of it.
fn workload(seed: u64) -> Result<Found, String> {
    let (kind, options, mkfs) = SHAPES[(seed % SHAPES.len() as u64) as usize];
    let ending = match (kind, ENDINGS[(seed / SHAPES.len() as u64 % 4) as usize]) {
        // What an fsync left in the log tree is refused.
        ("btrfs", _) => Ending::Clean,
        (_, ending) => ending,
    };
    // ext4 that is shut down ends its transaction as if it were written, and discards blocks that it freed: then they
    // are gone on the disk, where the file that had them is still there. e2fsck says so, too. No power cut does that.
    let options = match (kind, ending) {
        ("ext4", Ending::Cut) => options.trim_start_matches("discard"),
        _ => options,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("fs");
    let file = std::fs::File::create(&image).expect("an image");
    file.set_len(SIZE).expect("a sparse file");
    drop(file);
    let (program, args) = mkfs.split_first().expect("a program");
    run(program, &[args, &[text(&image)]].concat());
    let mut numbers = Numbers::new(seed + 1000);
    {
        let mounted = Mounted::new(kind, &image, &folder.path().join("m"), options, true);
        let etc = mounted.root.join("etc");
        std::fs::create_dir(&etc).expect("it makes");
        std::fs::write(etc.join("os-release"), "ID=lab\n").expect("it writes");
        Playground::new(&mounted.root, Numbers::new(seed)).play(250);
    }
    let sealed = folder.path().join("sealed");
    copy(&image, &sealed);
    let mounted = Mounted::new(kind, &image, &folder.path().join("m"), options, true);
    let mut playground = Playground::resume(&mounted.root, Numbers::new(seed + 500));
    let count = numbers.below(200);
    playground.play(count);
    let copied = folder.path().join("copied");
    match ending {
        Ending::Clean => {}
        Ending::Cut => mounted.shut_down(false),
        Ending::CutAfterLog => mounted.shut_down(true),
        Ending::Copied => copy(&image, &copied),
    }
    drop(playground);
    drop(mounted);
    if ending == Ending::Copied {
        std::fs::rename(&copied, &image).expect("the same folder");
    }
    // Half of them are partitions, which need not start where a block of 4 KiB does.
    let (sealed, image) = match seed % 2 {
        0 => (sealed, image),
        _ => {
            let start = 2048 + numbers.below(20);
            (in_partition(&sealed, start), in_partition(&image, start))
        }
    };
    check(folder.path(), &sealed, &image, &mut numbers).map_err(|why| {
        let kept = [("old", &sealed), ("new", &image)]
            .map(|(which, path)| keep(&format!("drift-{which}"), seed, path));
        format!("{why}\n  kept as {}", kept.join(" and "))
    })
}

/// The same in the first partition of a disk.
fn in_partition(fs: &Path, start: u64) -> PathBuf {
    let disk = fs.with_extension("disk");
    let file = std::fs::File::create(&disk).expect("a disk");
    file.set_len(SIZE + (4 << 20)).expect("a sparse file");
    let script = format!(
        "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nunit: sectors\n\
         start={start}, size={}, uuid=11111111-2222-3333-4444-666666666666\n",
        SIZE / 512
    );
    let at = fs.with_extension("script");
    std::fs::write(&at, script).expect("it writes");
    run("sh", &["-ec", &format!("sfdisk -q '{}' < '{}'", text(&disk), text(&at))]);
    let seek = format!("seek={start}");
    let (from, to) = (format!("if={}", text(fs)), format!("of={}", text(&disk)));
    run("dd", &[&from, &to, "bs=512", &seek, "conv=notrunc,sparse", "status=none"]);
    disk
}

/// Both ways must find the same.
fn check(folder: &Path, old: &Path, new: &Path, numbers: &mut Numbers) -> Result<Found, String> {
    let base = folder.join("base.qcow2");
    run("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", text(old), text(&base)]);
    let layer = folder.join("layer.qcow2");
    overlay::write(old, new, &base, &layer, numbers);
    // The layer is sound, and shows a guest what it should.
    let flat = folder.join("flat");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&layer), text(&flat)]);
    run("cmp", &[text(new), text(&flat)]);

    let limits = Limits::default();
    let reference = |path: &Path| Reference::parse(OsStr::new(path));
    let full = compare::compare(&reference(old), &reference(new), Level::Content, &limits);
    let full = full.map_err(|e| format!("the full comparison: {e}"))?.differences;
    let options =
        Options { backing: Backing::Within(vec![folder.to_path_buf()]), ..Options::default() };
    let found = Layers::open(&layer, &options)
        .and_then(|layers| Drift::open(&base, &layers, &options)?.find())
        .map_err(|e| format!("drift: {e}"))?;
    stretches(&layer, &options).map_err(|e| format!("places of contents: {e}"))?;
    again(&base, &layer, &options)?;
    let lines = |all: &[devbox::parity::difference::Difference]| -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    };
    let (ours, theirs) = (lines(&found.differences), lines(&full));
    if ours == theirs {
        return Ok(found);
    }
    let missed: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).take(10).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).take(10).collect();
    Err(format!("missed {missed:#?}, and told for nothing {extra:#?}"))
}

/// What was known of the image, and what the layer has, give the digests of all that a guest sees.
fn again(base: &Path, layer: &Path, options: &Options) -> Result<(), String> {
    let open = |path: &Path| {
        let mut container = container::open(path, options)?;
        container.reader = Arc::new(Whole(container.reader));
        Disk::read(container, &options.limits)
    };
    let both = || {
        let changed = Layers::open(layer, options)?.uppermost()?;
        let after = Before::read(&open(base)?)?.after(changed);
        let now = open(layer)?;
        let quick = (after.bytes(&*now.container.reader)?, after.content(&now)?.digest());
        let full = (Chunks::read(&*now.container.reader)?.digest(), Content::read(&now)?.digest());
        Ok::<_, devbox::error::Error>((quick, full))
    };
    let (quick, full) = both().map_err(|e| format!("what changed alone: {e}"))?;
    if quick != full {
        return Err(format!("what changed alone gives {quick:?}, all of it {full:?}"));
    }
    Ok(())
}

/// The contents of each file are what stands where its reader says that they are.
fn stretches(layer: &Path, options: &Options) -> Result<(), String> {
    let text = |e: devbox::error::Error| e.to_string();
    let disk = Disk::open(layer, options).map_err(text)?;
    for at in disk.filesystems() {
        for node in at.filesystem.tree().map_err(text)?.nodes {
            let NodeKind::File { size, .. } = node.kind else { continue };
            let Some(stretches) = at.filesystem.stretches(&node).map_err(text)? else { continue };
            let mut whole = vec![0; usize::try_from(size).expect("small")];
            for Stretch { start, place } in stretches {
                let from = usize::try_from(start).expect("small");
                let length = (whole.len() - from).min((place.end - place.start) as usize);
                at.reader.read_at(&mut whole[from..from + length], place.start).map_err(text)?;
            }
            let mut read = vec![];
            let taken = at.filesystem.read_file(&node, &mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            });
            taken.map_err(text)?;
            if read != whole {
                return Err(format!("`{}` reads otherwise", node.name.escape_ascii()));
            }
        }
    }
    Ok(())
}

#[test]
fn a_layer_that_only_repeats_the_image_is_clean_and_nothing_is_read() {
    let test = "a_layer_that_only_repeats_the_image_is_clean_and_nothing_is_read";
    if !mounted::possible(test, "ext4", &["mke2fs", "qemu-img", "cp"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("fs");
    let file = std::fs::File::create(&image).expect("an image");
    file.set_len(SIZE).expect("a sparse file");
    run("mke2fs", &["-q", "-F", "-t", "ext4", text(&image)]);
    {
        let mounted = Mounted::new("ext4", &image, &folder.path().join("m"), "", true);
        std::fs::create_dir(mounted.root.join("etc")).expect("it makes");
        std::fs::write(mounted.root.join("etc/os-release"), "ID=lab\n").expect("it writes");
        Playground::new(&mounted.root, Numbers::new(7)).play(300);
    }
    let found = check(folder.path(), &image, &image, &mut Numbers::new(3)).expect("the same");
    assert_eq!((found.differences.len(), found.read, found.bytes), (0, 0, 0));
}
