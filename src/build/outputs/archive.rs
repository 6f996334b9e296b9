//! Tar archives that hold nothing of the host: owners, times and order are given, names of users are
//! not there.
//!
//! Sources: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Old GNU Format" (`struct
//! oldgnu_header` of its `tar.h`).

use std::io::Write;
use std::ops::Range;

use tar::{EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::stream;
use crate::error::Result;
use crate::image::ReadAt;

/// Bytes in a block.
pub(super) const BLOCK: usize = 512;
/// Entries of a sparse map in the header, and in each block behind it.
const MAPPED: [usize; 2] = [4, 21];
/// Where the map stands in the header, how long an entry is, and where the size of the file stands.
const MAP: usize = 386;
const ENTRY: usize = 24;
const REAL_SIZE: Range<usize> = 483..495;

/// The form of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// POSIX's, for files of less than 8 GiB.
    Ustar,
    /// GNU's, for any size.
    Gnu,
}

/// An archive that is being written.
pub(super) struct Archive<W> {
    to: W,
    form: Form,
    time: u64,
    owner: u64,
}

impl<W: Write> Archive<W> {
    /// An empty one, whose files have the time `epoch` and belong to root.
    pub(super) fn new(to: W, form: Form, epoch: i64) -> Self {
        Archive { to, form, time: u64::try_from(epoch).unwrap_or(0), owner: 0 }
    }

    /// What comes from now on belongs to this user and group.
    pub(super) fn owned_by(mut self, owner: u64) -> Self {
        self.owner = owner;
        self
    }

    /// The header of a file or a folder.
    pub(super) fn header(&self, name: &str, kind: EntryType, size: u64) -> Result<Header> {
        let mut header = match self.form {
            Form::Ustar => Header::new_ustar(),
            Form::Gnu => Header::new_gnu(),
        };
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(self.owner);
        header.set_gid(self.owner);
        header.set_mtime(self.time);
        header.set_size(size);
        header.set_cksum();
        Ok(header)
    }

    /// Adds a folder.
    pub(super) fn folder(&mut self, name: &str) -> Result<()> {
        let header = self.header(&format!("{name}/"), EntryType::Directory, 0)?;
        Ok(self.to.write_all(header.as_bytes())?)
    }

    /// Adds a file with these bytes.
    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let header = self.header(name, EntryType::Regular, bytes.len() as u64)?;
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Adds a file with the bytes of `from`.
    pub(super) fn file(
        &mut self,
        name: &str,
        from: &dyn ReadAt,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let header = self.header(name, EntryType::Regular, from.size())?;
        self.to.write_all(header.as_bytes())?;
        stream::copy(from, 0..from.size(), &mut self.to, cancel)?;
        self.pad(from.size())
    }

    /// Adds a file with the bytes of `from`, of which holes are not stored.
    pub(super) fn sparse(
        &mut self,
        name: &str,
        from: &dyn ReadAt,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let data = pieces(from)?;
        let stored: u64 = data.iter().map(|piece| piece.end - piece.start).sum();
        for block in self.sparse_headers(name, from.size(), stored, &data)? {
            self.to.write_all(&block)?;
        }
        for piece in data {
            stream::copy(from, piece, &mut self.to, cancel)?;
        }
        self.pad(stored)
    }

    /// The header with the first entries of the map, and the blocks with the others.
    fn sparse_headers(
        &self,
        name: &str,
        size: u64,
        stored: u64,
        data: &[Range<u64>],
    ) -> Result<Vec<[u8; BLOCK]>> {
        let mut map: Vec<_> =
            data.iter().map(|piece| (piece.start, piece.end - piece.start)).collect();
        if data.last().is_none_or(|last| last.end < size) {
            // As GNU tar does, so that who unpacks it makes the file that long.
            map.push((size, 0));
        }
        let mut header = self.header(name, EntryType::GNUSparse, stored)?;
        let (first, mut rest) = map.split_at(map.len().min(MAPPED[0]));
        let block = header.as_mut_bytes();
        fill(&mut block[MAP..], first);
        block[MAP + MAPPED[0] * ENTRY] = u8::from(!rest.is_empty());
        block[REAL_SIZE].copy_from_slice(&number(size));
        header.set_cksum();
        let mut blocks = vec![*header.as_bytes()];
        while !rest.is_empty() {
            let (here, later) = rest.split_at(rest.len().min(MAPPED[1]));
            let mut block = [0; BLOCK];
            fill(&mut block, here);
            block[MAPPED[1] * ENTRY] = u8::from(!later.is_empty());
            blocks.push(block);
            rest = later;
        }
        Ok(blocks)
    }

