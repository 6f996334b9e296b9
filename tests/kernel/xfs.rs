//! XFS in every shape that `mkfs.xfs` 6.1 makes and the kernel mounts (version 5).

use super::campaign::{Campaign, Ending, Shape};

/// Three of four are not unmounted.
const ENDINGS: &[Ending] = &[Ending::Cut, Ending::Clean, Ending::CutAfterLog, Ending::Copied];

macro_rules! shape {
    ($($argument:literal)*) => {
        // Below 300 MiB it makes filesystems for tests only.
        Shape::new(&["mkfs.xfs", "--unsupported", "-q", $($argument),*])
    };
}

const SHAPES: &[Shape] = &[
    shape!(),
    shape!("-b" "size=1024"),
    shape!("-m" "rmapbt=1"),
    shape!("-m" "bigtime=0,inobtcount=0" "-i" "nrext64=1"),
    shape!("-m" "reflink=0,finobt=0" "-i" "sparse=0"),
    shape!("-b" "size=2048" "-n" "size=8192"),
    shape!("-n" "size=65536"),
    shape!("-i" "size=1024"),
    shape!("-i" "size=2048" "-b" "size=4096"),
    shape!("-s" "size=4096"),
    shape!("-d" "agcount=8" "-b" "size=1024" "-n" "size=4096").size(160 << 20),
    shape!("-l" "su=256k" "-d" "su=64k,sw=2").size(160 << 20),
    shape!().options("wsync,logbsize=32k"),
    shape!("-l" "size=16m").options("logbsize=256k,allocsize=64k").size(160 << 20),
];

#[test]
fn two_hundred_images_of_xfs_are_what_the_kernel_shows() {
    // The n-th round over the shapes takes the n-th ending.
    let shapes: Vec<Shape> = ENDINGS
        .iter()
        .flat_map(|ending| SHAPES.iter().map(|shape| shape.ending(*ending)))
        .collect();
    Campaign {
        test: "two_hundred_images_of_xfs_are_what_the_kernel_shows",
        kind: "xfs",
        programs: &["mkfs.xfs"],
        shapes: &shapes,
        images: 200.max(2 * shapes.len() as u64),
        operations: 300,
    }
    .run();
}
