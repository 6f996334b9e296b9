//! The kernel's device-mapper as the oracle of LVM2 volumes.
//!
//! A machine boots the tiny guest's kernel with LVM2 of this host, makes a group of linear and
//! striped volumes and writes them through device-mapper. A second machine, which cannot write to
//! that disk, says the SHA-256 of each volume and what is in the one with a filesystem. devbox, which
//! reads the same disk without device-mapper, must see the same bytes and files.
//!
//! No root, no loop device and no network is needed, besides what the tiny guest is made from.
#![expect(clippy::print_stderr, reason = "what did not run or was measured is said")]

mod guest;
#[path = "../support/tiny.rs"]
#[expect(dead_code, reason = "only the tree that the disk is made from is used here")]
mod tiny;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use devbox::digest::{Sha256, hex, sha256};
use devbox::image::container::Options;
use devbox::image::disk::{Disk, Group, Holder};
use devbox::image::tree::{Filesystem, Node, NodeId, NodeKind, Tree};
use guest::{Guest, PATH, PROGRAMS, run};

const MIB: u64 = 1 << 20;

/// Volumes as `tests/fixtures/lvm/make` makes them, and their sizes in MiB.
const VOLUMES: [(&str, u64); 5] =
    [("first", 40), ("stripes", 18), ("thirds", 9), ("root-fs", 16), ("last", 1)];

/// The volume with a filesystem.
const ROOT: &str = "root-fs";

/// `length` bytes that do not repeat (xorshift64*, Vigna 2016).
fn random(length: u64, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes
}

/// What is written into the volumes, in one file; the place of each in MiB, and the SHA-256 of each.
fn data(folder: &Path) -> (String, BTreeMap<&'static str, String>) {
    std::fs::create_dir_all(folder.join("tree/etc")).expect("it makes");
    std::fs::write(folder.join("tree/etc/os-release"), "ID=lab\n").expect("it writes");
    run(folder, "mke2fs", &["-q", "-t", "ext4", "-L", "root", "-d", "tree", "fs", "16M"]);
    let mut file = File::create(folder.join("data")).expect("a file");
    let (mut places, mut sums, mut at) = (String::new(), BTreeMap::new(), 0);
    for ((name, size), seed) in VOLUMES.into_iter().zip(1..) {
        let bytes = match name {
            ROOT => std::fs::read(folder.join("fs")).expect("it reads"),
            _ => random(size * MIB, seed),
        };
        assert_eq!(bytes.len() as u64, size * MIB);
        file.write_all(&bytes).expect("it writes");
        sums.insert(name, hex(&sha256(&bytes)));
        places += &format!("{name} {at} {size}\n");
        at += size;
    }
    (places, sums)
}

/// A disk with a GPT of three empty partitions of 32 MiB.
fn blank(folder: &Path) {
    let file = File::create(folder.join("disk.raw")).expect("a file");
    file.set_len(98 * MIB).expect("a sparse file");
    let part = |number: u64| format!("start={}MiB, size=32MiB, type=lvm\n", 1 + 32 * number);
    let script = format!("label: gpt\n{}{}{}", part(0), part(1), part(2));
    std::fs::write(folder.join("script"), script).expect("it writes");
    run(folder, "sh", &["-ec", "sfdisk -q disk.raw < script"]);
}

/// The rest of each line that starts with `word`.
fn about<'a>(lines: &'a [String], word: &str) -> Vec<&'a str> {
    let prefix = format!("{word} ");
    lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

/// Fails unless the kernel's tables have the shapes that this test is about.
fn check_shapes(tables: &[&str]) {
    let of = |volume: &str| -> Vec<Vec<&str>> {
        let prefix = format!("vg0-{volume}: ");
        let lines = tables.iter().filter_map(|line| line.strip_prefix(&prefix));
        lines.map(|line| line.split(' ').collect()).collect()
    };
    // START LENGTH linear DEVICE OFFSET
    let first = of("first");
    assert!(first.len() >= 3 && first.iter().all(|line| line[2] == "linear"), "{tables:?}");
    assert!(first.iter().any(|line| line[3] != first[0][3]), "one device only: {tables:?}");
    // START LENGTH striped STRIPES SECTORS (DEVICE OFFSET)...
    let stripes: Vec<_> = of("stripes").iter().map(|line| line[2..5].join(" ")).collect();
    assert_eq!(stripes[..2], ["striped 2 128", "striped 2 32"], "{tables:?}");
    assert!(stripes[2].starts_with("linear "), "{tables:?}");
    assert_eq!(of("thirds")[0][2..5], ["striped", "3", "8"], "{tables:?}");
}

