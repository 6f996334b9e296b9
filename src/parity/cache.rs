//! Digests of images that nobody changes, so that a sealed image is hashed once.
//!
//! An entry is found by what identifies the image file, by the level, the limits, and the program
//! itself: another build may have other rules. It names every file that the image consists of, and
//! counts only while each of them is what it was when it was read: device, inode, size, mtime and
//! ctime. No entry is made of a file that was changed shortly before the reading began, of block
//! devices and directories, or on a filesystem that keeps no honest ctime. What is left is a
//! program that writes through a mapping which it dirtied long before, and a clock that was set back:
//! `--recompute` never asks the cache.
//!
//! The cache is a help, never a need: what cannot be read is computed, what cannot be written is not
//! kept.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Level;
use super::watch::{Stamp, Watch};
use crate::digest::FileDigest;
use crate::image::Limits;

/// How long a file has to have rested before the reading began, in seconds. A clock's grain is
/// 10 ms at most, and FAT's is 2 s; a server's clock may be a little off.
const RESTED: i64 = 5;
/// Most entries; the oldest ones go.
const MAX_ENTRIES: usize = 1024;
/// Longest entry in bytes: honest ones have some hundred.
const MAX_ENTRY: u64 = 64 << 10;

/// Filesystems whose inode numbers stay and whose ctime moves with every change (`linux/magic.h`).
const HONEST: [u64; 6] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
];

/// A folder with one file an entry.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// Where the answer to one question would be.
#[derive(Debug, Clone)]
pub struct Place {
    file: PathBuf,
    question: String,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The level's digests.
    pub digests: Vec<String>,
    /// What a person should know about the image.
    pub notes: Vec<String>,
    /// The private SSH host keys in it: digest and path of each.
    pub host_keys: Vec<String>,
}

/// The second line of an entry's file; the first one is its digest.
#[derive(Serialize, Deserialize)]
struct Entry {
    question: String,
    files: Vec<(PathBuf, Stamp)>,
    answer: Answer,
}

impl Cache {
    /// The cache in `folder`, which need not be there.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Cache { folder }
    }

    /// Where the digests of `level` of the image at `path` would be; `None` if they cannot be kept.
    #[must_use]
    pub fn place(&self, path: &Path, level: Level, limits: &Limits) -> Option<Place> {
        let image = Stamp::of(path).ok()?;
        // A box of the store is a file that is named by its digest. The path as it was given too:
        // the extents of a VMDK are looked for beside a link, not beside what it leads to.
        let name = (std::path::absolute(path).ok()?, std::fs::canonicalize(path).ok()?);
        let limits = Limits { deadline: None, ..*limits };
        let question = format!("{} {image:?} {name:?} {limits:?}", level.as_str());
        self.place_of(&question)
    }

    /// Where the answer to any question would be, which has to name all that the answer depends on besides the files
    /// and this program.
    #[must_use]
    pub fn place_of(&self, question: &str) -> Option<Place> {
        let program = Stamp::of(&std::env::current_exe().ok()?).ok()?;
        let question = format!("{question} {} {program:?}", env!("CARGO_PKG_VERSION"));
        let file = self.folder.join(FileDigest::of(question.as_bytes()).hex());
        Some(Place { file, question })
    }

    /// What is known of an image whose files are all what they were.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<Answer> {
        if !self.is_private() {
            return None;
        }
        let meta = std::fs::symlink_metadata(&place.file).ok()?;
        if !meta.is_file() || meta.len() > MAX_ENTRY {
            return None;
        }
        let text = std::fs::read_to_string(&place.file).ok()?;
        let (sum, body) = text.split_once('\n')?;
        if sum != FileDigest::of(body.as_bytes()).to_string() {
            return None;
        }
        let entry: Entry = serde_json::from_str(body).ok()?;
        let same =
            |(path, stamp): &(PathBuf, Stamp)| Stamp::of(path).is_ok_and(|now| now == *stamp);
        let whole = entry.question == place.question && !entry.files.is_empty();
        (whole && entry.files.iter().all(same)).then_some(entry.answer)
    }

    /// Keeps an answer that was computed from the files of `watch`, if they have rested.
    pub fn put(&self, place: &Place, watch: &Watch, answer: &Answer) {
        let (began, files) = watch.files();
        if files.iter().all(|(path, stamp)| stamp.rested(began, RESTED) && is_honest(path)) {
            // A cache that cannot be written is none.
            let _ = self.write(place, files, answer);
        }
    }

    /// Keeps what is known of a file that this program has just written: `written` is its stamp before it was read
    /// back, under the name it had then. Nothing is kept if somebody else wrote to it since.
    pub fn put_own(&self, place: &Place, path: &Path, written: &Stamp, answer: &Answer) {
        let Ok(now) = Stamp::of(path) else { return };
        // Renaming changes the ctime alone, and every write the mtime, once the clock has moved on from it.
        if now.has_contents_of(written) && is_honest(path) {
            let _ = self.write(place, &[(path.to_owned(), now)], answer);
        }
    }

    fn write(
        &self,
        place: &Place,
        files: &[(PathBuf, Stamp)],
        answer: &Answer,
    ) -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if !self.is_private() {
            return Ok(());
        }
        let absolute = |(path, stamp): &(PathBuf, Stamp)| Ok((std::path::absolute(path)?, *stamp));
        let entry = Entry {
            question: place.question.clone(),
            files: files.iter().map(absolute).collect::<std::io::Result<_>>()?,
            answer: answer.clone(),
        };
        let body = serde_json::to_string(&entry)?;
        let text = format!("{}\n{body}", FileDigest::of(body.as_bytes()));
        if text.len() as u64 > MAX_ENTRY {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(&place.file).map_err(|e| e.error)?;
        self.prune()
    }

    /// Removes the oldest files beyond [`MAX_ENTRIES`], those that a killed program left too.
    fn prune(&self) -> std::io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = vec![];
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another program may have removed it just now.
            let Ok(meta) = entry.metadata() else { continue };
            files.push((meta.modified()?, entry.path()));
        }
        let over = files.len().saturating_sub(MAX_ENTRIES);
        if over > 0 {
            files.sort_unstable();
            for (_, path) in &files[..over] {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Whether nobody else can put an entry here.
    fn is_private(&self) -> bool {
        let me = rustix::process::geteuid().as_raw();
        std::fs::symlink_metadata(&self.folder)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == me && meta.mode() & 0o022 == 0)
    }
}

/// Whether the times of a file on this filesystem can be trusted.
fn is_honest(path: &Path) -> bool {
    rustix::fs::statfs(path)
        .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| HONEST.contains(&kind)))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
