//! Everything the kernel can write into an XFS filesystem, in many shapes of it.

use std::process::Command;

use super::oracle;
use super::populate::populate;
use super::workshop::{Workshop, open, run};

fn compare(test: &str, mib: u64, many: usize, arguments: &[&str]) {
    let Some(workshop) = Workshop::new(test) else { return };
    let image = workshop.image(mib, arguments);
    let text = arguments.join(" ");
    let late = !text.contains("crc=0") && !text.contains("bigtime=0");
    populate(&workshop.mount(&image, "rw").0, many, late);
    let mount = workshop.mount(&image, "ro");
    let kernel = oracle::kernel(&mount.0);
    drop(mount);
    let filesystem = open(&image).unwrap();
    assert_eq!(filesystem.notes(), [""; 0]);
    oracle::assert_equal(&oracle::list(&filesystem), &kernel);
    // The checker of the format agrees that nothing is wrong with what was compared.
    run(Command::new("xfs_repair").args(["-n", "-f"]).arg(&image));
}

macro_rules! shapes {
    ($($name:ident: $mib:literal, $many:literal, $arguments:expr;)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), $mib, $many, &$arguments);
        })*
    };
}

shapes! {
    xfs_as_mkfs_makes_it: 300, 10_000, [];
    without_large_times: 64, 1000, ["-m", "bigtime=0"];
    without_finobt_reflink_and_sparse_inodes: 64, 1000, ["-m", "finobt=0,reflink=0,inobtcount=0", "-i", "sparse=0"];
    with_rmapbt: 64, 1000, ["-m", "rmapbt=1"];
    with_large_extent_counters: 64, 1000, ["-i", "nrext64=1"];
    directory_blocks_of_8_kib: 64, 3000, ["-n", "size=8192"];
    directory_blocks_of_64_kib: 64, 3000, ["-n", "size=65536"];
    blocks_of_1_kib: 64, 10_000, ["-b", "size=1024"];
    blocks_of_1_kib_and_directory_blocks_of_4_kib: 64, 3000, ["-b", "size=1024", "-n", "size=4096"];
    blocks_of_2_kib: 64, 1000, ["-b", "size=2048"];
    inodes_of_1_kib: 64, 1000, ["-i", "size=1024"];
    inodes_of_2_kib: 64, 1000, ["-i", "size=2048"];
    sectors_of_4_kib: 64, 1000, ["-s", "size=4096"];
    eleven_groups: 200, 1000, ["-d", "agcount=11"];
    a_label_and_a_stripe: 64, 1000, ["-L", "exactly12chr", "-d", "su=16k,sw=4"];
}
