//! Images that `mke2fs -d` fills: no root needed. The source folder is the oracle, then `ext4-view`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use ext4_view::{Ext4 as View, PathBuf as ViewPath};
use sha2::{Digest as _, Sha256};

use super::kernel::{noise, set_xattr};
use super::oracle::{self, Listing};
use super::workshop::{Workshop, open};
use crate::image::tree::Filesystem as _;

fn source(workshop: &Workshop, attributes: bool) -> PathBuf {
    let root = workshop.path("tree");
    fs::create_dir_all(root.join("usr/share/doc")).unwrap();
    let at = |name: &str| root.join(name);
    for size in [0usize, 5, 60, 61, 150, 4096, 100_000, 2_500_000] {
        fs::write(at(&format!("usr/file-{size}")), noise(size, size as u32)).unwrap();
    }
    for i in 0..500 {
        fs::write(at(&format!("usr/share/doc/{i:04}")), i.to_string()).unwrap();
    }
    fs::hard_link(at("usr/file-5"), at("usr/again")).unwrap();
    symlink("file-5", at("usr/short")).unwrap();
    symlink("../".repeat(50), at("usr/long")).unwrap();
    fs::set_permissions(at("usr/file-5"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(at("usr/share"), fs::Permissions::from_mode(0o1750)).unwrap();
    if attributes {
        set_xattr(&at("usr/file-60"), "user.note", b"small");
        set_xattr(&at("usr/share"), "user.large", &noise(600, 1));
        set_xattr(&at("usr/file-61"), "system.posix_acl_access", super::kernel::ACL);
    }
    root
}

/// Without what `mke2fs` makes by itself.
fn of_source(mut listing: Listing) -> Listing {
    listing.remove("/lost+found");
    listing.remove("");
    listing
}

fn compare(arguments: &[&str]) {
    let workshop = Workshop::new();
    let root = source(&workshop, true);
    let image = workshop.image("40M", &[arguments, &["-d", root.to_str().unwrap()]].concat());
    let filesystem = open(&image).unwrap();
    oracle::assert_equal(&of_source(oracle::read(&filesystem)), &of_source(oracle::kernel(&root)));
    assert!(filesystem.notes().is_empty(), "{:?}", filesystem.notes());
}

macro_rules! made {
    ($($name:ident: $arguments:expr;)*) => {
        $(#[test]
        fn $name() {
            compare(&$arguments);
        })*
    };
}

made! {
    a_made_ext4_equals_its_source: ["-t", "ext4"];
    a_made_ext2_equals_its_source: ["-t", "ext2"];
    a_made_ext3_equals_its_source: ["-t", "ext3", "-b", "1024"];
    a_made_ext4_with_inline_data_equals_its_source: ["-t", "ext4", "-O", "inline_data"];
    a_made_ext4_with_quota_project_and_verity_equals_its_source: ["-t", "ext4", "-O", "quota,project,verity"];
    a_made_ext4_with_blocks_of_64_kib_equals_its_source: ["-t", "ext4", "-b", "65536"];
    a_made_ext4_with_bigalloc_equals_its_source: ["-t", "ext4", "-O", "bigalloc"];
    a_made_ext4_with_meta_bg_equals_its_source: ["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256", "-N", "4096"];
    a_made_ext4_with_stable_inodes_equals_its_source: ["-t", "ext4", "-O", "stable_inodes,orphan_file,metadata_csum_seed"];
    a_made_ext4_with_extended_options_equals_its_source: ["-t", "ext4", "-E", "lazy_itable_init=1,stride=16,packed_meta_blocks=1,resize=1G"];
}

#[test]
fn identity_is_that_of_the_superblock() {
    let workshop = Workshop::new();
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    for kind in ["ext2", "ext3", "ext4"] {
        let image = workshop.image("8M", &["-t", kind, "-L", "root fs", "-U", uuid]);
        let filesystem = open(&image).unwrap();
        let identity = filesystem.identity();
        assert_eq!((identity.kind, identity.uuid.as_str()), (kind, uuid));
        assert_eq!(identity.label, b"root fs");
    }
}

/// Mode, owner, time and contents of all paths by the crate `ext4-view`.
fn view(filesystem: &View, path: &Path, listing: &mut Listing) {
    let meta = filesystem.symlink_metadata(path.to_str().unwrap()).unwrap();
    let name = path.to_str().unwrap();
    let kind = if meta.is_dir() {
        for entry in filesystem.read_dir(name).unwrap() {
            let entry = entry.unwrap();
            let entry: ViewPath = entry.path();
            let entry = entry.to_str().unwrap().to_owned();
            if !entry.ends_with("/.") && !entry.ends_with("/..") {
                view(filesystem, Path::new(&entry), listing);
            }
        }
        "directory".into()
    } else if meta.is_symlink() {
        format!("link {}", filesystem.read_link(name).unwrap().display())
    } else {
        let contents = filesystem.read(name).unwrap();
        let hash = Sha256::digest(&contents);
        let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        format!("file {} {hash}", contents.len())
    };
    let mode = meta.mode() & 0o7777;
    let line = format!("{kind} {mode:04o} {}:{}", meta.uid(), meta.gid());
    listing.insert(if name == "/" { String::new() } else { name.into() }, line);
}

#[test]
fn another_reader_says_the_same() {
    for features in ["", "^metadata_csum", "^extent,^64bit", "^flex_bg,sparse_super2"] {
        let workshop = Workshop::new();
        let root = source(&workshop, true);
        let folder = root.to_str().unwrap();
        let mut arguments = vec!["-t", "ext4", "-b", "1024", "-d", folder];
        if !features.is_empty() {
            arguments.extend(["-O", features]);
        }
        let image = workshop.image("40M", &arguments);
        let mut theirs = Listing::new();
        view(
            &View::load(Box::new(fs::read(&image).unwrap())).unwrap(),
            Path::new("/"),
            &mut theirs,
        );
        let ours = oracle::read(&open(&image).unwrap());
        let ours: Listing = ours
            .into_iter()
            .map(|(path, line)| {
                let line = line.split(" @").next().unwrap();
                (path, line.replace(" shared=true", "").replace(" shared=false", ""))
            })
            .collect();
        oracle::assert_equal(&ours, &theirs);
    }
}
