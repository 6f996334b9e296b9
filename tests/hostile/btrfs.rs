//! btrfs. Blocks are changed and given the checksums that they then have.

use crate::workshop::Workshop;

const CONTENT: &[&str] = &["content"];

/// Where the superblock is, and the bytes of every block.
const SUPER: u64 = 64 << 10;
const BLOCK: usize = 4096;

/// Types of items (uapi/linux/btrfs_tree.h).
const INODE: u8 = 1;
const DIR_ITEM: u8 = 84;
const DIR_INDEX: u8 = 96;
const EXTENT: u8 = 108;
const ROOT: u8 = 132;
const CHUNK: u8 = 228;

/// Trees.
const ROOTS: u64 = 1;
const CHUNKS: u64 = 3;
const FILES: u64 = 5;

/// A filesystem of 16 MiB with the files `one` and `two` in the tree, `large` in blocks, and the
/// directories `/a/b` and `/loop`.
fn image() -> Workshop {
    let shop = Workshop::new();
    shop.sh("mkdir -p root/a/b root/loop root/etc; echo ID=lab > root/etc/os-release
         echo one > root/one; echo two > root/two
         yes | head -c 200000 > root/large; ln -s one root/sym
         truncate -s 16M disk.raw
         mkfs.btrfs -q -f -M -m single -d single --rootdir root disk.raw");
    shop
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Changes a block and gives it the CRC-32C of what is behind the room for checksums.
fn forge(shop: &Workshop, at: u64, change: impl FnOnce(&mut [u8])) {
    let mut block = shop.get("disk.raw", at, BLOCK);
    change(&mut block);
    let sum = crc32c::crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    shop.put("disk.raw", at, &block);
}

/// Where on the disk the newest leaf of a tree is.
fn leaf(shop: &Workshop, tree: u64) -> u64 {
    let all = std::fs::read(shop.path("disk.raw")).expect("read");
    let uuid = &all[SUPER as usize + 32..SUPER as usize + 48];
    let found = (0..all.len()).step_by(BLOCK).filter(|at| {
        let block = &all[*at..*at + BLOCK];
        let is_sound = block[..4] == crc32c::crc32c(&block[32..]).to_le_bytes();
        let is_leaf = block[32..48] == *uuid && le64(block, 88) == tree && block[100] == 0;
        is_sound && is_leaf && *at as u64 != SUPER
    });
    found.max_by_key(|at| le64(&all, at + 80)).expect("a leaf") as u64
}

/// One item of a leaf: where its key is in the block, and its data.
struct Item {
    key: usize,
    data: std::ops::Range<usize>,
}

fn items(block: &[u8]) -> Vec<Item> {
    let count = u32::from_le_bytes(block[96..100].try_into().expect("4 bytes")) as usize;
    let le32 = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().expect("4")) as usize;
    let item = |key: usize| {
        let start = 101 + le32(key + 17);
        Item { key, data: start..start + le32(key + 21) }
    };
    (0..count).map(|n| item(101 + 25 * n)).collect()
}

/// Changes the data of all items of type `kind` in a tree that `wanted` picks.
fn change(
    shop: &Workshop,
    tree: u64,
    kind: u8,
    wanted: impl Fn(u64, &[u8]) -> bool,
    with: impl Fn(&mut [u8]),
) {
    let mut changed = 0;
    forge(shop, leaf(shop, tree), |block| {
        for Item { key, data } in items(block) {
            if block[key + 8] == kind && wanted(le64(block, key), &block[data.clone()]) {
                with(&mut block[data]);
                changed += 1;
            }
        }
    });
    assert!(changed > 0, "no item of type {kind}");
}

/// The number of the inode that the name leads to.
fn inode(shop: &Workshop, name: &[u8]) -> u64 {
    let block = shop.get("disk.raw", leaf(shop, FILES), BLOCK);
    let entry = items(&block)
        .into_iter()
        .find(|item| block[item.key + 8] == DIR_INDEX && &block[item.data.clone()][30..] == name);
    le64(&block, entry.expect("an entry").data.start)
}

/// Puts bytes into both entries of a name: the one by hash and the one by index.
fn entry(shop: &Workshop, name: &[u8], at: usize, bytes: &[u8]) {
    for kind in [DIR_ITEM, DIR_INDEX] {
        let named = |_, data: &[u8]| &data[30..] == name;
        change(shop, FILES, kind, named, |data| data[at..at + bytes.len()].copy_from_slice(bytes));
    }
}

#[test]
fn a_whole_image_is_read() {
    let shop = image();
    shop.read("disk.raw", "tree");
    shop.read("disk.raw", "content");
}

#[test]
fn superblocks_that_lie_are_refused() {
    let huge = u64::MAX.to_le_bytes();
    for (at, bytes, words) in [
        (48, &huge[..], "not the primary copy"),
        (80, &huge, "the root of tree 1"),
        (80, &(1u64 << 40).to_le_bytes(), "no chunk holds it"),
        (88, &(1u64 << 40).to_le_bytes(), "no chunk holds it"),
        (136, &2u64.to_le_bytes(), "2 devices"),
        (136, &huge, "18446744073709551615 devices"),
        (144, &0u32.to_le_bytes(), "sectors of 0"),
        (148, &(1u32 << 30).to_le_bytes(), "tree blocks of 1073741824"),
        (160, &u32::MAX.to_le_bytes(), "system chunks"),
        (198, &[200], "the root of tree 1"),
        (209, &huge, "but there are only"),
        (196, &9u16.to_le_bytes(), "checksums of type 9"),
        (72, &0u64.to_le_bytes(), "disk.raw"),
        (283, &[7; 16], "another filesystem"),
        (811 + 17, &huge, "chunk"),
        (811 + 17 + 44, &u16::MAX.to_le_bytes(), "disk.raw"),
    ] {
        let shop = image();
        forge(&shop, SUPER, |block| block[at..at + bytes.len()].copy_from_slice(bytes));
        shop.refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn what_is_not_read_is_named() {
    let shop = image();
    let block = shop.get("disk.raw", SUPER, BLOCK);
    let (incompat, flags) = (le64(&block, 188), le64(&block, 56));
    for (at, value, words) in [
        (188, incompat | 1 << 12, "zoned"),
        (188, incompat | 1 << 13, "extent_tree_v2"),
        (188, incompat | 1 << 14, "raid_stripe_tree"),
        (188, incompat | 1 << 63, "bit 63"),
        (56, flags | 1 << 32, "seeding"),
        (56, flags | 1 << 35, "changing_fsid"),
        (96, 5 << 20, "log tree"),
    ] {
        forge(&shop, SUPER, |block| block[at..at + 8].copy_from_slice(&value.to_le_bytes()));
        shop.refused("disk.raw", CONTENT, words);
        shop.put("disk.raw", SUPER, &block);
    }
}

#[test]
fn several_devices_are_named() {
    let shop = Workshop::new();
    shop.sh("truncate -s 128M disk.raw; truncate -s 128M other.raw
         mkfs.btrfs -q -f -m raid1 -d raid0 disk.raw other.raw");
    shop.refused("disk.raw", CONTENT, "2 devices");
}

#[test]
fn chunk_trees_that_lie_are_refused() {
    let huge = u64::MAX.to_le_bytes();
    for (at, bytes, words) in [
        (0, &huge[..], "chunk"),
        (0, &0u64.to_le_bytes(), "chunk"),
        (0, &(8u64 << 30).to_le_bytes(), "chunk"),
        (16, &0u64.to_le_bytes(), "that of a stripe 0"),
        (24, &(1u64 | 1 << 3).to_le_bytes(), "RAID0"),
        (24, &(1u64 | 1 << 7).to_le_bytes(), "RAID5"),
        (24, &huge, "RAID0"),
        (24, &(1u64 << 40 | 1).to_le_bytes(), "unknown type"),
        (44, &u16::MAX.to_le_bytes(), "65535 stripes instead of 1"),
        (44, &0u16.to_le_bytes(), "0 stripes instead of 1"),
        (48, &7u64.to_le_bytes(), "a device that is not here"),
        (48 + 16, &[9; 16], "a device that is not here"),
        (48 + 8, &huge, "outside the device"),
        (48 + 8, &(16u64 << 20).to_le_bytes(), "outside the device"),
    ] {
        let shop = image();
        let all = |_, _: &[u8]| true;
        change(&shop, CHUNKS, CHUNK, all, |d| d[at..at + bytes.len()].copy_from_slice(bytes));
        shop.refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn blocks_that_lie_are_refused() {
    let shop = image();
    let at = leaf(&shop, FILES);
    let before = shop.get("disk.raw", at, BLOCK);
    for (place, bytes, words) in [
        (48, &u64::MAX.to_le_bytes()[..], "it says that it is the one at"),
        (80, &u64::MAX.to_le_bytes(), "not part of what was written last"),
        (88, &7u64.to_le_bytes(), "it belongs to tree 7"),
        (96, &u32::MAX.to_le_bytes(), "it has 4294967295 entries"),
        (100, &[1], "is not at a place for a block"),
        (100, &[255], "its level is 255"),
        (101, &u64::MAX.to_le_bytes(), "out of order"),
        (101 + 17, &u32::MAX.to_le_bytes(), "not where it has to be"),
        (101 + 21, &u32::MAX.to_le_bytes(), "not where it has to be"),
    ] {
        forge(&shop, at, |block| block[place..place + bytes.len()].copy_from_slice(bytes));
        shop.refused("disk.raw", CONTENT, words);
        shop.put("disk.raw", at, &before);
    }
    shop.put("disk.raw", at + 2000, &[before[2000] ^ 1]);
    shop.refused("disk.raw", CONTENT, "checksum");
}

#[test]
fn directories_that_go_in_circles_are_refused() {
    // Where `/a/b` leads: to `/a`, the top, a file, and nowhere.
    let own: fn(&Workshop) -> u64 = |shop| inode(shop, b"a");
    for (to, words) in [
        (own, "second name of a directory"),
        (|_| 256, "second name of a directory"),
        (|shop| inode(shop, b"one"), "different file types"),
        (|_| u64::MAX - 300, "leads nowhere"),
        (|_| 1, "leads nowhere"),
    ] {
        let shop = image();
        entry(&shop, b"b", 0, &to(&shop).to_le_bytes());
        shop.refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn subvolumes_that_go_in_circles_are_refused() {
    let shop = image();
    // `/loop` leads to the top-level subvolume. Nothing says that it hangs there, so it is the empty
    // directory that the kernel shows in place of such a one.
    let to = [&FILES.to_le_bytes()[..], &[ROOT], &u64::MAX.to_le_bytes()].concat();
    entry(&shop, b"loop", 0, &to);
    shop.read("disk.raw", "tree");
    // An item behind that of the tree becomes the reference that says so (type 156).
    forge(&shop, leaf(&shop, ROOTS), |block| {
        let all = items(block);
        let root = all
            .iter()
            .position(|item| (le64(block, item.key), block[item.key + 8]) == (FILES, ROOT));
        let Item { key, data } = &all[root.expect("the tree's item") + 1];
        block[*key..key + 8].copy_from_slice(&FILES.to_le_bytes());
        block[key + 8] = 156;
        block[key + 9..key + 17].copy_from_slice(&FILES.to_le_bytes());
        let reference = [&256u64.to_le_bytes()[..], &[0; 8], &[4, 0], b"loop"].concat();
        block[data.start..data.start + reference.len()].copy_from_slice(&reference);
    });
    shop.refused("disk.raw", CONTENT, "it hangs in two places");
}

#[test]
fn names_that_no_kernel_makes_are_refused() {
    for (name, words) in [
        (&b"/ne"[..], "a name that is none"),
        (b"\0ne", "a name that is none"),
        (b"two", "hash of a name is another one"),
    ] {
        let shop = image();
        entry(&shop, b"one", 30, name);
        shop.refused("disk.raw", CONTENT, words);
    }
    // Only by index: whoever lists sees another name than who looks it up.
    let shop = image();
    let named = |_, data: &[u8]| &data[30..] == b"one";
    change(&shop, FILES, DIR_INDEX, named, |data| data[30..33].copy_from_slice(b"two"));
    shop.refused("disk.raw", CONTENT, "by hash and by index differ");
    // A name that is longer than its item.
    let shop = image();
    entry(&shop, b"one", 27, &u16::MAX.to_le_bytes());
    shop.refused("disk.raw", CONTENT, "disk.raw");
}

#[test]
fn inodes_that_lie_are_refused() {
    for (at, bytes, words) in [
        (16, &(1u64 << 62).to_le_bytes()[..], "holes included"),
        (16, &u64::MAX.to_le_bytes(), "disk.raw"),
        (52, &0u32.to_le_bytes(), "disk.raw"),
        (52, &0o040_644u32.to_le_bytes(), "file types"),
        (52, &0o170_644u32.to_le_bytes(), "disk.raw"),
    ] {
        let shop = image();
        let large = inode(&shop, b"large");
        let is_it = |object, _: &[u8]| object == large;
        change(&shop, FILES, INODE, is_it, |d| d[at..at + bytes.len()].copy_from_slice(bytes));
        shop.refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn extents_that_lie_are_refused() {
    let huge = u64::MAX.to_le_bytes();
    // Offsets in `struct btrfs_file_extent_item`.
    for (edits, words) in [
        (&[(21, &(1u64 << 40).to_le_bytes()[..])][..], "the contents at address 1099511627776"),
        (&[(21, &(u64::MAX - 4095).to_le_bytes())], "it ends nowhere"),
        (&[(21, &huge)], "start and end with a sector"),
        (&[(29, &0u64.to_le_bytes())], "beyond its contents"),
        (&[(37, &(1u64 << 40).to_le_bytes())], "beyond its contents"),
        (&[(45, &(1u64 << 40).to_le_bytes())], "beyond its contents"),
        (&[(45, &0u64.to_le_bytes())], "start and end with a sector"),
        (&[(16, &[77])], "compression of the unknown type 77"),
        (&[(17, &[1])], "encrypted contents"),
        (&[(20, &[9])], "extents of the unknown type 9"),
        (&[(20, &[0])], "disk.raw"),
        // Bombs: 1 TiB, and 128 KiB, of what is no stream.
        (&[(16, &[1]), (8, &(1u64 << 40).to_le_bytes())], "packed and too long"),
        (
            &[
                (16, &[1]),
                (29, &(128u64 << 10).to_le_bytes()),
                (8, &(128u64 << 10).to_le_bytes()),
                (45, &(128u64 << 10).to_le_bytes()),
            ],
            "cannot be unpacked",
        ),
        (
            &[
                (16, &[3]),
                (29, &(128u64 << 10).to_le_bytes()),
                (8, &(128u64 << 10).to_le_bytes()),
                (45, &(128u64 << 10).to_le_bytes()),
            ],
            "cannot be unpacked",
        ),
    ] {
        let shop = image();
        let large = inode(&shop, b"large");
        let is_it = |object, _: &[u8]| object == large;
        change(&shop, FILES, EXTENT, is_it, |data| {
            for (at, bytes) in edits {
                data[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        });
        shop.refused("disk.raw", CONTENT, words);
    }
    // In the tree: another length than there are bytes, and packed ones that are no stream.
    for (at, bytes, words) in [(8, &huge[..], "an inline extent"), (16, &[1], "cannot be unpacked")]
    {
        let shop = image();
        let one = inode(&shop, b"one");
        let is_it = |object, _: &[u8]| object == one;
        change(&shop, FILES, EXTENT, is_it, |d| d[at..at + bytes.len()].copy_from_slice(bytes));
        shop.refused("disk.raw", CONTENT, words);
    }
}

#[test]
fn a_bomb_in_an_extent_is_no_longer_than_it_says() {
    let shop = image();
    let one = inode(&shop, b"one");
    // zstd: a frame of one RLE block of 128 KiB, in place of the four bytes of the file; its item
    // says that it unpacks to 4.
    let is_it = |object, data: &[u8]| object == one && data.len() == 25;
    change(&shop, FILES, EXTENT, is_it, |data| {
        data[16] = 3;
        data[21..25].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
    });
    shop.refused("disk.raw", CONTENT, "cannot be unpacked");
}
