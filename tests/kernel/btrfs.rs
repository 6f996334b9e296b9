//! btrfs in every shape that `mkfs.btrfs` 6.2 makes on one device and the kernel mounts.

use std::path::Path;

use super::campaign::{Campaign, Ending, Shape};
use super::mounted::{run, text};
use super::numbers::Numbers;

/// An image that was copied while it was mounted holds the last transaction that was finished. The
/// log tree that an `fsync` leaves is refused, which `image::filesystem::btrfs` tests; without it
/// (`notreelog`) an `fsync` finishes the transaction.
const ENDINGS: &[Ending] = &[Ending::Clean, Ending::Copied];

macro_rules! shape {
    ($options:literal, $($argument:literal)*) => {
        Shape::new(&["mkfs.btrfs", "-q", "-f", $($argument),*])
            .options(concat!("notreelog", $options))
            .size(192 << 20)
            .prepare(subvolumes)
    };
}

const SHAPES: &[Shape] = &[
    shape!("",),
    shape!(",compress=zlib",),
    shape!(",compress=lzo",),
    shape!(",compress=zstd",),
    shape!(",compress-force=lzo", "-n" "4096"),
    shape!(",compress-force=zstd,max_inline=4000", "-n" "65536"),
    shape!(",compress-force=zlib,autodefrag", "-n" "32768"),
    shape!(",compress=lzo", "--csum" "xxhash"),
    shape!(",compress=zstd", "--csum" "sha256" "-m" "single"),
    shape!(",compress=zlib", "--csum" "blake2" "-d" "dup").size(256 << 20),
    shape!(",compress=lzo", "-M" "-m" "single" "-d" "single"),
    shape!(",compress=zstd", "-M" "-m" "dup" "-d" "dup"),
    shape!(",compress=lzo", "-O" "^no-holes"),
    shape!(",flushoncommit", "-O" "^extref,^skinny-metadata,^no-holes" "-R" "^free-space-tree"),
    shape!(",nodatacow", "-R" "quota"),
    shape!(",nodatasum",),
];

/// A subvolume with another one in it, a snapshot of it, and clones, beside what is played with.
fn subvolumes(root: &Path, numbers: &mut Numbers) {
    let at = |name: &str| root.join(name);
    let make = |name: &str| drop(run("btrfs", &["subvolume", "create", text(&at(name))]));
    make("one");
    make("one/two");
    for name in ["one/file", "one/two/file", "one/other"] {
        let length = numbers.length(200_000);
        std::fs::write(at(name), numbers.bytes(length)).expect("it can be written");
    }
    std::fs::hard_link(at("one/file"), at("one/second name")).expect("it can be linked");
    let kind: &[&str] = if numbers.one_in(2) { &["-r"] } else { &[] };
    let paths = [at("one"), at("snapshot")];
    let paths = paths.each_ref().map(|path| text(path));
    run("btrfs", &[&["subvolume", "snapshot"], kind, &paths].concat());
    run("cp", &["--reflink=auto", text(&at("one/file")), text(&at("one/clone"))]);
}

#[test]
fn two_hundred_images_of_btrfs_are_what_the_kernel_shows() {
    // The n-th round over the shapes takes the n-th ending.
    let shapes: Vec<Shape> = ENDINGS
        .iter()
        .flat_map(|ending| SHAPES.iter().map(|shape| shape.ending(*ending)))
        .collect();
    Campaign {
        test: "two_hundred_images_of_btrfs_are_what_the_kernel_shows",
        kind: "btrfs",
        programs: &["mkfs.btrfs", "btrfs"],
        shapes: &shapes,
        images: 200.max(2 * shapes.len() as u64),
        operations: 300,
    }
    .run();
}
