//! Physical volumes on loop devices, and LVM2's programs that see nothing else of this host.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::image::oracle::{patchwork, run, tool};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Index of the device, and where each extent starts on it.
type Stripe = (usize, Vec<u64>);

/// A folder with the files of some physical volumes.
pub(super) struct Workshop {
    folder: tempfile::TempDir,
    /// Loop devices, one a file `pv0`, `pv1` ...
    devices: Vec<String>,
}

impl Workshop {
    /// `count` files of `size` MiB on loop devices; `None`, said aloud, where this host has no such
    /// thing.
    pub(super) fn new(test: &str, count: usize, size: u64) -> Option<Self> {
        tool("pvcreate", test)?;
        tool("sfdisk", test)?;
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            not_run(test);
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let mut workshop = Workshop { folder, devices: vec![] };
        for number in 0..count {
            let path = workshop.path(&format!("pv{number}"));
            File::create(&path).and_then(|f| f.set_len(size * MIB)).expect("a sparse file");
            let text = path.to_str().expect("UTF-8");
            let args = ["--find", "--show", text];
            let device = run(Path::new("/"), Path::new("losetup"), &args);
            workshop.devices.push(String::from_utf8(device).expect("UTF-8").trim().to_owned());
        }
        Some(workshop)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &str) -> Output {
        // `D0` stands for the first device.
        let words = words.split(' ').map(|word| match word.strip_prefix('D') {
            Some(number) => match number.parse::<usize>() {
                Ok(number) => self.devices[number].clone(),
                Err(_) => word.to_owned(),
            },
            None => word.to_owned(),
        });
        let words: Vec<String> = words.collect();
        let accept: Vec<_> =
            self.devices.iter().map(|device| format!("\"a|^{device}$|\"")).collect();
        let config = format!(
            "devices {{ filter=[{}, \"r|.*|\"] use_devicesfile=0 }} backup {{ backup=0 archive=0 }} \
             global {{ locking_dir=\"{}\" }}",
            accept.join(", "),
            self.folder.path().display()
        );
        let mut command = Command::new(tool(&words[0], "").expect("looked for before"));
        // Without device-mapper LVM2 still writes its metadata, which is all that is wanted.
        command.args(["--config", &config, "--driverloaded", "n"]);
        command.args(&words[1..]).env("LVM_SYSTEM_DIR", self.folder.path());
        command.env("LVM_SUPPRESS_FD_WARNINGS", "1").output().expect("it starts")
    }

    /// Runs a program of LVM2 that must succeed; its standard output.
    pub(super) fn lvm(&self, words: &str) -> String {
        let out = self.command(words);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words}: {errors}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Makes a volume of group `vg0`, not activated and not zeroed.
    pub(super) fn volume(&self, words: &str) {
        self.lvm(&format!("lvcreate -q -y -an -Zn {words} vg0"));
    }

    /// Bytes in a stripe, and the stripes, of each segment of a volume.
    pub(super) fn segments(&self, volume: &str) -> Vec<(u64, Vec<Stripe>)> {
        let words = "lvs --segments --noheadings --units b --nosuffix --separator ; \
                     -o stripe_size,seg_pe_ranges,vg_extent_size vg0/";
        let listed = self.lvm(&format!("{words}{volume}"));
        let first = 2048 * SECTOR; // pe_start as `pvcreate` sets it: 1 MiB
        let mut segments = vec![];
        for line in listed.lines() {
            let fields: Vec<_> = line.trim().split(';').collect();
            let extent: u64 = fields[2].parse().expect("a number");
            let mut lists = vec![];
            for range in fields[1].split(' ') {
                let (device, extents) = range.split_once(':').expect("device:first-last");
                let (from, to) = extents.split_once('-').expect("first-last");
                let (from, to) =
                    (from.parse::<u64>().expect("a number"), to.parse().expect("a number"));
                let index = self.devices.iter().position(|d| d == device).expect("one of mine");
                let places = (from..=to).map(|n| first + n * extent).collect();
                lists.push((index, places));
            }
            segments.push((fields[0].parse().expect("a number"), lists));
        }
        segments
    }

