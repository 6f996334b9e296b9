//! Filesystems that `mkfs.xfs` and `xfs_db` fill: version 4, which many kernels do not mount any more.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::populate::noise;
use super::workshop::{Workshop, open, run};
use crate::image::tree::{Filesystem as _, Node, NodeKind, Tree};

/// What `mkfs.xfs` puts into the filesystem: boot sector and blocks, then the root directory.
const PROTOTYPE: &str = "\
/dev/null
0 0
d--755 7 8
file    ---644 1000 1001 SOURCE
empty   ---600 0 0 EMPTY
suid    -u-755 0 0 SOURCE
null    c--666 0 0 1 3
wide    b--640 0 6 511 70000
fifo    p--600 0 0
short   l--777 0 0 target
long    l--777 0 0 LONG
folder  d-g750 33 34
inner   ---644 0 0 EMPTY
$
many    d--755 0 0
MANY$
$
";

/// Bytes of the long target. `mkfs.xfs` 6.1 puts no header before one outside of the inode in
/// version 5, which nobody can read then.
fn long(arguments: &[&str]) -> usize {
    if arguments.contains(&"crc=0") { 900 } else { 300 }
}

fn make(workshop: &Workshop, arguments: &[&str], many: usize) -> PathBuf {
    let source = workshop.path("source");
    fs::write(&source, noise(300_000, 1)).unwrap();
    let empty = workshop.path("empty");
    fs::write(&empty, b"").unwrap();
    let names: String =
        (0..many).map(|i| format!("entry-number-{i:05} ---644 0 0 EMPTY\n")).collect();
    let prototype = PROTOTYPE
        .replace("MANY", &names)
        .replace("LONG", &"t".repeat(long(arguments)))
        .replace("SOURCE", source.to_str().unwrap())
        .replace("EMPTY", empty.to_str().unwrap());
    let path = workshop.path("prototype");
    fs::write(&path, prototype).unwrap();
    let image = workshop.image(64, &[&["-p", path.to_str().unwrap()], arguments].concat());
    let mut commands = vec!["path /short".to_owned()];
    commands.push("attr_set -u -v 10 user-small".into());
    commands.push("attr_set -s -v 20 selinux".into());
    commands.push("path /file".into());
    // The long one first: in version 4 this `xfs_db` crashes where attributes leave the inode.
    for one in ["-u -v 20000 remote", "-u -v 400 leaf", "-s -v 30 selinux", "-r -v 20 note"] {
        commands.push(format!("attr_set {one}"));
    }
    commands.extend((0..60).map(|i| format!("attr_set -u -v 100 tree-{i:02}")));
    let mut command = Command::new("xfs_db");
    for one in &commands {
        command.args(["-c", one]);
    }
    run(command.arg("-x").arg(&image));
    image
}

fn node<'a>(tree: &'a Tree, path: &str) -> &'a Node {
    let id = tree.lookup(path.as_bytes()).unwrap_or_else(|| panic!("no {path}"));
    &tree.nodes[id as usize]
}

fn check(test: &str, arguments: &[&str], many: usize) {
    let Some(workshop) = Workshop::new(test) else { return };
    let image = make(&workshop, arguments, many);
    let filesystem = open(&image).unwrap();
    assert_eq!(filesystem.identity().kind, "xfs");
    let blkid = run(Command::new("blkid").args(["-p", "-o", "value", "-s", "UUID"]).arg(&image));
    assert_eq!(filesystem.identity().uuid, blkid.trim());
    let tree = filesystem.tree().unwrap();
    let root = &tree.nodes[0];
    assert_eq!((root.mode, root.uid, root.gid), (0o755, 7, 8));
    assert_eq!(tree.nodes.len(), 13 - 1 + many);
    let file = node(&tree, "file");
    assert_eq!((file.mode, file.uid, file.gid), (0o644, 1000, 1001));
    let mut contents = Vec::new();
    filesystem
        .read_file(file, &mut |piece| {
            contents.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    assert!(contents == noise(300_000, 1));
    assert_eq!(node(&tree, "suid").mode, 0o4755);
    let kind = |path: &str| format!("{:?}", node(&tree, path).kind);
    assert_eq!(kind("null"), "CharDevice { major: 1, minor: 3 }");
    assert_eq!(kind("wide"), "BlockDevice { major: 511, minor: 70000 }");
    assert_eq!(kind("fifo"), "Fifo");
    for (path, length) in [("short", 6), ("long", long(arguments))] {
        let NodeKind::Symlink { target } = &node(&tree, path).kind else { panic!() };
        assert_eq!(target.len(), length);
    }
    let NodeKind::Directory { children } = &node(&tree, "many").kind else { panic!() };
    assert_eq!(children.len(), many);
    assert_eq!(node(&tree, "folder").mode, 0o2750);
    let xattrs = |path: &str| -> Vec<(String, usize)> {
        let pairs = node(&tree, path).xattrs.iter();
        pairs.map(|(k, v)| (String::from_utf8_lossy(k).into_owned(), v.len())).collect()
    };
    let pairs = |pairs: &[(&str, usize)]| -> Vec<(String, usize)> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v)).collect()
    };
    assert_eq!(xattrs("short"), pairs(&[("security.selinux", 20), ("user.user-small", 10)]));
    let mut expected = pairs(&[("security.selinux", 30), ("trusted.note", 20)]);
    expected.extend(pairs(&[("user.leaf", 400), ("user.remote", 20_000)]));
    expected.extend((0..60).map(|i| (format!("user.tree-{i:02}"), 100)));
    assert_eq!(xattrs("file"), expected);
    // `xfs_db` fills values with one byte.
    let value = &node(&tree, "file").xattrs[3].1;
    assert!(value.iter().all(|&b| b == value[0]));
}

macro_rules! shapes {
    ($($name:ident: $many:literal, $arguments:expr;)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), &$arguments, $many);
        })*
    };
}

shapes! {
    version_5_made_by_mkfs: 500, [];
    version_4_made_by_mkfs: 500, ["-m", "crc=0"];
    version_4_without_file_types: 100, ["-m", "crc=0", "-n", "ftype=0"];
    version_4_with_the_smallest_blocks_and_inodes: 500, ["-m", "crc=0", "-b", "size=512", "-i", "size=256"];
    version_4_with_a_log_of_version_1: 5, ["-m", "crc=0", "-l", "version=1"];
    version_4_with_directory_blocks_of_64_kib: 1000, ["-m", "crc=0", "-n", "size=65536"];
    version_4_with_a_tree_of_a_directory: 5000, ["-m", "crc=0", "-b", "size=1024", "-n", "size=4096"];
}
