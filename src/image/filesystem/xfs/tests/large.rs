//! What is large: files above 4 GiB, directories of many blocks in many places, parents of files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::oracle;
use super::populate::noise;
use super::workshop::{Workshop, open};
use crate::image::filesystem::xfs::checksum;
use crate::image::tree::{Filesystem as _, NodeKind};

#[test]
fn a_sparse_file_above_4_gib_reads_as_the_kernel_does() {
    let test = "a_sparse_file_above_4_gib_reads_as_the_kernel_does";
    let Some(workshop) = Workshop::new(test) else { return };
    let image = workshop.image(64, &[]);
    let mount = workshop.mount(&image, "rw");
    let file = File::create(mount.0.join("sparse")).unwrap();
    for place in [0, (1 << 32) - 2000, (1 << 32) + 5_000_000] {
        file.write_all_at(&noise(5000, place as u32), place).unwrap();
    }
    file.set_len((1 << 32) + 9_000_001).unwrap();
    // One that only claims its size; reading all of it would take a day.
    File::create(mount.0.join("huge")).unwrap().set_len(8 << 40).unwrap();
    drop(file);
    let known = |name: &str| fs::metadata(mount.0.join(name)).unwrap().len();
    let sizes = [known("sparse"), known("huge")];
    let theirs = crate::digest::FileDigest::of(&contents_around(&mount.0.join("sparse")));
    drop(mount);
    let filesystem = open(&image).unwrap();
    let tree = filesystem.tree().unwrap();
    for (name, size) in ["sparse", "huge"].iter().zip(sizes) {
        let node = &tree.nodes[tree.lookup(name.as_bytes()).unwrap() as usize];
        assert!(matches!(node.kind, NodeKind::File { size: s, .. } if s == size), "{name}");
    }
    let node = &tree.nodes[tree.lookup(b"sparse").unwrap() as usize];
    let (mut at, mut kept) = (0u64, Vec::new());
    filesystem
        .read_file(node, &mut |piece| {
            for range in around() {
                let (from, to) = (range.start.max(at), range.end.min(at + piece.len() as u64));
                if from < to {
                    kept.extend_from_slice(&piece[(from - at) as usize..(to - at) as usize]);
                }
            }
            at += piece.len() as u64;
            Ok(())
        })
        .unwrap();
    assert_eq!(at, sizes[0]);
    assert_eq!(crate::digest::FileDigest::of(&kept), theirs);
}

/// The places where something stands, with zeros around them.
fn around() -> [std::ops::Range<u64>; 3] {
    [
        0..100_000,
        (1 << 32) - 100_000..(1 << 32) + 100_000,
        (1 << 32) + 4_900_000..(1 << 32) + 9_000_001,
    ]
}

fn contents_around(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let mut all = Vec::new();
    for range in around() {
        let mut piece = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut piece, range.start).unwrap();
        all.extend(piece);
    }
    all
}

#[test]
fn a_directory_in_many_places_reads_as_the_kernel_does() {
    let test = "a_directory_in_many_places_reads_as_the_kernel_does";
    let Some(workshop) = Workshop::new(test) else { return };
    let image = workshop.image(96, &["-b", "size=1024", "-n", "size=8192"]);
    let mount = workshop.mount(&image, "rw");
    fs::create_dir(mount.0.join("large")).unwrap();
    fs::create_dir(mount.0.join("between")).unwrap();
    // Blocks of files stand between those of the directory, and its own are split by small holes.
    for i in 0..12_000 {
        let name = format!("large/{i:05}-{}", "name".repeat(i % 20));
        File::create(mount.0.join(name)).unwrap();
        if i % 8 == 0 {
            fs::write(mount.0.join(format!("between/{i}")), noise(1024 * (i % 3), 1)).unwrap();
        }
    }
    for i in (0..12_000).step_by(16) {
        fs::remove_file(mount.0.join(format!("between/{i}"))).unwrap();
    }
    for i in 12_000..15_000 {
        File::create(mount.0.join(format!("large/{i:05}-{}", "again".repeat(i % 20)))).unwrap();
    }
    drop(mount);
    let mount = workshop.mount(&image, "ro");
    let kernel = oracle::kernel(&mount.0);
    drop(mount);
    oracle::assert_equal(&oracle::list(&open(&image).unwrap()), &kernel);
}

/// Sets bits of the incompatible features, as a newer `mkfs.xfs` does.
fn set_features(image: &Path, bits: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut sb = [0; 512];
    file.read_exact_at(&mut sb, 0).unwrap();
    sb[219] |= bits;
    let sum = checksum::compute(&sb, 224).to_le_bytes();
    sb[224..228].copy_from_slice(&sum);
    file.write_all_at(&sb, 0).unwrap();
}

#[test]
fn exchanges_and_parents_of_files_are_read_over() {
    let test = "exchanges_and_parents_of_files_are_read_over";
    let Some(workshop) = Workshop::new(test) else { return };
    for (bits, ending) in [(0x40, "clean"), (0x80, "clean"), (0xc0, "cut off")] {
        let image = workshop.image(64, &[]);
        set_features(&image, bits);
        let Some(mount) = workshop.try_mount(test, &image) else { return };
        for i in 0..60 {
            let name = mount.0.join(format!("a-file-whose-parent-is-known-{i}"));
            fs::write(&name, noise(i * 100, 1)).unwrap();
            fs::hard_link(&name, mount.0.join(format!("second-name-{i}"))).unwrap();
        }
        for i in 0..40 {
            let first = mount.0.join("a-file-whose-parent-is-known-7");
            fs::hard_link(first, mount.0.join(format!("{}{i}", "long".repeat(50)))).unwrap();
        }
        fs::create_dir(mount.0.join("folder")).unwrap();
        fs::rename(mount.0.join("second-name-3"), mount.0.join("folder/moved")).unwrap();
        if ending != "clean" {
            let request = ["-x", "-c", "shutdown -f"];
            super::workshop::run(std::process::Command::new("xfs_io").args(request).arg(&mount.0));
        }
        drop(mount);
        let read = oracle::list(&open(&image).unwrap());
        let kernel = oracle::kernel(&workshop.mount(&image, "rw").0);
        oracle::assert_equal(&read, &kernel);
        assert!(kernel.len() > 100);
    }
}
