//! The vectors of `tests/vectors`, and what is refused.

use std::collections::HashMap;

use super::*;
use crate::image::tree::{Identity, Subvolume, Tree};

/// A filesystem in memory.
pub(crate) struct Memory {
    identity: Identity,
    pub(crate) tree: Tree,
    pub(crate) contents: HashMap<u64, Vec<u8>>,
}

impl Filesystem for Memory {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn tree(&self) -> Result<Tree> {
        Ok(self.tree.clone())
    }
    fn read_file(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let NodeKind::File { inode, .. } = node.kind else { return Ok(()) };
        self.contents[&inode].chunks(2).try_for_each(sink)
    }
}

const UUID: &str = "0b1c2d3e-4f50-4162-8384-95a6b7c8d9ea";

impl Memory {
    pub(crate) fn new() -> Self {
        let identity = Identity { kind: "ext4", label: b"root".to_vec(), uuid: UUID.into() };
        let mut fs = Memory { identity, tree: Tree::default(), contents: HashMap::new() };
        let root = fs.node(b"", 0o755, NodeKind::Directory { children: vec![] });
        fs.tree.nodes.push(root);
        fs
    }

    fn node(&self, name: &[u8], mode: u16, kind: NodeKind) -> Node {
        Node {
            name: name.to_vec(),
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: vec![],
            immutable: false,
            append_only: false,
            kind,
        }
    }

    fn add(&mut self, parent: NodeId, name: &[u8], mode: u16, kind: NodeKind) -> &mut Node {
        let id = self.tree.nodes.len();
        let node = self.node(name, mode, kind);
        self.tree.nodes.push(node);
        if let NodeKind::Directory { children } = &mut self.tree.nodes[parent as usize].kind {
            // In the wrong order on purpose.
            children.insert(0, id as NodeId);
        }
        &mut self.tree.nodes[id]
    }

    pub(crate) fn dir(&mut self, parent: NodeId, name: &[u8], mode: u16) -> NodeId {
        self.add(parent, name, mode, NodeKind::Directory { children: vec![] });
        (self.tree.nodes.len() - 1) as NodeId
    }

    pub(crate) fn file(
        &mut self,
        parent: NodeId,
        name: &[u8],
        mode: u16,
        contents: &[u8],
    ) -> &mut Node {
        let inode = 1000 - self.tree.nodes.len() as u64;
        self.contents.insert(inode, contents.to_vec());
        let kind = NodeKind::File { size: contents.len() as u64, inode, shared: false };
        self.add(parent, name, mode, kind)
    }

    /// A file at a path, with the directories on the way.
    pub(crate) fn write_at(&mut self, path: &str, contents: &[u8]) {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = 0;
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            let NodeKind::Directory { children } = &self.tree.nodes[at as usize].kind else {
                return;
            };
            let is_it = |id: &&NodeId| self.tree.nodes[**id as usize].name == folder.as_bytes();
            let found = children.iter().find(is_it).copied();
            at = found.unwrap_or_else(|| self.dir(at, folder.as_bytes(), 0o755));
        }
        self.file(at, name.as_bytes(), 0o644, contents);
    }

    /// The node of that name.
    pub(crate) fn named(&mut self, name: &str) -> &mut Node {
        let found = self.tree.nodes.iter_mut().find(|n| n.name == name.as_bytes());
        found.expect("a node of that name")
    }

    /// Other contents of one file.
    pub(crate) fn write(&mut self, name: &str, contents: &[u8]) {
        let NodeKind::File { size, inode, .. } = &mut self.named(name).kind else { return };
        *size = contents.len() as u64;
        let inode = *inode;
        self.contents.insert(inode, contents.to_vec());
    }

    /// Takes out a node that has no children.
    pub(crate) fn remove(&mut self, name: &str) {
        let at = self.tree.nodes.iter().position(|n| n.name == name.as_bytes());
        let at = at.expect("a node of that name");
        self.tree.nodes.remove(at);
        for node in &mut self.tree.nodes {
            if let NodeKind::Directory { children } = &mut node.kind {
                children.retain(|id| *id as usize != at);
                children.iter_mut().filter(|id| **id as usize > at).for_each(|id| *id -= 1);
            }
        }
    }

    pub(crate) fn symlink(&mut self, parent: NodeId, name: &[u8], target: &[u8]) -> &mut Node {
        self.add(parent, name, 0o777, NodeKind::Symlink { target: target.to_vec() })
    }
}

