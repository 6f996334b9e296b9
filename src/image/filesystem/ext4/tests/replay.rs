//! Journals left behind by a kernel and by `debugfs`, compared with what a mount makes of them.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::oracle::{self, Listing};
use super::workshop::{Workshop, not_run, open, run};
use crate::error::Kind;
use crate::image::filesystem::ext4::journal::MAGIC;
use crate::image::oracle::Mount;
use crate::image::tree::Filesystem as _;

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Work that leaves new, changed, removed and reused blocks behind, none of it checkpointed.
fn work(mount: &Mount) {
    let at = |name: &str| mount.0.join(name);
    fs::create_dir(at("doomed")).unwrap();
    for i in 0..400 {
        fs::write(at(&format!("doomed/a-rather-long-name-to-fill-blocks-{i:04}")), b"x").unwrap();
    }
    sync(&at("doomed"));
    // Metadata blocks of the removed directory become contents: the journal must revoke them.
    fs::remove_dir_all(at("doomed")).unwrap();
    sync(&mount.0);
    let mut reused = File::create(at("reused")).unwrap();
    let _ = reused.write_all(&super::kernel::noise(20 << 20, 11));
    reused.sync_all().unwrap();
    // Blocks that begin as journal blocks do are escaped where contents go through the journal.
    let mut block = vec![0u8; 4096];
    block[..4].copy_from_slice(&MAGIC.to_be_bytes());
    block[4..8].copy_from_slice(&2u32.to_be_bytes());
    fs::write(at("escaped"), block.repeat(8)).unwrap();
    fs::create_dir_all(at("new/folder")).unwrap();
    fs::rename(at("before"), at("new/after")).unwrap();
    super::kernel::set_xattr(&at("new/after"), "user.late", b"set in the journal only");
    OpenOptions::new().append(true).open(at("grown")).unwrap().write_all(&[9; 70_000]).unwrap();
    for name in ["escaped", "grown", "new/after", "new/folder", ""] {
        sync(&at(name));
    }
}

/// The image as a power cut would leave it.
fn cut_off(workshop: &Workshop, test: &str, arguments: &[&str], options: &str) -> Option<PathBuf> {
    let image = workshop.image("48M", arguments);
    let mount = workshop.mount(test, &image, "rw")?;
    fs::write(mount.0.join("before"), b"before").unwrap();
    fs::write(mount.0.join("grown"), [8; 5000]).unwrap();
    drop(mount);
    let mount = workshop.mount(test, &image, options)?;
    work(&mount);
    let cut = workshop.path("cut");
    fs::copy(&image, &cut).unwrap();
    drop(mount);
    Some(cut)
}

fn mounted(workshop: &Workshop, test: &str, image: &Path) -> Listing {
    let copy = workshop.path("copy");
    fs::copy(image, &copy).unwrap();
    oracle::kernel(&workshop.mount(test, &copy, "rw").unwrap().0)
}

fn compare(test: &str, arguments: &[&str], options: &str) {
    let workshop = Workshop::new();
    let Some(cut) = cut_off(&workshop, test, arguments, options) else { return };
    let replayed = mounted(&workshop, test, &cut);
    let before = fs::read(&cut).unwrap();
    let filesystem = open(&cut).unwrap();
    assert!(filesystem.notes()[0].contains("replayed in memory"), "{:?}", filesystem.notes());
    assert_eq!(filesystem.spent().unwrap(), [], "it has something to replay");
    let size = filesystem.volume.sb.block_size as usize;
    let on_disk = |block: u64| &before[block as usize * size..][..size];
    let is_stale = |block: u64| filesystem.volume.block(block).unwrap() != on_disk(block);
    // Any `sync` on this host, as other programs call it, writes back what the journal holds.
    if !filesystem.volume.overlay.keys().any(|&b| is_stale(b)) {
        not_run(test, "the host wrote all blocks back before the image was copied");
    }
    if options.contains("data=journal") {
        assert!(filesystem.volume.overlay.values().any(|copy| copy.escaped), "none is escaped");
    }
    oracle::assert_equal(&oracle::read(&filesystem), &replayed);
    assert!(before == fs::read(&cut).unwrap(), "the image was written");
}

