//! Large things: directories with hash trees, files in thousands of pieces, deep paths.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::oracle;
use super::workshop::{Workshop, open};
use crate::error::Kind;
use crate::image::Limits;
use crate::image::filesystem::ext4::{Ext4, blockmap, inode, scan};
use crate::image::tree::{Filesystem as _, NodeKind};

fn compare(test: &str, arguments: &[&str], size: &str, write: impl Fn(&Path)) -> Option<Ext4> {
    let workshop = Workshop::new();
    let image = workshop.image(size, arguments);
    write(&workshop.mount(test, &image, "rw")?.0);
    let kernel = oracle::kernel(&workshop.mount(test, &image, "ro")?.0);
    let filesystem = open(&image).unwrap();
    oracle::assert_equal(&oracle::read(&filesystem), &kernel);
    Some(filesystem)
}

/// 20,000 names, some removed and made again, so that the tree has splits and holes.
fn many_names(root: &Path) {
    let folder = root.join("many");
    fs::create_dir(&folder).unwrap();
    fs::write(root.join("one"), b"").unwrap();
    let name = |i: u32| folder.join(format!("{i:05}-{}", "n".repeat((i % 40) as usize)));
    for i in 0..20_000 {
        fs::hard_link(root.join("one"), name(i)).unwrap();
    }
    for i in (0..20_000).step_by(7) {
        fs::remove_file(name(i)).unwrap();
    }
    for i in (0..20_000).step_by(14) {
        std::os::unix::fs::symlink("x", name(i)).unwrap();
    }
}

#[test]
fn twenty_thousand_names_in_one_directory_read_as_the_kernel_does() {
    let test = "twenty_thousand_names_in_one_directory_read_as_the_kernel_does";
    for arguments in [
        &["-t", "ext4", "-b", "1024", "-N", "30000"][..],
        &["-t", "ext4", "-b", "4096", "-N", "30000", "-O", "large_dir"],
        &["-t", "ext3", "-b", "1024", "-N", "30000"],
    ] {
        let Some(filesystem) = compare(test, arguments, "64M", many_names) else { return };
        let tree = filesystem.tree().unwrap();
        assert!(tree.nodes.len() > 17_000);
        assert!(tree.lookup(b"/many/00001-n").is_some());
    }
}

/// A file of 5,000 blocks with as many holes between them, and one written from behind.
fn fragments(root: &Path, block: u64) {
    let file = File::create(root.join("fragments")).unwrap();
    for i in 0..5000 {
        file.write_all_at(&[i as u8; 700], 2 * i * block + 5).unwrap();
    }
    let file = File::create(root.join("backwards")).unwrap();
    for i in (0..500).rev() {
        file.write_all_at(&[i as u8; 4096], i * 8192).unwrap();
        file.sync_data().unwrap();
    }
}

#[test]
fn a_file_of_5000_extents_reads_as_the_kernel_does() {
    let test = "a_file_of_5000_extents_reads_as_the_kernel_does";
    for (arguments, block) in [
        (&["-t", "ext4", "-b", "1024"][..], 1024),
        (&["-t", "ext4", "-b", "4096"], 4096),
        (&["-t", "ext2", "-b", "1024"], 1024),
    ] {
        let filesystem = compare(test, arguments, "80M", |root| fragments(root, block));
        let Some(filesystem) = filesystem else { return };
        let tree = filesystem.tree().unwrap();
        let node = &tree.nodes[tree.lookup(b"/fragments").unwrap() as usize];
        let NodeKind::File { inode: number, .. } = node.kind else { panic!() };
        let inode = inode::read(&filesystem.volume, &filesystem.groups, number.try_into().unwrap())
            .unwrap();
        let runs = blockmap::runs(&filesystem.volume, &inode, &mut Default::default()).unwrap();
        assert!(runs.len() >= 2500, "only {} runs", runs.len());
    }
}

#[test]
fn a_file_with_terabytes_of_holes_keeps_its_size_and_its_ends() {
    let test = "a_file_with_terabytes_of_holes_keeps_its_size_and_its_ends";
    let workshop = Workshop::new();
    let image = workshop.image("16M", &["-t", "ext4", "-b", "4096"]);
    {
        let Some(mount) = workshop.mount(test, &image, "rw") else { return };
        let file = File::create(mount.0.join("vast")).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"last", (10 << 40) - 4).unwrap();
    }
    let mut filesystem = open(&image).unwrap();
    assert!(filesystem.tree().is_err(), "more than the default limit");
    filesystem.limits.contents = 16 << 40;
    let tree = filesystem.tree().unwrap();
    let node = &tree.nodes[tree.lookup(b"/vast").unwrap() as usize];
    let NodeKind::File { size, .. } = node.kind else { panic!() };
    assert_eq!(size, 10 << 40);
    let mut pieces = 0;
    let stop = filesystem.read_file(node, &mut |piece| {
        assert!(if pieces == 0 {
            piece.starts_with(b"first\0")
        } else {
            piece.iter().all(|&b| b == 0)
        });
        pieces += 1;
        if pieces == 50 { Err(crate::error::Error::failed("enough")) } else { Ok(()) }
    });
    assert_eq!(stop.unwrap_err().what(), "enough");
}

#[test]
fn limits_are_named() {
    let workshop = Workshop::new();
    let folder = workshop.path("tree");
    fs::create_dir_all(folder.join("a/b/c/d/e")).unwrap();
    for i in 0..30 {
        fs::write(folder.join(format!("file-{i}")), b"").unwrap();
    }
    fs::write(folder.join("twelve"), b"twelve bytes").unwrap();
    let image = workshop.image("4M", &["-t", "ext4", "-d", folder.to_str().unwrap()]);
    let check = |limits: Limits, named: &str| {
        let mut filesystem = open(&image).unwrap();
        filesystem.limits = limits;
        let error = filesystem.tree().unwrap_err();
        assert_eq!(error.kind(), Kind::Undetermined);
        assert!(error.what().contains(named), "{error}");
    };
    check(Limits { entries: 20, ..Limits::default() }, "more than 20 files");
    check(Limits { depth: 4, ..Limits::default() }, "more than 4 levels of directories");
    check(Limits { path: 9, ..Limits::default() }, "more than 9 bytes in a path");
    check(Limits { contents: 11, ..Limits::default() }, "more than 11 bytes in its files");
    assert!(open(&image).unwrap().tree().is_ok());
}

#[test]
fn many_threads_read_one_filesystem() {
    let workshop = Workshop::new();
    let folder = workshop.path("tree");
    fs::create_dir(&folder).unwrap();
    for i in 0..60 {
        fs::write(folder.join(format!("{i}")), super::kernel::noise(i * 1000, i as u32)).unwrap();
    }
    let image = workshop.image("16M", &["-t", "ext4", "-d", folder.to_str().unwrap()]);
    let filesystem = open(&image).unwrap();
    let expected = oracle::read(&filesystem);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| oracle::assert_equal(&oracle::read(&filesystem), &expected));
        }
    });
    assert!(scan::scan(&filesystem.volume, &filesystem.groups, &Limits::default()).is_ok());
}
