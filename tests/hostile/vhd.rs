//! Dynamic VHD.

use crate::workshop::Workshop;

const DISK: &[&str] = &["disk"];

/// Where the copy of the footer, the header and the table stand in what `qemu-img` makes.
const COPY: u64 = 0;
const HEADER: u64 = 512;
const TABLE: u64 = 1536;

/// A disk of 16 MiB whose first and third block of 2 MiB hold data.
fn image() -> Workshop {
    let shop = Workshop::new();
    shop.sh("printf 'a secret of the host' > secret && truncate -s 64K secret
         qemu-img create -q -f vpc -o subformat=dynamic,force_size=on disk.vhd 16M
         qemu-io -f vpc -c 'write 0 2M' -c 'write 4M 64k' disk.vhd");
    assert_eq!(shop.get("disk.vhd", HEADER, 8), b"cxsparse");
    assert_eq!(be64(&shop, HEADER + 16), TABLE);
    shop
}

fn be64(shop: &Workshop, at: u64) -> u64 {
    u64::from_be_bytes(shop.get("disk.vhd", at, 8).try_into().expect("8 bytes"))
}

/// Changes bytes of a structure, and gives it the checksum that it then has: the ones' complement of
/// the sum of its bytes (Virtual Hard Disk Image Format Specification 1.0).
fn forge(shop: &Workshop, at: u64, length: usize, crc: usize, field: usize, bytes: &[u8]) {
    let mut all = shop.get("disk.vhd", at, length);
    all[field..field + bytes.len()].copy_from_slice(bytes);
    all[crc..crc + 4].fill(0);
    let sum = !all.iter().map(|b| u32::from(*b)).sum::<u32>();
    all[crc..crc + 4].copy_from_slice(&sum.to_be_bytes());
    shop.put("disk.vhd", at, &all);
}

/// Both copies of the footer.
fn footer(shop: &Workshop, field: usize, bytes: &[u8]) {
    let end = std::fs::metadata(shop.path("disk.vhd")).expect("there").len() - 512;
    for at in [COPY, end] {
        forge(shop, at, 512, 64, field, bytes);
    }
}

fn header(shop: &Workshop, field: usize, bytes: &[u8]) {
    forge(shop, HEADER, 1024, 36, field, bytes);
}

#[test]
fn a_whole_image_is_read() {
    image().read("disk.vhd", "disk");
}

#[test]
fn a_parent_is_named_and_not_touched() {
    let shop = image();
    // A locator of a Windows path (`W2ru`), 40 bytes at the end of the header.
    let name: Vec<u8> = "../../etc/passwd".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let locator = [&b"W2ru"[..], &[0, 0, 0, 1], &(name.len() as u32).to_be_bytes()].concat();
    header(&shop, 576, &locator);
    header(&shop, 64, &"secret".encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>());
    footer(&shop, 60, &4u32.to_be_bytes());
    shop.refused("disk.vhd", &["disk", "content", "tree"], "parent disk");
}

#[test]
fn footers_that_lie_are_refused() {
    let huge = u64::MAX.to_be_bytes();
    for (field, bytes, words) in [
        (12, &2u32.to_be_bytes()[..], "unknown version 0.2"),
        (60, &9u32.to_be_bytes(), "unknown disk type 9"),
        (60, &2u32.to_be_bytes(), "begins as a dynamic VHD does and ends as a fixed one"),
        (16, &huge, "header of the dynamic disk is not there"),
        (16, &(1u64 << 62).to_be_bytes(), "header of the dynamic disk is not there"),
        (16, &COPY.to_be_bytes(), "header of the dynamic disk is not there"),
        (48, &huge, "limit"),
        (48, &(1u64 << 40).to_be_bytes(), "and the disk 524288 blocks"),
    ] {
        let shop = image();
        footer(&shop, field, bytes);
        shop.refused("disk.vhd", DISK, words);
    }
    let shop = image();
    // A sound copy that says another size than the footer.
    forge(&shop, COPY, 512, 64, 48, &(1u64 << 21).to_be_bytes());
    shop.refused("disk.vhd", DISK, "disagree");
}

#[test]
fn headers_and_tables_that_lie_are_refused() {
    for (field, bytes, words) in [
        (24, &0x0002_0000u32.to_be_bytes()[..], "header version 2.0"),
        (32, &0u32.to_be_bytes(), "blocks of 0 bytes"),
        (32, &(1u32 << 31).to_be_bytes(), "blocks of 2147483648 bytes"),
        (32, &512u32.to_be_bytes(), "blocks of 512 bytes"),
        (28, &1u32.to_be_bytes(), "its table has 1 entries"),
        (16, &u64::MAX.to_be_bytes(), "outside the file"),
        (16, &(1u64 << 50).to_be_bytes(), "outside the file"),
    ] {
        let shop = image();
        header(&shop, field, bytes);
        shop.refused("disk.vhd", DISK, words);
    }
    let shop = image();
    let first = shop.get("disk.vhd", TABLE, 4);
    for (entry, bytes, words) in [
        // The same bytes twice, a block on the header, one outside.
        (1, &first[..], "stands on something else"),
        (1, &1u32.to_be_bytes(), "stands on something else"),
        (1, &0x7fff_ffffu32.to_be_bytes(), "outside the file"),
    ] {
        let before = shop.get("disk.vhd", TABLE + entry * 4, 4);
        shop.put("disk.vhd", TABLE + entry * 4, bytes);
        shop.refused("disk.vhd", DISK, words);
        shop.put("disk.vhd", TABLE + entry * 4, &before);
    }
    // Data in a sector that the bitmap calls never written: some programs show it, others zeros.
    let sector = u32::from_be_bytes(first.try_into().expect("4 bytes"));
    shop.put("disk.vhd", u64::from(sector) * 512, &[0x7f]);
    shop.refused("disk.vhd", DISK, "its block's bitmap says that it was never written");
}

#[test]
fn a_claim_of_8_tib_costs_nothing() {
    let shop = image();
    // A table of 4 Mi entries, all unused, behind the blocks; Hyper-V's mark, whose size counts.
    shop.sh("truncate -s -512 disk.vhd; truncate -s 32M disk.vhd
         head -c 16M /dev/zero | tr '\\0' '\\377' >> disk.vhd
         head -c 512 disk.vhd >> disk.vhd");
    header(&shop, 16, &(32u64 << 20).to_be_bytes());
    header(&shop, 28, &(4u32 << 20).to_be_bytes());
    footer(&shop, 28, b"win ");
    footer(&shop, 48, &(8u64 << 40).to_be_bytes());
    shop.read("disk.vhd", "disk");
}
