//! ext2, ext3 and ext4.

use crate::workshop::Workshop;

const CONTENT: &[&str] = &["content", "tree"];

/// An image of 8 MiB made by `mke2fs` with these options, `prepare` having filled its tree `root/`.
fn image(options: &str, prepare: &str) -> Workshop {
    let shop = Workshop::new();
    shop.sh(&format!(
        "mkdir -p root/etc root/a/b && echo ID=lab > root/etc/os-release
         cd root; {prepare}
         cd ..; truncate -s 8M disk.raw && mke2fs -q -t ext4 {options} -d root disk.raw"
    ));
    shop
}

/// Without checksums and index, so that directory entries can be overwritten.
const BARE: &str = "-O ^metadata_csum,^dir_index,^has_journal";

#[test]
fn names_that_no_kernel_makes_are_refused() {
    for (name, words) in [(b"unique-b", "twice"), (b"unique/a", "name"), (b"unique\0a", "name")] {
        let shop = image(BARE, "echo a > unique-a; echo b > unique-b");
        shop.replace("disk.raw", b"unique-a", name);
        shop.refused("disk.raw", CONTENT, words);
    }
    // An entry: 4 bytes of inode, 2 of length, the name's length, the type, the name.
    for (old, new) in [(b"\x02\x01qq", b"\x02\x01.."), (b"\x02\x01qq", b"\x01\x01.q")] {
        let shop = image(BARE, "echo q > qq");
        shop.replace("disk.raw", old, new);
        shop.refused("disk.raw", CONTENT, "damaged");
    }
}

#[test]
fn a_second_name_of_a_directory_and_a_circle_are_refused() {
    for request in ["ln a second", "ln a a/b/c", "ln / a/b/c"] {
        let shop = image(BARE, ":");
        shop.debugfs("disk.raw", &[request]);
        shop.refused("disk.raw", CONTENT, "directory");
    }
}

#[test]
fn features_that_are_not_read_are_named() {
    for (feature, words) in [
        ("FEATURE_I30", "FEATURE_I30"),
        ("compression", "compression"),
        ("journal_dev", "journal_dev"),
        ("dirdata", "dirdata"),
    ] {
        let shop = image(BARE, ":");
        shop.debugfs("disk.raw", &[&format!("feature {feature}")]);
        shop.refused("disk.raw", CONTENT, words);
    }
    // These change nothing until a directory uses them (linux, fs/ext4/ext4.h: EXT4_ENCRYPT_FL,
    // EXT4_CASEFOLD_FL, both beside EXT4_EXTENTS_FL).
    for (feature, flags) in [("encrypt", "0x80800"), ("casefold", "0x40080000")] {
        let shop = image(BARE, "mkdir d");
        let use_it = format!("set_inode_field d flags {flags}");
        shop.debugfs("disk.raw", &[&format!("feature {feature}"), &use_it]);
        shop.refused("disk.raw", CONTENT, feature);
    }
}

#[test]
fn an_unclean_filesystem_without_a_journal_is_refused() {
    let shop = image(BARE, ":");
    shop.debugfs("disk.raw", &["set_super_value state 0"]);
    shop.refused("disk.raw", CONTENT, "not cleanly unmounted");
}

#[test]
fn sizes_that_are_no_sizes_are_refused() {
    for request in [
        "set_inode_field big size 0xfffffff0000",
        "set_inode_field big size 0x7fffffffffffffff",
        "set_inode_field a size 0x40000000",
        "set_super_value blocks_count 0xffffffff",
        "set_super_value inodes_per_group 0xffffffff",
        "set_super_value log_block_size 31",
        "set_super_value desc_size 0xffff",
        "set_super_value inode_size 0xffff",
        "set_super_value first_data_block 0xffffffff",
        "set_super_value blocks_per_group 1",
    ] {
        let shop = image(BARE, "echo b > big");
        shop.debugfs("disk.raw", &[request]);
        shop.refused("disk.raw", CONTENT, "disk.raw");
    }
}

#[test]
fn a_damaged_checksum_is_refused() {
    let shop = image("-O metadata_csum,^has_journal", "echo a > unique-a");
    shop.replace("disk.raw", b"unique-a", b"unique-b");
    shop.refused("disk.raw", CONTENT, "checksum");
}

#[test]
fn a_sparse_file_of_15_tib_hits_the_limit() {
    let shop = image(&format!("{BARE} -b 4096"), ": > big");
    shop.debugfs("disk.raw", &["set_inode_field big size 0xeffffff0000"]);
    shop.refused("disk.raw", CONTENT, "disk.raw");
}

#[test]
fn a_socket_is_named() {
    let shop = image(BARE, "mkfifo pipe-that-is-not");
    shop.debugfs("disk.raw", &["set_inode_field pipe-that-is-not mode 0140644"]);
    shop.refused("disk.raw", CONTENT, "pipe-that-is-not");
}

#[test]
fn links_that_lead_to_the_host_or_nowhere_are_read_as_links() {
    let shop = image(
        BARE,
        "mkdir -p boot/grub bin
         rm etc/os-release; ln -s /etc/hostname etc/os-release
         ln -s ../../../../../../etc/passwd boot/grub/grub.cfg
         ln -s /bin/sh bin/sh; ln -s loop etc/loop; ln -s two etc/one; ln -s one etc/two",
    );
    shop.read("disk.raw", "tree");
    shop.read("disk.raw", "content");
}

#[test]
fn a_name_forges_no_line() {
    // One file whose name has the form of the end of one line and the whole of the next.
    let forged = image(BARE, "printf x > \"$(printf 'a 0644 0 0 1 sha256:00\\nf b')\"");
    let honest = image(BARE, "printf x > 'a 0644 0 0 1 sha256:00'; printf x > 'f b'");
    let (forged, notes) = forged.read("disk.raw", "tree");
    assert_ne!(forged, honest.read("disk.raw", "tree").0);
    assert_eq!(notes, "");
    let coloured = image(BARE, "mkdir \"$(printf 'x\\033[2J\\nerror: forged')\"");
    coloured.debugfs("disk.raw", &["set_inode_field <13> mode 0140755"]);
    coloured.refused("disk.raw", CONTENT, "damaged");
}