/// The tree of the vectors `tree1/root`, `links1/root` and `fs1/root`.
pub(crate) fn example() -> Memory {
    let mut fs = Memory::new();
    fs.contents.insert(7, b"hi\n".to_vec());
    let shared = NodeKind::File { size: 3, inode: 7, shared: true };
    fs.add(0, b"c", 0o644, shared.clone());
    let b = fs.dir(0, b"b", 0o755);
    fs.add(0, b"a", 0o644, shared);
    fs.symlink(b, b"l", b"../a");
    fs.add(b, b"p", 0o644, NodeKind::Fifo);
    fs.file(b, b"ping", 0o755, b"hi\n");
    fs.file(b, "é =x".as_bytes(), 0o644, b"");
    fs.dir(0, b"tmp", 0o1777);
    fs
}

/// The bytes and the digest of one vector.
pub(crate) fn vector(name: &str) -> (Vec<u8>, String) {
    let base = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let read = |ext| std::fs::read(base.with_extension(ext)).expect("the vector is there");
    (read("preimage"), String::from_utf8(read("digest")).expect("ASCII").trim().to_owned())
}

/// The preimage of one directory, written again from its children.
fn preimage(hashed: &Hashed, id: NodeId) -> String {
    let mut out = canonical::TREE.to_vec();
    for child in hashed.children(id) {
        canonical::entry(hashed.node(*child), hashed.leaf(*child), &mut out).expect("a line");
    }
    String::from_utf8(out).expect("ASCII")
}

fn assert_tree_vector(hashed: &Hashed, id: NodeId, name: &str) {
    let (expected, digest) = vector(name);
    assert_eq!(preimage(hashed, id), String::from_utf8(expected).expect("ASCII"));
    let Leaf::Directory(got) = hashed.leaf(id) else { panic!("a directory") };
    assert_eq!(got.to_string(), digest);
}

#[test]
fn the_example_tree_is_the_vector() {
    let hashed = Hashed::read(&example(), &Limits::default()).expect("hash");
    assert_tree_vector(&hashed, 0, "tree1/root");
    let b = hashed.child(0, b"b").expect("b");
    assert_tree_vector(&hashed, b, "tree1/b");
    let tmp = hashed.child(0, b"tmp").expect("tmp");
    assert_tree_vector(&hashed, tmp, "tree1/empty");
    assert_eq!(hashed.links1().to_string(), vector("links1/root").1);
    assert_eq!(hashed.fs1(FileDigest::of(b"")).to_string(), vector("fs1/root").1);
}

#[test]
fn trees_with_times_are_the_vectors() {
    let mut fs = example();
    let times = [("l", 1_700_000_003), ("ping", -1), ("é =x", 1 << 32), ("a", 1_700_000_000)];
    for (name, mtime) in times.into_iter().chain([("b", 1_700_000_001), ("tmp", 1_700_000_002)]) {
        fs.named(name).mtime = mtime;
    }
    fs.named("c").mtime = 1_700_000_000;
    let plain = Hashed::read(&fs, &Limits::default()).expect("hash");
    assert_eq!(plain.tree1t().to_string(), vector("tree1t/root").1);
    assert_eq!(plain.tree1().to_string(), vector("tree1/root").1);
    // The root directory's own time is no more covered than its mode.
    fs.named("").mtime = 1;
    assert_eq!(Hashed::read(&fs, &Limits::default()).expect("hash").tree1t(), plain.tree1t());
    assert_eq!(
        Hashed::read(&Memory::new(), &Limits::default()).expect("hash").tree1t().to_string(),
        vector("tree1t/empty").1
    );
}

