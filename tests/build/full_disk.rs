//! A disk that gets full while a build writes this or that: the build says so, leaves nothing half, and the
//! next one works once there is space.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::project::{Project, shell, text};

/// A filesystem of its own, which goes away with the value.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).expect("a folder");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=1g", "none"]).arg(&at).status();
        assert!(status.expect("mount").success());
        Small(at)
    }

    /// Takes all space from when a file is there whose path has `part`, until told to stop.
    fn fill_at(&self, part: &'static str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<bool> {
        let (dir, stop) = (self.0.clone(), stop.clone());
        std::thread::spawn(move || {
            let there = || {
                let all = walkdir::WalkDir::new(&dir).into_iter().filter_map(Result::ok);
                all.into_iter().any(|entry| entry.path().to_string_lossy().contains(part))
            };
            while !there() {
                if stop.load(Ordering::Relaxed) {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            let file = std::fs::File::create(dir.join("filler")).expect("made");
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                let stat = rustix::fs::statvfs(&dir).expect("space");
                let free = stat.f_bavail * stat.f_frsize;
                let none = rustix::fs::FallocateFlags::empty();
                // The other one takes space too; half of it is enough for the next round.
                let piece = if free > 1 << 20 { free / 2 } else { free };
                if piece > 0 && rustix::fs::fallocate(&file, none, taken, piece).is_ok() {
                    taken += piece;
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            drop(file);
            std::fs::remove_file(dir.join("filler")).expect("removed");
            true
        })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn partial(dir: &Path) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    all.map(walkdir::DirEntry::into_path)
        .filter(|p| p.to_string_lossy().contains("partial"))
        .collect()
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what was not run has to be seen")]
async fn a_build_that_finds_the_disk_full_says_so_and_the_next_one_works() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "not run: a_build_that_finds_the_disk_full_says_so_and_the_next_one_works: only root can mount a small filesystem"
        );
        return;
    }
    // Enough to write that the guest meets the full disk too.
    let write = "mkdir -p /srv; dd if=/dev/urandom of=/srv/noise bs=1M count=24 2> /dev/null; sync; sleep 1; rm /srv/noise; echo x > /srv/x";
    let steps = [shell("one", write, ""), shell("two", "echo two > /srv/two", "")].concat();
    let project = Project::new(&steps).await;
    let small = Small::mount(project.path("home"));
    let build = ["build", "--rebuild", "--no-cache", "--output-dir", "home/dist"];
    let mut content = None;
    for part in [
        // The workspace, the keys, the seed, the running guest, its second layer.
        "cache/build",
        "seed.iso",
        "/steps/",
        "cache/layers/",
        // The seal's script, the disk in the store, the outputs and what is said of them.
        "/seal/",
        "store/tmp/",
        ".qcow2.partial",
        ".vhd.partial",
        "SHA256SUMS",
    ] {
        let _ = std::fs::remove_dir_all(small.0.join("dist"));
        let stop = Arc::new(AtomicBool::new(false));
        let filler = small.fill_at(part, &stop);
        let start = Instant::now();
        let out = project.run(&build);
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert!(filler.join().expect("filled"), "no file has `{part}` in its path");
        let said = text(&out.stderr);
        assert!(!said.contains("panicked"), "{part}: {said}");
        assert!(took < Duration::from_secs(120), "{part}: hung for {took:?}: {said}");
        if !out.status.success() {
            assert_eq!(out.status.code(), Some(1), "{part}: {said}");
            assert!(said.to_lowercase().contains("space"), "{part}: {said}");
            eprintln!(
                "{part}: {}",
                said.lines().find(|l| l.starts_with("error")).unwrap_or_default()
            );
        }
        assert_eq!(partial(&small.0), Vec::<PathBuf>::new(), "{part}");

        let out = project.run(&build[..1]);
        assert!(out.status.success(), "{part}: {}", text(&out.stderr));
        project.nothing_left();
        let now = project.boxes()[0]["config"]["box1"].clone();
        assert_eq!(content.get_or_insert_with(|| now.clone()), &now, "{part}");
    }
}
