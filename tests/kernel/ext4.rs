//! ext2, ext3 and ext4 in every shape that `mke2fs` 1.47 makes and the kernel mounts.

use super::campaign::{Campaign, Ending, Shape};

/// Endings of a filesystem with a journal: three of four are not unmounted.
const JOURNALED: &[Ending] = &[Ending::Cut, Ending::Clean, Ending::CutAfterLog, Ending::Copied];
/// Without a journal nobody can tell what a crash left, and devbox says so: unmounted only.
const PLAIN: &[Ending] = &[Ending::Clean];

macro_rules! shape {
    ($options:literal, $($argument:literal)*) => {
        Shape::new(&["mke2fs", "-q", "-F", $($argument),*]).options($options)
    };
}

const SHAPES: &[(Shape, &[Ending])] = &[
    (shape!("data=ordered", "-t" "ext4"), JOURNALED),
    (shape!("data=journal", "-t" "ext4"), JOURNALED),
    (shape!("data=ordered", "-t" "ext4" "-b" "1024"), JOURNALED),
    (shape!("data=journal", "-t" "ext4" "-b" "2048" "-J" "size=8"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "inline_data"), JOURNALED),
    (shape!("data=journal", "-t" "ext4" "-O" "inline_data" "-b" "1024" "-I" "1024"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "metadata_csum_seed,orphan_file"), JOURNALED),
    (shape!("data=journal", "-t" "ext4" "-O" "orphan_file" "-b" "1024"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "ea_inode,large_dir"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "ea_inode,inline_data" "-b" "1024"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "bigalloc" "-C" "16384"), JOURNALED),
    (shape!("data=journal", "-t" "ext4" "-O" "bigalloc" "-b" "1024" "-C" "8192"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "verity"), JOURNALED),
    (
        shape!("", "-t" "ext4" "-O" "meta_bg,^resize_inode" "-b" "1024" "-g" "1024")
            .size(160 << 20),
        JOURNALED,
    ),
    (shape!("", "-t" "ext4" "-O" "^64bit,^metadata_csum"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "^metadata_csum,uninit_bg"), JOURNALED),
    (shape!("journal_checksum", "-t" "ext4" "-O" "^metadata_csum" "-b" "1024"), JOURNALED),
    (shape!("data=writeback,nodelalloc", "-t" "ext4" "-O" "^extent,^64bit"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "sparse_super2,^resize_inode" "-b" "1024"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "^flex_bg,^dir_index,mmp" "-b" "2048"), JOURNALED),
    (shape!("", "-t" "ext4" "-I" "128" "-J" "size=1" "-b" "1024"), JOURNALED),
    (shape!("data=ordered", "-t" "ext3"), JOURNALED),
    (shape!("data=journal", "-t" "ext3" "-b" "1024"), JOURNALED),
    (shape!("", "-t" "ext4" "-O" "^has_journal"), PLAIN),
    (shape!("", "-t" "ext2"), PLAIN),
    (
        shape!("", "-t" "ext2" "-b" "1024" "-I" "128" "-O" "^filetype,^sparse_super,^resize_inode"),
        PLAIN,
    ),
];

#[test]
fn two_hundred_images_of_ext4_are_what_the_kernel_shows() {
    // The n-th round over the shapes takes the n-th ending of each.
    let rounds = 0..JOURNALED.len();
    let shapes: Vec<Shape> = rounds
        .flat_map(|round| {
            SHAPES.iter().map(move |(shape, endings)| shape.ending(endings[round % endings.len()]))
        })
        .collect();
    Campaign {
        test: "two_hundred_images_of_ext4_are_what_the_kernel_shows",
        kind: "ext4",
        programs: &["mke2fs"],
        shapes: &shapes,
        images: 200.max(2 * shapes.len() as u64),
        operations: 300,
    }
    .run();
}