#[test]
fn times_follow_attributes_and_flags_and_go_to_both_ends() {
    let xattr = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let mut fs = Memory::new();
    let blk = fs.add(0, b"blk", 0o660, NodeKind::BlockDevice { major: 8, minor: 1 });
    (blk.gid, blk.mtime) = (6, i64::MAX);
    let both = fs.file(0, b"both", 0o644, b"hi\n");
    (both.append_only, both.immutable, both.mtime) = (true, true, i64::MIN);
    both.xattrs = vec![xattr(b"user.b", b""), xattr(b"user.a", b"1")];
    let chr = fs.add(0, b"chr", 0o666, NodeKind::CharDevice { major: 1, minor: 3 });
    (chr.immutable, chr.mtime) = (true, -2_147_483_649);
    fs.dir(0, b"dir", 0o755);
    let dir = fs.named("dir");
    (dir.mtime, dir.xattrs) = (1 << 31, vec![xattr(b"user.a", b"1")]);
    let link = fs.symlink(0, b"link", b"target");
    (link.uid, link.gid, link.mtime) = (1000, 1000, 253_402_300_800);
    link.xattrs = vec![xattr(b"trusted.note", &[0, 0xff])];
    assert_eq!(
        Hashed::read(&fs, &Limits::default()).expect("hash").tree1t().to_string(),
        vector("tree1t/metadata").1
    );
}

#[test]
fn odd_names_are_the_vector() {
    let mut fs = Memory::new();
    for name in [
        &b"\x01"[..],
        b" ",
        b"#hash",
        b"-rf",
        b"...",
        b"=",
        b"A",
        b"\\e",
        b"a",
        b"a\nf b 0644",
        b"a0",
        b"~",
        b"\x7f",
        b"\xff\xfe",
    ] {
        fs.file(0, name, 0o644, b"");
    }
    fs.dir(0, b"a-", 0o755);
    fs.dir(0, b"a.b", 0o755);
    fs.symlink(0, b"empty", b"");
    let link = fs.symlink(0, b"link", b"/with space\\#=\n");
    (link.uid, link.gid) = (u32::MAX, 65534);
    assert_tree_vector(&Hashed::read(&fs, &Limits::default()).expect("hash"), 0, "tree1/odd-names");
}

#[test]
fn owners_modes_attributes_flags_and_devices_are_the_vector() {
    let xattr = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let mut fs = Memory::new();
    // ext4's own form of the ACL.
    let acl = [
        &[1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 7, 0, 1, 0, 0, 0, 2, 0, 4, 0, 2, 0, 0, 0][..],
        &[4, 0, 5, 0, 8, 0, 5, 0, 10, 0, 0, 0, 16, 0, 7, 0, 32, 0, 0, 0],
    ]
    .concat();
    fs.file(0, b"acl", 0o670, b"hi\n").xattrs = vec![xattr(b"system.posix_acl_access", &acl)];
    let id = fs.dir(0, b"acl-default", 0o755) as usize;
    let acl = [1, 0, 0, 0, 1, 0, 7, 0, 4, 0, 5, 0, 32, 0, 5, 0];
    fs.tree.nodes[id].xattrs = vec![xattr(b"system.posix_acl_default", &acl)];
    let id = fs.dir(0, b"append", 0o755) as usize;
    fs.tree.nodes[id].append_only = true;
    fs.add(0, b"blk", 0o660, NodeKind::BlockDevice { major: 8, minor: 1 }).gid = 6;
    let both = fs.file(0, b"both", 0o644, b"");
    (both.append_only, both.immutable) = (true, true);
    // Version 3 with root id 0, and with another.
    let cap = |root: u8| {
        let bytes = [&[1, 0, 0, 3, 0, 0x20][..], &[0; 14], &[root, 0, 0, 0]].concat();
        vec![xattr(b"security.capability", &bytes)]
    };
    fs.file(0, b"cap", 0o755, b"hi\n").xattrs = cap(0);
    fs.file(0, b"cap3", 0o755, b"hi\n").xattrs = cap(1);
    fs.add(0, b"chr", 0o666, NodeKind::CharDevice { major: 1, minor: 3 });
    let wide = NodeKind::CharDevice { major: 4095, minor: 1_048_575 };
    fs.add(0, b"chr-wide", 0o600, wide);
    fs.file(0, b"fixed", 0o444, b"hi\n").immutable = true;
    let large = fs.file(0, b"large", 0o600, b"hi\n");
    (large.uid, large.gid) = (1000, u32::MAX);
    let link = fs.symlink(0, b"link", b"target");
    (link.uid, link.gid, link.xattrs) = (1000, 1000, vec![xattr(b"trusted.note", &[0, 0xff])]);
    fs.add(0, b"pipe", 0o600, NodeKind::Fifo);
    let several = fs.file(0, b"several", 0o644, b"hi\n");
    several.immutable = true;
    several.xattrs = vec![
        xattr(b"user.empty", b""),
        xattr(b"security.evm", b"bound to the inode"),
        xattr(b"user.a", b"1"),
        xattr(b"user.=key ", b"1"),
    ];
    fs.dir(0, b"sticky", 0o1777);
    fs.file(0, b"suid", 0o4755, b"hi\n");
    fs.file(0, b"zero", 0, b"");
    assert_tree_vector(&Hashed::read(&fs, &Limits::default()).expect("hash"), 0, "tree1/metadata");
}

