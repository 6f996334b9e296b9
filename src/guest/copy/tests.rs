//! Archives that a guest made up: nothing is written outside of the place, and no link is followed.

use std::path::Path;

use super::GuestPath;
use super::arrive::{Arrived, Place};
use crate::error::{Kind, Result};

/// One entry of an archive, with any name and size claimed.
fn entry(path: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..path.len()].copy_from_slice(path.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[136..147].copy_from_slice(b"14524616400");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    finish(block, content)
}

fn finish(mut block: Vec<u8>, content: &[u8]) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn file(path: &str, content: &str) -> Vec<u8> {
    entry(path, b'0', "", content.as_bytes())
}

/// A folder with `outside` beside `target`, where archives are received.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("target")).expect("made");
        std::fs::write(dir.path().join("outside"), "mine").expect("written");
        World(dir)
    }

    fn target(&self) -> std::path::PathBuf {
        self.0.path().join("target")
    }

    fn receive(&self, entries: &[Vec<u8>]) -> Result<Arrived> {
        let mut archive = entries.concat();
        archive.resize(archive.len() + 1024, 0);
        Place::find(&self.target(), Some("x".as_ref()), true)?.receive(&archive[..])
    }

    /// Nothing but the target has changed.
    fn insist_on_no_escape(&self) {
        let outside = std::fs::read_to_string(self.0.path().join("outside")).expect("there");
        assert_eq!(outside, "mine");
        let mut beside: Vec<_> = std::fs::read_dir(self.0.path())
            .expect("listed")
            .map(|e| e.expect("listed").file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["outside", "target"]);
    }
}

#[test]
fn folders_files_and_links_arrive_as_they_are() {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    let long = format!("./{}/deep", "d".repeat(150));
    let arrived = world.receive(&[
        entry("./", b'5', "", b""),
        entry("./sub/", b'5', "", b""),
        file("./sub/a", "hello"),
        entry("./sub/same", b'1', "./sub/a", b""),
        entry("./sub/up", b'2', "../sub/a", b""),
        finish_long(&long, "far"),
    ]);
    let arrived = arrived.expect("received");
    assert_eq!((arrived.files, arrived.bytes, arrived.left_out), (4, 8, 0));
    let x = world.target().join("x");
    let read = |path: &Path| std::fs::read_to_string(path).expect("read");
    assert_eq!(read(&x.join("sub/up")), "hello");
    assert_eq!(read(&x.join(format!("{}/deep", "d".repeat(150)))), "far");
    let meta = std::fs::metadata(x.join("sub/a")).expect("there");
    assert_eq!((meta.nlink(), meta.mtime(), meta.mode() & 0o777), (2, 1_699_945_728, 0o644));
}

/// A name in GNU tar's form in front of the file.
fn finish_long(path: &str, content: &str) -> Vec<u8> {
    [entry("././@LongLink", b'L', "", path.as_bytes()), file("cut", content)].concat()
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../outside", "/outside", "a/../../outside", "..", "a/.."] {
        let world = World::new();
        let e = world.receive(&[file(path, "theirs")]).expect_err(path);
        assert_eq!(e.kind(), Kind::Undetermined);
        assert!(e.what().contains("leads out of the target"), "{e}");
        world.insist_on_no_escape();
        let world = World::new();
        world.receive(&[finish_long(path, "theirs")]).expect_err(path);
        world.receive(&[entry("l", b'1', path, b"")]).expect_err(path);
        world.insist_on_no_escape();
    }
}

#[test]
fn links_of_the_guest_are_never_followed_and_those_that_lead_out_are_left_out() {
    let world = World::new();
    let arrived = world.receive(&[
        entry("abs", b'2', "/etc", b""),
        entry("up", b'2', "../outside", b""),
        entry("here", b'2', ".", b""),
        entry("twice", b'2', "here/../..", b""),
        entry("null", b'3', "", b""),
        entry("pipe", b'6', "", b""),
    ]);
    let arrived = arrived.expect("received");
    assert_eq!((arrived.files, arrived.left_out), (1, 5));
    assert_eq!(arrived.names, ["abs", "up", "twice", "null", "pipe"]);
    // A link inside is made and not gone through.
    let e = world.receive(&[
        entry("sub/", b'5', "", b""),
        entry("way", b'2', "sub", b""),
        file("way/in", "theirs"),
    ]);
    assert!(e.expect_err("not followed").to_string().contains("links are not followed"));
    assert!(!world.target().join("x/sub/in").exists());
    world.insist_on_no_escape();
}

