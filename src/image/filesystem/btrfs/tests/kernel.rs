//! Many shapes of the filesystem, filled by the kernel and compared with its own mount.

use super::fill;
use std::path::Path;

use super::workshop::{Workshop, assert_equal, open};
use crate::image::tree::Filesystem as _;

/// Fills an image of the shape `arguments`, mounted with `options`.
fn compare(test: &str, arguments: &[&str], options: &str) {
    compare_filled(test, arguments, options, &|root| {
        fill::all(root, 600);
        fill::subvolumes(root);
    });
}

fn compare_filled(test: &str, arguments: &[&str], options: &str, fill: &dyn Fn(&Path)) {
    let workshop = Workshop::new();
    if !super::workshop::is_possible(test) {
        return;
    }
    let image = workshop.image(256, arguments);
    {
        let Some(mount) = workshop.mount(test, &image, options) else { return };
        fill(&mount.0);
    }
    let Some(mount) = workshop.mount(test, &image, "ro") else { return };
    assert_equal(&image, &mount.0);
    let filesystem = open(&image).unwrap();
    assert!(filesystem.notes().is_empty(), "{:?}", filesystem.notes());
    assert_eq!(filesystem.identity().kind, "btrfs");
}

#[test]
fn a_directory_of_10000_entries_and_a_file_of_4_gib() {
    let test = "a_directory_of_10000_entries_and_a_file_of_4_gib";
    compare_filled(test, &[], "compress=zstd", &|root| {
        fill::all(root, 15_000);
        fill::huge(root);
    });
}

macro_rules! shapes {
    ($($name:ident: $arguments:expr, $options:literal;)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), &$arguments, $options);
        })*
    };
}

shapes! {
    btrfs_reads_as_the_kernel_does: [], "rw";
    btrfs_with_zlib: [], "compress=zlib";
    btrfs_with_lzo: [], "compress=lzo";
    btrfs_with_zstd: [], "compress=zstd";
    btrfs_with_everything_packed_by_lzo: ["-n", "4096"], "compress-force=lzo";
    btrfs_with_everything_packed_by_zstd: ["-n", "65536"], "compress-force=zstd:15,max_inline=4000";
    btrfs_with_everything_packed_by_zlib: ["-n", "32768"], "compress-force=zlib:9,max_inline=4000";
    btrfs_with_xxhash: ["--csum", "xxhash"], "compress=lzo";
    btrfs_with_sha256: ["--csum", "sha256"], "compress=zstd";
    btrfs_with_blake2: ["--csum", "blake2"], "compress=zlib";
    btrfs_with_mixed_block_groups: ["-M", "-m", "single", "-d", "single"], "compress=lzo";
    btrfs_with_mixed_block_groups_twice: ["-M", "-m", "dup", "-d", "dup"], "compress=zstd";
    btrfs_with_one_copy_of_metadata: ["-m", "single"], "rw";
    btrfs_with_two_copies_of_data: ["-d", "dup"], "compress=zstd";
    btrfs_with_hole_extents: ["-O", "^no-holes"], "compress=lzo";
    btrfs_with_old_features: ["-O", "^extref,^skinny-metadata,^no-holes", "-R", "^free-space-tree"], "nodatacow";
    btrfs_with_quota: ["-R", "quota"], "compress=zstd";
    btrfs_without_sums: [], "nodatasum";
}

#[test]
fn changes_that_wait_in_the_log_are_refused() {
    let test = "changes_that_wait_in_the_log_are_refused";
    if !super::workshop::is_possible(test) {
        return;
    }
    let workshop = Workshop::new();
    let image = workshop.image(256, &[]);
    let copy = workshop.path("copy");
    {
        let Some(mount) = workshop.mount(test, &image, "rw") else { return };
        std::fs::write(mount.0.join("file"), b"before").unwrap();
        fill::sync(&mount.0);
        std::fs::write(mount.0.join("file"), b"after").unwrap();
        std::fs::File::open(mount.0.join("file")).unwrap().sync_all().unwrap();
        std::fs::copy(&image, &copy).unwrap();
    }
    let e = open(&copy).err().expect("refused");
    assert!(e.causes()[0].contains("log tree") && e.hints()[0].contains("Mount a copy"), "{e}");
    // What the hint says helps.
    drop(workshop.mount(test, &copy, "rw"));
    let Some(mount) = workshop.mount(test, &copy, "ro") else { return };
    assert_eq!(std::fs::read(mount.0.join("file")).unwrap(), b"after");
    assert_equal(&copy, &mount.0);
}
