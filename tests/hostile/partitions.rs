//! Partition tables.

use crate::workshop::Workshop;

const CONTENT: &[&str] = &["content", "tree"];

/// A disk of 4 MiB with two partitions.
fn gpt() -> Workshop {
    let shop = Workshop::new();
    shop.sh("truncate -s 4M disk.raw
         printf 'label: gpt\nstart=2048,size=2048\nstart=4096,size=2048\n' | sfdisk -q disk.raw");
    shop
}

/// Changes bytes of the first entries, and makes both copies' checksums right (UEFI 2.10, 5.3.2).
fn change(shop: &Workshop, offset: u64, bytes: &[u8]) {
    let last = (4 << 20) - 512;
    let crc = |data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        crc.sum().to_le_bytes()
    };
    for (header, entries) in [(512, 1024), (last, last - 32 * 512)] {
        shop.put("disk.raw", entries + offset, bytes);
        let sum = crc(&shop.get("disk.raw", entries, 128 * 128));
        shop.put("disk.raw", header + 88, &sum);
        shop.put("disk.raw", header + 16, &[0; 4]);
        let sum = crc(&shop.get("disk.raw", header, 92));
        shop.put("disk.raw", header + 16, &sum);
    }
}

#[test]
fn partitions_that_overlap_or_lie_outside_are_refused() {
    for (offset, sector, words) in [
        (128 + 32, 3000u64, "overlap"),
        (128 + 32, 34, "overlap"),
        (128 + 32, 9000, "not inside the disk"),
        (128 + 40, u64::MAX, "not inside the disk"),
        (40, 0, "not inside the disk"),
    ] {
        let shop = gpt();
        change(&shop, offset, &sector.to_le_bytes());
        shop.refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn a_table_that_is_not_its_checksum_is_refused() {
    let shop = gpt();
    shop.put("disk.raw", 1024 + 56, b"x");
    shop.put("disk.raw", (4 << 20) - 33 * 512 + 56, b"y");
    shop.refused("disk.raw", CONTENT, "both copies of the disk's GPT are damaged");
}

#[test]
fn a_gpt_that_half_of_the_systems_see_is_refused() {
    let shop = gpt();
    // An MBR partition of type 83 in place of the protective one.
    shop.put("disk.raw", 446 + 4, &[0x83]);
    shop.refused("disk.raw", CONTENT, "without its protective MBR");
}

#[test]
fn logical_partitions_that_never_end_are_refused() {
    let shop = Workshop::new();
    shop.sh(
        "truncate -s 4M disk.raw
         printf 'label: dos\nstart=2048,size=6000,type=5\nstart=2100,size=100\nstart=2300,size=100\n' | sfdisk -q disk.raw",
    );
    shop.sh("sfdisk --dump disk.raw > dump");
    // The second link of the chain, relative to the extended partition: back to itself.
    let sector = shop.get("disk.raw", 2048 * 512, 512);
    assert_eq!(sector[510..], [0x55, 0xaa]);
    shop.put("disk.raw", 2048 * 512 + 446 + 16 + 8, &0u32.to_le_bytes());
    shop.refused("disk.raw", CONTENT, "disk.raw");
    shop.put("disk.raw", 2048 * 512 + 446 + 16 + 8, &u32::MAX.to_le_bytes());
    shop.refused("disk.raw", CONTENT, "disk.raw");
}

#[test]
fn two_filesystems_in_one_place_are_refused() {
    let shop = Workshop::new();
    shop.sh("truncate -s 8M disk.raw && mkfs.vfat disk.raw
         truncate -s 8M ext.raw && mke2fs -q -t ext4 ext.raw
         dd if=ext.raw of=disk.raw bs=1024 skip=1 seek=1 count=1 conv=notrunc status=none");
    shop.refused("disk.raw", CONTENT, "looks both like");
}
