//! VHDX.

use crate::workshop::Workshop;

const DISK: &[&str] = &["disk"];

/// Where the two copies of the header and of the region table are, and their lengths ([MS-VHDX], 2.2).
const HEADERS: ([u64; 2], usize) = ([64 << 10, 128 << 10], 4096);
const REGIONS: ([u64; 2], usize) = ([192 << 10, 256 << 10], 64 << 10);

/// A disk of 8 MiB in blocks of 1 MiB, of which the first and the fourth hold data.
fn image() -> Workshop {
    let shop = Workshop::new();
    shop.sh("printf 'a secret of the host' > secret && truncate -s 64K secret
         qemu-img create -q -f vhdx -o subformat=dynamic,block_size=1M disk.vhdx 8M
         qemu-io -f vhdx -c 'write 0 1M' -c 'write 3M 1M' disk.vhdx");
    shop
}

/// Changes bytes of both copies of a structure, and gives them the checksum that they then have.
fn forge(shop: &Workshop, (places, length): ([u64; 2], usize), field: usize, bytes: &[u8]) {
    for at in places {
        let mut all = shop.get("disk.vhdx", at, length);
        all[field..field + bytes.len()].copy_from_slice(bytes);
        seal(&mut all);
        shop.put("disk.vhdx", at, &all);
    }
}

/// CRC-32C over all with zeros in place of the checksum, which is in bytes 4 to 7.
fn seal(all: &mut [u8]) {
    all[4..8].fill(0);
    let sum = crc32c::crc32c(all);
    all[4..8].copy_from_slice(&sum.to_le_bytes());
}

fn le64(shop: &Workshop, at: u64) -> u64 {
    u64::from_le_bytes(shop.get("disk.vhdx", at, 8).try_into().expect("8 bytes"))
}

/// Where the block table and the metadata are: the first two regions that QEMU writes.
fn regions(shop: &Workshop) -> (u64, u64) {
    let entry = |n: u64| le64(shop, REGIONS.0[0] + 16 + 32 * n + 16);
    (entry(0), entry(1))
}

/// Where the value of item `n` of the metadata is; QEMU's order: parameters, size, id, sectors.
fn value(shop: &Workshop, n: u64) -> u64 {
    let metadata = regions(shop).1;
    metadata + (le64(shop, metadata + 32 + 32 * n + 16) & 0xffff_ffff)
}

#[test]
fn a_whole_image_is_read() {
    image().read("disk.vhdx", "disk");
}

#[test]
fn a_parent_is_named_and_not_touched() {
    let shop = image();
    shop.put("disk.vhdx", value(&shop, 0) + 4, &2u32.to_le_bytes());
    shop.refused("disk.vhdx", &["disk", "content", "tree"], "differencing disk");
    // The locator of a parent (2.6.2.6), in place of the disk's id, names a file of the host.
    let shop = image();
    let metadata = regions(&shop).1;
    let guid =
        [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab];
    shop.put("disk.vhdx", metadata + 32 + 64, &[&guid[..], &[0x0c]].concat());
    let text: Vec<u8> =
        "relative_path../secret/etc/passwd".encode_utf16().flat_map(u16::to_le_bytes).collect();
    shop.put("disk.vhdx", value(&shop, 2), &text);
    shop.refused("disk.vhdx", &["disk", "content", "tree"], "differencing disk");
}

#[test]
fn headers_and_regions_that_lie_are_refused() {
    let (_, metadata) = regions(&image());
    let outside = (1u64 << 62).to_le_bytes();
    for (copies, field, bytes, words) in [
        (HEADERS, 66, &2u16.to_le_bytes()[..], "version 2"),
        (HEADERS, 72, &outside, "log is outside"),
        (HEADERS, 68, &u32::MAX.to_le_bytes(), "log is outside"),
        (HEADERS, 48, &[1], "nothing is in it"),
        (REGIONS, 8, &u32::MAX.to_le_bytes(), "claims 4294967295 entries"),
        (REGIONS, 8, &0u32.to_le_bytes(), "no block table"),
        (REGIONS, 32, &outside, "outside the file"),
        (REGIONS, 32, &u64::MAX.to_le_bytes(), "outside the file"),
        (REGIONS, 32, &metadata.to_le_bytes(), "the same bytes"),
        (REGIONS, 32, &0u64.to_le_bytes(), "the same bytes"),
    ] {
        let shop = image();
        forge(&shop, copies, field, bytes);
        shop.refused("disk.vhdx", DISK, words);
    }
    // A region that a reader must know, by its name.
    let shop = image();
    forge(&shop, REGIONS, 8, &3u32.to_le_bytes());
    forge(&shop, REGIONS, 80, &[9; 16]);
    forge(&shop, REGIONS, 96, &(64u64 << 20).to_le_bytes());
    forge(&shop, REGIONS, 104, &[0, 0, 16, 0, 1, 0, 0, 0]);
    shop.sh("truncate -s 65M disk.vhdx");
    shop.refused("disk.vhdx", DISK, "09090909-0909-0909-0909-090909090909");
}

#[test]
fn metadata_that_lie_are_refused() {
    for (item, at, bytes, words) in [
        (0, 0, &(1u32 << 30).to_le_bytes()[..], "blocks of 1073741824 bytes"),
        (0, 0, &3u32.to_le_bytes(), "blocks of 3 bytes"),
        (0, 4, &4u32.to_le_bytes(), "parameter bit 2"),
        (1, 0, &u64::MAX.to_le_bytes(), "claims a disk of 18446744073709551615 bytes"),
        (1, 0, &(64u64 << 40).to_le_bytes(), "block table is too short"),
        (3, 0, &0u32.to_le_bytes(), "sectors of 0 bytes"),
    ] {
        let shop = image();
        shop.put("disk.vhdx", value(&shop, item) + at, bytes);
        shop.refused("disk.vhdx", DISK, words);
    }
    let shop = image();
    let metadata = regions(&shop).1;
    shop.put("disk.vhdx", metadata + 10, &u16::MAX.to_le_bytes());
    shop.refused("disk.vhdx", DISK, "claims 65535 entries");
}

#[test]
fn block_tables_that_lie_are_refused() {
    let shop = image();
    let (table, _) = regions(&shop);
    let first = le64(&shop, table);
    for (entry, words) in [
        (first, "stands on something else"),
        ((1 << 20) | 6, "stands on something else"),
        ((1 << 60) | 6, "outside the file"),
        (6, "outside the file"),
        (7, "there in part"),
        (4, "unknown state 4"),
        (first | 8, "reserved bits"),
    ] {
        shop.put("disk.vhdx", table + 8, &entry.to_le_bytes());
        shop.refused("disk.vhdx", DISK, words);
    }
}

#[test]
fn a_claim_of_64_tib_costs_nothing() {
    let shop = Workshop::new();
    shop.sh("qemu-img create -q -f vhdx -o block_size=256M disk.vhdx 64T");
    shop.read("disk.vhdx", "disk");
    shop.refused("disk.vhdx", &["content", "tree"], "no partition table and no filesystem");
}

/// Puts an entry into the log that writes zeros to `length` bytes at `at` (2.3.1), and the mark that
/// the log is in use.
fn log(shop: &Workshop, flushed: u64, last: u64, at: u64, length: u64) {
    let id = *b"the log's own id";
    let mut entry = vec![0; 4096];
    entry[..4].copy_from_slice(b"loge");
    entry[8..12].copy_from_slice(&4096u32.to_le_bytes());
    entry[16..24].copy_from_slice(&1u64.to_le_bytes());
    entry[24..28].copy_from_slice(&1u32.to_le_bytes());
    entry[32..48].copy_from_slice(&id);
    entry[48..56].copy_from_slice(&flushed.to_le_bytes());
    entry[56..64].copy_from_slice(&last.to_le_bytes());
    entry[64..68].copy_from_slice(b"zero");
    entry[72..80].copy_from_slice(&length.to_le_bytes());
    entry[80..88].copy_from_slice(&at.to_le_bytes());
    entry[88..96].copy_from_slice(&1u64.to_le_bytes());
    seal(&mut entry);
    shop.put("disk.vhdx", le64(shop, HEADERS.0[0] + 72), &entry);
    forge(shop, HEADERS, 48, &id);
}

#[test]
fn logs_that_lie_are_refused() {
    let shop = image();
    let size = std::fs::metadata(shop.path("disk.vhdx")).expect("there").len();
    let huge = !4095;
    let (table, _) = regions(&shop);
    for (flushed, last, at, length, words) in [
        (size, size, size, 4096, "outside the file"),
        (size, size, 4096, huge, "outside the file"),
        (size, size, huge, huge, "outside the file"),
        (huge, size, table, 4096, "its log was written when it had"),
        (size, huge, table, 4096, "more than 128 TiB"),
        // The region tables, of which nothing is left then.
        (size, size, 192 << 10, 128 << 10, "both of its region tables"),
    ] {
        log(&shop, flushed, last, at, length);
        shop.refused("disk.vhdx", DISK, words);
    }
    // A file that grows to 100 TiB in memory, most of it zeros.
    log(&shop, size, 100 << 40, 1 << 40, 90 << 40);
    shop.read("disk.vhdx", "disk");
}

#[test]
fn a_raw_disk_with_a_mark_of_a_guest_is_not_read_as_vhdx() {
    let shop = Workshop::new();
    shop.sh("truncate -s 4M disk.raw; printf vhdxfile | dd of=disk.raw conv=notrunc status=none");
    shop.refused("disk.raw", DISK, "both of its headers are damaged");
    shop.sh("truncate -s 4M fixed.raw
         qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on fixed.raw disk.vhd
         printf vhdxfile | dd of=disk.vhd conv=notrunc status=none");
    shop.refused("disk.vhd", DISK, "begins as vhdx and ends as a VHD");
}
