//! Many images of one type of filesystem, each made by random operations from a seed, compared with
//! the kernel.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use devbox::image::Limits;
use devbox::image::container::Options;
use devbox::image::directory::Directory;
use devbox::image::disk::Disk;
use devbox::parity::difference::Differences;
use devbox::parity::hashed::Hashed;
use devbox::parity::trees;

use super::mounted::{self, Mounted, copy, run, text};
use super::numbers::Numbers;
use super::operations::Playground;

/// How the writing ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Unmounted.
    Clean,
    /// Cut off; what was not synced may be lost (ext4, XFS).
    Cut,
    /// Cut off after the log was written (ext4, XFS).
    CutAfterLog,
    /// The image file was copied while it was mounted and nothing wrote: as after a power cut.
    Copied,
}

/// One way to make a filesystem.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Program and arguments; the image's path is put behind them.
    pub(crate) mkfs: &'static [&'static str],
    /// Options of both mounts, comma between.
    pub(crate) options: &'static str,
    /// Bytes of the image.
    pub(crate) size: u64,
    /// How the writing ends.
    pub(crate) ending: Ending,
    /// What else to do on the fresh mount, before the operations.
    pub(crate) prepare: Option<fn(&Path, &mut Numbers)>,
}

impl Shape {
    /// 64 MiB, no options, unmounted.
    pub(crate) const fn new(mkfs: &'static [&'static str]) -> Self {
        Shape { mkfs, options: "", size: 64 << 20, ending: Ending::Clean, prepare: None }
    }

    pub(crate) const fn options(mut self, options: &'static str) -> Self {
        self.options = options;
        self
    }

    pub(crate) const fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    pub(crate) const fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    pub(crate) const fn prepare(mut self, prepare: fn(&Path, &mut Numbers)) -> Self {
        self.prepare = Some(prepare);
        self
    }
}

/// A type of filesystem, and how it is tested.
pub(crate) struct Campaign<'a> {
    /// Name of the test.
    pub(crate) test: &'static str,
    /// The kernel's name of the type.
    pub(crate) kind: &'static str,
    /// Programs that are needed besides `mount`'s.
    pub(crate) programs: &'a [&'a str],
    /// The ways to make it; image `i` is made in the `i`-th way, counted around.
    pub(crate) shapes: &'a [Shape],
    /// Number of images.
    pub(crate) images: u64,
    /// Operations an image.
    pub(crate) operations: u64,
}

