//! Other people's programs that make or read images, for tests to compare with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use super::ReadAt;

/// The program's path; if the host lacks it, says on stderr that the test did not run.
#[expect(clippy::print_stderr, reason = "a test that did not run has to say so")]
pub(crate) fn tool(name: &str, test: &str) -> Option<PathBuf> {
    let found = which::which_in(name, Some("/usr/bin:/bin:/usr/sbin:/sbin"), "/").ok();
    if found.is_none() {
        eprintln!("not run: {test}: `{name}` is not installed");
    }
    found
}

/// Runs a program that must succeed, in `dir`; its standard output.
pub(crate) fn run(dir: &Path, program: &Path, args: &[&str]) -> Vec<u8> {
    let out = Command::new(program).args(args).current_dir(dir).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{} {args:?}: {stderr}", program.display());
    out.stdout
}

/// `mount -o loop` of an image, by the kernel's own reader. Tests run side by side: a loop device that another
/// one gives back in this moment is busy, so it is asked again for some seconds.
pub(crate) fn mount(arguments: &[&str], image: &Path, point: &Path) -> Output {
    let mut left = 100;
    loop {
        let mut mount = Command::new("mount");
        let out = mount.args(arguments).arg(image).arg(point).output().expect("it starts");
        let busy = String::from_utf8_lossy(&out.stderr).contains("mount point busy");
        left -= 1;
        if !busy || left == 0 {
            return out;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A mounted image; unmounted at the end.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let device = loop_device(&self.0);
        // Children that other tests are just starting hold copies of our open files until they
        // become another program.
        for _ in 0..100 {
            if Command::new("umount").arg(&self.0).output().is_ok_and(|o| o.status.success()) {
                if let Some((name, image)) = device {
                    released(&name, &image);
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let lazy = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(lazy.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

/// The loop device that is mounted at `point`, and the image that it has.
fn loop_device(point: &Path) -> Option<(String, String)> {
    // proc_pid_mountinfo(5): the fifth field is the mount point, the second behind the dash the source.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let here = |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == point);
    let source = mounts.lines().rfind(here)?.split(" - ").nth(1)?.split(' ').nth(1)?;
    let name = source.strip_prefix("/dev/")?.to_owned();
    let image = backing_file(&name)?;
    Some((name, image))
}

fn backing_file(device: &str) -> Option<String> {
    std::fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")).ok()
}

/// Waits until the device has the image no more. A filesystem that is unmounted here lives on, and writes on, in every
/// mount namespace that another test made meanwhile (mount_namespaces(7)): what its image holds then is half of it.
fn released(device: &str, image: &str) {
    for _ in 0..500 {
        if backing_file(device).as_deref() != Some(image) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A small generator of numbers that is the same everywhere (xorshift64*, Vigna 2016).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Disk contents with holes, text that packs well, and noise, in pieces of odd sizes.
pub(crate) fn patchwork(size: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut data = vec![0; size];
    let mut at = 0;
    while at < size {
        let len = (numbers.below(300_000) + 1) as usize;
        let end = (at + len).min(size);
        match numbers.below(4) {
            0 | 1 => {}
            2 => data[at..end].iter_mut().enumerate().for_each(|(i, b)| *b = b"devbox\n"[i % 7]),
            _ => data[at..end].iter_mut().for_each(|b| *b = numbers.next() as u8),
        }
        at = end;
    }
    data
}

/// Everything that a reader gives.
pub(crate) fn contents(reader: &dyn ReadAt) -> Vec<u8> {
    let mut data = vec![0; usize::try_from(reader.size()).expect("small")];
    reader.read_at(&mut data, 0).expect("it reads");
    data
}

/// The ranges that a reader says may hold data; checks that they are in order and not empty.
pub(crate) fn data_ranges(reader: &dyn ReadAt) -> Vec<std::ops::Range<u64>> {
    let (mut at, mut found) = (0, vec![]);
    while let Some(range) = reader.next_data(at).expect("it maps") {
        assert!(range.start >= at && range.start < range.end && range.end <= reader.size());
        at = range.end;
        found.push(range);
    }
    found
}

/// A disk in memory.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl Memory {
    pub(crate) fn shared(data: Vec<u8>) -> Arc<dyn ReadAt> {
        Arc::new(Memory(data))
    }
}

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> crate::error::Result<()> {
        super::slice::check_range(buf.len(), offset, self.size())?;
        let at = offset as usize;
        buf.copy_from_slice(&self.0[at..at + buf.len()]);
        Ok(())
    }
}
