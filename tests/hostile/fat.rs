//! FAT.

use crate::workshop::Workshop;

const CONTENT: &[&str] = &["content"];

/// A FAT16 filesystem of 8 MiB with a file of three clusters of 512 bytes, cluster 2 to 4.
fn image() -> Workshop {
    let shop = Workshop::new();
    shop.sh("truncate -s 8M disk.raw && mkfs.vfat -F 16 -s 1 -i 12345678 --invariant disk.raw
         head -c 1500 /dev/zero | tr '\\0' x > file && mcopy -i disk.raw file ::LONGNAME.TXT");
    shop
}

/// Sets one entry of both tables.
fn set(shop: &Workshop, cluster: u64, value: u16) {
    for table in tables(shop) {
        shop.put("disk.raw", table + cluster * 2, &value.to_le_bytes());
    }
}

/// Where the two tables are (Microsoft FAT specification 1.03, section 3.1).
fn tables(shop: &Workshop) -> [u64; 2] {
    let word =
        |at| u64::from(u16::from_le_bytes(shop.get("disk.raw", at, 2).try_into().expect("2")));
    let (reserved, length) = (word(14) * 512, word(22) * 512);
    [reserved, reserved + length]
}

#[test]
fn tables_that_differ_are_refused() {
    let shop = image();
    let [_, second] = tables(&shop);
    shop.put("disk.raw", second + 4, &[9, 0]);
    shop.refused("disk.raw", CONTENT, "differ");
}

#[test]
fn chains_that_do_not_end_are_refused() {
    for (cluster, value) in
        [(2, 2), (3, 2), (4, 2), (2, 0xfff0), (2, 0xffff), (2, 0), (2, 1), (2, 0xfff7)]
    {
        let shop = image();
        set(&shop, cluster, value);
        shop.refused("disk.raw", CONTENT, "LONGNAME.TXT");
    }
}

#[test]
fn two_files_in_one_place_are_refused() {
    let shop = image();
    shop.sh("mcopy -i disk.raw file ::OTHER.TXT");
    set(&shop, 7, 4);
    shop.refused("disk.raw", CONTENT, "damaged");
}

#[test]
fn names_that_are_no_names_are_refused() {
    for name in [b"LONG/AMETXT", b"LONG\0AMETXT", b"LONG\x01AMETXT"] {
        let shop = image();
        shop.replace("disk.raw", b"LONGNAMETXT", name);
        shop.refused("disk.raw", CONTENT, "damaged");
    }
    let shop = image();
    shop.sh("mcopy -i disk.raw file ::OTHERNAM.TXT");
    shop.replace("disk.raw", b"OTHERNAMTXT", b"LONGNAMETXT");
    shop.refused("disk.raw", CONTENT, "LONGNAME.TXT");
}

#[test]
fn a_dirty_mark_is_said() {
    let shop = image();
    shop.put("disk.raw", 37, &[1]);
    let (_, notes) = shop.read("disk.raw", "content");
    assert!(notes.contains("not cleanly unmounted"), "{notes}");
}

#[test]
fn the_table_of_a_large_volume_is_not_in_memory() {
    let shop = Workshop::new();
    // 2 copies of 128 MiB.
    shop.sh("truncate -s 1T disk.raw && mkfs.vfat -F 32 -s 64 disk.raw && fallocate -d disk.raw");
    shop.read("disk.raw", "content");
}
