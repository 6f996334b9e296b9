//! Logs left behind by a kernel, compared with what a mount makes of them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::oracle;
use super::populate::{ACL, noise, set_xattr};
use super::workshop::{Workshop, open, run};
use crate::image::oracle::Mount;
use crate::image::tree::Filesystem as _;

/// Work that leaves new, changed, removed and reused blocks behind.
fn work(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir(at("doomed")).unwrap();
    for i in 0..400 {
        fs::write(at(&format!("doomed/a-rather-long-name-to-fill-blocks-{i:04}")), b"x").unwrap();
    }
    run(Command::new("sync").arg("-f").arg(root));
    // Blocks of the removed directory and its inodes become contents: their changes are cancelled.
    fs::remove_dir_all(at("doomed")).unwrap();
    run(Command::new("sync").arg("-f").arg(root));
    fs::write(at("reused"), noise(8 << 20, 11)).unwrap();
    fs::create_dir_all(at("new/folder")).unwrap();
    fs::rename(at("before"), at("new/after")).unwrap();
    set_xattr(&at("new/after"), "user.late", b"set in the log only");
    set_xattr(&at("new/after"), "user.leaf", &noise(900, 3));
    set_xattr(&at("new"), "system.posix_acl_default", ACL);
    OpenOptions::new()
        .append(true)
        .open(at("grown"))
        .unwrap()
        .write_all_at(&[9; 7000], 5000)
        .unwrap();
    // A block map that becomes a tree.
    let pieces = File::create(at("pieces")).unwrap();
    for i in 0..300u64 {
        pieces.write_all_at(&noise(3000, i as u32), i * 16_384).unwrap();
    }
    pieces.sync_all().unwrap();
    for i in 0..500 {
        File::create(at(&format!("new/folder/{i:04}"))).unwrap();
    }
    std::os::unix::fs::symlink("t".repeat(900), at("new/link")).unwrap();
}

fn cut(workshop: &Workshop, arguments: &[&str], request: &str) -> (PathBuf, PathBuf) {
    let image = workshop.image(64, arguments);
    let mount = workshop.mount(&image, "rw");
    fs::write(mount.0.join("before"), b"before").unwrap();
    fs::write(mount.0.join("grown"), [8; 5000]).unwrap();
    drop(mount);
    let mount = workshop.mount(&image, "rw");
    work(&mount.0);
    shut_down(&mount, request);
    drop(mount);
    let copy = workshop.path("copy");
    fs::copy(&image, &copy).unwrap();
    (image, copy)
}

fn shut_down(mount: &Mount, request: &str) {
    run(Command::new("xfs_io").args(["-x", "-c", request]).arg(&mount.0));
}

fn compare(test: &str, arguments: &[&str], request: &str) {
    let Some(workshop) = Workshop::new(test) else { return };
    let (image, copy) = cut(&workshop, arguments, request);
    let before = fs::read(&image).unwrap();
    let mut filesystem = open(&image).unwrap();
    let note = &filesystem.notes()[0];
    assert!(note.contains("replayed in memory"), "{note}");
    let read = oracle::list(&filesystem);
    assert!(read.len() > 500 || request == "shutdown", "{} entries", read.len());
    let kernel = oracle::kernel(&workshop.mount(&copy, "rw").0);
    oracle::assert_equal(&read, &kernel);
    assert!(before == fs::read(&image).unwrap(), "the image was written");
    // What stands in place of the log's changes is something else.
    assert!(filesystem.volume.overlay.len() > 100);
    filesystem.volume.overlay.clear();
    filesystem.volume.reload().unwrap();
    let names = |f: &crate::image::filesystem::xfs::Xfs| f.tree().map(|tree| tree.nodes.len());
    assert!(
        names(&filesystem).is_ok_and(|count| count != read.len()) || names(&filesystem).is_err()
    );
    // Nothing is left to replay once the kernel did.
    assert_eq!(open(&copy).unwrap().notes(), [""; 0]);
}

macro_rules! logs {
    ($($name:ident: $arguments:expr, $request:expr;)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), &$arguments, $request);
        })*
    };
}

logs! {
    a_log_that_was_flushed_is_replayed: [], "shutdown -f";
    a_log_that_was_cut_off_is_replayed: [], "shutdown";
    a_log_of_small_blocks_is_replayed: ["-b", "size=1024", "-n", "size=4096"], "shutdown -f";
    a_log_with_rmapbt_is_replayed: ["-m", "rmapbt=1", "-i", "nrext64=1"], "shutdown -f";
    a_log_of_large_inodes_and_old_times_is_replayed: ["-i", "size=2048", "-m", "bigtime=0"], "shutdown -f";
    a_log_without_sparse_inodes_is_replayed: ["-i", "sparse=0", "-m", "finobt=0,reflink=0"], "shutdown -f";
}
