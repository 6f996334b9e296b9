//! What is left when writing fails: nothing half, and one message that says why.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::desk::{ALL, Desk, names, said};
use crate::lab::{text, tool};

/// Puts a `qemu-img` in front of the host's: `before`, then the host's runs, then `after`, with the file
/// that it writes as `$out`.
fn instead(desk: &Desk, before: &str, after: &str) -> String {
    let bin = desk.path("bin");
    let _ = std::fs::create_dir(&bin);
    let real = tool("sh", &["-c", "command -v qemu-img"]).stdout;
    let real = String::from_utf8_lossy(&real).trim().to_owned();
    let script =
        format!("#!/bin/sh\nfor out; do :; done\n{before}\n{real} \"$@\" || exit\n{after}\n");
    let program = bin.join("qemu-img");
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("mode");
    format!("{}:{}", text(&bin), std::env::var("PATH").unwrap_or_default())
}

fn build(desk: &Desk, path: &str) -> Output {
    let mut command = desk.command(&["build", "--output-dir", "dist"]);
    command.env("PATH", path).output().expect("runs")
}

#[test]
fn bytes_that_changed_behind_qemu_img_are_refused() {
    // A byte of the root filesystem, in the formats that have it where the disk has it.
    let byte = "[ \"$1\" = convert ] && printf X | dd of=\"$out\" bs=1 seek=9000000 conv=notrunc 2>/dev/null";
    for format in ["raw", "vhd", "aws", "xen"] {
        let desk = Desk::new(&[format], "");
        let out = build(&desk, &instead(&desk, "", byte));
        let said = said(&out);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("does not have the bytes of the box"), "{format}: {said}");
        assert_eq!(names(&desk.path("dist")), Vec::<String>::new(), "{format}");
    }
    // Somewhere in the middle of what the others are: they are damaged, or another disk.
    let middle = "size=$(stat -c %s \"$out\")\n\
        dd if=/dev/zero of=\"$out\" bs=1 seek=$((size / 2)) count=70000 conv=notrunc 2>/dev/null";
    for format in ["qcow2-zstd", "vmdk", "ova", "vhdx"] {
        let desk = Desk::new(&[format], "");
        let out = build(&desk, &instead(&desk, "", middle));
        let said = said(&out);
        assert_eq!(out.status.code(), Some(1), "{format}: {said}");
        assert!(
            said.contains("does not have the bytes of the box") || said.contains("back"),
            "{format}: {said}"
        );
        assert_eq!(names(&desk.path("dist")), Vec::<String>::new(), "{format}");
    }
}

#[test]
fn a_damaged_disk_in_the_store_becomes_no_output() {
    for format in ["qcow2", "raw"] {
        let desk = Desk::new(&[format], "");
        let blobs = std::fs::read_dir(desk.path("home/store/blobs/sha256")).expect("blobs");
        let disk = blobs
            .map(|entry| entry.expect("an entry").path())
            .max_by_key(|path| path.metadata().expect("there").len())
            .expect("a disk");
        std::fs::set_permissions(&disk, PermissionsExt::from_mode(0o644)).expect("mode");
        let mut bytes = std::fs::read(&disk).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&disk, bytes).expect("written");
        let path = std::env::var("PATH").unwrap_or_default();
        let out = build(&desk, &path);
        let said = said(&out);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("does not have the bytes of the box"), "{format}: {said}");
        assert_eq!(names(&desk.path("dist")), Vec::<String>::new(), "{format}");
    }
}

