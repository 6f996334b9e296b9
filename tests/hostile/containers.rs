//! qcow2, VHD and raw files.

use crate::workshop::Workshop;

/// Levels at which nothing can be told if the container cannot be read.
const ALL: &[&str] = &["disk", "content", "tree"];

/// Big-endian bytes for a qcow2 header.
fn be32(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

/// A folder with a file of the host that an image names.
fn workshop() -> Workshop {
    let shop = Workshop::new();
    shop.sh("printf 'a secret of the host' > secret && truncate -s 64K secret");
    shop
}

#[test]
fn a_backing_file_is_named_and_not_touched() {
    let shop = workshop();
    for (image, name) in [
        ("beside.qcow2", "secret"),
        ("absolute.qcow2", "/etc/passwd"),
        ("up.qcow2", "../../../../etc/passwd"),
        (
            "json.qcow2",
            r#"json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}"#,
        ),
        ("nbd.qcow2", "nbd://127.0.0.1:10809/secret"),
        ("https.qcow2", "https://127.0.0.1/secret"),
        ("ssh.qcow2", "ssh://root@127.0.0.1/etc/passwd"),
        ("newline.qcow2", "secret\nerror: forged"),
        ("colour.qcow2", "secret\u{1b}[2J"),
    ] {
        shop.sh(&format!("qemu-img create -q -f qcow2 -u -F raw -b '{}' {image} 1M", name));
        shop.refused(image, ALL, "backing file");
    }
}

#[test]
fn a_data_file_is_refused() {
    let shop = workshop();
    shop.sh("qemu-img create -q -f qcow2 -o data_file=other.raw,data_file_raw=on image.qcow2 1M");
    shop.refused("image.qcow2", ALL, "external data file");
    shop.sh("rm other.raw && ln -s /etc/passwd other.raw");
    shop.refused("image.qcow2", ALL, "external data file");
}

#[test]
fn encryption_is_refused() {
    let shop = workshop();
    shop.sh("qemu-img create -q -f qcow2 image.qcow2 1M");
    // `crypt_method`: 1 is AES, 2 is LUKS.
    for method in [1, 2, 3] {
        shop.put("image.qcow2", 32, &be32(method));
        shop.refused("image.qcow2", ALL, "encrypt");
    }
}

#[test]
fn a_claim_of_60_tib_costs_nothing() {
    let shop = workshop();
    shop.sh("qemu-img create -q -f qcow2 -o cluster_size=2M image.qcow2 60T");
    shop.read("image.qcow2", "disk");
    shop.refused("image.qcow2", &["content", "tree"], "no partition table and no filesystem");
    // And beyond the limit.
    shop.put("image.qcow2", 24, &(1u64 << 60).to_be_bytes());
    shop.refused("image.qcow2", ALL, "limit");
    shop.put("image.qcow2", 24, &u64::MAX.to_be_bytes());
    shop.refused("image.qcow2", ALL, "image.qcow2");
}

#[test]
fn headers_that_lie_are_refused() {
    // Offsets in QEMU's docs/interop/qcow2.txt, section "Header".
    let cases: &[(&str, u64, &[u8], &str)] = &[
        ("an unknown version", 4, &be32(9), "version 9"),
        ("a backing name beyond the file", 8, &u64::MAX.to_be_bytes(), "image.qcow2"),
        ("clusters of 2^63 bytes", 20, &be32(63), "cluster"),
        ("an L1 table of 32 GiB", 36, &be32(u32::MAX), "image.qcow2"),
        ("an L1 table beyond the file", 40, &(1u64 << 40).to_be_bytes(), "image.qcow2"),
        ("an L1 table in no cluster", 40, &0x10001u64.to_be_bytes(), "image.qcow2"),
        ("an incompatible feature", 72, &(1u64 << 40).to_be_bytes(), "feature"),
        ("the mark of a repair", 72, &2u64.to_be_bytes(), "corrupt"),
        ("a header of 4 GiB", 100, &be32(u32::MAX), "header"),
    ];
    let shop = workshop();
    for (_, offset, bytes, words) in cases {
        shop.sh("qemu-img create -q -f qcow2 image.qcow2 1M");
        shop.put("image.qcow2", *offset, bytes);
        shop.refused("image.qcow2", &["disk"], words);
    }
}

#[test]
fn one_table_for_a_whole_disk_is_refused() {
    let shop = workshop();
    shop.sh("qemu-img create -q -f qcow2 image.qcow2 64G && qemu-io -f qcow2 -c 'write 0 64k' image.qcow2");
    let l1 = u64::from_be_bytes(shop.get("image.qcow2", 40, 8).try_into().expect("8 bytes"));
    let first = shop.get("image.qcow2", l1, 8);
    for entry in 1..128 {
        shop.put("image.qcow2", l1 + entry * 8, &first);
    }
    shop.refused("image.qcow2", &["disk"], "same L2 table");
}

#[test]
fn a_qcow2_header_that_a_guest_wrote_into_a_raw_disk_reaches_no_file() {
    let shop = workshop();
    shop.sh("qemu-img create -q -f qcow2 -u -F raw -b /etc/passwd header.qcow2 1M
         truncate -s 4M disk.raw
         dd if=header.qcow2 of=disk.raw conv=notrunc status=none");
    shop.refused("disk.raw", ALL, "backing file");
}

#[test]
fn a_vhd_footer_on_a_raw_disk_is_said() {
    let shop = workshop();
    shop.sh("truncate -s 1M disk.raw
         qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on disk.raw footer.vhd
         truncate -s 2M disk.raw
         tail -c 512 footer.vhd > footer
         cat footer >> disk.raw");
    // The footer says 1 MiB, the file holds 2 MiB before it.
    shop.refused("disk.raw", ALL, "a raw disk that ends with a VHD footer");
    // Larger than the file.
    shop.sh("truncate -s 64K small.raw && cat footer >> small.raw");
    shop.refused("small.raw", ALL, "a raw disk that ends with a VHD footer");
    // Damaged, it is no footer and no reason to guess.
    shop.put("disk.raw", (2 << 20) + 100, b"x");
    shop.refused("disk.raw", ALL, "footer");
}

#[test]
fn a_sparse_file_of_15_tib_costs_nothing() {
    let shop = workshop();
    shop.sh("truncate -s 15T disk.raw");
    shop.read("disk.raw", "disk");
    shop.refused("disk.raw", &["content", "tree"], "no partition table and no filesystem");
}

#[test]
fn what_is_no_image_is_refused() {
    let shop = workshop();
    shop.sh(": > empty; printf x > one; head -c 3000 /dev/urandom > noise; truncate -s 0 zeros");
    shop.refused("empty", ALL, "empty");
    shop.refused("one", &["content", "tree"], "one");
    shop.refused("noise", &["content", "tree"], "noise");
}