macro_rules! journals {
    ($($name:ident: $arguments:expr, $options:expr;)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), &$arguments, $options);
        })*
    };
}

journals! {
    a_journal_with_checksums_is_replayed: ["-t", "ext4", "-b", "4096"], "rw";
    a_journal_with_small_blocks_is_replayed: ["-t", "ext4", "-b", "1024"], "rw";
    a_journal_without_checksums_is_replayed: ["-t", "ext4", "-b", "4096", "-O", "^metadata_csum"], "rw";
    a_journal_without_64bit_is_replayed: ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"], "rw";
    a_journal_of_ext3_is_replayed: ["-t", "ext3", "-b", "1024"], "rw";
    a_journal_with_contents_is_replayed: ["-t", "ext4", "-b", "4096", "-J", "size=16"], "rw,data=journal";
    a_journal_with_contents_and_no_checksums_is_replayed: ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"], "rw,data=journal";
    a_journal_in_writeback_mode_is_replayed: ["-t", "ext4", "-b", "4096"], "rw,data=writeback";
    a_journal_with_asynchronous_commits_is_replayed: ["-t", "ext4", "-b", "4096"], "rw,data=writeback,journal_async_commit";
    a_journal_with_a_checksum_in_the_commit_is_replayed: ["-t", "ext4", "-b", "4096", "-O", "^metadata_csum"], "rw,journal_checksum";
    a_journal_beside_an_orphan_file_is_replayed: ["-t", "ext4", "-b", "4096", "-O", "orphan_file"], "rw";
}

/// Journals written by `debugfs`, for the versions of checksums that kernels do not write any more.
fn by_debugfs(arguments: &[&str], version: &str) {
    let workshop = Workshop::new();
    let folder = workshop.path("tree");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), vec![1; 40_000]).unwrap();
    let image = workshop.image("16M", &[arguments, &["-d", folder.to_str().unwrap()]].concat());
    let contents = workshop.path("contents");
    let mut block = vec![0xabu8; 1024];
    block[..4].copy_from_slice(&MAGIC.to_be_bytes());
    fs::write(&contents, [block.clone(), vec![0x17; 1024], vec![0x18; 1024]].concat()).unwrap();
    let map = |n| run(Command::new("debugfs").args(["-R", &format!("bmap /file {n}")]).arg(&image));
    let blocks: Vec<String> = [3, 7, 9].map(|n| map(n).trim().to_owned()).into();
    let revoked = workshop.path("revoked");
    fs::write(&revoked, vec![0x55; 1024]).unwrap();
    let script = workshop.path("script");
    fs::write(
        &script,
        format!(
            "jo -c {version}\njw -b {} {}\njw -b {} {}\njw -r {}\njc\n",
            blocks.join(","),
            contents.display(),
            map(11).trim(),
            revoked.display(),
            map(11).trim()
        ),
    )
    .unwrap();
    run(Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(&image));
    let replayed = workshop.path("replayed");
    fs::copy(&image, &replayed).unwrap();
    run(Command::new("debugfs").args(["-w", "-R", "jr"]).arg(&replayed));
    let (ours, theirs) = (open(&image).unwrap(), open(&replayed).unwrap());
    assert!(ours.notes()[0].contains("3 transactions (3 blocks)"), "{:?}", ours.notes());
    assert!(!theirs.notes().iter().any(|n| n.contains("replayed")), "{:?}", theirs.notes());
    let (ours, theirs) = (oracle::read(&ours), oracle::read(&theirs));
    oracle::assert_equal(&ours, &theirs);
    let original = workshop.path("original");
    fs::write(&original, vec![1; 40_000]).unwrap();
    assert!(!ours["/file"].contains(&oracle::kernel(&original)[""][5..75]), "nothing was replayed");
}