impl Campaign<'_> {
    /// Makes and compares all images, two at a time; panics with every failure and its seed.
    pub(crate) fn run(&self) {
        let programs = [self.programs, &["losetup", "xfs_io", "cp"]].concat();
        if !mounted::possible(self.test, self.kind, &programs) {
            return;
        }
        let only = std::env::var("DEVBOX_KERNEL_SEED")
            .ok()
            .map(|seed| seed.parse::<u64>().expect("DEVBOX_KERNEL_SEED is a number"));
        let began = Instant::now();
        let (next, worked) = (AtomicU64::new(0), AtomicU64::new(0));
        let failures = Mutex::new(vec![]);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.images {
                    break;
                }
                if only.is_some_and(|only| only != seed) {
                    continue;
                }
                // A panic in one image must not hide the others.
                let shape = &self.shapes[(seed % self.shapes.len() as u64) as usize];
                let one = || self.one(seed, shape);
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one));
                match done.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
                    Ok(operations) => worked.fetch_add(operations, Ordering::Relaxed),
                    Err(why) => {
                        let failure = format!("seed {seed}, {shape:?}: {why}");
                        failures.lock().expect("no panic while it is held").push(failure);
                        0
                    }
                };
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        let failures = failures.into_inner().expect("no panic while it is held");
        let worked = worked.into_inner();
        eprintln!(
            "{}: {} images of {} shapes, {worked} operations that worked, {:.1} s",
            self.test,
            if only.is_some() { 1 } else { self.images },
            self.shapes.len(),
            began.elapsed().as_secs_f32()
        );
        assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
        // Operations may fail, on a full disk or a protected file; if most did, nothing was tested.
        let asked = if only.is_some() { self.operations } else { self.images * self.operations };
        assert!(worked * 2 > asked, "only {worked} of {asked} operations worked");
    }

    /// One image; how many of its operations worked, or what is wrong.
    fn one(&self, seed: u64, shape: &Shape) -> Result<u64, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        let worked = self.make(seed, shape, folder.path(), &image);
        compare(self.kind, shape.options, &image, folder.path())
            .map(|()| worked)
            .map_err(|why| format!("{why}\n  image kept: {}", keep(self.test, seed, &image)))
    }

    fn make(&self, seed: u64, shape: &Shape, folder: &Path, image: &Path) -> u64 {
        let file = std::fs::File::create(image).expect("an image");
        file.set_len(shape.size).expect("a sparse file");
        let (program, args) = shape.mkfs.split_first().expect("a program");
        run(program, &[args, &[text(image)]].concat());
        let mounted = Mounted::new(self.kind, image, &folder.join("made"), shape.options, true);
        let mut numbers = Numbers::new(seed);
        if let Some(prepare) = shape.prepare {
            prepare(&mounted.root, &mut numbers);
        }
        let mut playground = Playground::new(&mounted.root, numbers);
        let worked = playground.play(self.operations);
        let copied = folder.join("copied");
        // Files without a name that are still open are orphans in what is cut off here; what is
        // unmounted has closed them.
        match shape.ending {
            Ending::Clean => {}
            Ending::Cut => mounted.shut_down(false),
            Ending::CutAfterLog => mounted.shut_down(true),
            Ending::Copied => copy(image, &copied),
        }
        drop(playground);
        drop(mounted);
        if shape.ending == Ending::Copied {
            std::fs::rename(copied, image).expect("the same folder");
        }
        worked
    }
}

/// Fails unless devbox and the kernel see the same files in `image`, which is not written to.
pub(crate) fn compare(
    kind: &str,
    options: &str,
    image: &Path,
    folder: &Path,
) -> Result<(), String> {
    let ours = read(image).map_err(|e| format!("devbox: {e}"))?;
    let copied = folder.join("kernel-copy");
    copy(image, &copied);
    let mounted = Mounted::new(kind, &copied, &folder.join("kernel"), options, false);
    let limits = Limits::default();
    let theirs = Directory::open(&mounted.root, &limits).and_then(|d| Hashed::read(&d, &limits));
    let theirs = theirs.map_err(|e| format!("the kernel's mount: {e}"))?;
    drop(mounted);
    std::fs::remove_file(copied).expect("my own file");
    if (ours.tree1(), ours.links1()) == (theirs.tree1(), theirs.links1()) {
        return Ok(());
    }
    let mut differences = Differences::default();
    let scope = trees::Scope { root: true, ..trees::Scope::default() };
    trees::compare(&ours, &theirs, scope, &mut differences);
    let all = differences.sorted();
    let mut text = format!("{} differences, devbox -> kernel", all.len());
    for one in all.iter().take(20) {
        text += &format!("\n  {one}");
    }
    Err(text)
}

fn read(image: &Path) -> devbox::error::Result<Hashed> {
    let disk = Disk::open(image, &Options::default())?;
    let [part] = &disk.parts[..] else { panic!("{} partitions", disk.parts.len()) };
    Hashed::read(&**part.filesystem.as_ref().expect("a filesystem"), &Limits::default())
}

/// Puts a failed image where it stays.
pub(crate) fn keep(test: &str, seed: u64, image: &Path) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    std::fs::create_dir_all(&folder).expect("target/ can be written");
    let kept = folder.join(format!("{test}-{seed}.img"));
    copy(image, &kept);
    kept.display().to_string()
}