    /// The end of a file's last block.
    pub(super) fn pad(&mut self, size: u64) -> Result<()> {
        let left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(self.to.write_all(&[0; BLOCK][..usize::try_from(left).unwrap_or(0)])?)
    }

    /// What it is written to, for a file whose size is not known before.
    pub(super) fn inner(&mut self) -> &mut W {
        &mut self.to
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }
}

fn fill(block: &mut [u8], entries: &[(u64, u64)]) {
    for (place, (offset, length)) in block.chunks_exact_mut(ENTRY).zip(entries) {
        place[..12].copy_from_slice(&number(*offset));
        place[12..].copy_from_slice(&number(*length));
    }
}

/// Eleven octal digits, or base 256 for what they cannot hold.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

/// The ranges of a disk that may hold something else than zeros, those that touch as one.
fn pieces(disk: &dyn ReadAt) -> Result<Vec<Range<u64>>> {
    let mut all: Vec<Range<u64>> = vec![];
    let mut at = 0;
    while let Some(data) = disk.next_data(at)? {
        at = data.end;
        match all.last_mut() {
            Some(last) if last.end == data.start => last.end = data.end,
            _ => all.push(data),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of `size` bytes with a byte of data in each of these blocks of 64 KiB.
    struct Holes {
        size: u64,
        blocks: Vec<u64>,
    }

    impl ReadAt for Holes {
        fn size(&self) -> u64 {
            self.size
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            buf.fill(if self.blocks.contains(&(offset >> 16)) { 7 } else { 0 });
            Ok(())
        }
        fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
            let next = self.blocks.iter().find(|block| (*block + 1) << 16 > offset);
            Ok(next.map(|block| (block << 16).max(offset)..(block + 1) << 16))
        }
    }

    /// GNU tar's own word for what is in an archive, and what it unpacks.
    fn unpacked(disk: &Holes) -> (String, std::fs::File) {
        use std::process::Command;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.tar");
        let mut archive =
            Archive::new(std::fs::File::create(&path).expect("made"), Form::Gnu, 1_700_000_000);
        archive.sparse("disk.raw", disk, &CancellationToken::new()).expect("written");
        archive.finish().expect("ended");
        let tar = |args: &[&str]| {
            let mut command = Command::new("tar");
            command.env("TZ", "UTC").args(args).arg(&path).arg("-C").arg(dir.path());
            let out = command.output().expect("tar runs");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        let listed = tar(&["--numeric-owner", "-tvf"]);
        tar(&["-xf"]);
        (listed, std::fs::File::open(dir.path().join("disk.raw")).expect("unpacked"))
    }

    #[test]
    fn gnu_tar_unpacks_a_sparse_disk_with_any_number_of_pieces() {
        use std::os::unix::fs::FileExt as _;
        for count in [0, 1, 3, 4, 5, 24, 25, 26, 60] {
            let blocks: Vec<u64> = (0..count).map(|n| 2 * n + 1).collect();
            for size in [(2 * count + 2) << 16, (2 * count).max(1) << 16, 9 << 30] {
                let disk = Holes { size, blocks: blocks.clone() };
                let (listed, file) = unpacked(&disk);
                assert!(listed.starts_with("-rw-r--r-- 0/0 "), "{listed}");
                assert!(listed.contains(&format!(" {size} 2023-11-14 22:13 disk.raw")), "{listed}");
                assert_eq!(file.metadata().expect("there").len(), size, "{count}");
                for block in 0..2 * count + 1 {
                    let mut byte = [9];
                    if file.read_at(&mut byte, block << 16).expect("reads") == 1 {
                        assert_eq!(byte[0], if block % 2 == 1 { 7 } else { 0 }, "{count} {block}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_that_octal_digits_cannot_hold_are_in_base_256() {
        assert_eq!(&number(0o644), b"00000000644\0");
        assert_eq!(number(1 << 33), [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