#[test]
fn the_root_directory_counts_in_fs1_and_not_in_tree1() {
    let mut fs = Memory::new();
    fs.identity.label.clear();
    let root = &mut fs.tree.nodes[0];
    (root.mode, root.uid, root.gid, root.append_only) = (0o1700, 1000, 100, true);
    let acl = [1, 0, 0, 0, 1, 0, 7, 0, 4, 0, 5, 0, 32, 0, 5, 0];
    root.xattrs = vec![
        (b"user.a".to_vec(), b"1".to_vec()),
        (b"system.posix_acl_default".to_vec(), acl.to_vec()),
    ];
    let hashed = Hashed::read(&fs, &Limits::default()).expect("hash");
    assert_eq!(hashed.tree1().to_string(), vector("tree1/empty").1);
    assert_eq!(hashed.fs1(FileDigest::of(b"boot")).to_string(), vector("fs1/root-attributes").1);
    fs.identity = Identity { kind: "vfat", label: b"EFI SYS".to_vec(), uuid: "1234-ABCD".into() };
    let root = &mut fs.tree.nodes[0];
    (root.mode, root.uid, root.gid, root.append_only) = (0o755, 0, 0, false);
    root.xattrs.clear();
    let hashed = Hashed::read(&fs, &Limits::default()).expect("hash");
    assert_eq!(hashed.fs1(FileDigest::of(b"code")).to_string(), vector("fs1/vfat").1);
}

#[test]
fn subvolumes_count_in_fs1() {
    let mut fs = example();
    let uuid = "3f9a1c52-0d7e-4b66-9a3c-5b1de0c7f482".into();
    fs.identity = Identity { kind: "btrfs", label: b"data".to_vec(), uuid };
    let node = |name: &[u8]| fs.tree.nodes.iter().position(|n| n.name == name).expect("there");
    let all = [(node(b"tmp"), true, false), (0, false, false), (node(b"b"), false, true)];
    fs.tree.subvolumes = all
        .iter()
        .map(|(node, read_only, default)| Subvolume {
            node: *node as NodeId,
            read_only: *read_only,
            default: *default,
        })
        .collect();
    let hashed = Hashed::read(&fs, &Limits::default()).expect("hash");
    let (preimage, digest) = vector("fs1/btrfs");
    assert_eq!(hashed.fs1_preimage(FileDigest::of(b"")), preimage);
    assert_eq!(hashed.fs1(FileDigest::of(b"")).to_string(), digest);
}