fn volumes(group: &Group) -> Vec<String> {
    let lines = group.volumes.iter().map(|volume| {
        let mut bytes = vec![0; usize::try_from(volume.reader.size()).expect("small")];
        volume.reader.read_at(&mut bytes, 0).expect("it reads");
        format!("{} {} {}", volume.name, volume.uuid, hex(&sha256(&bytes)))
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

/// A filesystem as the script `show` says it: all nodes, and the regular files' contents.
#[derive(Default)]
struct Listing {
    nodes: Vec<String>,
    files: Vec<String>,
}

impl Listing {
    fn of(filesystem: &dyn Filesystem) -> Self {
        let tree = filesystem.tree().expect("it reads");
        let mut listing = Listing::default();
        listing.add(filesystem, &tree, 0, ".");
        listing.nodes.sort();
        listing.files.sort();
        listing
    }

    fn add(&mut self, filesystem: &dyn Filesystem, tree: &Tree, id: NodeId, path: &str) {
        let node = &tree.nodes[id as usize];
        let Node { mode, uid, gid, mtime, .. } = node;
        self.nodes.push(format!("{path} {mode:o} {uid}:{gid} {mtime}"));
        match &node.kind {
            NodeKind::Directory { children } => {
                for child in children {
                    let name = String::from_utf8_lossy(&tree.nodes[*child as usize].name);
                    self.add(filesystem, tree, *child, &format!("{path}/{name}"));
                }
            }
            NodeKind::File { .. } => {
                let mut sum = Sha256::new();
                let read = filesystem.read_file(node, &mut |piece| {
                    sum.update(piece);
                    Ok(())
                });
                read.unwrap_or_else(|e| panic!("{path}: {e}"));
                self.files.push(format!("{}  {path}", hex(&sum.finish())));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn volumes_are_what_the_kernel_maps() {
    let needed = [&PROGRAMS[..], &["ldd", "cpio", "gzip", "tar", "mke2fs", "sfdisk"]].concat();
    let absent = |name: &&&str| which::which_in(name, Some(PATH), "/").is_err();
    if let Some(name) = needed.iter().find(absent) {
        eprintln!("not run: volumes_are_what_the_kernel_maps: `{name}` is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (places, sums) = data(folder.path());
    blank(folder.path());
    let (disk, data) = (folder.path().join("disk.raw"), folder.path().join("data"));
    let guest = Guest::new(
        &tiny::raw(tiny::KERNEL).await.with_file_name(format!("root-{}.tar", tiny::KERNEL)),
        &places,
    );
    let began = Instant::now();
    guest.run("make", &[(&disk, true), (&data, false)]).await;
    eprintln!("made after {:.1} s", began.elapsed().as_secs_f64());
    let said = guest.run("show", &[(&disk, false)]).await;
    eprintln!("shown after {:.1} s", began.elapsed().as_secs_f64());

    let tables = about(&said, "table");
    eprintln!("{}", tables.join("\n"));
    check_shapes(&tables);
    let mut theirs = about(&said, "volume");
    theirs.sort_unstable();
    for line in &theirs {
        let words: Vec<_> = line.split(' ').collect();
        // The kernel gives back what was written; the filesystem was changed in between.
        assert_eq!(words[2] == sums[words[0]], words[0] != ROOT, "{line}");
    }

    let opened = Disk::open(&disk, &Options::default()).expect("it opens");
    let [group] = &opened.groups[..] else { panic!("{:?}", opened.groups) };
    assert_eq!((group.name.as_str(), group.physical.len(), theirs.len()), ("vg0", 3, 5));
    assert_eq!(volumes(group), theirs);

    let found: Vec<_> = opened.filesystems().collect();
    let [root] = &found[..] else { panic!("{} filesystems", found.len()) };
    let place = Holder::Volume { group: "vg0".to_owned(), volume: ROOT.to_owned() };
    assert_eq!((&root.holder, root.filesystem.identity().kind), (&place, "ext4"));
    let ours = Listing::of(&**root.filesystem);
    let sorted = |word: &str| {
        let mut lines = about(&said, word);
        lines.sort_unstable();
        lines
    };
    assert_eq!(ours.nodes, sorted("node"));
    assert_eq!(ours.files, sorted("file"));
    assert_eq!(ours.files.len(), 4, "{:?}", ours.files);
}