#[test]
fn a_link_that_is_there_already_is_replaced_and_not_written_through() {
    let world = World::new();
    let x = world.target().join("x");
    std::fs::create_dir(&x).expect("made");
    std::os::unix::fs::symlink("../../outside", x.join("f")).expect("linked");
    std::os::unix::fs::symlink("../..", x.join("d")).expect("linked");
    world.receive(&[file("f", "theirs")]).expect("received");
    assert_eq!(std::fs::read_to_string(x.join("f")).expect("read"), "theirs");
    world.receive(&[file("d/f", "theirs")]).expect_err("not through a link");
    world.receive(&[entry("d/", b'5', "", b"")]).expect_err("a link is no folder");
    // The place itself may be such a link, made by an earlier copy.
    std::fs::remove_dir_all(&x).expect("removed");
    std::os::unix::fs::symlink("..", &x).expect("linked");
    world.receive(&[file("outside", "theirs")]).expect_err("not through a link");
    world.insist_on_no_escape();
}

#[test]
fn one_file_is_one_file_under_the_name_that_was_asked_for() {
    let world = World::new();
    let place = Place::find(&world.target().join("new"), Some("f".as_ref()), false).expect("found");
    let end = vec![0; 1024];
    let one = [file("./../../outside", "text"), end.clone()].concat();
    assert_eq!(place.receive(&one[..]).expect("received").files, 1);
    assert_eq!(std::fs::read_to_string(world.target().join("new")).expect("read"), "text");
    for more in [file("b", "x"), entry("l", b'2', "/etc/passwd", b"")] {
        let two = [file("a", "text"), more, end.clone()].concat();
        assert!(place.receive(&two[..]).expect_err("two").what().contains("something else"));
    }
    world.insist_on_no_escape();
}

#[test]
fn what_is_no_whole_archive_is_named() {
    let world = World::new();
    let mut cut = file("a", "text");
    cut.truncate(514);
    let huge = {
        let mut block = entry("././@LongLink", b'L', "", b"");
        block[124..136].copy_from_slice(b"\x80\0\0\0\x0f\xff\xff\xff\xff\xff\xff\xff");
        finish(block, b"")
    };
    let endless = {
        let mut block = file("a", "");
        block[124..136].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
        finish(block, b"")
    };
    let mut damaged = file("a", "text");
    damaged[0] = b'b';
    let place = Place::find(&world.target(), Some("x".as_ref()), true).expect("found");
    for (archive, why) in [
        (cut, "in the middle of a file"),
        (vec![], "before its end mark"),
        (vec![0; 1024], "it is empty"),
        (huge, "longer than 1 MiB"),
        (endless, "no size"),
        (damaged, "checksum"),
        (b"tar: not found\n".to_vec(), "before its end mark"),
    ] {
        let e = place.receive(&archive[..]).expect_err(why);
        assert!(e.what().contains(why), "{why}: {e}");
        assert_eq!(e.kind(), Kind::Undetermined);
    }
    // A file that claims more than the disk holds is refused before it is made.
    let mut block = file("big", "");
    block[124..136].copy_from_slice(b"\x80\0\0\0\x0f\xff\xff\xff\xff\xff\xff\xff");
    let e = place.receive(&finish(block, b"")[..]).expect_err("too big");
    assert!(e.what().contains("has no room"), "{e}");
    assert!(!world.target().join("x/big").exists());
}

#[test]
fn guest_paths_start_at_the_home_and_are_no_options() {
    let of = |typed: &str| GuestPath::new(typed.as_ref());
    for (typed, path, name) in [
        ("/etc/hosts", "/etc/hosts", Some("hosts")),
        ("a/b/", "./a/b/", Some("b")),
        ("~/a", "./a", Some("a")),
        ("~", "./", None),
        ("", "./", None),
        ("-r", "./-r", Some("-r")),
        ("/", "/", None),
        ("a/..", "./a/..", None),
    ] {
        assert_eq!(of(typed).0, path);
        assert_eq!(of(typed).name(), name.map(AsRef::as_ref), "{typed}");
    }
}