#[test]
fn hard_links_are_sorted_groups() {
    let mut fs = Memory::new();
    let dirs: Vec<_> = [&b"d"[..], b"d-", b"usr"].map(|n| fs.dir(0, n, 0o755)).into();
    let bin = fs.dir(dirs[2], b"bin", 0o755);
    let places = [
        (dirs[0], &b"b"[..], 5),
        (dirs[1], b"a", 5),
        (dirs[0], b"a", 5),
        (bin, b"perl5.36.0", 3),
        (bin, b"perl", 3),
        (dirs[0], b"z space", 9),
        (0, b"a-first", 9),
        (0, b"lonely", 4),
    ];
    for (parent, name, inode) in places {
        fs.contents.insert(inode, vec![]);
        fs.add(parent, name, 0o644, NodeKind::File { size: 0, inode, shared: true });
    }
    let hashed = Hashed::read(&fs, &Limits::default()).expect("hash");
    assert_eq!(canonical::links(&hashed.links), vector("links1/several").0);
    assert_eq!(hashed.links1().to_string(), vector("links1/several").1);
}

#[test]
fn only_an_unused_lost_found_at_the_root_is_left_out() {
    let plain = Hashed::read(&example(), &Limits::default()).expect("hash").tree1();
    let with = |change: &dyn Fn(&mut Memory)| {
        let mut fs = example();
        change(&mut fs);
        Hashed::read(&fs, &Limits::default()).expect("hash").tree1()
    };
    let unused = |fs: &mut Memory| {
        fs.dir(0, b"lost+found", 0o700);
    };
    assert_eq!(with(&unused), plain);
    let others: [&dyn Fn(&mut Memory); 5] = [
        &|fs| {
            fs.dir(0, b"lost+found", 0o755);
        },
        &|fs| {
            let id = fs.dir(0, b"lost+found", 0o700);
            fs.file(id, b"#12", 0o600, b"");
        },
        &|fs| {
            fs.file(0, b"lost+found", 0o700, b"");
        },
        &|fs| {
            fs.dir(2, b"lost+found", 0o700);
        },
        &|fs| {
            let id = fs.dir(0, b"lost+found", 0o700) as usize;
            fs.tree.nodes[id].uid = 1;
        },
    ];
    for (i, change) in others.iter().enumerate() {
        assert_ne!(with(change), plain, "case {i}");
    }
}

#[test]
fn what_has_no_place_in_the_digest_is_an_error_that_names_the_path() {
    type Change<'a> = &'a dyn Fn(&mut Memory);
    let cases: [(Change<'_>, &str); 7] = [
        (
            &|fs| {
                fs.add(2, b"s ck", 0o755, NodeKind::Socket);
            },
            r"`/b/s\x20ck` is a socket",
        ),
        (
            &|fs| {
                fs.file(2, b"x", 0o644, b"").xattrs = vec![(b"security.odd".to_vec(), vec![])];
            },
            "cannot hash `/b/x`",
        ),
        (
            &|fs| {
                fs.file(0, b"a", 0o644, b"");
            },
            "two entries `a`",
        ),
        (
            &|fs| {
                fs.file(0, b"..", 0o644, b"");
            },
            "the name `..`",
        ),
        (
            &|fs| {
                fs.file(0, b"a/b", 0o644, b"");
            },
            "the name `a/b`",
        ),
        (
            &|fs| {
                fs.contents.insert(7, b"longer".to_vec());
            },
            "cannot read `/c`",
        ),
        (
            &|fs| {
                // A ring: b hangs in b.
                let NodeKind::Directory { children } = &mut fs.tree.nodes[0].kind else { return };
                children.retain(|id| *id != 2);
                let NodeKind::Directory { children } = &mut fs.tree.nodes[2].kind else { return };
                children.push(2);
            },
            "cannot be reached",
        ),
    ];
    for (change, expected) in cases {
        let mut fs = example();
        change(&mut fs);
        let e = Hashed::read(&fs, &Limits::default()).expect_err(expected);
        assert!(e.to_string().contains(expected), "{e} lacks {expected}");
        assert_eq!(e.kind(), crate::error::Kind::Undetermined, "{e}");
    }
}