#[test]
fn a_qemu_img_without_zstd_is_said_to_be_too_old() {
    let desk = Desk::new(&["qcow2-zstd"], "");
    let path = instead(&desk, "", "");
    let program = desk.path("bin/qemu-img");
    let script =
        "#!/bin/sh\necho \"qemu-img: out: Invalid parameter 'compression_type'\" >&2\nexit 1\n";
    std::fs::write(&program, script).expect("written");
    let out = build(&desk, &path);
    let said = said(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write `") && said.contains("QEMU 5.1 or newer"), "{said}");
}

#[test]
#[cfg(feature = "crash-points")]
fn a_killed_build_leaves_no_name_and_the_next_one_takes_its_place() {
    use std::os::unix::process::ExitStatusExt as _;
    let desk = Desk::new(&[], "");
    for format in ALL {
        desk.spec(&[format], "");
        let mut command = desk.command(&["build", "--output-dir", "dist"]);
        let out = command.env("DEVBOX_CRASH", "build.output-written").output().expect("runs");
        assert_eq!(out.status.signal(), Some(9), "{format}: {}", said(&out));
        let left = names(&desk.path("dist"));
        assert!(left.iter().all(|name| name.starts_with('.')), "{format}: {left:?}");
        desk.build("dist");
        let left = names(&desk.path("dist"));
        assert!(left.iter().all(|name| !name.starts_with('.')), "{format}: {left:?}");
        std::fs::remove_dir_all(desk.path("dist")).expect("removed");
    }
}

#[test]
fn ctrl_c_leaves_nothing_of_the_output_that_was_written() {
    for format in ["vmdk", "gce", "containerdisk"] {
        let desk = Desk::new(&[format], "");
        let dist = desk.path("dist");
        let mut child = desk.command(&["build", "--output-dir", "dist"]).spawn().expect("runs");
        let until = Instant::now() + Duration::from_secs(60);
        while names(&dist).is_empty() {
            assert!(Instant::now() < until, "{format}: nothing was written");
            std::thread::sleep(Duration::from_micros(50));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
        assert_eq!(child.wait().expect("ends").code(), Some(130), "{format}");
        assert_eq!(names(&dist), Vec::<String>::new(), "{format}");
    }
}

/// A small filesystem that goes away with the value.
struct Small(PathBuf);

impl Small {
    /// Takes all space as soon as something is being written, until the value is dropped.
    fn fill_when_written(&self) -> std::thread::JoinHandle<()> {
        let dir = self.0.clone();
        std::thread::spawn(move || {
            let until = Instant::now() + Duration::from_secs(60);
            while !names(&dir).iter().any(|name| name.ends_with(".partial")) {
                assert!(Instant::now() < until, "nothing was written");
                std::thread::sleep(Duration::from_micros(50));
            }
            let file = std::fs::File::create(dir.join("filler")).expect("made");
            let mut taken = 0;
            loop {
                let stat = rustix::fs::statvfs(&dir).expect("space");
                // The other one takes space too; the last pages are of no use to it.
                let free = stat.f_bavail * stat.f_frsize / 2;
                if free < 16 << 10 {
                    break;
                }
                let none = rustix::fs::FallocateFlags::empty();
                if rustix::fs::fallocate(&file, none, taken, free).is_ok() {
                    taken += free;
                }
            }
        })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn a_disk_that_fills_up_while_an_output_is_written_leaves_nothing_half() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: a full disk at every output: only root can mount a small filesystem");
        return;
    }
    let desk = Desk::new(&[], "");
    let small = desk.path("dist");
    std::fs::create_dir(&small).expect("made");
    let take =
        format!("fallocate -l $(($(stat -f -c '%a * %S' {0}) - 100000)) {0}/filler", text(&small));
    let full = instead(&desk, &take, "");
    let usual = std::env::var("PATH").unwrap_or_default();
    // The kernel copies `qcow2` before anybody can take the space.
    for format in ALL.into_iter().filter(|format| *format != "qcow2") {
        desk.spec(&[format], "");
        let small = Small(small.clone());
        tool("mount", &["-t", "tmpfs", "-o", "size=90m", "none", text(&small.0)]);
        // Where `qemu-img` writes, the space goes just before; else as soon as there is a file.
        let own = ["gce", "vagrant", "containerdisk"].contains(&format);
        let filler = own.then(|| small.fill_when_written());
        let out = build(&desk, if own { &usual } else { &full });
        if let Some(filler) = filler {
            filler.join().expect("the space was taken");
        }
        let said = said(&out);
        assert_eq!(out.status.code(), Some(1), "{format}: {said}");
        assert!(said.contains("cannot write `dist/web-1.2.0"), "{format}: {said}");
        assert!(said.contains("Free some space on that disk"), "{format}: {said}");
        assert_eq!(names(&small.0), ["filler"], "{format}");
        // With space it works.
        std::fs::remove_file(small.0.join("filler")).expect("removed");
        desk.build("dist");
    }
}
