//! One line a path, from the reader under test and from the kernel, to compare.

use std::collections::BTreeMap;
use std::fs::{File, FileType};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::image::filesystem::ext4::Ext4;
use crate::image::tree::{Filesystem as _, NodeId, NodeKind, Tree};

/// Path to what stands there.
pub(super) type Listing = BTreeMap<String, String>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// All that the reader says.
pub(super) fn read(filesystem: &Ext4) -> Listing {
    let tree = filesystem.tree().unwrap();
    let mut listing = Listing::new();
    add(filesystem, &tree, 0, "", &mut listing);
    listing
}

fn add(filesystem: &Ext4, tree: &Tree, id: NodeId, path: &str, listing: &mut Listing) {
    let node = &tree.nodes[id as usize];
    let kind = match &node.kind {
        NodeKind::File { size, shared, .. } => {
            let (mut hash, mut length) = (Sha256::new(), 0);
            filesystem
                .read_file(node, &mut |piece| {
                    assert!(piece.len() <= 1 << 20);
                    length += piece.len() as u64;
                    hash.update(piece);
                    Ok(())
                })
                .unwrap();
            assert_eq!(length, *size, "{path}");
            format!("file {size} {} shared={shared}", hex(&hash.finalize()))
        }
        NodeKind::Directory { .. } => "directory".into(),
        NodeKind::Symlink { target } => format!("link {}", target.escape_ascii()),
        NodeKind::CharDevice { major, minor } => format!("char {major},{minor}"),
        NodeKind::BlockDevice { major, minor } => format!("block {major},{minor}"),
        NodeKind::Fifo => "fifo".into(),
        NodeKind::Socket => "socket".into(),
    };
    let flags = (node.immutable, node.append_only);
    let line = line(&kind, node.mode, (node.uid, node.gid), node.mtime, &node.xattrs, flags);
    listing.insert(path.into(), line);
    if let NodeKind::Directory { children } = &node.kind {
        for &child in children {
            let name = tree.nodes[child as usize].name.escape_ascii();
            add(filesystem, tree, child, &format!("{path}/{name}"), listing);
        }
    }
}

fn line(
    kind: &str,
    mode: u16,
    owner: (u32, u32),
    mtime: i64,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    flags: (bool, bool),
) -> String {
    let mut line = format!("{kind} {mode:04o} {}:{} @{mtime} {flags:?}", owner.0, owner.1);
    for (key, value) in xattrs {
        line += &format!(" {}={}", key.escape_ascii(), hex(value));
    }
    line
}

/// All that the kernel says of the directory `root`, on its own filesystem.
pub(super) fn kernel(root: &Path) -> Listing {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap();
            let path = path.as_os_str().as_bytes();
            let slash = if path.is_empty() { "" } else { "/" };
            (format!("{slash}{}", path.escape_ascii()), kernel_line(entry.path()))
        })
        .collect()
}

fn kernel_line(path: &Path) -> String {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let kind = meta.file_type();
    let text = if kind.is_file() {
        let hash = Sha256::new().chain_update(std::fs::read(path).unwrap());
        let shared = meta.nlink() > 1;
        format!("file {} {} shared={shared}", meta.size(), hex(&hash.finalize()))
    } else if kind.is_dir() {
        "directory".into()
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).unwrap();
        format!("link {}", target.as_os_str().as_bytes().escape_ascii())
    } else if kind.is_char_device() {
        format!("char {},{}", device().0, device().1)
    } else if kind.is_block_device() {
        format!("block {},{}", device().0, device().1)
    } else if kind.is_fifo() {
        "fifo".into()
    } else {
        "socket".into()
    };
    let mode = (meta.mode() & 0o7777) as u16;
    line(&text, mode, (meta.uid(), meta.gid()), meta.mtime(), &xattrs(path), flags(path, kind))
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut keys = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut keys[..]).unwrap();
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = keys[..length]
        .split(|&b| b == 0)
        .filter(|key| !key.is_empty())
        .map(|key| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, key, &mut value[..]).unwrap();
            value.truncate(length);
            (key.to_vec(), value)
        })
        .collect();
    pairs.sort();
    pairs
}

fn flags(path: &Path, kind: FileType) -> (bool, bool) {
    if !kind.is_file() && !kind.is_dir() {
        return (false, false);
    }
    let flags = rustix::fs::ioctl_getflags(File::open(path).unwrap()).unwrap();
    use rustix::fs::IFlags;
    (flags.contains(IFlags::IMMUTABLE), flags.contains(IFlags::APPEND))
}

/// Fails with the first differences.
pub(super) fn assert_equal(read: &Listing, kernel: &Listing) {
    let mut differences = Vec::new();
    for path in read.keys().chain(kernel.keys()) {
        if read.get(path) != kernel.get(path) {
            differences.push(format!(
                "{path}\n  read   {:?}\n  kernel {:?}",
                read.get(path),
                kernel.get(path)
            ));
        }
    }
    differences.dedup();
    assert!(
        differences.is_empty(),
        "{}",
        differences.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
    );
    assert!(read.len() > 1, "nothing was compared");
}