#[test]
fn a_journal_with_checksums_of_version_2_is_replayed() {
    by_debugfs(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum"], "-v 2");
    by_debugfs(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,^64bit"], "-v 2");
}

#[test]
fn a_journal_with_checksums_of_version_3_is_replayed() {
    by_debugfs(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum"], "-v 3");
    by_debugfs(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,^64bit"], "-v 3");
}

#[test]
fn a_damaged_copy_in_a_committed_transaction_is_named() {
    let test = "a_damaged_copy_in_a_committed_transaction_is_named";
    let workshop = Workshop::new();
    let arguments = ["-t", "ext4", "-b", "4096", "-O", "metadata_csum"];
    let Some(cut) = cut_off(&workshop, test, &arguments, "rw") else { return };
    let filesystem = open(&cut).unwrap();
    let mut bytes = fs::read(&cut).unwrap();
    let copy = filesystem.volume.overlay.values().next().unwrap().copy;
    bytes[copy as usize * 4096 + 99] ^= 1;
    fs::write(&cut, bytes).unwrap();
    let error = open(&cut).err().unwrap();
    assert_eq!(error.kind(), Kind::Undetermined);
    assert!(error.what().contains("in the journal"), "{error}");
}

#[test]
fn a_transaction_without_its_commit_is_left_out() {
    let test = "a_transaction_without_its_commit_is_left_out";
    let workshop = Workshop::new();
    let Some(cut) = cut_off(&workshop, test, &["-t", "ext4", "-b", "4096"], "rw") else { return };
    let mut bytes = fs::read(&cut).unwrap();
    let last = last_commit(&bytes);
    bytes[last * 4096..][..4096].fill(0);
    fs::write(&cut, bytes).unwrap();
    let replayed = mounted(&workshop, test, &cut);
    oracle::assert_equal(&oracle::read(&open(&cut).unwrap()), &replayed);
}

/// Block number of the newest commit block of an image with blocks of 4096 bytes.
fn last_commit(image: &[u8]) -> usize {
    let is_commit = |b: &[u8]| b[..4] == MAGIC.to_be_bytes() && b[4..8] == 2u32.to_be_bytes();
    let blocks = image.chunks_exact(4096).enumerate().filter(|(_, b)| is_commit(b) && b[12] == 0);
    // Contents that pose as a commit block carry no time.
    let timed = blocks.filter(|(_, b)| b[48..56] != [0; 8]);
    timed.max_by_key(|(_, b)| u32::from_be_bytes([b[8], b[9], b[10], b[11]])).unwrap().0
}

#[test]
fn a_damaged_commit_is_an_error_as_it_is_for_the_kernel() {
    let test = "a_damaged_commit_is_an_error_as_it_is_for_the_kernel";
    let workshop = Workshop::new();
    let Some(cut) = cut_off(&workshop, test, &["-t", "ext4", "-b", "4096"], "rw") else { return };
    let mut bytes = fs::read(&cut).unwrap();
    let last = last_commit(&bytes);
    bytes[last * 4096 + 40] ^= 1;
    fs::write(&cut, bytes).unwrap();
    let error = open(&cut).err().unwrap();
    assert!(error.what().contains("commit block"), "{error}");
}

/// A kernel may write small changes as fast commits; then they are refused, never overlooked.
#[test]
fn fast_commits_are_refused_or_there_are_none() {
    let test = "fast_commits_are_refused_or_there_are_none";
    let workshop = Workshop::new();
    let image = workshop.image("48M", &["-t", "ext4", "-b", "4096", "-O", "fast_commit"]);
    let cut = workshop.path("cut");
    {
        let Some(mount) = workshop.mount(test, &image, "rw") else { return };
        for name in ["one", "two", "three"] {
            fs::write(mount.0.join(name), name).unwrap();
            sync(&mount.0.join(name));
        }
        fs::copy(&image, &cut).unwrap();
    }
    match open(&cut) {
        Err(error) => assert!(error.what().contains("`fast_commit`"), "{error}"),
        Ok(filesystem) => {
            oracle::assert_equal(&oracle::read(&filesystem), &mounted(&workshop, test, &cut));
        }
    }
}