    /// Writes `data` into a volume through LVM2's own list of extents.
    pub(super) fn fill(&self, volume: &str, extent: u64, data: &[u8]) {
        let mut rest = data;
        let mut put = |device: usize, at: u64, length: u64| {
            let (piece, left) = rest.split_at((length as usize).min(rest.len()));
            let file = File::options().write(true).open(self.path(&format!("pv{device}")));
            file.expect("it opens").write_all_at(piece, at).expect("it writes");
            rest = left;
        };
        for (stripe, lists) in self.segments(volume) {
            let extents = lists[0].1.len() as u64;
            let unit = if lists.len() > 1 { stripe } else { extent };
            // Stripes go round the devices (kernel documentation, device-mapper "dm-stripe").
            for row in 0..extents * extent / unit {
                for (device, places) in &lists {
                    let place = places[(row * unit / extent) as usize];
                    put(*device, place + row * unit % extent, unit);
                }
            }
        }
        assert!(rest.is_empty(), "the volume is too small");
    }

    /// Data of `length` bytes in volume `volume`.
    pub(super) fn random(&self, volume: &str, extent: u64, length: u64, seed: u64) -> Vec<u8> {
        let data = patchwork(length as usize, seed);
        self.fill(volume, extent, &data);
        data
    }

    /// A disk with a GPT, one partition a physical volume, in the given order.
    pub(super) fn disk(&self, order: &[usize]) -> PathBuf {
        let disk = self.path("disk.raw");
        let id = "6d8e2a3c-1111-4222-8333-44445555666";
        let mut script = format!("label: gpt\nlabel-id: {id}0\n");
        let mut pieces = vec![];
        let mut start = MIB;
        for number in order {
            let data = fs::read(self.path(&format!("pv{number}"))).expect("it reads");
            let size = data.len() as u64;
            let number = pieces.len() + 1;
            let place = format!("start={}, size={}", start / SECTOR, size / SECTOR);
            script += &format!("{place}, type=lvm, uuid={id}{number}\n");
            pieces.push((start, data));
            start += size;
        }
        let file = File::create(&disk).expect("a disk");
        file.set_len(start + MIB).expect("a sparse file");
        fs::write(self.path("script"), script).expect("it writes");
        let command = "sfdisk -q disk.raw < script";
        run(self.folder.path(), Path::new("sh"), &["-c", command]);
        for (start, data) in pieces {
            file.write_all_at(&data, start).expect("it writes");
        }
        disk
    }

    /// An ext4 filesystem of `size` MiB with `files`.
    pub(super) fn ext4(&self, size: u64, label: &str, files: &[(&str, &str)]) -> Vec<u8> {
        let root = self.path("tree");
        let _ = fs::remove_dir_all(&root);
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("it makes");
            fs::write(path, text).expect("it writes");
        }
        fs::create_dir_all(&root).expect("it makes");
        let _ = fs::remove_file(self.path("fs"));
        let size = format!("{size}M");
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let args = ["-q", "-t", "ext4", "-L", label, "-U", uuid, "-d", "tree", "fs", &size];
        run(self.folder.path(), &tool("mke2fs", "").expect("e2fsprogs"), &args);
        fs::read(self.path("fs")).expect("it reads")
    }
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn not_run(test: &str) {
    eprintln!("not run: {test}: LVM2 needs root and loop devices");
}

impl Drop for Workshop {
    fn drop(&mut self) {
        for device in &self.devices {
            // Children that other tests are just starting may hold copies of open files.
            for _ in 0..100 {
                let out = Command::new("losetup").args(["--detach", device]).output();
                if out.is_ok_and(|out| out.status.success()) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}
